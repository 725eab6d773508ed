"""Pictures of fluid paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .style import BLUE, GREEN, ORANGE, PURPLE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..theory.fluid.path import FluidPath


def time_unit(until_s: float) -> tuple[str, float]:
    """Unit of a time axis up to `until_s`, and its length in s: hours from three of them on.

    Examples
    --------
    >>> time_unit(600.0), time_unit(86_400.0)
    (('s', 1.0), ('h', 3600.0))
    """
    return ("h", 3600.0) if until_s >= 3 * 3600 else ("s", 1.0)


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
    name, unit_s = time_unit(float(path.time_s[-1]))
    time = path.time_s / unit_s
    alone = ax is not None
    if ax is None:
        panels = new_figure(7.0, 8.0).subplots(4, 1, sharex=True)
        ax, rates, kv, iteration = panels
        rates.plot(time[1:], path.arrivals_per_s[1:].sum(axis=1), color=ORANGE, label="arrivals")
        rates.plot(time[1:], path.throughput_per_s[1:].sum(axis=1), color=GREEN, label="completed")
        rates.set_ylabel("requests/s")
        rates.set_ylim(bottom=0)
        _legend_above(rates)
        for i, pool in enumerate(path.pools):
            up = path.alive[:, i] > 0  # a pool that is down has a gap
            kv.plot(time, np.where(up, 100 * path.kv_share[:, i], np.nan), label=pool)
            iteration.plot(time, np.where(up, 1e3 * path.iteration_s[:, i], np.nan), label=pool)
        kv.set_ylabel("KV in use, %")
        kv.set_ylim(0, 105)
        iteration.set_ylabel("iteration, ms")
        iteration.set_ylim(bottom=0)
        iteration.set_xlabel(f"time, {name}")
        if len(path.pools) > 1:
            _legend_above(kv)
    else:
        ax.set_xlabel(f"time, {name}")
    ax.plot(time, path.backlog, color=BLUE, label="waiting, two standard deviations")
    low, high = (np.maximum(path.backlog + 2 * sign * path.backlog_std, 0.0) for sign in (-1, 1))
    ax.fill_between(time, low, high, color=BLUE, alpha=0.2, linewidth=0)
    ax.plot(time, path.running.sum(axis=1), color=PURPLE, label="running")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    if alone:
        ax.legend()
    else:
        _legend_above(ax)
    return ax


def _legend_above(axes: Axes) -> None:
    """A legend over the panel, where it covers no line."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, borderaxespad=0.2)
