"""Pictures of fluid paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREEN, ORANGE, PURPLE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..theory.fluid.path import FluidPath


@styled
def plot_path(path: FluidPath, ax: Axes | None = None) -> Axes:
    """Backlog and requests running over time; without `ax` also rates, KV and iteration time in panels below.

    Parameters
    ----------
    path : FluidPath
        A fleet over time.
    ax : Axes, optional
        Where to draw the requests; a new figure of four panels without it.
    """
    time = path.time_s
    if ax is None:
        panels = new_figure(7.0, 8.0).subplots(4, 1, sharex=True)
        ax, rates, kv, iteration = panels
        rates.plot(time[1:], path.arrivals_per_s[1:].sum(axis=1), color=ORANGE, label="arrivals")
        rates.plot(time[1:], path.throughput_per_s[1:].sum(axis=1), color=GREEN, label="completed")
        rates.set_ylabel("requests/s")
        rates.set_ylim(bottom=0)
        rates.legend()
        for i, name in enumerate(path.pools):
            kv.plot(time, 100 * path.kv_share[:, i], label=name)
            iteration.plot(time, 1e3 * path.iteration_s[:, i], label=name)
        kv.set_ylabel("KV in use, %")
        kv.set_ylim(0, 105)
        iteration.set_ylabel("iteration, ms")
        iteration.set_ylim(bottom=0)
        iteration.set_xlabel("time, s")
        if len(path.pools) > 1:
            kv.legend()
    else:
        ax.set_xlabel("time, s")
    ax.plot(time, path.backlog, color=BLUE, label="waiting, two standard deviations")
    low, high = (np.maximum(path.backlog + 2 * sign * path.backlog_std, 0.0) for sign in (-1, 1))
    ax.fill_between(time, low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(time, path.running.sum(axis=1), color=PURPLE, label="running")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
