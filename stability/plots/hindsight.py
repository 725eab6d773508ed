"""KV held over the rounds of a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, BLUE, axes_of, legend_above, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.hindsight import HindsightBound


@styled
def plot_hindsight(found: HindsightBound, ax: Axes | None = None) -> Axes:
    """KV held over the rounds, against the capacity.

    Parameters
    ----------
    found : HindsightBound
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    ax = axes_of(ax, 6.4, 3.2)
    held = found.memory_tokens
    name = "optimum" if found.method == "exact" else "shortest outputs first"
    ax.fill_between(np.arange(len(held)), held, step="mid", color=BLUE, alpha=0.15, linewidth=0)
    ax.step(np.arange(len(held)), held, where="mid", color=BLUE, label=name)
    ax.axhline(found.kv_capacity_tokens, color=BLACK, linewidth=1, label="capacity")
    ax.set_xlabel("round")
    ax.set_ylabel("KV, tokens")
    ax.set_ylim(0, 1.15 * found.kv_capacity_tokens)
    legend_above(ax)
    return ax
