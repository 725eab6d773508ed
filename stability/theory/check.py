"""`check`: the verdict, the stated targets, and what would change the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._result import Described, Verdict, html_table, json_safe, no_truth, percent, rate, seconds, text_table
from ..errors import InputError
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from .analyze import analyze, peak_window_s
from .latency import LatencyReport, latency, rate_within
from .levers import Lever, levers, replicas_needed
from .report import StabilityReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DEFAULT_HEADROOM = 0.1
"""Headroom for which replicas are counted when the plan states none."""


TARGET_NAMES = {"itl_s": "ITL", "ttft_mean_s": "TTFT, mean", "ttft_p99_s": "TTFT, 99 %", "headroom": "headroom"}
"""Targets as tables call them."""


def _latency(value: float) -> str:
    """A latency for people; infinite ones have no bound."""
    return "unbounded" if value == math.inf else seconds(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult(Described):
    """One stated target.

    Attributes
    ----------
    name : str
        Field of `Targets`.
    limit, value : float
        What was asked and what is predicted, in the unit of the name.
    met : bool
    rate_per_s : float or None
        Largest rate at which the target is met, 1/s, for latency targets.
    """

    name: str
    limit: float
    value: float
    met: bool
    rate_per_s: float | None = None

    def sentence(self) -> str:
        """The target and its outcome for people."""
        show = percent if self.name == "headroom" else _latency
        word = "met" if self.met else "missed"
        reach = "" if self.rate_per_s is None else f"; met up to {rate(self.rate_per_s)}"
        return f"{word}: {show(self.value)} against {show(self.limit)}{reach}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """Verdict and targets of one plan.

    Attributes
    ----------
    report : StabilityReport
    latency : LatencyReport
    targets : tuple of TargetResult
    headroom : float
        Headroom for which `replicas_needed` counts.
    replicas_needed : dict of str to int
        Replicas each pool needs to be certain of it; empty when no number is certain.
    levers : tuple of Lever
        Single changes to the binding pool, best first.

    Examples
    --------
    See :func:`stability.check`.
    """

    report: StabilityReport
    latency: LatencyReport
    targets: tuple[TargetResult, ...]
    headroom: float
    replicas_needed: Mapping[str, int]
    levers: tuple[Lever, ...]

    def __bool__(self) -> bool:
        raise no_truth("CheckResult")

    def __repr__(self) -> str:
        return f"CheckResult({self.report.verdict}, {sum(t.met for t in self.targets)}/{len(self.targets)} targets met)"

    @property
    def verdict(self) -> Verdict:
        """The report's verdict."""
        return self.report.verdict

    @property
    def exit_code(self) -> int:
        """0 stable and every target met, 1 unstable or a target missed, 3 undetermined."""
        if self.verdict is Verdict.UNSTABLE or not all(target.met for target in self.targets):
            return 1
        return 0 if self.verdict is Verdict.STABLE else 3

    def rows(self) -> list[tuple[str, str]]:
        """The answer as (quantity, value) pairs for people."""
        worst = max(self.latency.pools, key=lambda pool: pool.ttft_p99_s)
        found = self.report.rows()
        ttft = f"mean {_latency(worst.ttft_mean_s)}, 99 % {_latency(worst.ttft_p99_s)}"
        found.append(("time to first token" + self._when, ttft + self._of(worst.name)))
        needed = ", ".join(f"{name}: {count}" for name, count in self.replicas_needed.items())
        have = {pool.name: pool.replicas for pool in self.report.pools}
        now = ", ".join(f"{name}: {count}" for name, count in have.items())
        text = f"{needed} (now {now})" if needed else "no number is known to do under this admission policy"
        found.append((f"replicas at {100 * self.headroom:g} % headroom{self._when}", text))
        found += [(f"target {TARGET_NAMES[x.name]}{self._when}", x.sentence() + self._judged(x)) for x in self.targets]
        return found

    def _of(self, pool: str) -> str:
        """Which of several pools a figure is of."""
        return f" (pool {pool})" if len(self.report.pools) > 1 else ""

    def _judged(self, target: TargetResult) -> str:
        """The pool on which a latency target is judged: the worst."""
        if target.name not in ("itl_s", "ttft_mean_s", "ttft_p99_s"):
            return ""
        return self._of(max(self.latency.pools, key=lambda pool: float(getattr(pool, target.name))).name)

    @property
    def _when(self) -> str:
        return " at the peak" if self.report.peak is not None else ""

    def lever_rows(self) -> list[tuple[str, ...]]:
        """The levers as (change, capacity, gain, verdict) for people."""
        useful = [x for x in self.levers if abs(x.gain) >= 5e-4 or x.verdict is not self.verdict]
        return [(x.change, rate(x.capacity_per_s), f"{100 * x.gain:+.1f} %", str(x.verdict)) for x in useful]

    _LEVERS = ("what changes it", "capacity", "gain", "verdict at this rate")

    def summary(self) -> str:
        """The answer as text tables."""
        tables = [text_table(self.rows()), text_table(self.lever_rows(), self._LEVERS)]
        if len(self.report.pools) > 1:
            tables.insert(1, self.report.pool_table())
        return "\n\n".join(tables)

    def _repr_html_(self) -> str:
        return html_table(self.rows()) + html_table(self.lever_rows(), self._LEVERS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": "stability/check/1", "exit_code": self.exit_code, **json_safe(self)}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Load of each resource in each pool on `ax`; in a new figure without it, with the capacity under each change."""
        from ..plots.check import plot_check

        return plot_check(self, ax)


def check(fleet: Fleet, workload: Workload, targets: Targets | None = None) -> CheckResult:
    """Verdict on a fleet under a workload, with stated targets and what would change the answer.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives.
    targets : Targets, optional
        Limits besides stability.

    Returns
    -------
    CheckResult
        Verdict, latency, targets, replicas needed and levers.

    Raises
    ------
    UnservableError, NotModelledError
        As `analyze`.

    Examples
    --------
    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.check(fleet, st.Workload.poisson(5.0, lengths), st.Targets(headroom=0.4))
    >>> found.verdict, found.targets[0].met, found.exit_code  # 5 of 9.09 requests/s: 45 % to spare
    (<Verdict.STABLE: 'stable'>, True, 0)
    """
    wanted = targets if targets is not None else Targets()
    report = analyze(fleet, workload)
    # A schedule has to meet its targets at its peak.
    busiest = workload.at(peak_window_s(fleet, workload)) if workload.is_scheduled else workload
    found = latency(fleet, busiest)
    results = []
    for name in ("itl_s", "ttft_mean_s", "ttft_p99_s"):
        limit = getattr(wanted, name)
        if limit is not None:
            value = getattr(found, name)
            reach = rate_within(fleet, busiest, **{name: limit})
            results.append(TargetResult(name=name, limit=limit, value=value, met=value <= limit, rate_per_s=reach))
    if wanted.headroom is not None:
        spare = 1 - report.load if report.peak is None else 1 - max(report.load, report.peak.load)
        results.append(TargetResult(name="headroom", limit=wanted.headroom, value=spare, met=spare >= wanted.headroom))
    headroom = DEFAULT_HEADROOM if wanted.headroom is None else wanted.headroom
    hardest = report if report.peak is None else report.peak
    try:
        needed = replicas_needed(hardest, headroom=headroom)
    except InputError:
        needed = {}
    return CheckResult(
        report=report,
        latency=found,
        targets=tuple(results),
        headroom=headroom,
        replicas_needed=needed,
        levers=levers(fleet, workload, report),
    )
