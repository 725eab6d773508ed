"""Distributions of one length (prompt or output tokens): integers >= 1.

Each family yields its probability mass function as arrays, so that every expectation in the package is a finite sum
and not a sampled estimate. Continuous families are rounded to the nearest integer (1 if less), which keeps the mean;
`limit` truncates: lengths beyond it are removed and the rest renormalised.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..._types import ArrayLike, FloatArray, IntArray, read_only
from ...errors import InputError, check_integer, check_number

TAIL_MASS = 1e-13
"""Probability beyond which the mass function of an unbounded family is cut off."""

MAX_SUPPORT = 1 << 22
"""Longest mass function that is tabulated, in tokens."""

MAX_TOKENS = 1 << 31
"""Longest length accepted anywhere: beyond it a value is a mistake, not a request."""


class Length(ABC):
    """A distribution of one length, in tokens.

    Subclasses say what their mass function is (`_tabulate`) and how long a length can get (`max_tokens`,
    infinite for unbounded families).
    """

    @property
    @abstractmethod
    def max_tokens(self) -> float:
        """Largest possible length, in tokens; `math.inf` if there is none."""

    @abstractmethod
    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        """Values in ascending order and their probabilities, summing to one."""

    @cached_property
    def _table(self) -> tuple[IntArray, FloatArray]:
        values, probabilities = self._tabulate()
        return read_only(values), read_only(probabilities)

    @property
    def values(self) -> IntArray:
        """Possible lengths, ascending. Shape (n,), tokens."""
        return self._table[0]

    @property
    def probabilities(self) -> FloatArray:
        """Probability of each of `values`. Shape (n,)."""
        return self._table[1]

    @property
    def mean(self) -> float:
        """Mean length, tokens."""
        return float(self.probabilities @ self.values)

    def moment(self, order: int) -> float:
        """E[X**order], tokens**order."""
        return float(self.probabilities @ self.values.astype(np.float64) ** order)

    @property
    def std(self) -> float:
        """Standard deviation, tokens."""
        centred = self.values - self.mean
        return math.sqrt(float(self.probabilities @ (centred * centred)))

    def quantile(self, probability: ArrayLike) -> IntArray:
        """Smallest length whose distribution function reaches `probability`."""
        return self.values[self._positions(np.asarray(probability, dtype=np.float64))]

    def sample(self, size: int, rng: np.random.Generator) -> IntArray:
        """`size` independent lengths. Shape (size,), tokens."""
        return self.quantile(rng.random(size))

    @cached_property
    def _cumulative(self) -> FloatArray:
        return np.cumsum(self.probabilities)

    def _positions(self, probability: FloatArray) -> IntArray:
        found = np.searchsorted(self._cumulative, probability, side="left")
        return np.minimum(found, len(self.values) - 1)


@dataclass(frozen=True)
class Constant(Length):
    """Every length is the same.

    Parameters
    ----------
    tokens : int >= 1
        The length.

    Examples
    --------
    >>> Constant(100).mean
    100.0
    """

    tokens: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", check_integer("tokens", self.tokens, at_least=1, at_most=MAX_TOKENS))

    @property
    def max_tokens(self) -> float:
        return float(self.tokens)

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        return np.array([self.tokens], dtype=np.int64), np.ones(1)


@dataclass(frozen=True)
class Uniform(Length):
    """Integers from `low` to `high`, both included, equally likely.

    Parameters
    ----------
    low, high : int, 1 <= low <= high
        The ends, tokens.

    Examples
    --------
    >>> Uniform(10, 1600).mean
    805.0
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", check_integer("low", self.low, at_least=1))
        object.__setattr__(self, "high", check_integer("high", self.high, at_least=self.low, at_most=MAX_TOKENS))
        if self.high - self.low >= MAX_SUPPORT:
            raise InputError(
                f"high - low = {self.high - self.low}, must be < {MAX_SUPPORT}. Use Discrete for so wide a range."
            )

    @property
    def max_tokens(self) -> float:
        return float(self.high)

    @property
    def mean(self) -> float:
        return (self.low + self.high) / 2

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        count = self.high - self.low + 1
        return np.arange(self.low, self.high + 1, dtype=np.int64), np.full(count, 1.0 / count)

    def sample(self, size: int, rng: np.random.Generator) -> IntArray:
        return rng.integers(self.low, self.high, size=size, endpoint=True, dtype=np.int64)


