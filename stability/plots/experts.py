"""Load of the GPUs of an expert-parallel group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.experts import ExpertBalance


def plot_expert_balance(found: ExpertBalance, ax: Axes | None = None) -> Axes:
    """Load of each GPU over the mean, as bars.

    Parameters
    ----------
    found : ExpertBalance
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6.4, 3.2), layout="constrained").subplots()
    loads = found.gpu_loads
    ax.bar(np.arange(len(loads)), loads, color="#0072B2", label="balanced")
    ax.axhline(1.0, color="black", linewidth=1)
    ax.axhline(found.even_imbalance, color="#E69F00", linestyle="--", label="most loaded, copies used evenly")
    ax.set_xlabel("GPU")
    ax.set_ylabel("load over the mean")
    ax.set_ylim(0, 1.15 * max(float(loads.max()), found.even_imbalance))
    ax.legend(fontsize=8, framealpha=1, loc="lower right")
    return ax
