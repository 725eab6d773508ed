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

    def axis(self) -> FloatArray:
        """The times, in order, s."""
        return np.array(sorted(self.times), dtype=np.float64)

    def column(self, key: Key, axis: FloatArray) -> FloatArray:
        """A series on the axis, NaN where it has no sample."""
        values = self.series[key]
        return np.array([values.get(float(t), math.nan) for t in axis], dtype=np.float64)
