"""The matrix: capacity, verdict, latency and occupancy against the token-level simulator."""

from __future__ import annotations

import math
from collections.abc import Iterator

import stability as st
from stability.compare.validate import FEW_EVICTIONS, ITL, NEVER_EVICTING, OCCUPANCY, OTHER, TTFT, ZONE
from stability.sim.engine import simulate
from stability.sim.result import SimulationResult

from .cases import Case, matrix
from .cells import Cell, Status, Task, claim, measured

LOADS = {"quick": (0.5, 0.9, 1.1), "full": (0.5, 0.8, 0.9, 0.95, 1.05, 1.2)}
REQUESTS = {"quick": (20_000, 10_000), "full": (60_000, 40_000)}
"""Requests of a saturated run per replica-fleet, and of a run at a load up to a half."""


def requests_at(load: float, size: str) -> int:
    """Requests of a run at `load`: a queue forgets in (1 - load)**-2, up to ten times as many requests are simulated."""
    return int(REQUESTS[size][1] * min(max(1.0, (0.5 / (1 - load)) ** 2), 10.0))


SEED = 2026


@claim("matrix")
def tasks(size: str) -> Iterator[Task]:
    """One task per case: a saturated run, then a run at each load of the capacity it measured."""
    for case in matrix(size):
        yield Task(case.name, cells_of, (case, size))


def cells_of(case: Case, size: str) -> list[Cell]:
    """Every cell of one case."""
    fleet, lengths = case.build(), case.lengths
    many, _ = REQUESTS[size]
    unit = st.Workload.poisson(1.0, lengths)
    report = st.analyze(fleet, unit)
    capacity, half_width, evictions = _simulated_capacity(fleet, unit, report, many)
    found = [
        measured(
            "capacity",
            case.name,
            predicted=report.capacity_per_s,
            observed=capacity,
            half_width=half_width,
            tolerance=NEVER_EVICTING if evictions == 0 else FEW_EVICTIONS if evictions < 1 else OTHER,
            note=f"{evictions:.2f} evictions per request",
        )
    ]
    for load in LOADS[size]:
        workload = unit.scaled(rate_per_s=load * capacity)
        at = st.analyze(fleet, workload)
        found.append(_verdict(f"{case.name} / load {load}", at, load))
        if load < 1 - ZONE:
            run = simulate(fleet, workload, requests=requests_at(load, size), router=_router(fleet, at), rng=SEED)
            found += _below_capacity(f"{case.name} / load {load}", fleet, workload, at, run)
    return found


def _simulated_capacity(
    fleet: st.Fleet, unit: st.Workload, report: st.StabilityReport, requests: int
) -> tuple[float, float, float]:
    """Saturated throughput under the split of the analysis, its half-width, and evictions per request.

    A single pool runs whole; of several, each runs alone and the one that its share fills first sets the fleet's.
    """
    if len(fleet.pools) == 1:
        run = simulate(fleet, unit, requests=requests, saturated=True, router="round_robin", rng=SEED)
        return run.throughput_per_s, run.intervals["throughput_per_s"].half_width, run.preemptions / requests
    total = sum(pool.rate_per_s for pool in report.pools)
    found = []
    for pool, at in zip(fleet.pools, report.pools, strict=True):
        run = simulate(st.Fleet([pool]), unit, requests=requests, saturated=True, router="round_robin", rng=SEED)
        scale = total / at.rate_per_s
        width = run.intervals["throughput_per_s"].half_width
        found.append((scale * run.throughput_per_s, scale * width, run.preemptions / requests))
    return min(found)


def _router(fleet: st.Fleet, report: st.StabilityReport) -> st.policies.WeightedSplit | str:
    """The split that the analysis assumes: by capacity over pools, evenly within."""
    if len(fleet.pools) == 1:
        return "random"
    total = sum(pool.capacity_per_s for pool in report.pools)
    return st.policies.WeightedSplit([pool.capacity_per_s / total for pool in report.pools])


def _verdict(name: str, report: st.StabilityReport, load: float) -> Cell:
    truth = st.Verdict.STABLE if load < 1 else st.Verdict.UNSTABLE
    if report.verdict is st.Verdict.UNDETERMINED:
        status = Status.UNDETERMINED
    elif report.verdict is truth or abs(load - 1) <= ZONE:
        status = Status.PASS
    else:
        status = Status.FAIL
    note = f"certain below {report.stable_below_per_s:.4g}/s, impossible above {report.unstable_above_per_s:.4g}/s"
    return Cell(
        claim="verdict", case=name, predicted=str(report.verdict), observed=str(truth), status=status, note=note
    )


def _below_capacity(
    name: str, fleet: st.Fleet, workload: st.Workload, report: st.StabilityReport, run: SimulationResult
) -> list[Cell]:
    weights = [pool.rate_per_s for pool in report.pools]
    itl = sum(w * pool.itl_s for w, pool in zip(weights, report.pools, strict=True)) / sum(weights)
    counts = [pool.replicas for pool in report.pools]
    occupancy = sum(n * pool.kv_occupancy for n, pool in zip(counts, report.pools, strict=True)) / sum(counts)
    found = [
        measured(
            "itl",
            name,
            predicted=itl,
            observed=run.itl_mean_s,
            half_width=run.intervals["itl_mean_s"].half_width,
            tolerance=ITL,
        ),
        measured("kv occupancy", name, predicted=occupancy, observed=run.kv_occupancy, tolerance=OCCUPANCY),
    ]
    ttft = st.latency(fleet, workload).ttft_mean_s
    if math.isfinite(ttft) and len(fleet.pools) == 1:
        found.append(measured("ttft", name, predicted=ttft, observed=run.ttft_mean_s, tolerance=TTFT))
    return found