@dataclass(frozen=True, init=False)
class Discrete(Length):
    """Given lengths with given probabilities.

    Parameters
    ----------
    values : sequence of int >= 1, distinct
        The lengths, tokens.
    weights : sequence of float >= 0, optional
        Their probabilities up to a factor; equal if omitted.

    Examples
    --------
    >>> Discrete([100, 500]).mean
    300.0
    """

    atoms: tuple[int, ...]
    weights: tuple[float, ...]

    def __init__(self, values: Sequence[int], weights: Sequence[float] | None = None) -> None:
        atoms = [check_integer(f"values[{i}]", v, at_least=1, at_most=MAX_TOKENS) for i, v in enumerate(values)]
        if not atoms:
            raise InputError("values is empty, must hold at least one length. Give the possible lengths.")
        shares = [1.0] * len(atoms) if weights is None else list(weights)
        if len(shares) != len(atoms):
            raise InputError(
                f"{len(atoms)} values but {len(shares)} weights, must be as many. Give one weight a value."
            )
        shares = [check_number(f"weights[{i}]", w, at_least=0) for i, w in enumerate(shares)]
        if len(set(atoms)) != len(atoms):
            raise InputError(f"values {atoms} repeat, must be distinct. Add the weights of equal values.")
        if sum(shares) <= 0:
            raise InputError("the weights sum to 0, must be positive. Give at least one value a weight.")
        order = sorted((v, w) for v, w in zip(atoms, shares, strict=True) if w > 0)
        object.__setattr__(self, "atoms", tuple(v for v, _ in order))
        object.__setattr__(self, "weights", tuple(w for _, w in order))

    def __repr__(self) -> str:
        return f"Discrete({list(self.atoms)}, {[round(w / sum(self.weights), 6) for w in self.weights]})"

    @property
    def max_tokens(self) -> float:
        return float(self.atoms[-1])

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        weights = np.array(self.weights)
        return np.array(self.atoms, dtype=np.int64), weights / weights.sum()


