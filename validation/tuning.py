"""What tuning promises and what it brings: recommended engine settings against the default ones, in simulation.

The default is a prompt gate without watermark whose slots do not bind. Both settings are simulated saturated, with the same
requests; a cell compares the predicted with the simulated ratio of their throughputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import stability as st
from stability.sim.engine import simulate
from stability.sim.result import SimulationResult

from .cases import Case
from .cells import Cell, Task, claim, measured

WORKLOADS = ("uniform 1:1", "lognormal", "azure conv", "azure code", "mooncake", "reasoning")
"""Names of the matrix: five, and the sixth in which few requests run for long."""

QUICK = ("uniform 1:1", "lognormal")

REQUESTS = {"quick": 20_000, "full": 200_000}

TOLERANCE = 0.03
"""On the ratio of throughputs: three points of gain."""

SEED = 2026


@claim("tuning")
def tasks(size: str) -> Iterator[Task]:
    """One task per workload: tune, then simulate both settings."""
    for workload in QUICK if size == "quick" else WORKLOADS:
        yield Task(f"tuning {workload}", gain_of, (workload, size))


def gain_of(workload: str, size: str) -> list[Cell]:
    """Predicted and simulated throughput of the recommended settings over the default ones."""
    case = Case(workload, "affine", "prompt gate")
    fleet, unit = case.build(), st.Workload.poisson(1.0, case.lengths)
    tuned = st.tune(fleet, unit, latencies=False).pools[0]
    then = st.Fleet([replace(p, replica=replace(p.replica, engine=tuned.then.engine)) for p in fleet.pools])
    runs = [_saturated(each, unit, REQUESTS[size]) for each in (fleet, then)]
    errors = [run.intervals["throughput_per_s"].half_width / run.throughput_per_s for run in runs]
    observed = runs[1].throughput_per_s / runs[0].throughput_per_s
    evictions = [run.preemptions / REQUESTS[size] for run in runs]
    note = (
        f"{tuned.change}; {tuned.standing}; evictions per request predicted {tuned.now.evictions_per_request:.2f} -> "
        f"{tuned.then.evictions_per_request:.2f}, simulated {evictions[0]:.2f} -> {evictions[1]:.2f}; capacity predicted "
        f"{tuned.now.capacity_per_s:.4g} -> {tuned.then.capacity_per_s:.4g}, simulated {runs[0].throughput_per_s:.4g} -> "
        f"{runs[1].throughput_per_s:.4g}"
    )
    return [
        measured(
            "tuning",
            f"{workload} / affine: tuned over default",
            predicted=1 + tuned.gain,
            observed=observed,
            half_width=observed * math.hypot(*errors),
            tolerance=TOLERANCE,
            note=note,
        )
    ]


def _saturated(fleet: st.Fleet, workload: st.Workload, requests: int) -> SimulationResult:
    return simulate(fleet, workload, requests=requests, saturated=True, rng=SEED)
