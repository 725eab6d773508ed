"""The fluid limit of a fleet: what happens over time.

`ages` holds what a unit of admitted requests takes at each age, `state` and `kernels` the recursion of one replica,
`saturated` its long run with an endless queue.
"""
