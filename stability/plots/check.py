"""Pictures of a check: loads, and what would change them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .report import load_bars
from .style import BLACK, VERDICT_COLOURS, bars_only, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..theory.check import CheckResult


@styled
def plot_check(found: CheckResult, ax: Axes | None = None) -> Axes:
    """Load of each resource in each pool; without `ax` also the capacity under each single change, in a panel below.

    Parameters
    ----------
    found : CheckResult
        What to draw.
    ax : Axes, optional
        Where to draw the loads; a new figure without it.
    """
    pools = [(pool.name, pool.loads) for pool in found.report.pools]
    if ax is not None or not found.levers:
        return load_bars(pools, ax)
    heights = (0.9 + 1.5 * len(pools), 1.2 + 0.35 * len(found.levers))
    ax, below = new_figure(7.0, sum(heights)).subplots(2, 1, height_ratios=heights)
    load_bars(pools, ax)
    changes = [("as it is", found.report.capacity_per_s, found.verdict)]
    changes += [(lever.change, lever.capacity_per_s, lever.verdict) for lever in found.levers]
    names, capacities, verdicts = zip(*changes, strict=True)
    bars = below.barh(names, capacities, 0.7, color=[VERDICT_COLOURS[str(verdict)] for verdict in verdicts])
    texts = [f"{c:.4g}/s, {str(v).lower()}" for c, v in zip(capacities, verdicts, strict=True)]
    below.bar_label(bars, texts, padding=4, fontsize=8.5)
    below.axvline(found.report.rate_per_s, color=BLACK, linewidth=1.2)
    below.invert_yaxis()
    below.margins(x=0.3)
    below.set_xlabel("capacity, requests/s (line: the rate)")
    bars_only(below)
    return ax