@dataclass(frozen=True)
class Geometric(Length):
    """P(X = k) = (1 - p)**(k - 1) p for k >= 1 with p = 1/mean: every token is the last with the same chance.

    Parameters
    ----------
    mean_tokens : float >= 1
        Mean before truncation, tokens.
    limit : int >= 1, optional
        Truncation, tokens; without it lengths are unbounded.

    Examples
    --------
    >>> round(Geometric(200).std, 1)
    199.5
    """

    mean_tokens: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_number("mean_tokens", self.mean_tokens, at_least=1, at_most=MAX_TOKENS)
        _check_limit(self.limit)

    @property
    def max_tokens(self) -> float:
        return _limit_or_infinity(self.limit)

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        stop = 1.0 / self.mean_tokens
        if stop == 1.0:
            return np.ones(1, dtype=np.int64), np.ones(1)
        longest = math.ceil(math.log(TAIL_MASS) / math.log1p(-stop))
        values = np.arange(1, min(longest, self.limit or longest, MAX_SUPPORT) + 1, dtype=np.int64)
        mass = stop * np.exp((values - 1) * math.log1p(-stop))
        return values, mass / mass.sum()


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
        return _limit_or_infinity(self.limit)

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

    Examples
    --------
    >>> LogNormal(500, cv=1.0, limit=8192).max_tokens
    8192.0
    """

    mean_tokens: float
    cv: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_mean_cv(self.mean_tokens, self.cv)
        _check_limit(self.limit)

    @classmethod
    def from_sigma(cls, median_tokens: float, sigma: float, *, limit: int | None = None) -> LogNormal:
        """The law exp(N(ln median, sigma**2))."""
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
    """

    mean_tokens: float
    cv: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_mean_cv(self.mean_tokens, self.cv)
        _check_limit(self.limit)

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
    """

    mean_tokens: float
    shape: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_number("mean_tokens", self.mean_tokens, above=0, at_most=MAX_TOKENS)
        check_number("shape", self.shape, at_least=0.1, at_most=100)
        _check_limit(self.limit)

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


@dataclass(frozen=True, init=False)
class Quantiles(Length):
    """A law given by its quantiles, linear in between and rounded to integers.

    Parameters
    ----------
    probabilities : sequence of float in [0, 1], strictly increasing
        Where the quantiles are taken. The first and the last quantile are the least and the greatest length.
    tokens : sequence of float >= 1, non-decreasing
        The quantiles, tokens.

    Examples
    --------
    >>> Quantiles([0, 0.5, 1], [1, 100, 1000]).max_tokens
    1000.0
    """

    levels: tuple[float, ...]
    tokens: tuple[float, ...]

    def __init__(self, probabilities: Sequence[float], tokens: Sequence[float]) -> None:
        levels = [check_number(f"probabilities[{i}]", p, at_least=0, at_most=1) for i, p in enumerate(probabilities)]
        points = [check_number(f"tokens[{i}]", t, at_least=0, at_most=MAX_TOKENS) for i, t in enumerate(tokens)]
        if len(levels) != len(points) or len(levels) < 2:
            raise InputError(
                f"{len(levels)} probabilities and {len(points)} tokens, must be as many and at least 2. Give one length a level."
            )
        if any(b <= a for a, b in itertools.pairwise(levels)):
            raise InputError(f"probabilities {levels} must increase strictly. Sort them and drop repeats.")
        if any(b < a for a, b in itertools.pairwise(points)):
            raise InputError(f"tokens {points} must not decrease. Sort the quantiles.")
        object.__setattr__(self, "levels", tuple(levels))
        object.__setattr__(self, "tokens", tuple(points))

    def __repr__(self) -> str:
        median = float(np.interp(0.5, self.levels, self.tokens))
        return f"Quantiles({len(self.levels)} levels, median {median:g}, max {self.tokens[-1]:g})"

    @property
    def max_tokens(self) -> float:
        return float(max(1, round(self.tokens[-1])))

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        # The law of a linear piece from t0 to t1 is uniform: its mass on integer k is the overlap with [k-.5, k+.5].
        low, high = max(1, round(self.tokens[0])), int(self.max_tokens)
        edges = np.arange(low, high) + 0.5
        inner = np.interp(edges, *self._increasing())
        steps = np.concatenate(([0.0], inner, [1.0]))
        mass = np.diff(steps)
        used = mass > 0
        return np.arange(low, high + 1, dtype=np.int64)[used], mass[used] / mass.sum()

    def _increasing(self) -> tuple[FloatArray, FloatArray]:
        """Lengths and levels with flat pieces kept as jumps (the last level at each length)."""
        tokens, levels = np.array(self.tokens), np.array(self.levels)
        span = levels[-1] - levels[0]
        last = np.append(np.diff(tokens) > 0, True)
        first = np.insert(np.diff(tokens) > 0, 0, True)
        keep = first | last
        nudged = np.where(last & ~first, np.nextafter(tokens, np.inf), tokens)
        return nudged[keep], ((levels - levels[0]) / span)[keep]


def _check_limit(limit: int | None) -> None:
    if limit is not None:
        check_integer("limit", limit, at_least=1, at_most=MAX_SUPPORT)


def _limit_or_infinity(limit: int | None) -> float:
    return math.inf if limit is None else float(limit)


def _check_mean_cv(mean_tokens: float, cv: float) -> None:
    check_number("mean_tokens", mean_tokens, above=0, at_most=MAX_TOKENS)
    check_number("cv", cv, above=0, at_most=1000)


def normal_distribution(x: FloatArray) -> FloatArray:
    """P(Z <= x) of the standard normal."""
    return 0.5 * np.array([math.erfc(v) for v in np.ravel(-x / math.sqrt(2)).tolist()]).reshape(np.shape(x))


def normal_quantile(probability: float) -> float:
    """The z with P(Z <= z) = `probability`."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)
