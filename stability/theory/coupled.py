"""Pools behind a barrier, from the solution of their workers as if independent.

The barrier's own time lengthens every iteration, so it enters the step-time law. The maximum over workers adds
`excess_s` to an iteration with all slots or memory in use, hence `excess/y` to the time a request costs, y the completions per iteration.

Which routing. The capacity is that of routing which does not look at the requests that wait: **approximation**, stable below it. Balanced
routing can come near the workers' capacity without barrier, which no routing exceeds: unstable above that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .._types import FloatArray
from ..errors import NotModelledError
from ..model.fleet import Barrier, Pool
from ..model.iteration import IterationLaw, IterationTime, TwoPhase
from ..model.replica import Replica
from ..model.workload import RequestClass
from .barrier import excess_s
from .operating import OperatingPoint
from .solve import Solution

BARRIER_TOLERANCE = 0.03
"""Deviation of the capacity of barrier groups from simulation (measured: see docs/guides/routing.md)."""

ROUNDS = 6
"""Fixed-point rounds for the iteration time below capacity."""

ASSUMPTION = (
    "requests join the workers of a barrier group whatever waits (random, round robin, fewest requests, least KV); balanced "
    "routing serves more, see docs/guides/routing.md"
)


def worker_of(pool: Pool) -> Replica:
    """The pool's replica, with the time of its barrier in every iteration."""
    if not isinstance(pool.coupling, Barrier) or pool.coupling.sync_s == 0:
        return pool.replica
    return replace(pool.replica, iteration=_delayed(pool.replica.iteration, pool.coupling.sync_s))


def _delayed(law: IterationLaw, sync_s: float) -> IterationLaw:
    if isinstance(law, TwoPhase):
        decode, mixed = (replace(part, base_s=part.base_s + sync_s) for part in (law.decode, law.mixed))
        return TwoPhase(decode=decode, mixed=mixed)
    if isinstance(law, IterationTime):
        return replace(law, base_s=law.base_s + sync_s)
    raise NotModelledError(
        f"sync_s = {sync_s:g} with {law!r}, must be an affine or two-phase law. Put the time of the barrier into the law's own base."
    )


def coupled(
    pools: Sequence[Pool], solved: Solution, classes: Sequence[RequestClass], mix: FloatArray
) -> tuple[Solution, FloatArray]:
    """The solution with barriers, and the seconds they add to what a request costs each pool. Shape (n_pools,).

    Parameters
    ----------
    pools : sequence of Pool
        Solved with `worker_of` each.
    solved : Solution
        As if their workers were independent.
    classes : sequence of RequestClass
        With positive rates.
    mix : (n_classes,) ndarray
        Their shares of the arrivals.
    """
    added = np.zeros(len(pools))
    groups = [i for i, pool in enumerate(pools) if isinstance(pool.coupling, Barrier)]
    if not groups:
        return solved, added
    scale = np.ones(len(pools))
    proved, doubts = list(solved.proved), list(solved.doubts)
    for i in groups:
        per_iteration = 1 / float(solved.shares[i].max())
        added[i] = _excess(pools[i], solved, i, classes, mix, per_iteration) / per_iteration
        scale[i] = 1 / (1 + added[i] * solved.capacity[i])
        proved[i] = None
        doubts[i] = doubts[i] or (
            f"stable up to {pools[i].replicas * solved.stable_below[i] * scale[i] * (1 - BARRIER_TOLERANCE):.4g}/s whatever the "
            f"routing; what balanced routing reaches beyond, up to {pools[i].replicas * solved.unstable_above[i]:.4g}/s, is not proved"
        )
    sure = np.where(scale < 1, scale * (1 - BARRIER_TOLERANCE), 1.0)
    coupled_solution = replace(
        solved,
        capacity=solved.capacity * scale,
        interval=solved.interval * scale[:, None],
        stable_below=solved.stable_below * sure,
        proved=proved,
        doubts=doubts,
    )
    return coupled_solution, added


def coupled_point(
    pools: Sequence[Pool],
    points: OperatingPoint,
    solved: Solution,
    classes: Sequence[RequestClass],
    mix: FloatArray,
    per_worker: FloatArray,
) -> OperatingPoint:
    """The operating point with barriers: iterations are longer by the excess at the completions they then hold.

    Parameters
    ----------
    pools, solved, classes, mix
        As for `coupled`.
    points : OperatingPoint
        As if workers were independent.
    per_worker : (n_pools,) ndarray
        Arrivals per worker, 1/s.
    """
    groups = [i for i, pool in enumerate(pools) if isinstance(pool.coupling, Barrier)]
    if not groups:
        return points
    columns = {name: np.array(getattr(points, name)) for name in OperatingPoint.__slots__}
    for i in groups:
        most = 1 / float(solved.shares[i].max())
        alone = float(points.iteration_s[i])
        time, stretch = alone, alone / float(solved.coefficients[i, 0]) if solved.coefficients[i, 0] > 0 else 1.0
        for _ in range(ROUNDS):
            per_iteration = min(float(per_worker[i]) * time, most)
            time = alone + stretch * _excess(pools[i], solved, i, classes, mix, per_iteration)
        factor = time / alone
        for name in ("iteration_s", "running", "kv_tokens", "itl_s"):
            columns[name][i] *= factor
    return OperatingPoint(**columns)


def _excess(
    pool: Pool, solved: Solution, row: int, classes: Sequence[RequestClass], mix: FloatArray, per_iteration: float
) -> float:
    assert isinstance(pool.coupling, Barrier)
    return excess_s(
        solved.coefficients[row],
        solved.demand[row],
        tuple(item.lengths for item in classes),
        tuple(mix.tolist()),
        workers=pool.coupling.workers,
        per_iteration=per_iteration,
        budget=float(pool.replica.engine.max_num_batched_tokens),
        memory=float(pool.replica.usable_kv_tokens),
    )
