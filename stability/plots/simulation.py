"""A simulated run over time: requests, KV occupancy and step time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..sim.result import SimulationResult


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
        import matplotlib.pyplot as plt

        _, (ax, kv, step) = plt.subplots(3, 1, sharex=True, figsize=(7.0, 7.0), layout="constrained")
        kv.plot(time_s, series["kv_tokens"] / 1e3, color="tab:green")
        kv.set_ylabel("KV, thousand tokens")
        step.plot(time_s, 1e3 * series["iteration_s"], color="tab:purple")
        step.set_ylabel("step time, ms")
        step.set_xlabel("time, s")
    else:
        ax.set_xlabel("time, s")
    ax.plot(time_s, series["running"], label="running")
    ax.plot(time_s, series["waiting"], label="waiting")
    ax.set_ylabel("requests")
    ax.legend()
    return ax
