"""Capacity of a disaggregated fleet against the division of its GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .style import BLACK, BLUE, ORANGE, axes_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..control.disaggregated import Disaggregation


@styled
def plot_disaggregation(found: Disaggregation, ax: Axes | None = None) -> Axes:
    """Rate against prefill replicas, with the colocated rate as a line.

    Parameters
    ----------
    found : Disaggregation
        What to draw.
    ax : Axes, optional
        Where to draw; a new figure without it.
    """
    ax = axes_of(ax, 6.4, 3.8)
    prefill = found.splits[:, 0]
    ax.plot(prefill, found.split_capacities_per_s, ".-", color=BLUE, label="disaggregated, capacity")
    ax.axhline(found.colocated_capacity_per_s, color=ORANGE, label="colocated, capacity")
    if found.itl_target_s is not None:
        target = f"ITL <= {1e3 * found.itl_target_s:.3g} ms"
        ax.plot(prefill, found.split_within_itl_per_s, ".--", color=BLUE, label=f"disaggregated, {target}")
        ax.axhline(found.colocated_within_itl_per_s, color=ORANGE, linestyle="--", label=f"colocated, {target}")
    ax.axhline(found.rate_per_s, color=BLACK, linewidth=0.8, linestyle=":", label="rate")
    ax.set_xlabel(f"prefill replicas, of {found.gpus} GPUs")
    ax.set_ylabel("requests/s")
    ax.set_ylim(bottom=0)
    ax.legend()
    return ax
