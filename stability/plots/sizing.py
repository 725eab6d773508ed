"""Pictures of sized fleets and of cost fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.front import CostFront
    from ..control.sized import SizedFleet

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999")
"""Okabe-Ito colours, told apart by readers with colour vision deficiency."""


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
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6.4, 3.6), layout="constrained").subplots()
    used = np.flatnonzero(sized.replicas.sum(axis=0)).tolist()
    prices = np.array([float(sized.candidates[i].replica.price_per_hour or 0.0) for i in used])
    costs = sized.replicas[:, used] * prices
    names = [sized.candidates[i].name for i in used]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(used))]
    if sized.start_s.any():
        hours = sized.start_s / 3600
        edges = np.append(hours, sized.end_s / 3600)
        rates = sized.rates_per_s.sum(axis=(1, 2))
        stacked = np.vstack([costs, costs[-1:]]).T
        ax.stackplot(edges, stacked, step="post", colors=colours, labels=names)
        ax.set_xlabel("time, h")
        ax.set_ylabel("cost per hour")
        ax.set_ylim(0, 1.1 * float(costs.sum(axis=1).max()))
        right = ax.twinx()
        right.step(edges, np.append(rates, rates[-1]), where="post", color="black", linewidth=1)
        right.set_ylabel("requests/s (line)")
        right.set_ylim(0, 1.1 * float(rates.max()))
        ax.set_xlim(0, float(edges[-1]))
        ax.legend(loc="lower left", fontsize=8)
        return ax
    top = costs.max(axis=0)
    counts = sized.replicas[:, used].max(axis=0)
    bars = ax.barh(names, top, color=colours)
    ax.bar_label(bars, [f"{n} at {p:.4g}" for n, p in zip(counts.tolist(), prices.tolist(), strict=True)], padding=3)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.25 * max(float(top.max()), 1e-9))
    ax.set_xlabel("cost per hour")
    return ax


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
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6.4, 3.8), layout="constrained").subplots()
    scale, label = (100.0, "headroom, %") if front.against == "headroom" else (1e3, "inter-token latency target, ms")
    found = [value * scale for value, _ in points]
    costs = [fleet.cost_per_hour for _, fleet in points]
    # A fleet for a stricter target also meets looser ones: between points the cost is the stricter one's.
    ax.step(found, costs, where="pre" if front.against == "headroom" else "post", color=COLOURS[0])
    ax.plot(found, costs, "o", color=COLOURS[0])
    ax.set_xlabel(label)
    ax.set_ylabel("cost per hour")
    ax.set_ylim(0, 1.15 * max(costs))
    return ax
