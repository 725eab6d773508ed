"""What the theory says of one replica of a candidate at the rates it gets: the confirmation of a sized fleet."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._result import Verdict
from .._types import FloatArray
from ..model.candidate import Candidate
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..theory.analyze import analyze
from ..theory.latency import latency
from .linearised import workload_at
from .windows import Windows


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One replica at given rates.

    Attributes
    ----------
    load : float
        Rate over the rate below which `analyze` says STABLE.
    stable, met : bool
        Whether it is stable; and meets headroom and latencies besides.
    itl_s, ttft_mean_s, ttft_p99_s : float or None
        Latencies, s; times to first token where there is a target for one.
    """

    load: float
    stable: bool
    met: bool
    itl_s: float
    ttft_mean_s: float | None
    ttft_p99_s: float | None


def judgement(item: Candidate, windows: Windows, rates: FloatArray, targets: Targets) -> Judgement:
    """What `analyze` and `latency` say of one replica of a candidate at `rates` of the classes, 1/s."""
    fleet, workload = Fleet.of(item.replica, name=item.name), workload_at(windows.classes, rates)
    report = analyze(fleet, workload)
    load = report.rate_per_s / report.stable_below_per_s if report.stable_below_per_s > 0 else math.inf
    stable = report.verdict is Verdict.STABLE
    mean = p99 = None
    if targets.ttft_mean_s is not None or targets.ttft_p99_s is not None:
        found = latency(fleet, workload)
        mean, p99 = float(found.ttft_mean_s), float(found.ttft_p99_s)
    met = stable and load < 1 - (targets.headroom or 0.0)
    met = met and not (targets.itl_s is not None and report.itl_s > targets.itl_s)
    met = met and not (targets.ttft_mean_s is not None and mean is not None and mean > targets.ttft_mean_s)
    met = met and not (targets.ttft_p99_s is not None and p99 is not None and p99 > targets.ttft_p99_s)
    return Judgement(load=load, stable=stable, met=met, itl_s=report.itl_s, ttft_mean_s=mean, ttft_p99_s=p99)
