"""The arrays a simulation lives in. Everything a kernel reads or writes is here; nothing is global."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._types import FloatArray, IntArray
from ...errors import InputError
from ...model.iteration import IterationLaw
from ..domain import Limits
from .laws import encode

Int32Array = npt.NDArray[np.int32]

NONE = -1
"""No request: the end of a list."""

REPLICA = np.dtype(
    [
        # limits
        ("block_size", "i8"),
        ("block_shift", "i8"),  # its binary logarithm, or -1
        ("capacity_blocks", "i8"),
        ("watermark_blocks", "i8"),
        ("max_seqs", "i8"),
        ("max_tokens", "i8"),
        ("admission", "i8"),
        ("most_waiting", "i8"),  # arrivals that find as many waiting are turned away
        ("prefix_caching", "i8"),
        ("discipline", "i8"),
        ("round_up", "i8"),  # block size - 1, and the tokens charged beyond those whose KV is stored
        ("law_kind", "i8"),
        ("law_start", "i8"),
        ("phase_start", "i8"),
        ("bucket_start", "i8"),
        # clock
        ("in_step", "i8"),
        ("iteration", "i8"),
        ("residue", "i8"),  # -iteration modulo the block size
        # residency
        ("running", "i8"),
        ("decoding", "i8"),
        ("context", "i8"),  # KV tokens of the decoding requests
        ("free_blocks", "i8"),
        # with prefix caching: free blocks that hold no full block, and full ones freed after all of the chain
        ("empty_blocks", "i8"),
        ("stale_blocks", "i8"),
        ("first_kept", "i8"),  # the chain of evicted requests that would find blocks again
        ("last_kept", "i8"),
        ("reserved_blocks", "i8"),
        ("oldest", "i8"),
        ("newest", "i8"),
        ("partial", "i8"),  # the request whose prompt is partly computed; always the newest
        ("step_tokens", "i8"),  # output tokens that the step under way will give
        # queue
        ("head", "i8"),
        ("tail", "i8"),
        ("waiting", "i8"),
        ("blocked", "i8"),  # the head was refused and nothing has been freed since
        # totals
        ("steps", "i8"),
        ("completed", "i8"),
        ("rejected", "i8"),
        ("preemptions", "i8"),
        ("generated_tokens", "i8"),
        ("computed_prompt_tokens", "i8"),
        ("itl_tokens", "i8"),
        ("busy_s", "f8"),
        ("running_area", "f8"),
        ("blocks_area", "f8"),
        ("waiting_area", "f8"),
        ("waiting_since", "f8"),
        ("itl_area", "f8"),
        ("ttft_area", "f8"),
        ("step_s", "f8"),  # of the step under way
        ("next_sample", "i8"),
        ("ended_s", "f8"),  # of the last step that is over
        # saturated throughput: when an admission was first refused, when the queue first emptied, completions by then
        ("blocked_s", "f8"),
        ("emptied_s", "f8"),
        ("blocked_completed", "i8"),
        ("emptied_completed", "i8"),
    ],
    align=True,
)
"""One replica. Areas are integrals over time or sums of seconds."""

REQUEST = np.dtype(
    [
        ("index", "i8"),
        ("arrival_s", "f8"),
        ("admitted_s", "f8"),
        ("first_token_s", "f8"),
        ("last_iteration", "i8"),  # of a decoding request: the iteration that gives its last token
        ("offset", "i8"),  # of a decoding request: KV tokens minus iteration
        ("prompt_tokens", "i4"),
        ("output_tokens", "i4"),
        ("reserve_blocks", "i4"),
        ("generated", "i4"),
        ("computed", "i4"),  # of a partly computed prompt
        ("phase", "i4"),
        ("preemptions", "i4"),
        ("newer", "i4"),
        ("older", "i4"),
        ("next", "i4"),  # in the queue, in a bucket or in the list of free places
        ("kept_blocks", "i4"),  # of an evicted request: blocks it would find again
        ("stale_blocks", "i4"),  # and those nobody asks for that are lost before them
    ],
    align=True,
)
"""One request in the system. Places of finished requests are used again."""


GROUP_SHIFT = 4
GROUP = 1 << GROUP_SHIFT
"""Neighbouring buckets whose requests are also counted together, to skip empty ones."""

MOST_BUCKETS = 1 << 29
"""Two gigabytes of them."""

FREE, LOGGED, STEPS_LEFT, OWED = range(4)
"""Places in `Machine.registers`: the first free place of the pool, rows of the step log, steps until the kernel returns
to its caller, and (closed loop) completions not yet replaced."""


class Log(NamedTuple):
    """Step records, and samples of the state at multiples of a resolution."""

    start_s: FloatArray
    end_s: FloatArray
    integers: IntArray  # (capacity, len(LOG_COLUMNS))
    samples: FloatArray  # (capacity, len(SAMPLE_COLUMNS)), summed over replicas
    resolution_s: float


LOG_COLUMNS = ("scheduled_tokens", "scheduled_requests", "running", "preempted", "waiting", "used_blocks", "replica")
SAMPLE_COLUMNS = ("running", "waiting", "kv_tokens", "busy", "iteration_s")


class Outcome(NamedTuple):
    """Per-request results, by index; empty when only a summary is kept (arrivals: unless they depend on the run)."""

    arrival_s: FloatArray
    admitted_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    preemptions: Int32Array
    replica: Int32Array


class Machine(NamedTuple):
    """The whole state of a simulation.

    Attributes
    ----------
    replicas, pool : record arrays of `REPLICA` and `REQUEST`
    due_s : (n_replicas,) float
        When the step under way ends, or the next one starts; infinite when idle.
    requests, tokens : (n_replicas,) int
        What routers see: requests waiting and running, and their prompt and generated tokens.
    phases : int
        For each replica, decoding requests by the iterations (modulo the block size) that open a block.
    buckets : int
        For each replica, lists of decoding requests by last iteration modulo the ring's length.
    groups : int
        Requests in every `GROUP` buckets.
    ttft_counts : int
        Histogram of TTFT, by binary exponent and mantissa; empty unless only a summary is kept.
    ahead : Ahead or ()
        What policies that look ahead need. Kernels are compiled once without it and once with it, each on first use.
    """

    replicas: Any
    pool: Any
    due_s: FloatArray
    requests: IntArray
    tokens: IntArray
    phases: IntArray
    buckets: Int32Array
    groups: Int32Array
    ring: int
    laws: FloatArray
    registers: IntArray
    now_s: FloatArray
    outcome: Outcome
    log: Log
    ttft_counts: IntArray
    ahead: Any = ()


class Arrivals(NamedTuple):
    """Columns of a block of requests, and the router's random numbers."""

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    max_output_tokens: IntArray
    request_class: IntArray
    uniforms: FloatArray
    first: int


