"""Routers side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .style import BLUE, GREY, ORANGE, axes_of, bars_only, legend_above, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..sim.routers import RouterComparison


@styled
def plot_routers(found: RouterComparison, ax: Axes | None = None) -> Axes:
    """Time to first token of each router, mean and 99 %, on a logarithmic axis; hollow where the queue grew.

    Parameters
    ----------
    found : RouterComparison
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    from matplotlib.ticker import LogLocator

    ax = axes_of(ax, 6.4, 1.2 + 0.34 * len(found.outcomes))
    for row, outcome in enumerate(found.outcomes):
        mean, tail = outcome.ttft_mean_s, outcome.ttft_p99_s
        first = row == 0
        fill = "white" if outcome.overloaded else None
        ax.plot((mean, tail), (row, row), color=GREY, linestyle="-", linewidth=1.2, zorder=1)
        ax.plot(mean, row, "o", color=BLUE, markerfacecolor=fill or BLUE, label="mean" if first else None)
        ax.plot(tail, row, "D", color=ORANGE, markerfacecolor=fill or ORANGE, label="99 %" if first else None)
        ax.annotate(f"  {tail:.3g} s", (tail, row), va="center", fontsize=8.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.set_yticks(range(len(found.outcomes)), [outcome.router for outcome in found.outcomes])
    ax.set_ylim(len(found.outcomes) - 0.5, -0.5)
    ax.margins(x=0.15)
    ax.set_xlabel("time to first token, s")
    bars_only(ax)
    legend_above(ax)
    return ax
