"""Schedulers against each other on the same requests: the one place that needs theory and simulation at once."""
