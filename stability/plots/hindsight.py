"""KV held over the rounds of a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.hindsight import HindsightBound


def plot_hindsight(found: HindsightBound, ax: Axes | None = None) -> Axes:
    """KV held over the rounds, against the capacity.

    Parameters
    ----------
    found : HindsightBound
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6.4, 3.2), layout="constrained").subplots()
    held = found.memory_tokens
    name = "optimum" if found.method == "exact" else "shortest outputs first"
    ax.step(np.arange(len(held)), held, where="mid", color="#0072B2", label=name)
    ax.axhline(found.kv_capacity_tokens, color="black", linewidth=1, label="capacity")
    ax.set_xlabel("round")
    ax.set_ylabel("KV, tokens")
    ax.set_ylim(0, 1.15 * found.kv_capacity_tokens)
    ax.legend(fontsize=8, framealpha=1, loc="lower left")
    return ax
