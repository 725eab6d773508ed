"""What a plan says of the capacity of the server that is watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import check_integer, check_number
from ..model.workload import Workload

if TYPE_CHECKING:
    from ..io.plan import Plan

SAMPLES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCapacity:
    """Capacity from theory, or as stated.

    Attributes
    ----------
    capacity_per_s : float
        Rate the server can sustain, requests/s.
    stable_below_per_s, unstable_above_per_s : float
        Rates between which theory gives no verdict.
    dispersion : float or None
        Dispersion of the events at the queue that workload and lengths imply; None if unknown.
    arrival_dispersion : float
        Of the arrivals alone: the squared variation of their gaps, at least 1.
    ttft_s : float or None
        Target for the time to first token.
    source : str
        Where it comes from.

    Examples
    --------
    See :func:`stability.watch`.
    """

    capacity_per_s: float
    stable_below_per_s: float
    unstable_above_per_s: float
    dispersion: float | None
    arrival_dispersion: float
    ttft_s: float | None
    source: str


def stated(rate_per_s: float) -> KnownCapacity:
    """A capacity that was measured elsewhere, requests/s."""
    rate = check_number("capacity", rate_per_s, above=0)
    return KnownCapacity(
        capacity_per_s=rate,
        stable_below_per_s=rate,
        unstable_above_per_s=rate,
        dispersion=None,
        arrival_dispersion=1.0,
        ttft_s=None,
        source="as stated",
    )


def capacity_of(plan: Plan, *, replicas: int | None = None) -> KnownCapacity:
    """Capacity of a plan by `analyze`; of `replicas` of its replicas where the metrics cover only so many."""
    from ..theory.analyze import analyze

    report = analyze(plan.fleet, plan.workload)
    total = sum(pool.replicas for pool in plan.fleet.pools)
    covered = total if replicas is None else check_integer("replicas", replicas, at_least=1, at_most=total)
    share = covered / total
    part = "" if covered == total else f", {covered} of {total} replicas"
    return KnownCapacity(
        capacity_per_s=share * report.capacity_per_s,
        stable_below_per_s=share * report.stable_below_per_s,
        unstable_above_per_s=share * report.unstable_above_per_s,
        dispersion=dispersion_of(plan.workload),
        arrival_dispersion=max(1.0, gaps_cv(plan.workload) ** 2),
        ttft_s=plan.targets.ttft_p99_s or plan.targets.ttft_mean_s,
        source=f"{plan.path}{part}",
    )


def dispersion_of(workload: Workload) -> float:
    """Half the dispersion of arrivals (squared variation of their gaps) plus half that of the requests' KV demand, at least 1.

    Over long stretches a server whose requests take work of squared variation c**2 admits with index of dispersion c**2, as a
    renewal process does.
    """
    rng = np.random.default_rng(0)
    demands = squares = 0.0
    for item in workload.classes:
        weight = item.mean_rate_per_s / workload.rate_per_s
        s, o = (values.astype(np.float64) for values in item.lengths.sample(SAMPLES, rng))
        demand = o * s + o**2 / 2
        demands += weight * float(demand.mean())
        squares += weight * float((demand**2).mean())
    return max(1.0, (gaps_cv(workload) ** 2 + squares / demands**2 - 1) / 2)


def gaps_cv(workload: Workload) -> float:
    """Coefficient of variation of the gaps between arrivals; 1 for a replay, whose own are not looked at."""
    return float(getattr(workload.arrivals, "cv", 1.0))
