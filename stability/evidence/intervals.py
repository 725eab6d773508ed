"""Confidence intervals for means of dependent sequences, by batch means and by regeneration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray
from ..errors import InputError, check_integer, check_number
from .series import checked_series


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    low, high : float
        Ends; infinite if there were too few batches to tell.
    level : float
        Confidence level.
    batches : int
        Batches it rests on (cycles of a regenerative, replications of a paired one).
    """

    low: float
    high: float
    level: float
    batches: int

    @property
    def half_width(self) -> float:
        """Half the length."""
        return (self.high - self.low) / 2

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, batches: int = 20, level: float = 0.95
) -> Interval:
    """Interval for the ratio of two means from consecutive batches of both.

    Valid when the batches are long against the correlation time, so that they are nearly independent.

    Parameters
    ----------
    numerators, denominators : (n,) array_like
        Increments over consecutive stretches of a run, completions and seconds say; neighbours are merged into about
        `batches` batches.
    batches : int >= 2
        Batches aimed at.
    level : float in (0, 1)
        Confidence level.

    Returns
    -------
    Interval
        Centred on the ratio of the sums, by the delta method with Student's t.
    """
    a: FloatArray = np.asarray(numerators, dtype=np.float64)
    b: FloatArray = np.asarray(denominators, dtype=np.float64)
    used = min(batches, len(a))
    if used < 2 or not b.sum() > 0:
        return _unknown(level, used)
    # Batches of about equal weight: stretches of a run are not equally long.
    share = np.cumsum(b) / b.sum()
    which = np.minimum((share * used * (1 - 1e-12)).astype(np.int64), used - 1)
    sums_a: FloatArray = np.bincount(which, weights=a).astype(np.float64)
    sums_b: FloatArray = np.bincount(which, weights=b).astype(np.float64)
    return _ratio_of_sums(sums_a[sums_b > 0], sums_b[sums_b > 0], level)


def batch_means_interval(values: ArrayLike, *, batches: int = 20, level: float = 0.95) -> Interval:
    """Interval for the mean of a stationary sequence from the means of equal consecutive batches.

    Valid when the batches are long against the correlation time. Drop the warm-up first (`mser5`). With too short
    batches the interval is too narrow; 10 to 30 batches lose little against more.

    Parameters
    ----------
    values : (n,) array_like
        Samples at equal steps.
    batches : int >= 2
        Batches; a remainder shorter than a batch is dropped from the front, where the run is least stationary.
    level : float in (0, 1)
        Confidence level.

    Returns
    -------
    Interval
        `mean +- t(batches - 1) * sd(batch means) / sqrt(batches)`; infinite if there is no value per batch.

    Raises
    ------
    InputError
        If a value is not finite or an argument breaks its rule.

    References
    ----------
    Schmeiser, "Batch size effects in the analysis of simulation output", Operations Research 30 (1982) 556.
    Law, Simulation Modeling and Analysis, section 9.5.3.

    Examples
    --------
    >>> interval = batch_means_interval([1, 3, 2, 4, 3, 5], batches=3)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.516, 5.484)
    """
    series = checked_series("values", values)
    count = check_integer("batches", batches, at_least=2)
    level = check_number("level", level, above=0, below=1)
    length = len(series) // count
    if length == 0:
        return _unknown(level, 0)
    means = series[len(series) - count * length :].reshape(count, length).mean(axis=1)
    return _ratio_of_sums(means, np.ones(count), level)


def regenerative_interval(values: ArrayLike, cycle_starts: ArrayLike, *, level: float = 0.95) -> Interval:
    """Interval for the mean of a regenerative process from its cycles.

    Valid when the process starts afresh at every cycle start, an arrival that finds the system empty say; then cycles are
    independent whatever happens within one. Needs no warm-up and no choice of a batch length, but many cycles (30 or more).

    Parameters
    ----------
    values : (n,) array_like
        Samples.
    cycle_starts : (m,) array_like of int, increasing, in [0, n)
        Index of the first sample of each cycle; what precedes the first and follows the last is not used.
    level : float in (0, 1)
        Confidence level.

    Returns
    -------
    Interval
        Centred on `sum of cycle sums / sum of cycle lengths`, by the delta method with Student's t.

    Raises
    ------
    InputError
        If a value is not finite or the cycle starts are not increasing indices.

    References
    ----------
    Crane and Iglehart, "Simulating stable stochastic systems III", Operations Research 23 (1975) 33.

    Examples
    --------
    >>> interval = regenerative_interval([9, 0, 1, 0, 1, 2, 0], cycle_starts=[1, 3, 6])
    >>> round((interval.low + interval.high) / 2, 3), interval.batches
    (0.8, 2)
    """
    series = checked_series("values", values)
    level = check_number("level", level, above=0, below=1)
    starts = np.asarray(cycle_starts)
    indices = starts.ndim == 1 and (len(starts) == 0 or np.issubdtype(starts.dtype, np.integer))
    if not indices or (np.diff(starts) <= 0).any() or ((starts < 0) | (starts >= len(series))).any():
        raise InputError(
            f"cycle_starts are no increasing indices in [0, {len(series)}), must be. Pass np.flatnonzero of a mask, say."
        )
    if len(starts) < 3:
        return _unknown(level, max(len(starts) - 1, 0))
    sums = np.add.reduceat(series[: starts[-1]], starts[:-1])
    return _ratio_of_sums(sums, np.diff(starts).astype(np.float64), level)


def _unknown(level: float, batches: int) -> Interval:
    return Interval(low=-math.inf, high=math.inf, level=level, batches=batches)


def _ratio_of_sums(a: FloatArray, b: FloatArray, level: float) -> Interval:
    """Interval for E[a]/E[b] from independent pairs, by the delta method."""
    used = len(a)
    if used < 2:
        return _unknown(level, used)
    from scipy.special import stdtrit

    ratio = a.sum() / b.sum()
    residual = a - ratio * b
    error = math.sqrt(float(residual @ residual) * used / (used - 1)) / b.sum()
    half = float(stdtrit(used - 1, (1 + level) / 2)) * error
    return Interval(low=float(ratio - half), high=float(ratio + half), level=level, batches=used)
