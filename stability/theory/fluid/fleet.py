r"""The fluid path of a fleet: arrivals, routing, bursts, outages, and the recursion of every pool.

Scaled by R (lambda, M, N, B and queues times R; the law's slopes over R; c0, lengths and the chunk of one request as they
are), the state of a replica over R converges to a deterministic path as R grows, at distance R^{-1/2}: ages stay whole, so
the limit is the difference equation

.. math:: x_k(a+1) = x_k(a)\,P(o > a+1 \mid o > a), \quad t \mathrel{+}= \tau(\text{composition}), \quad
          dq_k = \lambda_k \tau - \text{admitted}_k ,

with admission by the policy. It is computed for one replica of each pool; replicas of a pool share its arrivals evenly.
**Approximation** for a fleet of few replicas: it has no chance in it. Queues that only chance makes (load below 1) are 0
here; see `stability.theory.admission` for them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ..._types import FloatArray
from ...errors import InputError, check_integer, check_number
from ...model.checks import check_independent, check_no_prefixes, check_pair
from ...model.fleet import Fleet
from ...model.workload import Workload
from ...policies import WeightedSplit
from ..analyze import analyze
from ..report import StabilityReport
from .ages import age_table
from .events import Burst, Outage
from .finite import beyond_the_limit
from .path import FluidPath
from .run import FleetRun
from .timeline import Timeline, timeline

POINTS = 720
"""Instants of a path, unless said otherwise."""

EXACT = 3e7
"""Cohort-steps up to which ages are taken one by one."""

COARSE = 1.2e7
"""Cohort-steps aimed at beyond it, twice: bins and bins twice as wide."""

ALIVE = 1e-3
"""Share of the requests still resident at which a start-up counts as over."""

WARM_LOAD = 0.95
"""Largest load at which a run is warmed up."""


def fluid_path(
    fleet: Fleet,
    workload: Workload,
    *,
    horizon_s: float,
    bursts: Sequence[Burst] = (),
    outages: Sequence[Outage] = (),
    router: WeightedSplit | None = None,
    backlog: float = 0.0,
    warm: bool = False,
    points: int = POINTS,
    width: int | None = None,
    grain: float | None = None,
    chunk_tokens: int | None = None,
    admissions: float = math.inf,
    finite: bool = False,
    estimate_error: bool = True,
) -> FluidPath:
    """Follow a fleet over time.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives; schedules are followed, a replay by its counts.
    horizon_s : float > 0
        Until when, s.
    bursts, outages : sequence of Burst, of Outage
        What happens.
    router : WeightedSplit, optional
        Split of each class over the pools; by weights or capacity, as `analyze`, if omitted.
    backlog : float >= 0
        Requests waiting at time 0, over the fleet.
    warm : bool
        Whether to start from the steady state of the first rate (at most at load 0.95), not from an idle fleet.
    points : int >= 16
        Instants of the path.
    width : int >= 1, optional
        Iterations in a bin of ages; chosen by the work that it takes if omitted: 1, exact, for short runs.
    grain : float > 0, optional
        Requests in a unit of mass over which laws that are not affine are averaged; 1 if omitted, infinite in the limit.
    chunk_tokens : int, optional
        Most prompt tokens of one request in an iteration; a replica's token budget if omitted.
    admissions : float > 0
        Most requests that a replica admits in an iteration (pacing).
    finite : bool
        Whether a gate that evicts is given the capacity of the replica as it is, with the evictions that chance alone
        causes (see `stability.theory.eviction`), by less memory; in the limit they vanish.
    estimate_error : bool
        Whether to run bins wider than one iteration again at twice the width, to say how far the two are apart.

    Returns
    -------
    FluidPath
        The fleet at equally spaced instants.

    Raises
    ------
    InputError
        If an event makes no sense, or the workload's requests do not fit.

    Examples
    --------
    Service takes 50 iterations of 10 ms in 100 slots, 200 requests/s; at 300/s the backlog grows by 100 a second.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=100, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Constant(50))
    >>> path = fluid_path(fleet, st.Workload.poisson(300.0, lengths), horizon_s=100.0)
    >>> round(path.growth_rate_per_s, 1)
    100.0
    """
    check_pair(fleet, workload)
    check_independent(fleet, "the fluid path")
    check_no_prefixes(workload, "the fluid path")
    horizon_s = check_number("horizon_s", horizon_s, above=0)
    points = check_integer("points", points, at_least=16)
    backlog = check_number("backlog", backlog, at_least=0)
    if not admissions > 0:
        raise InputError(f"admissions = {admissions!r}, must be > 0. Let every iteration admit something.")
    report = analyze(fleet, workload.averaged())
    shares = fleet_shares(fleet, workload, router, report)
    line = timeline(fleet, workload, shares, horizon_s=horizon_s, bursts=bursts, outages=outages)
    before_s = _warm_up_s(fleet, workload, line, report) if warm else 0.0
    whole_s = before_s + horizon_s
    if width is None:
        wanted = _work(fleet, workload, whole_s, report)
        width = 1 if wanted <= EXACT else max(2, math.ceil(math.sqrt(wanted / COARSE)))
    else:
        width = check_integer("width", width, at_least=1)
    if before_s > 0:
        load = max(pool.load for pool in report.pools) * float(line.rates_per_s[0].sum()) / workload.rate_per_s
        line = line.after(before_s, min(1.0, WARM_LOAD / load))
    grid = before_s + np.linspace(0.0, horizon_s, points)

    beside = [beyond_the_limit(pool, workload, at) for pool, at in zip(fleet.pools, report.pools, strict=True)]
    memory = [pool.memory_tokens if finite else None for pool in beside]

    def run(width: int) -> FleetRun:
        found = FleetRun.of(
            fleet,
            workload,
            line,
            grid,
            width=width,
            grain=grain,
            chunk_tokens=chunk_tokens,
            admissions=admissions,
            memory_tokens=memory,
        )
        found.to_the_end(backlog, before_s)
        return found

    found = run(width)
    error = found.distance(run(2 * width)) if width > 1 and estimate_error else math.nan if width > 1 else 0.0
    return found.path(before_s, width, error, [pool.spread for pool in beside])


def fleet_shares(fleet: Fleet, workload: Workload, router: WeightedSplit | None, report: StabilityReport) -> FloatArray:
    """(classes, pools): how each class is split."""
    if router is None:
        split = np.array([pool.rate_per_s for pool in report.pools])
        return np.tile(split / split.sum(), (len(workload.classes), 1))
    cumulative = router.shares(fleet, len(workload.classes))
    each = np.diff(cumulative, axis=1, prepend=0.0)
    edges = np.cumsum([0, *(pool.replicas for pool in fleet.pools)])
    return np.stack([each[:, a:b].sum(axis=1) for a, b in itertools.pairwise(edges)], axis=1)


def _longest_lives(fleet: Fleet, workload: Workload) -> list[int]:
    """Iterations after which all but `ALIVE` of the requests of every class are done, per pool."""
    found = []
    for pool in fleet.pools:
        engine = pool.replica.engine
        life = 0
        for item in workload.classes:
            table = age_table(item.lengths, engine.max_num_batched_tokens, engine.block_size, item.max_output_tokens)
            life = max(life, int((table.columns[:, 0] > ALIVE).sum()))
        found.append(life)
    return found


def _warm_up_s(fleet: Fleet, workload: Workload, line: Timeline, report: StabilityReport) -> float:
    """Time in which an idle fleet reaches the steady state of the first window."""
    if not line.rates_per_s[0].sum() > 0:
        return 0.0
    lives = _longest_lives(fleet, workload)
    return max(3.0 * life * pool.iteration_s for life, pool in zip(lives, report.pools, strict=True))


def _work(fleet: Fleet, workload: Workload, horizon_s: float, report: StabilityReport) -> float:
    """Cohort-steps of an exact run."""
    lives = _longest_lives(fleet, workload)
    kinds = len(workload.classes) if workload.is_scheduled else 1
    return sum(
        kinds * life * horizon_s / max(pool.iteration_s, 1e-9) for life, pool in zip(lives, report.pools, strict=True)
    )
