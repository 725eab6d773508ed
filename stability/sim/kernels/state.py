"""The arrays a simulation lives in. Everything a kernel reads or writes is here; nothing is global."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._types import FloatArray, IntArray

if TYPE_CHECKING:
    from .policies import Policies

Int32Array = npt.NDArray[np.int32]

NONE = -1
"""No request: the end of a list."""

REPLICA = np.dtype(
    [
        # limits
        ("block_size", "i8"),
        ("block_shift", "i8"),  # its binary logarithm, or -1
        ("extra_tokens", "i8"),  # charged to every request beyond those it holds
        ("capacity_blocks", "i8"),
        ("watermark_blocks", "i8"),
        ("max_seqs", "i8"),
        ("max_tokens", "i8"),
        ("admission", "i8"),
        ("most_waiting", "i8"),  # arrivals that find as many waiting are turned away
        ("prefix_caching", "i8"),
        ("discipline", "i8"),
        ("law_kind", "i8"),
        ("law_start", "i8"),
        ("phase_start", "i8"),
        ("bucket_start", "i8"),
        ("cohort_start", "i8"),  # of disciplines that pause requests together
        ("cohorts", "i8"),
        ("line_start", "i8"),  # of disciplines with a queue per class
        ("lines", "i8"),
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
        ("retry", "i8"),  # where one looks ahead: the iteration before which the head cannot be admitted
        ("first_turn", "i8"),  # of queues by class: the places in a common queue that its two ends would have
        ("last_turn", "i8"),
        ("in_vain", "i8"),  # evictions that restart a request, since one last completed
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
        ("found_tokens", "i4"),  # known to be in the prefix cache, in whole blocks
        ("kept_blocks", "i4"),  # of an evicted request: blocks it would find again
        ("stale_blocks", "i4"),  # and those nobody asks for that are lost before them
    ],
    align=True,
)
"""One request in the system. Places of finished requests are used again."""


GROUP_SHIFT = 4
GROUP = 1 << GROUP_SHIFT
"""Neighbouring buckets whose requests are also counted together, to skip empty ones."""

FREE, LOGGED, STEPS_LEFT, OWED, IN_CIRCLES = range(5)
"""Places in `Machine.registers`: the first free place of the pool, rows of the step log, steps until the kernel returns
to its caller, (closed loop) completions not yet replaced, and evictions on a replica that gets nowhere by them."""


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
    policies : Policies
        What disciplines keep beyond that, each for itself.
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
    policies: Policies


class Arrivals(NamedTuple):
    """Columns of a block of requests, and the router's random numbers."""

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    max_output_tokens: IntArray
    request_class: IntArray
    cached_prefix_tokens: IntArray
    uniforms: FloatArray
    first: int
