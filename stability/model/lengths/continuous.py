"""Continuous families of one length, made discrete.

They are rounded to the nearest integer (1 if less), which keeps the mean; `limit` truncates as for the other families.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import numpy as np

from ..._types import FloatArray, IntArray
from ...errors import InputError, check_integer, check_number
from .marginal import MAX_SUPPORT, MAX_TOKENS, TAIL_MASS, Length, check_limit, limit_or_infinity


class Discretised(Length):
    """A continuous positive law rounded to the nearest integer (and up to 1), possibly truncated."""

    limit: int | None

    @abstractmethod
    def _distribution_function(self, x: FloatArray) -> FloatArray:
        """P(X <= x) of the continuous law."""

    @abstractmethod
    def _survival_quantile(self, tail: float) -> float:
        """The x that is exceeded with probability `tail`."""

    @property
    def max_tokens(self) -> float:
        return limit_or_infinity(self.limit)

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        far = self._survival_quantile(TAIL_MASS)
        longest = MAX_SUPPORT if not far < MAX_SUPPORT else max(1, math.ceil(far))
        longest = min(longest, self.limit or longest, MAX_SUPPORT)
        values = np.arange(1, longest + 1, dtype=np.int64)
        steps = self._distribution_function(np.arange(longest + 1, dtype=np.float64) + 0.5)
        steps[0] = 0.0
        mass = np.maximum(np.diff(steps), 0.0)
        total = mass.sum()
        if not total > 0:
            raise InputError(
                f"{self!r} has no mass up to {longest} tokens, must have some. Raise the limit or lower the mean."
            )
        used = mass > 0
        return values[used], mass[used] / total


@dataclass(frozen=True)
class LogNormal(Discretised):
    """exp of a normal variable with the given mean and coefficient of variation (of the continuous, untruncated law).

    Parameters
    ----------
    mean_tokens : float > 0
        Mean, tokens.
    cv : float > 0
        Standard deviation over mean.
    limit : int >= 1, optional
        Truncation, tokens; without it lengths are unbounded.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> LogNormal(500, cv=1.0, limit=8192).max_tokens
    8192.0
    """

    mean_tokens: float
    cv: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_limit(self.limit)
        _check_mean_cv(self.mean_tokens, self.cv, self.limit)

    @classmethod
    def from_sigma(cls, median_tokens: float, sigma: float, *, limit: int | None = None) -> LogNormal:
        """The law exp(N(ln `median_tokens`, `sigma`**2)), truncated at `limit`."""
        sigma = check_number("sigma", sigma, above=0, at_most=10)
        median = check_number("median_tokens", median_tokens, above=0)
        return cls(median * math.exp(sigma * sigma / 2), math.sqrt(math.expm1(sigma * sigma)), limit=limit)

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm."""
        return math.sqrt(math.log1p(self.cv * self.cv))

    @property
    def median_tokens(self) -> float:
        """Median of the continuous law, tokens."""
        return self.mean_tokens / math.sqrt(1 + self.cv * self.cv)

    def _distribution_function(self, x: FloatArray) -> FloatArray:
        return normal_distribution((np.log(x) - math.log(self.median_tokens)) / self.sigma)

    def _survival_quantile(self, tail: float) -> float:
        return self.median_tokens * math.exp(min(-self.sigma * normal_quantile(tail), 60.0))


@dataclass(frozen=True)
class Gamma(Discretised):
    """The gamma law with the given mean and coefficient of variation (`cv` = 1 is exponential, 1/sqrt(k) Erlang-k).

    Parameters
    ----------
    mean_tokens, cv, limit
        As for `LogNormal`.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> round(st.lengths.Gamma(500, cv=1.0).mean)  # the exponential law
    500
    """

    mean_tokens: float
    cv: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_limit(self.limit)
        _check_mean_cv(self.mean_tokens, self.cv, self.limit)

    def _distribution_function(self, x: FloatArray) -> FloatArray:
        from scipy.special import gammainc

        shape = self.cv**-2
        return np.asarray(gammainc(shape, x * shape / self.mean_tokens), dtype=np.float64)

    def _survival_quantile(self, tail: float) -> float:
        from scipy.special import gammainccinv

        shape = self.cv**-2
        return float(gammainccinv(shape, tail)) * self.mean_tokens / shape


@dataclass(frozen=True)
class Weibull(Discretised):
    """The Weibull law with the given mean and shape (`shape` < 1 is heavier than exponential).

    Parameters
    ----------
    mean_tokens : float > 0
        Mean, tokens.
    shape : float > 0
        Exponent of the hazard's cumulative.
    limit : int >= 1, optional
        Truncation, tokens.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> round(st.lengths.Weibull(500, shape=1.0).std)  # shape 1 is the exponential law: deviation = mean
    500
    """

    mean_tokens: float
    shape: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_number("mean_tokens", self.mean_tokens, above=0, at_most=MAX_TOKENS)
        check_number("shape", self.shape, at_least=0.1, at_most=100)
        check_limit(self.limit)

    @property
    def _scale(self) -> float:
        return self.mean_tokens / math.gamma(1 + 1 / self.shape)

    def _distribution_function(self, x: FloatArray) -> FloatArray:
        return -np.expm1(-((x / self._scale) ** self.shape))

    def _survival_quantile(self, tail: float) -> float:
        return float(self._scale * (-math.log(tail)) ** (1 / self.shape))


@dataclass(frozen=True)
class Pareto(Discretised):
    """P(X > x) = (low/x)**tail_index for x >= low: a power law.

    Parameters
    ----------
    low : float >= 1
        Shortest length, tokens.
    tail_index : float > 0
        Exponent; the mean is finite only above 1 or when truncated.
    limit : int
        Truncation, tokens; required, since no serving engine accepts an unbounded power law.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    P(X > 200) = (100/200)**2 = 1/4, lengths being rounded to whole tokens:

    >>> import stability as st
    >>> law = st.lengths.Pareto(100, tail_index=2.0, limit=100_000)
    >>> round(float(law.probabilities[law.values > 200].sum()), 2)
    0.25
    """

    low: float
    tail_index: float
    limit: int | None = field(kw_only=True)

    def __post_init__(self) -> None:
        check_number("low", self.low, at_least=1)
        check_number("tail_index", self.tail_index, above=0)
        check_integer("limit", self.limit, at_least=math.ceil(self.low), at_most=MAX_SUPPORT)

    def _distribution_function(self, x: FloatArray) -> FloatArray:
        return -np.expm1(-self.tail_index * np.log(np.maximum(x / self.low, 1.0)))

    def _survival_quantile(self, tail: float) -> float:
        return float(self.low * math.exp(min(-math.log(tail) / self.tail_index, 60.0)))


def _check_mean_cv(mean_tokens: float, cv: float, limit: int | None) -> None:
    check_number("mean_tokens", mean_tokens, above=0, at_most=MAX_TOKENS)
    check_number("cv", cv, above=0, at_most=1000)
    if limit is not None and limit <= mean_tokens:
        raise InputError(
            f"limit = {limit}, must be > mean_tokens = {mean_tokens:g}. Raise it: the mean is that before truncation."
        )


def normal_distribution(x: FloatArray) -> FloatArray:
    """P(Z <= x) of the standard normal."""
    return 0.5 * np.array([math.erfc(v) for v in np.ravel(-x / math.sqrt(2)).tolist()]).reshape(np.shape(x))


def normal_quantile(probability: float) -> float:
    """The z with P(Z <= z) = `probability`."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)
