"""Samples of metrics over time, before their meaning is looked at: one series per name and label set, on one time axis."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from ..._types import FloatArray
from ...errors import InputError

Labels = tuple[tuple[str, str], ...]
"""Sorted (name, value) pairs."""

Key = tuple[str, Labels]
"""A metric's name, colons as underscores, and its labels."""


def labels_of(labels: Iterable[tuple[str, str]]) -> Labels:
    """Labels in one order."""
    return tuple(sorted(labels))


@dataclass(slots=True)
class Samples:
    """Values by series and time.

    Parameters
    ----------
    where : str
        The file or address they come from, for messages.
    """

    where: str
    series: dict[Key, dict[float, float]] = field(default_factory=dict)
    times: set[float] = field(default_factory=set)

    def add(self, name: str, labels: Labels, time_s: float, value: float) -> None:
        """One sample; of two at one time the last counts."""
        if not math.isfinite(time_s):
            raise InputError(
                f"{self.where}: a sample of {name} at time {time_s}, must be a finite time. Mend the file."
            )
        self.series.setdefault((name, labels), {})[time_s] = value
        self.times.add(time_s)

    def column(self, key: Key, axis: FloatArray, *, carry_s: float = 0.0) -> FloatArray:
        """A series on the axis, NaN where it has no sample and none within `carry_s` (s) before."""
        values = self.series[key]
        if carry_s <= 0:
            return np.array([values.get(float(t), math.nan) for t in axis], dtype=np.float64)
        stamps = np.array(sorted(values))
        shown = np.array([values[float(t)] for t in stamps], dtype=np.float64)
        last = np.searchsorted(stamps, axis, side="right") - 1
        here = (last >= 0) & (axis - stamps[np.maximum(last, 0)] <= carry_s)
        found: FloatArray = np.where(here, shown[last], math.nan)
        return found
