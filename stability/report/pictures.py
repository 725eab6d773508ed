"""The pictures of the page, each with a title and with what it shows in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._result import percent, rate, seconds
from ..errors import InputError, NotModelledError
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from ..theory.check import CheckResult
from ..theory.rates import RateCurve, rate_curve
from ..theory.report import PoolReport
from .svg import SETTINGS, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POOLS = 8
"""Pools in a picture; the most loaded ones."""

WIDTH = 4.6
"""Of every picture, inches: text is as large as the page's on a phone, and larger on a desk."""


FLAT = 0.005
"""Relative range of the capacity below which headroom is not worth a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One figure of the page.

    Attributes
    ----------
    key : str
        Unique on the page.
    title, text : str
        What it is, and what it shows.
    svg : str
        Safe to put into a page as it is.
    """

    key: str
    title: str
    text: str
    svg: str


def pictures(fleet: Fleet, workload: Workload, targets: Targets, result: CheckResult) -> list[Picture]:
    """Every picture that the fleet has."""
    from matplotlib import style

    with style.context(["default", SETTINGS]):  # what a user set for other figures does not show
        return list(_pictures(fleet, workload, targets, result))


def _pictures(fleet: Fleet, workload: Workload, targets: Targets, result: CheckResult) -> Iterator[Picture]:
    from ..plots.rates import capacity_line, kv_curve, latency_curve, lever_bars
    from ..plots.report import load_bars

    report = result.report
    busiest = report if report.peak is None else report.peak
    peak = None if report.peak is None else report.peak.rate_per_s
    shown = sorted(busiest.pools, key=lambda pool: -pool.load)[:MOST_POOLS]
    more = f" The {MOST_POOLS} most loaded of {len(report.pools)} pools." if len(report.pools) > len(shown) else ""
    when = " at the peak" if peak is not None else ""
    loads = "; ".join(
        f"{pool.name}: " + ", ".join(f"{name} {value:.2f}" for name, value in pool.loads.items()) for pool in shown
    )
    yield _drawn(
        "loads",
        f"Load of each resource{when}",
        f"1 is capacity. {loads}.{more}{_why_compute(shown)}",
        lambda ax: load_bars([(pool.name, pool.loads) for pool in shown], ax),
        1.4 + 0.75 * len(shown),
    )
    yield _drawn(
        "capacity",
        "Rate against capacity",
        f"Rate {rate(report.rate_per_s)}{'' if peak is None else f', peak {rate(peak)}'}; stable below "
        f"{rate(report.stable_below_per_s)}, capacity {rate(report.capacity_per_s)}, unstable above "
        f"{rate(report.unstable_above_per_s)}, bound of every policy {rate(report.upper_bound_per_s)}.",
        lambda ax: capacity_line(report, ax, peak_per_s=peak),
        2.1,
    )
    curve = rate_curve(fleet, workload)
    marks = [report.rate_per_s, *([] if peak is None else [peak])]
    yield _drawn(
        "latency",
        "Latency against rate",
        f"Approximate. {_latencies(curve)}",
        lambda ax: latency_curve(curve, ax, targets=targets, rates_per_s=marks),
        3.9,
    )
    yield _drawn(
        "kv",
        "KV cache against rate",
        f"Of the fullest pool, mean and two standard deviations. Now {percent(report.kv_occupancy)}; "
        f"{percent(float(curve.kv_occupancy[-1]))} near capacity.",
        lambda ax: kv_curve(curve, ax, rates_per_s=marks),
        3.4,
    )
    levers = [lever for lever in result.levers if abs(lever.gain) >= 5e-4 or lever.verdict is not result.verdict]
    if levers:
        changes = "; ".join(f"{lever.change}: {100 * lever.gain:+.1f} %" for lever in levers)
        yield _drawn(
            "levers",
            "What one change does to capacity",
            f"{changes}.",
            lambda ax: lever_bars(report, levers, ax),
            1.5 + 0.36 * len(levers),
        )
    headroom = _headroom(fleet, workload, report.binding_pool)
    if headroom is not None:
        yield headroom


def _why_compute(pools: Sequence[PoolReport]) -> str:
    """Why the bottleneck of a pool may be another than its fullest bar."""
    odd = [pool for pool in pools if pool.bottleneck == "compute" and max(pool.loads.values()) > pool.loads["compute"]]
    return "".join(f" The bottleneck of {pool.name} is compute all the same: {pool.why_compute()}." for pool in odd)


def _headroom(fleet: Fleet, workload: Workload, pool: str) -> Picture | None:
    """Capacity against the KV kept free, where headroom means something: under a prompt gate."""
    engine = next(item.replica.engine for item in fleet.pools if item.name == pool)
    if engine.scheduler is not None or engine.admission != "prompt_gate":
        return None
    from ..control.tuning import tune
    from ..plots.rates import legend_below
    from ..plots.tuning import plot_tuning

    try:
        tuned = tune(fleet, workload, pool=pool, vary=("watermark",), latencies=False).pools[0]
    except (InputError, NotModelledError):  # a fleet that tuning does not know has no such curve
        return None
    curve = tuned.sensitivity
    low, high = float(curve.capacity_per_s.min()), float(curve.capacity_per_s.max())
    if high < low * (1 + FLAT):
        return None

    def draw(ax: Axes) -> None:
        plot_tuning(tuned, ax).set_title("")
        ax.set_xlabel("KV kept free at admission, %")
        ax.set_ylabel("requests/s")
        legend_below(ax, columns=1)

    return _drawn(
        "headroom",
        f"Capacity against headroom, pool {pool}",
        f"KV kept free at admission: {percent(engine.watermark)} now; the most is served at {percent(curve.best_watermark)}, "
        f"{rate(high)} against {rate(tuned.now.capacity_per_s)} ({tuned.standing}).",
        draw,
        4.6,
    )


def _latencies(curve: RateCurve) -> str:
    low, high = 0, len(curve.load) - 1
    return " ".join(
        f"{name}: {seconds(float(values[low]))} at load {curve.load[low]:.2f}, {seconds(float(values[high]))} at "
        f"{curve.load[high]:.2f}."
        for name, values in (
            ("Inter-token latency", curve.itl_s),
            ("Time to first token, mean", curve.ttft_mean_s),
            ("Time to first token, 99 %", curve.ttft_p99_s),
        )
    )


def _drawn(key: str, title: str, text: str, draw: Callable[[Axes], object], height: float) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    draw(figure.subplots())
    return Picture(key=key, title=title, text=text, svg=inline_svg(figure, key=key, title=title, text=text))
