"""Pictures of capacity regions, splits and admission plans."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.admission import AdmissionPlan
    from ..control.region import CapacityRegion
    from ..control.split import OptimalSplit

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Okabe-Ito colours, told apart by readers with colour vision deficiency."""


def region_plot(region: CapacityRegion, ax: Axes | None = None) -> Axes:
    """The region in the plane of the two busiest classes, with the workload and the boundary in its direction; one class: loads there.

    Parameters
    ----------
    region : CapacityRegion
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    axes = _axes(ax, (5.6, 4.4))
    busy = np.argsort(-region.rates_per_s, kind="stable")
    if len(busy) < 2 or not region.rates_per_s[busy[1]] > 0:
        names = [pool.name for pool in region.pools]
        axes.barh(names, [pool.load for pool in region.pools], color=COLOURS[0])
        axes.axvline(1.0, color="black", linewidth=1)
        axes.set_xlabel(f"load at the boundary, {region.rate_per_s:.4g} requests/s")
        axes.invert_yaxis()
        return axes
    first, second = sorted(int(k) for k in busy[:2])
    others = 1.0 if region.factor > 1 else 0.0
    corners = region.slice(region.classes[first], region.classes[second], others=others)
    axes.fill(corners[:, 0], corners[:, 1], color=COLOURS[0], alpha=0.15)
    axes.plot(*np.vstack([corners, corners[:1]]).T, color=COLOURS[0], label=f"region ({region.kind})")
    now = region.rates_per_s[[first, second]]
    axes.plot(*now, "o", color=COLOURS[5], label="workload")
    if len(region.classes) == 2:
        edge = region.factor * now
        axes.plot([0, edge[0]], [0, edge[1]], color=COLOURS[7], linewidth=1, linestyle="--")
        axes.plot(*edge, "x", color="black", label=f"workload times {region.factor:.3f}")
    else:
        axes.set_title(f"other classes at {others:g} times their rates", fontsize=9)
    axes.set_xlabel(f"{region.classes[first]}, requests/s")
    axes.set_ylabel(f"{region.classes[second]}, requests/s")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return axes


def split_bars(split: OptimalSplit, ax: Axes | None = None) -> Axes:
    """Rate of each class in each pool as stacked bars.

    Parameters
    ----------
    split : OptimalSplit
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    axes = _axes(ax, (6.4, 1.4 + 0.5 * len(split.pools)))
    left = np.zeros(len(split.pools))
    names = [pool.name for pool in split.pools]
    for k, name in enumerate(split.classes):
        rates = split.shares[:, k] * split.rates_per_s[k]
        axes.barh(names, rates, left=left, color=COLOURS[k % len(COLOURS)], label=name)
        left += rates
    for row, pool in enumerate(split.pools):
        axes.annotate(f" load {pool.load:.2f}", (float(left[row]), row), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("requests/s")
    axes.margins(x=0.15)
    axes.legend(frameon=False, fontsize=8)
    return axes


def admission_bars(plan: AdmissionPlan, ax: Axes | None = None) -> Axes:
    """Offered and admitted rate of each class.

    Parameters
    ----------
    plan : AdmissionPlan
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    axes = _axes(ax, (6.4, 1.4 + 0.5 * len(plan.classes)))
    names = [f"{item.name} (value {item.value:.3g}, bid {item.bid_price:.3g})" for item in plan.classes]
    axes.barh(names, [item.rate_per_s for item in plan.classes], color=COLOURS[7], alpha=0.4, label="offered")
    axes.barh(names, [item.admitted_per_s for item in plan.classes], color=COLOURS[0], height=0.5, label="admitted")
    axes.invert_yaxis()
    axes.set_xlabel("requests/s")
    axes.legend(frameon=False, fontsize=8)
    return axes


def _axes(ax: Axes | None, size: tuple[float, float]) -> Axes:
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained").subplots()