def blank_outcome(rows: int, *, arrivals: bool) -> Outcome:
    """Room for the results of `rows` requests, not yet written."""
    return Outcome(
        np.empty(rows if arrivals else 0),
        np.empty(rows),
        np.empty(rows),
        np.empty(rows),
        np.empty(rows, dtype=np.int32),
        np.empty(rows, dtype=np.int32),
    )


def empty_log(steps: int, samples: int, resolution_s: float) -> Log:
    """Room for `steps` step records and `samples` samples."""
    return Log(
        np.empty(steps),
        np.empty(steps),
        np.empty((steps, len(LOG_COLUMNS)), dtype=np.int64),
        np.zeros((samples, len(SAMPLE_COLUMNS))),
        resolution_s,
    )


def build(
    servers: Sequence[tuple[Limits, IterationLaw]],
    *,
    log: Log,
    outcome: Outcome,
    ttft_bins: int,
    max_waiting: int | None = None,
) -> Machine:
    """An idle fleet at time 0."""
    count = len(servers)
    replicas = np.zeros(count, dtype=REPLICA).view(np.recarray)
    laws: list[FloatArray] = []
    encoded: dict[tuple[int, int], tuple[int, int]] = {}
    law_start = phase_start = 0
    for r, (limits, law) in enumerate(servers):
        s = replicas[r]
        for name in (
            "block_size",
            "capacity_blocks",
            "watermark_blocks",
            "max_seqs",
            "max_tokens",
            "admission",
            "prefix_caching",
            "discipline",
        ):
            s[name] = getattr(limits, name)
        size = limits.block_size
        s.block_shift = size.bit_length() - 1 if size & (size - 1) == 0 else -1
        s.round_up = size - 1 + limits.extra_tokens
        key = (id(law), limits.max_tokens)
        if key not in encoded:
            kind, coefficients = encode(law, limits.max_tokens)
            encoded[key] = (kind, law_start)
            laws.append(coefficients)
            law_start += len(coefficients)
        s.law_kind, s.law_start = encoded[key]
        s.phase_start = phase_start
        phase_start += limits.block_size
    replicas.free_blocks[:] = replicas.empty_blocks[:] = replicas.capacity_blocks
    for name in ("oldest", "newest", "partial", "head", "tail", "first_kept", "last_kept"):
        replicas[name] = NONE
    replicas.blocked_s[:] = replicas.emptied_s[:] = math.nan
    replicas.most_waiting[:] = np.iinfo(np.int64).max if max_waiting is None else max_waiting
    return Machine(
        replicas=replicas,
        pool=np.zeros(0, dtype=REQUEST).view(np.recarray),
        due_s=np.full(count, math.inf),
        requests=np.zeros(count, dtype=np.int64),
        tokens=np.zeros(count, dtype=np.int64),
        phases=np.zeros(phase_start, dtype=np.int64),
        buckets=np.full(0, NONE, dtype=np.int32),
        groups=np.zeros(0, dtype=np.int32),
        ring=0,
        laws=np.concatenate(laws),
        registers=np.array([NONE, 0, 0, 0], dtype=np.int64),
        now_s=np.zeros(1),
        outcome=outcome,
        log=log,
        ttft_counts=np.zeros(ttft_bins, dtype=np.int64),
    )


