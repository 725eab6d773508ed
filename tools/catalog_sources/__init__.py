"""One module per data file of the catalog."""
