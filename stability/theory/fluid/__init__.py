"""The fluid limit of a fleet: what happens over time.

`ages` holds what a unit of admitted requests takes at each age; `kernels` are the compiled steps of the recursion and `replica`
one replica of it; `saturated` is its long run with an endless queue, `stability` whether it empties. `timeline` says what
is offered and what is up, `events` what happens, `pools` and `run` carry a fleet through it, `fleet` is the entry and `path` the
result; `finite` is what replicas of finite size add, `transient` what users ask. `ode` closes the recursion for stages.
"""
