"""A watched server over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..plots.style import BLUE, ORANGE, PURPLE, axes_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .result import WatchReport


@styled
def plot_watch(report: WatchReport, ax: Axes | None = None) -> Axes:
    """Requests running and waiting over time, and when overload was called.

    Parameters
    ----------
    report : WatchReport
        What was watched.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    ax = axes_of(ax, 7.0, 4.0)
    time_s = [point.time_s - report.begun_s for point in report.points]
    ax.plot(time_s, [point.running for point in report.points], color=PURPLE, label="running")
    ax.plot(time_s, [point.waiting for point in report.points], color=BLUE, label="waiting")
    for k, item in enumerate(report.overloads):
        called_s = item.called_s - report.begun_s
        ax.axvline(called_s, color=ORANGE, linestyle="--", label="" if k else "overload called")
        end_s = (report.ended_s if item.ended_s is None else item.ended_s) - report.begun_s
        ax.axvspan(called_s, end_s, color=ORANGE, alpha=0.12, linewidth=0)
    ax.set_xlabel("time, s")
    ax.set_ylabel("requests")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
