"""Pictures of recorded metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._types import FloatArray
from .style import BLUE, GREEN, ORANGE, PURPLE, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@styled
def plot_metrics(
    time_s: FloatArray,
    *,
    running: FloatArray,
    waiting: FloatArray,
    kv_occupancy: FloatArray,
    arrivals_per_s: FloatArray,
    completions_per_s: FloatArray,
    ax: Axes | None = None,
) -> Axes:
    """Requests running and waiting over time; without `ax` also rates and KV in panels below.

    Parameters
    ----------
    time_s : (n,) array
        Instants of the scrapes, s.
    running, waiting, kv_occupancy : (n,) array
        State at those instants.
    arrivals_per_s, completions_per_s : (n - 1,) array
        Rates between them.
    ax : Axes, optional
        Where to draw the requests; a new figure of three panels without it.
    """
    time_s = time_s - time_s[0]
    if ax is None:
        panels = new_figure(7.0, 6.4).subplots(3, 1, sharex=True)
        ax, rates, kv = panels
        rates.step(time_s[1:], arrivals_per_s, where="pre", color=ORANGE, label="arrivals")
        rates.step(time_s[1:], completions_per_s, where="pre", color=GREEN, label="completed")
        rates.set_ylabel("requests/s")
        rates.legend()
        kv.plot(time_s, 100 * kv_occupancy, color=PURPLE)
        kv.set_ylabel("KV in use, %")
        kv.set_xlabel("time, s")
    else:
        ax.set_xlabel("time, s")
    ax.plot(time_s, running, color=PURPLE, label="running")
    ax.plot(time_s, waiting, color=BLUE, label="waiting")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
