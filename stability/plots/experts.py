"""Load of the GPUs of an expert-parallel group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, BLUE, ORANGE, axes_of, bars_only, legend_above, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.experts import ExpertBalance


@styled
def plot_expert_balance(found: ExpertBalance, ax: Axes | None = None) -> Axes:
    """Load of each GPU over the mean, as bars.

    Parameters
    ----------
    found : ExpertBalance
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    ax = axes_of(ax, 6.4, 3.2)
    loads = found.gpu_loads
    ax.bar(np.arange(len(loads)), loads, color=BLUE, label="balanced")
    ax.axhline(1.0, color=BLACK, linewidth=1)
    ax.axhline(found.even_imbalance, color=ORANGE, linestyle="--", label="most loaded, copies used evenly")
    ax.set_xlabel("GPU")
    ax.set_ylabel("load over the mean")
    ax.set_ylim(0, 1.15 * max(float(loads.max()), found.even_imbalance))
    bars_only(ax, "y")
    legend_above(ax)
    return ax
