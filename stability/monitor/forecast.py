"""When something runs full at the present drift, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .readings import Reading

NORMAL_95 = 1.96
KV_FULL = 0.97
"""Share of the KV cache beyond which it counts as full already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Mean growth per second, with its 95 % interval.

    Attributes
    ----------
    per_s, low_per_s, high_per_s : float
        NaN from fewer than two scrapes.
    """

    per_s: float = math.nan
    low_per_s: float = math.nan
    high_per_s: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Overflow:
    """When a limit is reached if the drift goes on.

    Attributes
    ----------
    what : str
        "KV cache", "queue limit" or "TTFT target".
    in_s : float
        Seconds from now; inf if it does not grow, 0 if reached.
    soonest_s, latest_s : float
        At the ends of the drift's 95 % interval; latest_s is inf where that reaches 0.

    Examples
    --------
    See :func:`stability.watch`.
    """

    what: str
    in_s: float
    soonest_s: float
    latest_s: float

    def __str__(self) -> str:
        if self.in_s == 0:
            return f"{self.what} reached"
        if not math.isfinite(self.in_s):
            return f"{self.what} not in sight"
        latest = f"{self.latest_s:.0f} s" if math.isfinite(self.latest_s) else "never"
        return f"{self.what} in {self.in_s:.0f} s ({self.soonest_s:.0f} s .. {latest})"


def queue_drift(window: Sequence[Reading], dispersion: float) -> Drift:
    """Growth of the queue over a window in which it was never empty: its variance is dispersion times the events seen."""
    span, events = _span(window), 0.0
    for before, now in pairwise(window):
        joined = sum(value for value in (now.arrivals, now.preemptions) if math.isfinite(value))
        events += joined + abs(joined - (now.waiting - before.waiting))
    if not span > 0:
        return Drift()
    return _drift((window[-1].waiting - window[0].waiting) / span, math.sqrt(dispersion * events) / span)


def kv_drift(window: Sequence[Reading]) -> Drift:
    """Growth of the share of KV in use: its variance from the steps between scrapes, taken for independent."""
    values = np.array([item.kv_occupancy for item in window])
    span = _span(window)
    if len(values) < 3 or not span > 0 or np.isnan(values).any():
        return Drift()
    steps = np.diff(values)
    return _drift(float(steps.sum()) / span, float(steps.std(ddof=1)) * math.sqrt(len(steps)) / span)


def overflow(what: str, rest: float, drift: Drift) -> Overflow | None:
    """Time until `rest` more has grown; None if the drift is unknown."""
    if math.isnan(drift.per_s) or math.isnan(rest):
        return None
    return Overflow(
        what=what,
        in_s=_time(rest, drift.per_s),
        soonest_s=_time(rest, drift.high_per_s),
        latest_s=_time(rest, drift.low_per_s),
    )


def _time(rest: float, per_s: float) -> float:
    if rest <= 0:
        return 0.0
    return rest / per_s if per_s > 0 else math.inf


def _drift(per_s: float, error: float) -> Drift:
    return Drift(per_s=per_s, low_per_s=per_s - NORMAL_95 * error, high_per_s=per_s + NORMAL_95 * error)


def _span(window: Sequence[Reading]) -> float:
    return window[-1].time_s - window[0].time_s if len(window) > 1 else 0.0
