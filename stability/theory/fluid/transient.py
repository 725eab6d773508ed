"""`transient`: what a burst or an outage does to a fleet, how long it lasts, and what would have prevented it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..._result import Tabular, no_truth, percent, rate, seconds
from ..._types import FloatArray
from ...errors import check_number
from ...model.fleet import Fleet
from ...model.workload import Workload
from ...policies import WeightedSplit
from ..analyze import analyze
from ..report import StabilityReport
from .events import Burst, Outage
from .fleet import fleet_shares, fluid_path
from .path import FEW, FluidPath
from .timeline import Timeline, timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_S = 7 * 86_400.0
"""Longest run that is chosen without being asked for, s."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Transient(Tabular):
    """A fleet through a burst, an outage or a day.

    Attributes
    ----------
    path : FluidPath
        The fleet over time.
    begin_s, end_s : float
        When the disturbance begins and ends, s; infinite for one that does not end, the whole run without one.
    recovers : bool
        Whether the backlog is gone by the end of the run; like all figures of the backlog and of waits without what is stranded.
    recovery_s : float
        From the end of the disturbance (from the peak where it does not end) until the backlog is gone, s; infinite if
        it does not go.
    peak_backlog : float
        Most requests waiting.
    peak_s : float
        When they are most, s.
    stranded_requests : float
        Requests that a pool held, running or waiting, when it went down for good: they are never served unless sent again.
    stranded_pools : tuple of str
        The pools that hold them.
    longest_wait_s : float
        Longest wait for admission, s; infinite if it is not over by the end.
    load_before, load_during : float
        Load of the busiest pool before the disturbance, and its largest value.
    safe_rate_per_s : float
        Mean rate of this workload at which the load never exceeds 1: no backlog builds up.
    headroom : float
        Share of the capacity that must be free before the disturbance for that.
    wait_limit_s : float
        Longest wait that is accepted, s.
    shed_from_s : float
        When the first request arrives that would wait longer: from then on, shed; infinite if none does.
    shed_requests : float
        Fewest requests to refuse so that none of the others waits longer.
    shed_share : float
        Their share of the arrivals from `shed_from_s` on while the load exceeds 1.
    reason : str
        What happens, in one sentence.

    Examples
    --------
    See :func:`stability.transient`.
    """

    schema: ClassVar[str] = "stability/transient/1"

    path: FluidPath
    begin_s: float
    end_s: float
    recovers: bool
    recovery_s: float
    peak_backlog: float
    peak_s: float
    stranded_requests: float
    stranded_pools: tuple[str, ...]
    longest_wait_s: float
    load_before: float
    load_during: float
    safe_rate_per_s: float
    headroom: float
    wait_limit_s: float
    shed_from_s: float
    shed_requests: float
    shed_share: float
    reason: str

    def __bool__(self) -> bool:
        raise no_truth("Transient")

    def __repr__(self) -> str:
        return (
            f"Transient({'recovers' if self.recovers else 'does not recover'}, peak backlog {self.peak_backlog:.4g}, "
            f"recovery {seconds(self.recovery_s)}, longest wait {seconds(self.longest_wait_s)})"
        )

    def rows(self) -> Sequence[tuple[str, str]]:
        """The main figures by name, for people."""
        shed = "nothing"
        if math.isfinite(self.shed_from_s):
            shed = f"{self.shed_requests:.4g} requests from {seconds(self.shed_from_s)} on"
            shed += f", {percent(self.shed_share)} of the arrivals while overloaded" if self.shed_share > 0 else ""
        gone = "not by the end of the run"
        if self.recovers:
            gone = f"{seconds(self.recovery_s)} after the {'end' if math.isfinite(self.end_s) else 'peak'}"
        if self.peak_backlog <= FEW:
            gone = "there is none"
        stranded = []
        if self.stranded_pools:
            where = f"pool {', '.join(self.stranded_pools)}, down for good; not in the backlog"
            stranded = [("stranded", f"{self.stranded_requests:.4g} requests in {where}")]
        return [
            ("because", self.reason),
            ("load", f"{percent(self.load_before)} before, up to {percent(self.load_during)}"),
            ("peak backlog", f"{self.peak_backlog:.4g} requests at {seconds(self.peak_s)}"),
            *stranded,
            ("backlog gone", gone),
            ("longest wait", seconds(self.longest_wait_s)),
            ("no backlog up to", rate(self.safe_rate_per_s)),
            ("headroom that takes", percent(self.headroom)),
            (f"to wait < {seconds(self.wait_limit_s)}, shed", shed),
            ("run", f"{seconds(float(self.path.time_s[-1]))}, bins of {self.path.width} iterations"),
        ]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The path on `ax`, or in panels, with the disturbance shaded."""
        from ...plots.fluid import time_unit

        axes = self.path.plot(ax)
        last_s = float(self.path.time_s[-1])
        end_s = min(self.end_s, last_s)
        if self.begin_s <= 0 and end_s >= last_s:  # a schedule that is followed: nothing apart from the rest
            return axes
        unit_s = time_unit(last_s)[1]
        axes.axvspan(self.begin_s / unit_s, end_s / unit_s, color="#8C8C8C", alpha=0.2, linewidth=0)
        return axes


def transient(
    fleet: Fleet,
    workload: Workload,
    *,
    burst: Burst | None = None,
    outage: Outage | None = None,
    horizon_s: float | None = None,
    wait_limit_s: float = 10.0,
    router: WeightedSplit | None = None,
    points: int = 720,
) -> Transient:
    """What a burst, an outage or the workload's own schedule does to a fleet over time.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives otherwise.
    burst, outage : Burst, Outage, optional
        The disturbance; without either the workload's schedule is followed for one pass, and where it has none, a burst of
        twice the rate over 10 minutes.
    horizon_s : float > 0, optional
        Until when, s; until the backlog should be gone twice over if omitted, at most a week.
    wait_limit_s : float > 0
        Longest wait for admission that is accepted, s: says when to shed and how much.
    router : WeightedSplit, optional
        Split of each class over the pools; by weights or capacity, as `analyze`, if omitted.
    points : int >= 16
        Instants of the path.

    Returns
    -------
    Transient
        Backlog, recovery, headroom, and when to shed.

    Raises
    ------
    InputError
        If an event makes no sense, or requests can never be served.

    Notes
    -----
    The fluid limit (`fluid_path`) with the capacity of the replicas as they are. **Approximation**: it holds no chance, so
    a fleet below capacity has no backlog in it.

    Examples
    --------
    100 slots of 0.5 s serve 200/s. At 150/s a burst of twice that for a minute leaves 60 (300 - 200) = 6000 waiting,
    which 200 - 150 a second work off in 120 s.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=100, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Constant(50))
    >>> found = st.transient(fleet, st.Workload.poisson(150.0, lengths), burst=st.Burst(factor=2, duration_s=60, at_s=60))
    >>> round(found.peak_backlog, -2), round(found.recovery_s, -1), found.load_during, round(found.headroom, 3)
    (6000.0, 120.0, 1.5, 0.5)
    """
    check_number("wait_limit_s", wait_limit_s, above=0)
    report = analyze(fleet, workload.averaged())
    follows = workload.is_scheduled and burst is None and outage is None
    if burst is None and outage is None and not follows:
        burst = Burst(at_s=120.0)
    bursts, outages = ([burst] if burst else []), ([outage] if outage else [])
    begin_s = min([*(b.at_s for b in bursts), *(o.at_s for o in outages)], default=0.0)
    end_s = max((burst.end_s if burst else 0.0, outage.until_s if outage else 0.0))
    shares = fleet_shares(fleet, workload, router, report)
    if horizon_s is None:
        horizon_s = _horizon_s(fleet, workload, shares, report, bursts, outages, end_s)
    if follows:
        end_s = horizon_s
    path = fluid_path(
        fleet,
        workload,
        horizon_s=horizon_s,
        bursts=bursts,
        outages=outages,
        router=router,
        warm=True,
        points=points,
        finite=True,
    )
    line = timeline(fleet, workload, shares, horizon_s=horizon_s, bursts=bursts, outages=outages)
    loads = _loads(line, report)
    earlier = loads[line.start_s < begin_s]
    load_before = report.load if follows or not len(earlier) else float(earlier[-1])
    load_during = float(loads.max())
    live, stranded = _stranded(path, outages)
    recovers = math.isfinite(live.drain_time_s)
    gone_s = live.peak_s + live.drain_time_s if live.drain_time_s > 0 else begin_s
    from_s = end_s if math.isfinite(end_s) and not follows else live.peak_s
    recovery = max(0.0, gone_s - from_s) if recovers else math.inf
    shed_from, shed, share = _shed(live, wait_limit_s, line, loads)
    safe = workload.rate_per_s / load_during if math.isfinite(load_during) and load_during > 0 else 0.0
    return Transient(
        path=path,
        begin_s=begin_s,
        end_s=end_s,
        recovers=recovers,
        recovery_s=recovery,
        peak_backlog=live.peak_backlog,
        peak_s=live.peak_s,
        stranded_requests=sum(stranded.values()),
        stranded_pools=tuple(stranded),
        longest_wait_s=live.longest_wait_s,
        load_before=load_before,
        load_during=load_during,
        safe_rate_per_s=safe,
        headroom=max(0.0, 1.0 - load_before / load_during) if load_during > 0 else 0.0,
        wait_limit_s=wait_limit_s,
        shed_from_s=shed_from,
        shed_requests=shed,
        shed_share=share,
        reason=_reason(live, load_during, recovers, bool(line.held_per_s.any())),
    )


def _stranded(path: FluidPath, outages: Sequence[Outage]) -> tuple[FluidPath, dict[str, float]]:
    """The path without what waits in pools that are down for good while others are up, and how much that is by pool."""
    if all(math.isfinite(outage.until_s) for outage in outages) or not path.alive[-1].any():
        return path, {}
    waiting, wait_s, found = path.waiting.copy(), path.wait_s.copy(), {}
    for index, name in enumerate(path.pools):
        if path.alive[-1, index] > 0:
            continue
        last_up = np.flatnonzero(path.alive[:, index] > 0)
        down = int(last_up[-1]) + 1 if len(last_up) else 0
        if waiting[-1, index] > FEW:
            found[name] = float(waiting[-1, index])
        waiting[down:, index] = 0.0
        wait_s[~np.isfinite(wait_s[:, index]), index] = 0.0
    return replace(path, waiting=waiting, wait_s=wait_s), found


def _loads(line: Timeline, report: StabilityReport) -> FloatArray:
    """Load of the busiest pool in each window; infinite where arrivals find no pool."""
    each = np.array([pool.capacity_per_s / pool.replicas for pool in report.pools])
    offered = line.routed_per_s.sum(axis=1)
    loads = np.divide(offered, line.alive * each, out=np.zeros_like(offered), where=offered > 0).max(axis=1)
    return np.where(line.held_per_s.any(axis=1), math.inf, loads)


def _horizon_s(
    fleet: Fleet,
    workload: Workload,
    shares: FloatArray,
    report: StabilityReport,
    bursts: Sequence[Burst],
    outages: Sequence[Outage],
    end_s: float,
) -> float:
    """Twice the time that the backlog should take: what comes beyond capacity, worked off at what is left of it."""
    scheduled = [item.rate_per_s for item in workload.classes if not isinstance(item.rate_per_s, float | int)]
    if scheduled and not bursts and not outages:
        return float(scheduled[0].end_s)
    last_s = max([end_s if math.isfinite(end_s) else 0.0, *(b.at_s for b in bursts), *(o.at_s for o in outages)])
    line = timeline(fleet, workload, shares, horizon_s=last_s + 1.0, bursts=bursts, outages=outages)
    widths = np.diff(np.append(line.start_s, last_s + 1.0))
    total = line.rates_per_s.sum(axis=1)
    lasting = np.array([pool.capacity_per_s / pool.replicas for pool in report.pools])
    capacity = (line.alive * lasting).sum(axis=1)
    backlog = float((np.maximum(total - capacity, 0.0) * widths).sum())
    spare = float(capacity[-1] - workload.rate_per_s)
    drain = backlog / spare if spare > 0 else last_s
    settle = 20 * max(pool.iteration_s * pool.running_mean * pool.replicas / pool.rate_per_s for pool in report.pools)
    return float(min(last_s + 2 * drain + settle + 600.0, max(LONGEST_S, 2 * last_s)))


def _shed(path: FluidPath, limit_s: float, line: Timeline, loads: FloatArray) -> tuple[float, float, float]:
    """From when on requests would wait longer, how many must be refused, and their share of the arrivals in overload."""
    late = path.wait_s.max(axis=1) > limit_s
    if not late.any():
        return math.inf, 0.0, 0.0
    from_s = float(path.time_s[int(np.argmax(late))])
    beyond = np.maximum(path.backlog - limit_s * path.throughput_per_s.sum(axis=1), 0.0)
    shed = float(beyond[late].max())
    step = np.diff(path.time_s, prepend=path.time_s[0])
    windows = np.clip(np.searchsorted(line.start_s, path.time_s, side="right") - 1, 0, None)
    during = (path.time_s >= from_s) & (loads[windows] > 1)
    coming = float((line.rates_per_s[windows].sum(axis=1) * step)[during].sum())
    return from_s, shed, min(1.0, shed / coming) if coming > 0 else 0.0


def _reason(path: FluidPath, load: float, recovers: bool, down: bool) -> str:
    if path.peak_backlog <= FEW and load > 1:
        return f"the load reaches {percent(load)}: batches take in what comes, no backlog builds up, iterations grow longer"
    if path.peak_backlog <= FEW:
        return f"the load stays at {percent(load)} or below: no backlog builds up"
    if recovers:
        what = "no replica is up for a while" if down else f"the load reaches {percent(load)}"
        return f"{what}: a backlog builds up and drains"
    if path.growth_rate_per_s > 0:
        what = "no replica is up" if down and not path.alive[-1].any() else "arrivals exceed what the fleet serves"
        return f"{what} at the end of the run: the backlog grows by {path.growth_rate_per_s:.3g} requests a second"
    return "the backlog shrinks, but is not gone by the end of the run: follow it for longer"
