"""Pictures of recorded metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .fluid import BLUE, GREEN, ORANGE, PURPLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..io.metrics.series import MetricsSeries


def plot_metrics(series: MetricsSeries, ax: Axes | None = None) -> Axes:
    """Requests running and waiting over time; without `ax` also rates and KV in panels below.

    Parameters
    ----------
    series : MetricsSeries
        What was read.
    ax : Axes, optional
        Where to draw the requests; a new figure of three panels without it.
    """
    time_s = series.time_s - series.time_s[0]
    if ax is None:
        from matplotlib.figure import Figure

        panels = Figure(figsize=(7.0, 7.0), layout="constrained").subplots(3, 1, sharex=True)
        ax, rates, kv = panels
        width = np.diff(series.time_s)
        rates.step(time_s[1:], series.arrivals[1:] / width, where="pre", color=ORANGE, label="arrivals")
        rates.step(time_s[1:], np.diff(series.finished) / width, where="pre", color=GREEN, label="completed")
        rates.set_ylabel("requests/s")
        rates.legend()
        kv.plot(time_s, 100 * series.kv_occupancy, color=PURPLE)
        kv.set_ylabel("KV in use, %")
        kv.set_xlabel("time, s")
    else:
        ax.set_xlabel("time, s")
    ax.plot(time_s, series.running, color=PURPLE, label="running")
    ax.plot(time_s, series.waiting, color=BLUE, label="waiting")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
