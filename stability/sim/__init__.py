"""Token-level simulation of fleets. Imports neither theory nor, until a run starts, numba."""
