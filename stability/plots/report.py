"""Pictures of stability reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, RED, RESOURCE_COLOURS, RESOURCE_NAMES, axes_of, bars_only, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = 1.0
"""Space between pools, in bars."""


@styled
def load_bars(pools: Sequence[tuple[str, Mapping[str, float]]], ax: Axes | None = None) -> Axes:
    """Load of each resource in each pool, against the limit 1.

    Parameters
    ----------
    pools : sequence of (name, loads)
        Loads by resource name, as in `PoolReport.loads`.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    ax = axes_of(ax, 6.4, 0.9 + (0.3 * len(RESOURCE_COLOURS) + 0.3) * len(pools))
    ticks, labels = [], []
    for row, (name, loads) in enumerate(pools):
        top = row * (len(RESOURCE_COLOURS) + GAP)
        places = top + np.arange(len(RESOURCE_COLOURS))
        values = [loads[resource] for resource in RESOURCE_COLOURS]
        colours = list(RESOURCE_COLOURS.values())
        bars = ax.barh(places, values, 0.82, color=colours)
        for bar, value in zip(bars, values, strict=True):
            if value >= 1:
                bar.set(edgecolor=RED, linewidth=1.6, hatch="///")
        ax.bar_label(bars, fmt="%.2f", padding=4, fontsize=8.5)
        ticks += places.tolist()
        prefix = f"{name}: " if len(pools) > 1 else ""
        labels += [prefix + text if i == 0 else text for i, text in enumerate(RESOURCE_NAMES.values())]
    ax.axvline(1.0, color=BLACK, linewidth=1.2)
    ax.set_yticks(ticks, labels)
    ax.invert_yaxis()
    ax.set_xlim(0, 1.12 * max(1.0, *(value for _, loads in pools for value in loads.values())))
    ax.set_xlabel("load (1 = capacity)")
    bars_only(ax)
    return ax
