"""Statistics on arrays: a leaf of the package, which imports numpy and scipy only."""
