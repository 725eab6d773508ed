"""The arrays a barrier group lives in."""

from __future__ import annotations

from typing import NamedTuple

from ..._types import FloatArray, IntArray

NEVER = 1 << 62
PENDING = -2
"""Base of a request whose prompt the step under way completes."""

STEP, TURN, PRESENT, NEXT, HEAD, TAIL, WAITING, COMPLETED, LOGGED, PEAK, MARKS = range(11)
"""Places in `GroupState.registers`."""

TOTALS = (
    "steps",
    "time_s",
    "idle_s",
    "imbalance",
    "spread",
    "largest",
    "mean",
    "energy_j",
    "tokens",
    "completed",
    "running_area",
    "waiting_area",
    "over",
)
"""Running totals: sums over steps of tokens (imbalance, max - min, largest and mean KV), seconds lost at the barrier by all
workers, and worker-steps beyond the KV capacity."""


class GroupLimits(NamedTuple):
    """What does not change in a run."""

    workers: int
    slots: int
    budget: int
    kv_capacity: int
    sync_s: float
    law_kind: int
    law: FloatArray
    decode_only: bool
    central: bool
    router: int
    concurrency: int
    tables: FloatArray
    shares: FloatArray
    cutoffs: IntArray
    part_start: IntArray
    power: FloatArray  # idle, span, exponent
    reserve: bool  # whether prompt and output limit must fit beside those of the running requests
    capacity_blocks: int
    watermark_blocks: int


class GroupJobs(NamedTuple):
    """Requests by index: given columns, then what becomes of them."""

    arrival_s: FloatArray
    prompt: IntArray
    output: IntArray
    request_class: IntArray
    reserve_blocks: IntArray  # of prompt and output limit
    uniforms: FloatArray
    base: IntArray  # step at which it would have generated nothing, once it decodes
    computed: IntArray
    worker: IntArray
    following: IntArray
    assigned_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray


class GroupState(NamedTuple):
    """What changes. Arrays over workers, unless said."""

    registers: IntArray
    totals: FloatArray
    marks: FloatArray  # (m, 1 + len(TOTALS)): time and totals now and then
    running: IntArray  # (G, N) requests
    occupied: IntArray
    reserved_blocks: IntArray
    prefilling: IntArray
    decodes: IntArray
    decode_kv: IntArray
    resident_kv: IntArray
    next_finish: IntArray
    own_s: FloatArray
    step_prefill: IntArray
    queued: IntArray
    queued_tokens: IntArray
    queue_head: IntArray
    queue_tail: IntArray
    pool: IntArray  # (n,) central queue, from HEAD to TAIL
    candidates: IntArray
    drawn: IntArray
    log_s: FloatArray  # (steps, 2)
    log: IntArray  # (steps, 3 G + 1)
