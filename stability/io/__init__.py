"""Plan files and request traces."""
