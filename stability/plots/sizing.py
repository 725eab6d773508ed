"""Pictures of sized fleets and of cost fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from ..errors import InputError
from .style import BLACK, BLUE, COLOURS, HATCHES, axes_of, bars_only, legend_above, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.front import CostFront
    from ..control.sized import SizedFleet


@styled
def plot_sized_fleet(sized: SizedFleet, ax: Axes | None = None) -> Axes:
    """Cost per hour of each pool: stacked over a rate schedule, bars otherwise.

    Parameters
    ----------
    sized : SizedFleet
        With a fleet.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    if not sized.feasible:
        raise InputError(f"there is no fleet to draw: {sized.reason}")
    used = np.flatnonzero(sized.replicas.sum(axis=0)).tolist()
    scheduled = bool(sized.start_s.any())
    ax = axes_of(ax, 6.4, 3.6 if scheduled else 1.0 + 0.5 * len(used))
    prices = np.array([float(sized.candidates[i].replica.price_per_hour or 0.0) for i in used])
    costs = sized.replicas[:, used] * prices
    names = [sized.candidates[i].name for i in used]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(used))]
    if scheduled:
        hours = sized.start_s / 3600
        edges = np.append(hours, sized.end_s / 3600)
        rates = sized.rates_per_s.sum(axis=(1, 2))
        stacked = np.vstack([costs, costs[-1:]]).T
        areas = ax.stackplot(edges, stacked, step="post", colors=colours, labels=names, edgecolor="white")
        for i, area in enumerate(areas):
            area.set_hatch(HATCHES[i % len(HATCHES)])
        ax.set_xlabel("time, h")
        ax.set_ylabel("cost per hour")
        ax.set_ylim(0, 1.1 * float(costs.sum(axis=1).max()))
        right = ax.twinx()
        right.step(edges, np.append(rates, rates[-1]), where="post", color=BLACK, linewidth=1)
        right.set_ylabel("requests/s (line)")
        right.set_ylim(0, 1.1 * float(rates.max()))
        ax.set_xlim(0, float(edges[-1]))
        right.grid(visible=False)
        legend_above(ax)
        return ax
    top = costs.max(axis=0)
    counts = sized.replicas[:, used].max(axis=0)
    bars = ax.barh(names, top, 0.7, color=colours)
    ax.bar_label(bars, [f"{n} at {p:.4g}" for n, p in zip(counts.tolist(), prices.tolist(), strict=True)], padding=3)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * max(float(top.max()), 1e-9))
    ax.set_xlabel("cost per hour")
    bars_only(ax)
    return ax


@styled
def plot_cost_front(front: CostFront, ax: Axes | None = None) -> Axes:
    """Cost per hour against what it buys, as a staircase through the fleets.

    Parameters
    ----------
    front : CostFront
        With a fleet or more.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    points = [(value, fleet) for value, fleet in zip(front.values, front.fleets, strict=True) if fleet.feasible]
    if not points:
        raise InputError("the front holds no fleet, must hold one to be drawn. Ask for less.")
    ax = axes_of(ax, 6.4, 3.8)
    scale, label = (100.0, "headroom, %") if front.against == "headroom" else (1e3, "inter-token latency target, ms")
    found = [value * scale for value, _ in points]
    costs = [fleet.cost_per_hour for _, fleet in points]
    # A fleet for a stricter target also meets looser ones: between points the cost is the stricter one's.
    where: Literal["pre", "post"] = "pre" if front.against == "headroom" else "post"
    ax.fill_between(found, costs, step=where, color=BLUE, alpha=0.1, linewidth=0)
    ax.step(found, costs, where=where, color=BLUE)
    ax.plot(found, costs, "o", color=BLUE)
    ax.set_xlabel(label)
    ax.set_ylabel("cost per hour")
    ax.set_ylim(0, 1.15 * max(costs))
    return ax
