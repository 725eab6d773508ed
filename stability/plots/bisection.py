"""Rates tried by a bisection, with their verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, VERDICT_COLOURS, VERDICT_MARKERS, axes_of, legend_above, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..sim.bisection import BisectedCapacity


@styled
def plot_bisection(found: BisectedCapacity, ax: Axes | None = None) -> Axes:
    """Each rate that was tried, in order, with its verdict; the bracket of the capacity as a band.

    Parameters
    ----------
    found : BisectedCapacity
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    ax = axes_of(ax, 6.4, 3.4)
    ends = (found.stable_per_s, found.unstable_per_s)
    if all(np.isfinite(ends)):
        ax.axhspan(*ends, color=BLACK, alpha=0.12, linewidth=0, label="capacity lies here")
    for verdict, colour in VERDICT_COLOURS.items():
        tried = [(i, t.rate_per_s) for i, t in enumerate(found.trials, 1) if str(t.verdict) == verdict]
        if tried:
            places, rates = zip(*tried, strict=True)
            marker = VERDICT_MARKERS[verdict]
            ax.plot(places, rates, marker, color=colour, markersize=8, label=verdict.lower())
    ax.set_xticks(range(1, len(found.trials) + 1))
    ax.set_xlabel("trial")
    ax.set_ylabel("requests/s")
    legend_above(ax)
    return ax
