r"""Capacity where completions synchronise: the limit cycle of admission, growth and eviction.

With few distinct lengths the eviction-free equilibrium K = M is unstable (`synchrony`) and a saturated replica runs in a
cycle: requests admitted together complete together, memory is refilled at once, all grow, and the youngest are evicted. The
large-system recursion (`fluid.saturated`) follows that cycle: its throughput, its evictions, and the KV per resident k(t).

Chance adds to it. With P_c the cycle's own chance of an eviction and e_c, e_r the evictions per request of the cycle and of
the random walk (`eviction`),

.. math:: e = e_c + (1 - P_c)\,e_r\,\overline{w(t)\,P(N k(t) + \text{noise} > M - E[F])}

averaged over the cycle: the walk counts while memory, not slots, would bind. Where the cycle itself fills memory, w =
exp(-theta sigma), sigma the standard deviation of the KV held: the walk matters as far as the cycle swings by less than its
own scale 1/theta. Elsewhere w = 1. **Approximation**: the recursion is the limit of many requests, the sum a heuristic;
verdicts stay UNDETERMINED between the smaller of this and reservation, and the bound. arXiv 2606.15555 describes the cycle for one
length and for two classes of common prompt.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray
from ..model.lengths import Lengths
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from .eviction import evictions
from .fluid.saturated import Saturated, saturated
from .gate import LEAST_USED, filling, missed, resident_variance, second_prefill
from .moments import Demand
from .surplus import surplus

BINS = 512
"""Bins of ages at most; longer lives are taken several iterations at a time."""

TOLERANCE, MOST_LIVES = 1e-3, 48
"""Accuracy of the cycle's averages, and longest lives followed to reach it."""


def can_overflow(replica: Replica, demand: FloatArray) -> bool:
    """Whether a full batch that grows in step fills the cache before it completes."""
    size = demand[Demand.PROMPT] + demand[Demand.DECODE]
    return bool(replica.engine.max_num_seqs * size > replica.usable_kv_tokens - replica.watermark_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleCapacity:
    """Capacity of a replica whose completions synchronise. **Approximation**.

    Attributes
    ----------
    capacity_per_s : float
    per_iteration : float
        Completions per iteration (y).
    evictions_per_request : float
    """

    capacity_per_s: float
    per_iteration: float
    evictions_per_request: float


def cycle_capacity(
    replica: Replica,
    coefficients: FloatArray,
    demand: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
) -> CycleCapacity:
    """Saturated throughput of the cycle, with the evictions that chance adds.

    Parameters
    ----------
    replica : Replica
        With a gate; a chunk gate is followed as a prompt gate.
    coefficients : (5,) ndarray
        Its step-time law, or the tangent where it operates.
    demand : (15,) ndarray
        Mean demand of a request.
    laws, shares
        The mix of length laws.

    Raises
    ------
    InputError
        If requests are resident for more iterations than the recursion follows.
    """
    run = _limit_cycle(replica, laws, shares)
    walk = surplus(laws, shares)
    slots, budget = float(replica.engine.max_num_seqs), float(replica.engine.max_num_batched_tokens)
    at = evictions(
        laws,
        shares,
        headroom=np.array([float(replica.watermark_tokens)]),
        per_iteration=np.array([run.per_iteration]),
        running=np.array([run.running]),
        room=np.array([max(budget - run.per_iteration * demand[Demand.DECODE], 1.0)]),
    )
    room = replica.usable_kv_tokens - replica.watermark_tokens
    usable = max(replica.usable_kv_tokens - float(at.free_tokens[0]), LEAST_USED * room)
    fills = usable / run.kv_per_request  # requests that would fill the cache, over the cycle
    spread = math.sqrt(float(resident_variance(demand)))
    binding, running = filling(slots, usable, run.kv_per_request, spread)
    fewer = float(running.mean() / np.minimum(slots, fills).mean())
    weight = np.where(fills < slots, math.exp(-walk.exponent * run.swing * run.kv_tokens), 1.0)
    kept = 1 / (1 + run.evictions_per_request)
    e = run.evictions_per_request + kept * float(at.per_request[0]) * float((weight * binding).mean())
    redone = demand[Demand.PROMPT] + at.generated_tokens
    gone = (
        missed(redone, laws, shares) if replica.engine.prefix_caching else np.ones(1)
    )  # in the cycle itself, all of it
    work = second_prefill(coefficients[None], demand[None], at.generated_tokens, gone)[1]
    again = (e - run.evictions_per_request) * float(work[0])
    spent = 1 / run.throughput_per_s + float(coefficients[0]) / run.per_iteration * (1 / fewer - 1) + again
    return CycleCapacity(capacity_per_s=1 / spent, per_iteration=run.per_iteration * fewer, evictions_per_request=e)


@lru_cache(maxsize=256)
def _limit_cycle(replica: Replica, laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> Saturated:
    classes = [RequestClass(f"{i}", share, law) for i, (law, share) in enumerate(zip(laws, shares, strict=True))]
    longest = max(law.max_output_tokens for law in laws)
    return saturated(
        replica,
        Workload(classes),
        width=max(1, math.ceil(min(longest, 1e9) / BINS)),
        tolerance=TOLERANCE,
        most_lives=MOST_LIVES,
    )
