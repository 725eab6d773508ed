"""Compiled steps of the fluid recursion: `law` is the time of a step, `state` the arrays, `step` one step, `run` many."""
