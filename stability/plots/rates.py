"""Capacity with its bounds, and latency and memory against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._result import seconds
from .style import BLUE, GREEN, GREY, ORANGE, RED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..model.targets import Targets
    from ..theory.levers import Lever
    from ..theory.rates import RateCurve
    from ..theory.report import StabilityReport

FREE = 0.08
"""Share of an axis left free beyond the last mark."""

LABEL_INCHES = 0.52
"""Height of the ticks' and the axis' labels."""


def capacity_line(report: StabilityReport, ax: Axes | None = None, *, peak_per_s: float | None = None) -> Axes:
    """The rate on a line with where stability is certain, undetermined and impossible, the capacity and its interval.

    Parameters
    ----------
    report : StabilityReport
        From `analyze`.
    ax : Axes, optional
        Where to draw; a new figure without it.
    peak_per_s : float, optional
        A second rate to mark: the peak of a schedule.
    """
    axes = _axes(ax, (4.6, 2.3))
    certain, never = report.stable_below_per_s, report.unstable_above_per_s
    last = (1 + FREE) * max(never, report.upper_bound_per_s, report.rate_per_s, peak_per_s or 0.0)
    zones = [
        (0.0, certain, GREEN, "stable", ""),
        (certain, never, ORANGE, "undetermined", "///"),
        (never, last, RED, "unstable", "xx"),
    ]
    for low, high, colour, name, hatch in zones:
        axes.barh(0, high - low, left=low, height=0.5, color=colour, alpha=0.35, label=name, hatch=hatch, linewidth=0)
    if report.proved_capacity_per_s is not None:
        axes.plot([0, report.proved_capacity_per_s], [-0.32, -0.32], color=GREEN, linewidth=3, label="proved stable")
    axes.plot([report.capacity_per_s] * 2, [-0.25, 0.25], color=BLUE, linewidth=2.5, label="capacity")
    low, high = report.capacity_interval
    if high > low * (1 + 1e-9):
        axes.errorbar(
            report.capacity_per_s,
            0.32,
            xerr=[[report.capacity_per_s - low], [high - report.capacity_per_s]],
            color=BLUE,
            capsize=4,
            label="95 % of it",
        )
    axes.plot([report.upper_bound_per_s] * 2, [-0.25, 0.25], color="black", linestyle="--", label="bound, any policy")
    axes.plot(report.rate_per_s, 0, "o", color="black", markersize=8, label=f"rate, {report.rate_per_s:.4g}/s")
    if peak_per_s is not None:
        axes.plot(peak_per_s, 0, "D", color="black", markersize=7, label=f"peak, {peak_per_s:.4g}/s")
    axes.set_xlim(0, last)
    axes.set_ylim(-0.4 if report.proved_capacity_per_s is not None else -0.3, 0.42 if high > low * (1 + 1e-9) else 0.3)
    axes.set_yticks([])
    axes.set_xlabel("requests/s")
    legend_below(axes)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    return axes


def latency_curve(
    curve: RateCurve,
    ax: Axes | None = None,
    *,
    targets: Targets | None = None,
    rates_per_s: Sequence[float] | None = None,
) -> Axes:
    """Inter-token latency and time to first token against the rate, on a log scale, with targets as dotted lines.

    Parameters
    ----------
    curve : RateCurve
        From `rate_curve`.
    ax : Axes, optional
        Where to draw; a new figure without it.
    targets : Targets, optional
        Limits to draw.
    rates_per_s : sequence of float, optional
        Rates to mark; the curve's own workload by default.
    """
    axes = _axes(ax, (4.6, 3.6))
    lines = [
        ("ttft_p99_s", "time to first token, 99 %", ORANGE, "-"),
        ("ttft_mean_s", "time to first token, mean", GREEN, "-."),
        ("itl_s", "inter-token latency", BLUE, "--"),
    ]
    for name, label, colour, style in lines:
        axes.plot(curve.rate_per_s, getattr(curve, name), color=colour, linestyle=style, label=label)
        limit = None if targets is None else getattr(targets, name)
        if limit is not None:
            axes.axhline(limit, color=colour, linestyle=":", linewidth=1.5)
            axes.annotate(
                f"target {seconds(limit)}",
                (0.02, limit),
                xycoords=axes.get_yaxis_transform(),
                xytext=(0, 2),
                textcoords="offset points",
                fontsize=9,
            )
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: seconds(value))
    _over_rates(axes, curve, rates_per_s)
    return axes


def kv_curve(curve: RateCurve, ax: Axes | None = None, *, rates_per_s: Sequence[float] | None = None) -> Axes:
    """KV cache in use against the rate, mean and two standard deviations, of the fullest pool.

    Parameters
    ----------
    curve : RateCurve
        From `rate_curve`.
    ax : Axes, optional
        Where to draw; a new figure without it.
    rates_per_s : sequence of float, optional
        Rates to mark; the curve's own workload by default.
    """
    axes = _axes(ax, (4.6, 3.2))
    mean, spread = 100 * curve.kv_occupancy, 200 * curve.kv_occupancy_std
    axes.fill_between(
        curve.rate_per_s,
        np.maximum(mean - spread, 0),
        np.minimum(mean + spread, 100),
        color=BLUE,
        alpha=0.25,
        linewidth=0,
        label="2 standard deviations",
    )
    axes.plot(curve.rate_per_s, mean, color=BLUE, label="mean")
    axes.axhline(100, color="black", linestyle="--", linewidth=1)
    axes.set_ylim(0, 108)
    axes.set_ylabel("KV cache in use, %")
    _over_rates(axes, curve, rates_per_s)
    return axes


def lever_bars(report: StabilityReport, levers: Sequence[Lever], ax: Axes | None = None) -> Axes:
    """Capacity of the fleet as it is and after single changes, against the rate.

    Parameters
    ----------
    report : StabilityReport
        From `analyze`.
    levers : sequence of Lever
        From `levers`, best first.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    names = ["as it is", *(lever.change for lever in levers)]
    values = [report.capacity_per_s, *(lever.capacity_per_s for lever in levers)]
    axes = _axes(ax, (4.6, 1.2 + 0.34 * len(names)))
    bars = axes.barh(names, values, color=[GREY, *[BLUE] * len(levers)], height=0.65)
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}  # the line of the rate may run behind
    axes.bar_label(bars, [f"{value:.4g}" for value in values], padding=3, fontsize=8, bbox=paper)
    axes.axvline(
        report.rate_per_s, color="black", linewidth=1.2, linestyle="--", label=f"rate, {report.rate_per_s:.4g}/s"
    )
    axes.invert_yaxis()
    axes.set_xlim(0, 1.18 * max(*values, report.rate_per_s))
    axes.set_xlabel("capacity, requests/s")
    legend_below(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return axes


def _over_rates(axes: Axes, curve: RateCurve, rates_per_s: Sequence[float] | None) -> None:
    marks = [curve.report.rate_per_s] if rates_per_s is None else list(rates_per_s)
    capacity = curve.report.capacity_per_s
    axes.axvline(capacity, color=RED, linewidth=1.2, label="capacity")
    for mark in marks:
        axes.axvline(mark, color="black", linewidth=1, linestyle="--")
        near = mark > 0.8 * max(capacity, *marks)
        axes.annotate(
            f"{mark:.4g}/s",
            (mark, 0.97),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-3 if near else 3, 0),
            textcoords="offset points",
            ha="right" if near else "left",
            va="top",
            fontsize=9,
        )
    axes.set_xlim(0, (1 + FREE / 2) * max(capacity, *marks))
    axes.set_xlabel("requests/s")
    axes.grid(alpha=0.25)
    legend_below(axes)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def legend_below(axes: Axes, *, columns: int = 2) -> None:
    """The legend of `axes`, if anything has a label, under its label, where it covers nothing, whatever the height of the axes.

    Parameters
    ----------
    axes : Axes
        Its legend is replaced; one that has nothing to name gets none.
    columns : int
        Of the legend.
    """
    from matplotlib.transforms import ScaledTranslation

    if not axes.get_legend_handles_labels()[0]:
        return
    figure = axes.figure
    drop = ScaledTranslation(0, -LABEL_INCHES if axes.get_xlabel() else -LABEL_INCHES / 2, figure.dpi_scale_trans)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        bbox_transform=axes.transAxes + drop,
        borderaxespad=0.0,
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()