def with_room(machine: Machine, requests: int) -> Machine:
    """The machine with at least `requests` free places in its pool."""
    used = int(machine.requests.sum())
    old = machine.pool
    if len(old) - used >= requests:
        return machine
    size = max(2 * len(old), used + requests)
    pool = np.zeros(size, dtype=REQUEST).view(np.recarray)
    pool[: len(old)] = old
    pool.index[len(old) :] = NONE
    pool.next[len(old) :] = np.arange(len(old) + 1, size + 1)
    pool.next[-1] = machine.registers[FREE]
    machine.registers[FREE] = len(old)
    return machine._replace(pool=pool)


def with_ring(machine: Machine, longest_output: int) -> Machine:
    """The machine with buckets for outputs of up to `longest_output` tokens."""
    if machine.ring > longest_output:
        return machine
    ring = max(GROUP, 1 << int(longest_output).bit_length())
    count = len(machine.replicas)
    if count * ring > MOST_BUCKETS:
        raise InputError(
            f"an output of {longest_output} tokens on {count} replicas needs {count * ring} buckets, "
            f"must need <= {MOST_BUCKETS}. Truncate the outputs or simulate fewer replicas."
        )
    buckets = np.full(count * ring, NONE, dtype=np.int32)
    groups = np.zeros(count * ring // GROUP, dtype=np.int32)
    machine.replicas.bucket_start[:] = np.arange(count) * ring
    pool = machine.pool
    for s in machine.replicas[machine.replicas.running > 0]:
        place = int(s.oldest)
        while place != NONE:  # oldest first, so that the newest heads its list again
            request = pool[place]
            if place != s.partial:
                bucket = int(s.bucket_start) + (int(request.last_iteration) & (ring - 1))
                request.next = buckets[bucket]
                buckets[bucket] = place
                groups[bucket // GROUP] += 1
            place = int(request.newer)
    return machine._replace(buckets=buckets, groups=groups, ring=ring)
