"""Distributions of one length (prompt or output tokens): integers >= 1.

Each family yields its probability mass function as arrays, so that every expectation in the package is a finite sum
and not a sampled estimate. `limit` truncates: lengths beyond it are removed and the rest renormalised.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..._result import html_table
from ..._types import ArrayLike, FloatArray, IntArray, dot, read_only
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

    Examples
    --------
    Every law is a table of whole numbers and their probabilities:

    >>> import stability as st
    >>> law = st.lengths.Uniform(1, 4)
    >>> law.values.tolist(), law.probabilities.tolist(), law.mean, law.moment(2)  # (1 + 4 + 9 + 16)/4
    ([1, 2, 3, 4], [0.25, 0.25, 0.25, 0.25], 2.5, 7.5)
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

    def _repr_html_(self) -> str:
        figures = [("mean", f"{self.mean:.6g} tokens"), ("standard deviation", f"{self.std:.6g} tokens")]
        return html_table([*figures, ("longest", f"{self.max_tokens:.6g} tokens")], caption=repr(self))

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
        return dot(self.probabilities, self.values)

    def moment(self, order: int) -> float:
        """E[X**order], tokens**order."""
        return dot(self.probabilities, self.values.astype(np.float64) ** order)

    @property
    def std(self) -> float:
        """Standard deviation, tokens."""
        centred = self.values - self.mean
        return math.sqrt(dot(self.probabilities, centred * centred))

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

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

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

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

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

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

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

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> round(Geometric(200).std, 1)
    199.5
    """

    mean_tokens: float
    limit: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_number("mean_tokens", self.mean_tokens, at_least=1, at_most=MAX_TOKENS)
        check_limit(self.limit)

    @property
    def max_tokens(self) -> float:
        return limit_or_infinity(self.limit)

    def _tabulate(self) -> tuple[IntArray, FloatArray]:
        stop = 1.0 / self.mean_tokens
        if stop == 1.0:
            return np.ones(1, dtype=np.int64), np.ones(1)
        longest = math.ceil(math.log(TAIL_MASS) / math.log1p(-stop))
        values = np.arange(1, min(longest, self.limit or longest, MAX_SUPPORT) + 1, dtype=np.int64)
        mass = stop * np.exp((values - 1) * math.log1p(-stop))
        return values, mass / mass.sum()


@dataclass(frozen=True, init=False)
class Quantiles(Length):
    """A law given by its quantiles, linear in between and rounded to integers.

    Parameters
    ----------
    probabilities : sequence of float in [0, 1], strictly increasing
        Where the quantiles are taken.
    tokens : sequence of float >= 0, non-decreasing
        The quantiles, tokens. The first and the last are the least and the greatest length: probability below the
        first level or beyond the last one is put on them.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> Quantiles([0.5, 0.9, 0.99], [200, 800, 2000]).quantile([0.5, 0.9])
    array([200, 800])
    """

    levels: tuple[float, ...]
    tokens: tuple[float, ...]

    def __init__(self, probabilities: Sequence[float], tokens: Sequence[float]) -> None:
        levels = [check_number(f"probabilities[{i}]", p, at_least=0, at_most=1) for i, p in enumerate(probabilities)]
        points = [check_number(f"tokens[{i}]", t, at_least=0, at_most=MAX_SUPPORT) for i, t in enumerate(tokens)]
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
        last = np.append(np.diff(tokens) > 0, True)
        first = np.insert(np.diff(tokens) > 0, 0, True)
        keep = first | last
        nudged = np.where(last & ~first, np.nextafter(tokens, np.inf), tokens)
        return nudged[keep], levels[keep]


def check_limit(limit: int | None) -> None:
    """Raise unless `limit` is None or a length that can be tabulated."""
    if limit is not None:
        check_integer("limit", limit, at_least=1, at_most=MAX_SUPPORT)


def limit_or_infinity(limit: int | None) -> float:
    """Greatest length of a family truncated at `limit`."""
    return math.inf if limit is None else float(limit)
