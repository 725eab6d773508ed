"""Schedulers side by side: means with confidence intervals, a panel per metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..compare.result import METRICS
from .style import BLUE, GREY, bars_only, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..compare.result import SchedulerComparison


@styled
def plot_metric(result: SchedulerComparison, metric: str, ax: Axes) -> Axes:
    """One metric of every scheduler: mean and confidence interval, hollow where the queue grew.

    Parameters
    ----------
    result : SchedulerComparison
    metric : str
        Of `METRICS`.
    ax : Axes
        Where to draw.
    """
    title, scale, unit = METRICS[metric]
    for row, outcome in enumerate(result.outcomes):
        mean = scale * float(np.mean(outcome.samples[metric]))
        half = scale * outcome.intervals[metric].half_width
        colour = GREY if outcome.overloaded else BLUE
        ax.errorbar(
            mean,
            row,
            xerr=half if np.isfinite(half) else None,
            fmt="o",
            color=colour,
            markerfacecolor="white" if outcome.overloaded else colour,
            capsize=3,
        )
    if metric == "latency_mean_s" and result.hindsight_s is not None:
        ax.axvline(scale * result.hindsight_s, color="black", linestyle="--", linewidth=1)
        ax.set_title("dashed: no scheduler below", fontsize=8)
    ax.set_yticks(range(len(result.outcomes)), [outcome.name for outcome in result.outcomes])
    ax.set_ylim(len(result.outcomes) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"{title}, {unit}")
    bars_only(ax)
    return ax


@styled
def plot_schedulers(result: SchedulerComparison) -> Axes:
    """A figure with a panel per metric.

    Returns
    -------
    Axes
        Of the first panel; its figure holds all.
    """
    height = 1.2 + 0.28 * len(result.outcomes)
    figure = new_figure(12.0, 2 * height)
    panels = figure.subplots(2, len(METRICS) // 2, sharey=True)
    for metric, panel in zip(METRICS, panels.flat, strict=True):
        plot_metric(result, metric, panel)
    figure.suptitle(
        f"{result.replications} x {result.requests} requests at {result.rate_per_s:.4g}/s; intervals at "
        f"{100 * result.level:g} %; hollow: the queue grew",
        fontsize=10,
        x=0.01,
        ha="left",
    )
    first: Axes = panels.flat[0]
    return first
