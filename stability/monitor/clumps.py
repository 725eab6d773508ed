"""Do requests arrive in clumps? The index of dispersion of their counts, variance over mean: 1 for Poisson arrivals, d for batches of d.

The variance is half the mean square of the differences between successive counts (von Neumann), so that a rate which drifts, or
steps up once, is not taken for bursts. Slow bursts escape it likewise: those of many scrapes are changes of the rate to it.

Reference: von Neumann, "Distribution of the ratio of the mean square successive difference to the variance", Ann. Math. Statist. 12 (1941) 367.
"""

from __future__ import annotations

import math

FEWEST_COUNTS = 20
"""Differences from which the estimate is believed: for Poisson counts its standard deviation is then about 0.4."""


class Clumps:
    """Counts of arrivals, scrape by scrape."""

    def __init__(self) -> None:
        self._before = math.nan
        self._total = self._squares = 0.0
        self._differences = 0

    def update(self, arrivals: float) -> None:
        """Take the arrivals since the last scrape; NaN where unknown."""
        if math.isfinite(arrivals) and math.isfinite(self._before):
            self._squares += (arrivals - self._before) ** 2 / 2
            self._total += (arrivals + self._before) / 2
            self._differences += 1
        self._before = arrivals

    @property
    def dispersion(self) -> float:
        """Variance over mean; NaN from fewer than 20 differences, or without arrivals."""
        if self._differences < FEWEST_COUNTS or not self._total > 0:
            return math.nan
        return self._squares / self._total
