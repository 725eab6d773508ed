"""A point as a row: a pure function, so that points can be computed anywhere, in any order, and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .._result import json_safe
from ..errors import StabilityError
from .grid import Point, Simulation

if TYPE_CHECKING:
    from ..io.plan import Plan

PREDICTED = (
    "verdict",
    "reason",
    "rate_per_s",
    "capacity_per_s",
    "proved_capacity_per_s",
    "stable_below_per_s",
    "unstable_above_per_s",
    "upper_bound_per_s",
    "load",
    "bottleneck",
    "binding_pool",
    "iteration_s",
    "itl_s",
    "kv_occupancy",
    "running_mean",
    "evictions_per_request",
)
"""Attributes of a `StabilityReport` that become columns `predicted_...`."""

LATENCY = ("ttft_mean_s", "ttft_p99_s")
"""Attributes of a `LatencyReport` that do, too."""

SIMULATED = (
    "throughput_per_s",
    "itl_mean_s",
    "iteration_mean_s",
    "ttft_mean_s",
    "running_mean",
    "waiting_mean",
    "kv_occupancy",
    "preemptions",
    "arrived",
    "completed",
    "end_s",
    "overloaded",
)
"""Attributes of a `SimulationResult` that become columns `simulated_...`."""

PAUSE_S = 0.1
"""Wait before the second try; it doubles with every further one."""


def evaluate(point: Point, tries: int = 1) -> dict[str, Any]:
    """The row of a point.

    Parameters
    ----------
    point : Point
        What to compute.
    tries : int >= 1
        How often to try where something fails that is not the input's fault.

    Returns
    -------
    dict
        JSON-safe: key, axes, seed, `status`, `error`, and the figures. Status "ok"; "invalid" for a plan that makes no sense,
        which is so for good; "failed" where every try ended in another exception, which the next sweep repeats.
    """
    row = {"key": point.key, **point.axes, "seed": point.seed}
    for attempt in range(1, tries + 1):
        try:
            return {**row, "status": "ok", "error": None, **_figures(point)}
        except StabilityError as error:
            return {**row, "status": "invalid", "error": str(error)}
        except Exception as error:
            if attempt == tries:
                return {**row, "status": "failed", "error": f"{type(error).__name__}: {error}"}
        time.sleep(PAUSE_S * 2 ** (attempt - 1))
    raise AssertionError("tries must be >= 1")


def _figures(point: Point) -> dict[str, Any]:
    from ..io.plan import plan_from_source

    plan = plan_from_source(point.plan)
    found: dict[str, Any] = {}
    if point.analyze:
        from ..theory.analyze import analyze

        report = analyze(plan.fleet, plan.workload)
        found |= {f"predicted_{name}": getattr(report, name) for name in PREDICTED}
    if point.latency:
        from ..theory.latency import latency

        times = latency(plan.fleet, plan.workload)
        found |= {f"predicted_{name}": getattr(times, name) for name in LATENCY}
    if point.simulate is not None:
        assert point.seed is not None
        found |= _simulated(plan, point.simulate, point.seed)
    safe: dict[str, Any] = json_safe(found)
    return safe


def _simulated(plan: Plan, options: Simulation, seed: int) -> dict[str, Any]:
    from ..sim.engine import simulate

    result = simulate(
        plan.fleet,
        plan.workload,
        requests=options.requests,
        horizon_s=options.horizon_s,
        saturated=options.saturated,
        concurrency=options.concurrency,
        router=options.router,
        warmup=options.warmup,
        rng=seed,
        keep="summary",
    )
    if not result.complete:  # interrupted from the keyboard: half a run is no row
        raise KeyboardInterrupt
    found = {f"simulated_{name}": getattr(result, name) for name in SIMULATED}
    return found | {f"simulated_ttft_p{p}_s": result.ttft_quantile_s(p / 100) for p in (50, 99)}
