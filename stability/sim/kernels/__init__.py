"""Compiled kernels: an iteration costs O(1) plus its admissions and completions, whatever the batch.

`state` lays out the arrays, `laws` evaluates step times, `waiting` is the queue, `residency` what the KV cache holds,
`step` one iteration of one replica, `routing` the routers and `loop` the order of events. `look_ahead` is one iteration under
policies that order the queue and look ahead, `pairing_heap` their order and `forecast` what they see.
"""
