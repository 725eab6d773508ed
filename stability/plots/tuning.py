"""Capacity against the KV kept free at admission: what headroom costs and what it saves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, BLUE, GREEN, ORANGE, axes_of, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.tuned import PoolTuning


@styled
def plot_tuning(tuning: PoolTuning, ax: Axes | None = None) -> Axes:
    """Capacity of a pool against its watermark, with both branches and marks at the present and recommended settings.

    Parameters
    ----------
    tuning : PoolTuning
        Of one pool.
    ax : Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    Axes
    """
    ax = axes_of(ax, 7.0, 5.0)
    curve = tuning.sensitivity
    share = 100 * curve.watermark
    ax.plot(
        share, curve.memory_branch_per_s, color=ORANGE, linestyle="--", label="memory branch: if eviction cost nothing"
    )
    ax.plot(
        share,
        curve.eviction_branch_per_s,
        color=GREEN,
        linestyle="-.",
        label="eviction branch: if headroom cost nothing",
    )
    ax.plot(share, curve.capacity_per_s, color=BLUE, linestyle="-", linewidth=2.2, label="capacity")
    marks = [(tuning.now, "s", BLACK, "present"), (tuning.then, "*", BLUE, "recommended")]
    for setting, marker, colour, name in marks:
        engine = setting.engine
        ax.plot(
            100 * engine.watermark,
            setting.capacity_per_s,
            marker=marker,
            markersize=14 if marker == "*" else 8,
            markerfacecolor="white" if marker == "s" else colour,
            markeredgecolor=colour,
            linestyle="none",
            zorder=5,
            label=f"{name}: {engine.watermark:g}, {engine.max_num_seqs} slots, {engine.admission}",
        )
    ax.set_xlabel("KV kept free at admission, % of the cache (watermark x 100)")
    ax.set_ylabel("capacity of the pool, requests/s")
    standing = "approximate" if tuning.standing == "approximate" else "within the validated regime"
    ax.set_title(f"{tuning.pool}: {100 * tuning.gain:+.1f} % ({standing})")
    _frame(ax, tuning, share)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, frameon=False)
    return ax


@styled
def plot_tunings(tunings: Sequence[PoolTuning]) -> Axes:
    """A figure with a panel per pool.

    Returns
    -------
    Axes
        Of the first pool; its figure holds all.
    """
    panels = new_figure(7.0, 5.0 * len(tunings)).subplots(len(tunings), squeeze=False)[:, 0]
    for tuning, panel in zip(tunings, panels, strict=True):
        plot_tuning(tuning, panel)
    first: Axes = panels[0]
    return first


def _frame(ax: Axes, tuning: PoolTuning, share: np.ndarray) -> None:
    """Limits that show the optimum: from the lowest mark or capacity near it to the ideal."""
    curve = tuning.sensitivity
    shown = [curve.capacity_per_s[0], tuning.now.capacity_per_s, tuning.then.capacity_per_s]
    top = max(float(curve.memory_branch_per_s.max()), *map(float, shown))
    low = min(float(curve.capacity_per_s.min()), *map(float, shown))
    pad = max(0.08 * (top - low), 0.005 * top)
    ax.set_ylim(low - pad, top + pad)
    ax.set_xlim(-0.02 * share[-1], share[-1])
