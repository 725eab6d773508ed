"""Pictures of stability reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"kv_memory": "#0072B2", "batch_slots": "#E69F00", "token_budget": "#009E73", "compute": "#999999"}
"""Okabe-Ito colours, told apart by readers with colour vision deficiency."""


def load_bars(pools: Sequence[tuple[str, Mapping[str, float]]], ax: Axes | None = None) -> Axes:
    """Load of each resource in each pool, against the limit 1.

    Parameters
    ----------
    pools : sequence of (name, loads)
        Loads by resource name, as in `PoolReport.loads`.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6.4, 1.2 + 0.9 * len(pools)), layout="constrained").subplots()
    height = 0.8 / len(COLOURS)
    for offset, (resource, colour) in enumerate(COLOURS.items()):
        places = [row + (offset - (len(COLOURS) - 1) / 2) * height for row in range(len(pools))]
        bars = ax.barh(places, [loads[resource] for _, loads in pools], height * 0.9, color=colour, label=resource)
        ax.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    ax.axvline(1.0, color="black", linewidth=1)
    ax.set_yticks(range(len(pools)), [name for name, _ in pools])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.15 * max(1.0, *(value for _, loads in pools for value in loads.values())))
    ax.set_xlabel("load (1 = capacity)")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), ncols=len(COLOURS), frameon=False, fontsize=8)
    return ax
