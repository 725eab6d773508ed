"""Theory against simulation, published measurements, real runs and other programs: `python -m validation`."""
