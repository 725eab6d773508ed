"""Compiled kernels: an iteration costs O(1) plus its admissions and completions, whatever the batch.

`state` lays out the arrays, `laws` evaluates step times, `waiting` is the queue, `residency` what the KV cache holds,
`step` and `separate` one iteration of one replica, `books` what is kept of it, `routing` the routers and `loop` the order of events.

`policies` lays out what published disciplines keep beyond that: queues by class (`lines`), requests that pause together (`cohorts`),
ordered sets (`pairing_heap`) and expected KV (`forecast`). Their iterations are in `orca`, `wait`, `nested`, `budgets` and `look_ahead`.
"""
