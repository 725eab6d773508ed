"""Pictures of capacity regions, splits and admission plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, BLUE, COLOURS, GREY, HATCHES, LIGHT, RED, axes_of, bars_only, legend_above, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.admission import AdmissionPlan
    from ..control.region import CapacityRegion
    from ..control.split import OptimalSplit


@styled
def region_plot(region: CapacityRegion, ax: Axes | None = None) -> Axes:
    """The region in the plane of the two busiest classes, with the workload and the boundary in its direction; one class: loads there.

    Parameters
    ----------
    region : CapacityRegion
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    busy = np.argsort(-region.rates_per_s, kind="stable")
    if len(busy) < 2 or not region.rates_per_s[busy[1]] > 0:
        names = [pool.name for pool in region.pools]
        axes = axes_of(ax, 6.4, 1.0 + 0.45 * len(names))
        bars = axes.barh(names, [pool.load for pool in region.pools], 0.7, color=BLUE)
        axes.bar_label(bars, fmt="%.2f", padding=4, fontsize=8.5)
        axes.axvline(1.0, color=BLACK, linewidth=1.2)
        axes.set_xlim(0, 1.12 * max(1.0, *(pool.load for pool in region.pools)))
        bars_only(axes)
        axes.set_xlabel(f"load at the boundary, {region.rate_per_s:.4g} requests/s")
        axes.invert_yaxis()
        return axes
    axes = axes_of(ax, 5.6, 4.4)
    first, second = sorted(int(k) for k in busy[:2])
    others = 1.0 if region.factor > 1 else 0.0
    corners = region.slice(region.classes[first], region.classes[second], others=others)
    axes.fill(corners[:, 0], corners[:, 1], color=BLUE, alpha=0.15)
    axes.plot(*np.vstack([corners, corners[:1]]).T, color=BLUE, label=f"region ({region.kind})")
    now = region.rates_per_s[[first, second]]
    axes.plot(*now, "o", color=RED, label="workload")
    if len(region.classes) == 2:
        edge = region.factor * now
        axes.plot([0, edge[0]], [0, edge[1]], color=GREY, linewidth=1, linestyle="--")
        axes.plot(*edge, "x", color=BLACK, label=f"workload times {region.factor:.3f}")
    else:
        axes.set_title(f"other classes at {others:g} times their rates")
    axes.set_xlabel(f"{region.classes[first]}, requests/s")
    axes.set_ylabel(f"{region.classes[second]}, requests/s")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend()
    return axes


@styled
def split_bars(split: OptimalSplit, ax: Axes | None = None) -> Axes:
    """Rate of each class in each pool as stacked bars.

    Parameters
    ----------
    split : OptimalSplit
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    axes = axes_of(ax, 6.4, 1.4 + 0.5 * len(split.pools))
    left = np.zeros(len(split.pools))
    names = [pool.name for pool in split.pools]
    for k, name in enumerate(split.classes):
        rates = split.shares[:, k] * split.rates_per_s[k]
        look = k % len(COLOURS)
        axes.barh(names, rates, 0.7, left=left, color=COLOURS[look], hatch=HATCHES[look], edgecolor="white", label=name)
        left += rates
    for row, pool in enumerate(split.pools):
        axes.annotate(f" load {pool.load:.2f}", (float(left[row]), row), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("requests/s")
    axes.margins(x=0.15)
    bars_only(axes)
    legend_above(axes)
    return axes


@styled
def admission_bars(plan: AdmissionPlan, ax: Axes | None = None) -> Axes:
    """Offered and admitted rate of each class.

    Parameters
    ----------
    plan : AdmissionPlan
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    axes = axes_of(ax, 6.4, 1.4 + 0.5 * len(plan.classes))
    names = [f"{item.name} (value {item.value:.3g}, bid {item.bid_price:.3g})" for item in plan.classes]
    axes.barh(names, [item.rate_per_s for item in plan.classes], color=LIGHT, label="offered")
    axes.barh(names, [item.admitted_per_s for item in plan.classes], color=BLUE, height=0.5, label="admitted")
    axes.invert_yaxis()
    axes.set_xlabel("requests/s")
    bars_only(axes)
    legend_above(axes)
    return axes
