"""A simulated run over time: requests, KV occupancy and step time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError
from .style import BLUE, GREEN, PURPLE, RED, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..sim.result import SimulationResult


@styled
def plot_simulation(result: SimulationResult, ax: Axes | None = None) -> Axes:
    """Requests running and waiting over time; without `ax` also KV tokens and the step time in panels below.

    Parameters
    ----------
    result : SimulationResult
        Simulated with `resolution_s`.
    ax : matplotlib Axes, optional
        Where to draw the requests; a new figure of three panels by default.

    Returns
    -------
    Axes
        The axes with the requests.
    """
    series = result.series
    if not series:
        raise InputError("the result holds no time series, must have one to plot. Simulate with resolution_s=1.0, say.")
    time_s = series["time_s"]
    if ax is None:
        ax, kv, step = new_figure(7.0, 6.4).subplots(3, 1, sharex=True)
        kv.plot(time_s, series["kv_tokens"] / 1e3, color=GREEN, linewidth=1.2)
        kv.set_ylabel("KV held,\nthousand tokens")
        kv.set_ylim(bottom=0)
        step.plot(time_s, 1e3 * series["iteration_s"], color=PURPLE, linewidth=1.2)
        step.set_ylabel("iteration, ms")
        step.set_ylim(bottom=0)
        step.set_xlabel("time, s")
    else:
        ax.set_xlabel("time, s")
    ax.plot(time_s, series["running"], color=BLUE, linestyle="-", label="running")
    ax.plot(time_s, series["waiting"], color=RED, linestyle="--", label="waiting")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
