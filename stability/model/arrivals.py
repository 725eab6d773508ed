"""Arrival processes: when requests come, apart from what they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .._types import ArrayLike, FloatArray, read_only
from ..errors import InputError, check_number


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals: exponential gaps."""

    cv: ClassVar[float] = 1.0

    def unit_gaps(self, size: int, rng: np.random.Generator) -> FloatArray:
        """Gaps of the process at rate 1. Shape (size,)."""
        return rng.standard_exponential(size)


@dataclass(frozen=True, slots=True)
class Renewal:
    """Independent gamma-distributed gaps with a given coefficient of variation (`cv` > 1 is burstier than Poisson).

    Parameters
    ----------
    cv : float >= 0
        Standard deviation over mean of the gaps; 0 is a metronome.
    """

    cv: float

    def __post_init__(self) -> None:
        check_number("cv", self.cv, at_least=0, at_most=100)

    def unit_gaps(self, size: int, rng: np.random.Generator) -> FloatArray:
        """Gaps of the process at rate 1. Shape (size,)."""
        if self.cv == 0:
            return np.ones(size)
        shape = self.cv**-2
        return rng.standard_gamma(shape, size) / shape


@dataclass(frozen=True, init=False, eq=False)
class Replay:
    """Exactly these arrival instants.

    Parameters
    ----------
    arrival_s : (n,) array_like, non-decreasing
        Arrival times, s.
    """

    arrival_s: FloatArray

    def __init__(self, arrival_s: ArrayLike) -> None:
        times = np.array(arrival_s, dtype=np.float64)
        if times.ndim != 1 or len(times) == 0:
            raise InputError(
                f"arrival_s has shape {times.shape}, must be one-dimensional and non-empty. Give one time a request."
            )
        bad = ~np.isfinite(times)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"arrival_s[{row}] = {times[row]}, must be finite. Correct or drop the row.")
        down = np.diff(times) < 0
        if down.any():
            row = int(np.argmax(down)) + 1
            raise InputError(
                f"arrival_s[{row}] = {times[row]:g} comes after {times[row - 1]:g}, must not decrease. Sort the requests by arrival."
            )
        object.__setattr__(self, "arrival_s", read_only(times))

    def __repr__(self) -> str:
        return f"Replay({len(self.arrival_s)} arrivals over {self.span_s:g} s)"

    @property
    def span_s(self) -> float:
        """Time from the first to the last arrival, s."""
        return float(self.arrival_s[-1] - self.arrival_s[0])

    @property
    def rate_per_s(self) -> float:
        """Arrivals per second over the span; infinite if all come at once."""
        return (len(self.arrival_s) - 1) / self.span_s if self.span_s > 0 else math.inf


Arrivals = Poisson | Renewal | Replay


@dataclass(frozen=True, init=False)
class RateSchedule:
    """A rate that is constant in each of consecutive windows: lambda(t).

    Parameters
    ----------
    start_s : sequence of float, strictly increasing, first 0
        Where each window begins, s.
    rates_per_s : sequence of float >= 0
        Rate in each window, 1/s.
    end_s : float
        Where the last window ends, s.
    repeat : bool
        Whether the schedule starts again at `end_s` (a day curve) or the rate is 0 from then on.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> RateSchedule([0, 600], [5.0, 10.0], end_s=1200).mean_per_s
    7.5
    """

    start_s: tuple[float, ...]
    rates_per_s: tuple[float, ...]
    end_s: float
    repeat: bool

    def __init__(
        self, start_s: Sequence[float], rates_per_s: Sequence[float], *, end_s: float, repeat: bool = True
    ) -> None:
        starts = [check_number(f"start_s[{i}]", t, at_least=0) for i, t in enumerate(start_s)]
        rates = [check_number(f"rates_per_s[{i}]", r, at_least=0) for i, r in enumerate(rates_per_s)]
        if len(starts) != len(rates) or not starts:
            raise InputError(f"{len(starts)} start_s and {len(rates)} rates_per_s, must be as many and at least one.")
        edges = [*starts, check_number("end_s", end_s, above=0)]
        if starts[0] != 0 or any(b <= a for a, b in itertools.pairwise(edges)):
            raise InputError(f"start_s, end_s = {edges}, must start at 0 and increase strictly. Sort the windows.")
        if not sum(rates) > 0:
            raise InputError("rates_per_s are all 0, one must be > 0. Give at least one window a rate.")
        object.__setattr__(self, "start_s", tuple(starts))
        object.__setattr__(self, "rates_per_s", tuple(rates))
        object.__setattr__(self, "end_s", float(end_s))
        object.__setattr__(self, "repeat", bool(repeat))

    def __repr__(self) -> str:
        return (
            f"RateSchedule({len(self.rates_per_s)} windows over {self.end_s:g} s, "
            f"mean {self.mean_per_s:g}/s, peak {self.peak_per_s:g}/s)"
        )

    @property
    def mean_per_s(self) -> float:
        """Time-average rate over one pass, 1/s."""
        widths = np.diff([*self.start_s, self.end_s])
        return float(widths @ np.array(self.rates_per_s) / self.end_s)

    @property
    def peak_per_s(self) -> float:
        """Largest rate, 1/s."""
        return max(self.rates_per_s)

    def at(self, time_s: ArrayLike) -> FloatArray:
        """The rate at each instant of `time_s`, 1/s."""
        t = np.asarray(time_s, dtype=np.float64)
        inside = np.ones(t.shape, dtype=np.bool_)
        if self.repeat:
            t = np.mod(t, self.end_s)
        else:
            inside = t < self.end_s
        window = np.clip(np.searchsorted(self.start_s, t, side="right") - 1, 0, len(self.start_s) - 1)
        return np.where(inside & (t >= 0), np.array(self.rates_per_s)[window], 0.0)

    def scaled(self, factor: float) -> RateSchedule:
        """The same curve with every rate times `factor`."""
        return RateSchedule(self.start_s, [r * factor for r in self.rates_per_s], end_s=self.end_s, repeat=self.repeat)
