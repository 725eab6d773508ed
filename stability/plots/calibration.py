"""Fitted laws against what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .style import BLACK, BLUE, RED, axes_of, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..calibration.law_fit import LawFit
    from ..calibration.length_fit import LengthFit


@styled
def plot_residuals(fit: LawFit, ax: Axes | None = None) -> Axes:
    """How far fitted step times are from measured ones, by measured time; steps with prompt tokens apart.

    Parameters
    ----------
    fit : LawFit
        The fit.
    ax : Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    Axes
    """
    ax = axes_of(ax, 7.0, 4.5)
    residual = 100 * (fit.fitted_s / fit.time_s - 1)
    mixed = fit.prefill_tokens > 0
    kinds = (("decode only", ~mixed, "o", BLUE), ("with prompt tokens", mixed, "x", RED))
    for name, rows, marker, colour in kinds:
        if rows.any():
            ax.plot(
                1e3 * fit.time_s[rows],
                residual[rows],
                marker,
                color=colour,
                markersize=4,
                alpha=0.6,
                label=f"{name} ({int(rows.sum())})",
            )
    ax.axhline(0, color=BLACK, linewidth=1)
    ax.set_xscale("log")
    ax.set_xlabel("measured step time, ms")
    ax.set_ylabel("fitted over measured - 1, %")
    ax.set_title(f"{fit.form}: mean error {100 * fit.mape:.1f} %, median {100 * fit.median_error:.1f} %")
    ax.legend()
    return ax


@styled
def plot_lengths(fits: Mapping[str, LengthFit], ax: Axes | None = None) -> Axes:
    """Fitted distribution functions as lines, the counted ones at the bounds of the buckets as marks.

    Parameters
    ----------
    fits : mapping of str to LengthFit
        What is drawn, by name.
    ax : Axes, optional
        Where to draw; a new figure without it.

    Returns
    -------
    Axes
    """
    ax = axes_of(ax, 7.0, 4.5)
    for (name, fit), colour, marker in zip(fits.items(), (BLUE, RED), "ox", strict=False):
        finite = np.isfinite(fit.upper_bounds_tokens)
        share = np.cumsum(fit.counts) / fit.counts.sum()
        ax.plot(
            fit.law.values, np.cumsum(fit.law.probabilities), color=colour, linestyle="-", label=f"{name}: {fit.family}"
        )
        ax.plot(fit.upper_bounds_tokens[finite], share[finite], marker, color=colour, label=f"{name}: counted")
    ax.set_xscale("log")
    ax.set_xlabel("length, tokens")
    ax.set_ylabel("share of the requests up to it")
    ax.legend()
    return ax
