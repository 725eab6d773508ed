"""Joint distributions of (prompt, output) lengths.

Whatever the family, a joint law is a finite mixture of *components*: products of two marginals (`ProductPart`) or
weighted pairs (`AtomPart`). Expectations are computed on the components: exactly, and for products without visiting
every pair.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..._result import html_table
from ..._types import ArrayLike, FloatArray, IntArray, read_only
from ...errors import InputError, check_number
from .continuous import normal_distribution
from .marginal import MAX_TOKENS, Length
from .parts import CHUNK, AtomPart, PairFunction, Part, ProductPart


class Lengths(ABC):
    """A joint distribution of prompt and output lengths, in tokens, both >= 1.

    Examples
    --------
    >>> import stability as st
    >>> law = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Uniform(1, 3))
    >>> law.output_mean_tokens, law.max_total_tokens, law.expect(lambda s, o: s * o)
    (2.0, 103.0, 200.0)
    """

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The mixture components; their weights sum to one."""

    @abstractmethod
    def sample(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        """`size` independent pairs. Two arrays of shape (size,): prompt tokens, output tokens."""

    def sample_cached(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
        """`size` independent pairs, and a third array: prompt tokens of each known to be in the prefix cache."""
        prompt, output = self.sample(size, rng)
        return prompt, output, np.zeros(size, dtype=np.int64)

    @property
    def knows_cached(self) -> bool:
        """Whether requests come with prompt tokens known to be in the prefix cache."""
        return False

    @property
    @abstractmethod
    def max_prompt_tokens(self) -> float:
        """Longest possible prompt, tokens (infinite if unbounded)."""

    @property
    @abstractmethod
    def max_output_tokens(self) -> float:
        """Longest possible output, tokens (infinite if unbounded)."""

    @property
    @abstractmethod
    def max_total_tokens(self) -> float:
        """Largest possible prompt + output of one request, tokens (infinite if unbounded)."""

    def _repr_html_(self) -> str:
        figures = (self.prompt_mean_tokens, self.output_mean_tokens, self.max_prompt_tokens, self.max_output_tokens)
        names = ("prompt tokens, mean", "output tokens, mean", "longest prompt", "longest output")
        return html_table([(name, f"{x:.6g}") for name, x in zip(names, figures, strict=True)], caption=repr(self))

    def expect(self, function: PairFunction) -> float:
        """E[f(s, o)] for any elementwise `function` of prompt and output arrays.

        Visits every pair of a product law, so it costs the product of the two supports.
        """
        return math.fsum(part.weight * part.mean(function) for part in self.parts())

    @cached_property
    def prompt_mean_tokens(self) -> float:
        """E[s], tokens."""
        return self._marginal_moment(0, 1)

    @cached_property
    def output_mean_tokens(self) -> float:
        """E[o], tokens."""
        return self._marginal_moment(1, 1)

    @cached_property
    def correlation(self) -> float:
        """Pearson correlation of prompt and output lengths; 0 when one of them is constant."""
        s, o = self.prompt_mean_tokens, self.output_mean_tokens
        var_s = self._marginal_moment(0, 2) - s * s
        var_o = self._marginal_moment(1, 2) - o * o
        if var_s <= 1e-12 * s * s or var_o <= 1e-12 * o * o:
            return 0.0
        cross = 0.0
        for part in self.parts():
            if isinstance(part, ProductPart):
                cross += part.weight * part.prompt.mean * part.output.mean
            else:
                cross += part.weight * part.mean(lambda a, b: a.astype(np.float64) * b)
        return float((cross - s * o) / math.sqrt(var_s * var_o))

    def _marginal_moment(self, axis: int, order: int) -> float:
        total = 0.0
        for part in self.parts():
            if isinstance(part, ProductPart):
                total += part.weight * (part.prompt, part.output)[axis].moment(order)
            else:
                total += part.weight * part.mean(lambda s, o: (s, o)[axis].astype(np.float64) ** order)
        return total


@dataclass(frozen=True)
class Independent(Lengths):
    """Prompt and output lengths drawn independently.

    Parameters
    ----------
    prompt, output : Length
        The two marginal laws.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability.model.lengths import Independent, Uniform
    >>> Independent(prompt=Uniform(10, 1600), output=Uniform(10, 1600)).max_total_tokens
    3200.0
    """

    prompt: Length
    output: Length

    def __post_init__(self) -> None:
        _check_marginals(self.prompt, self.output)

    def parts(self) -> tuple[Part, ...]:
        return (ProductPart(1.0, self.prompt, self.output),)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        return self.prompt.sample(size, rng), self.output.sample(size, rng)

    @property
    def max_prompt_tokens(self) -> float:
        return self.prompt.max_tokens

    @property
    def max_output_tokens(self) -> float:
        return self.output.max_tokens

    @property
    def max_total_tokens(self) -> float:
        return self.prompt.max_tokens + self.output.max_tokens


@dataclass(frozen=True, init=False, eq=False)
class Empirical(Lengths):
    """Pairs observed in a trace, equally likely; sampling resamples them with replacement.

    Parameters
    ----------
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1
        The observed pairs, in arrival order.
    cached_prefix_tokens : (n,) array_like of int, >= 0, optional
        Leading prompt tokens of each known to be in the prefix cache, tokens.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> law = st.lengths.Empirical([100, 300], [10, 30])
    >>> law.prompt_mean_tokens, law.expect(lambda s, o: s * o), round(law.correlation, 6)  # (1000 + 9000)/2
    (200.0, 5000.0, 1.0)
    """

    prompt_tokens: IntArray
    output_tokens: IntArray
    cached_prefix_tokens: IntArray | None

    def __init__(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike, cached_prefix_tokens: ArrayLike | None = None
    ) -> None:
        prompt = token_array("prompt_tokens", prompt_tokens)
        output = token_array("output_tokens", output_tokens)
        if len(prompt) != len(output):
            raise InputError(
                f"{len(prompt)} prompt_tokens but {len(output)} output_tokens, must be as many. Give one pair a request."
            )
        if len(prompt) == 0:
            raise InputError("the trace is empty, must hold at least one request. Check the file or the filter.")
        cached = None
        if cached_prefix_tokens is not None:
            cached = token_array("cached_prefix_tokens", cached_prefix_tokens, least=0)
            if len(cached) != len(prompt):
                raise InputError(
                    f"{len(cached)} cached_prefix_tokens but {len(prompt)} prompts, must be as many. Give one a request."
                )
        object.__setattr__(self, "prompt_tokens", prompt)
        object.__setattr__(self, "output_tokens", output)
        object.__setattr__(self, "cached_prefix_tokens", cached)

    def __repr__(self) -> str:
        return (
            f"Empirical({len(self)} requests, prompt mean {self.prompt_mean_tokens:.0f}, "
            f"output mean {self.output_mean_tokens:.0f})"
        )

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    def parts(self) -> tuple[Part, ...]:
        return (AtomPart(1.0, self.prompt_tokens, self.output_tokens, None, self.cached_prefix_tokens),)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        prompt, output, _ = self.sample_cached(size, rng)
        return prompt, output

    def sample_cached(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
        """`size` observed requests drawn with replacement: prompt, output and cached prefix tokens."""
        rows = rng.integers(len(self), size=size)
        cached = (
            np.zeros(size, dtype=np.int64) if self.cached_prefix_tokens is None else self.cached_prefix_tokens[rows]
        )
        return self.prompt_tokens[rows], self.output_tokens[rows], cached

    @property
    def knows_cached(self) -> bool:
        return self.cached_prefix_tokens is not None

    @cached_property
    def _maxima(self) -> tuple[float, float, float]:
        total = max(
            int((self.prompt_tokens[i : i + CHUNK] + self.output_tokens[i : i + CHUNK]).max())
            for i in range(0, len(self), CHUNK)
        )
        return float(self.prompt_tokens.max()), float(self.output_tokens.max()), float(total)

    @property
    def max_prompt_tokens(self) -> float:
        return self._maxima[0]

    @property
    def max_output_tokens(self) -> float:
        return self._maxima[1]

    @property
    def max_total_tokens(self) -> float:
        return self._maxima[2]


@dataclass(frozen=True, init=False)
class Mixture(Lengths):
    """A request is drawn from one of several joint laws.

    Parameters
    ----------
    components : sequence of Lengths
        The laws.
    weights : sequence of float >= 0
        Their probabilities up to a factor.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> short = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(10))
    >>> long = st.lengths.Independent(st.lengths.Constant(500), st.lengths.Constant(10))
    >>> st.lengths.Mixture([short, long], [3, 1]).prompt_mean_tokens  # (3*100 + 500)/4
    200.0
    """

    components: tuple[Lengths, ...]
    weights: tuple[float, ...]

    def __init__(self, components: Sequence[Lengths], weights: Sequence[float]) -> None:
        if len(components) != len(weights) or not components:
            raise InputError(
                f"{len(components)} components and {len(weights)} weights, must be as many and at least one. Give one weight a component."
            )
        shares = [check_number(f"weights[{i}]", w, at_least=0) for i, w in enumerate(weights)]
        total = math.fsum(shares)
        if not total > 0:
            raise InputError("the weights sum to 0, must be positive. Give at least one component a weight.")
        kept = [(c, w / total) for c, w in zip(components, shares, strict=True) if w > 0]
        object.__setattr__(self, "components", tuple(c for c, _ in kept))
        object.__setattr__(self, "weights", tuple(w for _, w in kept))

    def parts(self) -> tuple[Part, ...]:
        found: list[Part] = []
        for component, share in zip(self.components, self.weights, strict=True):
            for part in component.parts():
                if isinstance(part, ProductPart):
                    found.append(ProductPart(share * part.weight, part.prompt, part.output))
                else:
                    found.append(
                        AtomPart(
                            share * part.weight,
                            part.prompt_tokens,
                            part.output_tokens,
                            part.probabilities,
                            part.cached_prefix_tokens,
                        )
                    )
        return tuple(found)

    def sample(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        prompt, output, _ = self.sample_cached(size, rng)
        return prompt, output

    def sample_cached(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray, IntArray]:
        """`size` independent pairs, and what each component knows to be in the prefix cache."""
        which = rng.choice(len(self.components), size=size, p=np.array(self.weights))
        prompt, output, cached = (np.empty(size, dtype=np.int64) for _ in range(3))
        for index, component in enumerate(self.components):
            rows = np.flatnonzero(which == index)
            prompt[rows], output[rows], cached[rows] = component.sample_cached(len(rows), rng)
        return prompt, output, cached

    @property
    def knows_cached(self) -> bool:
        return any(component.knows_cached for component in self.components)

    @property
    def max_prompt_tokens(self) -> float:
        return max(c.max_prompt_tokens for c in self.components)

    @property
    def max_output_tokens(self) -> float:
        return max(c.max_output_tokens for c in self.components)

    @property
    def max_total_tokens(self) -> float:
        return max(c.max_total_tokens for c in self.components)


@dataclass(frozen=True)
class GaussianCopula(Lengths):
    """Two marginal laws joined by a Gaussian copula with a given Spearman rank correlation.

    Expectations are taken over a grid of weighted pairs, `GRID` squared of them (within 0.1 % of the exact ones); sampling is exact.

    Parameters
    ----------
    prompt, output : Length
        The marginal laws, usually `Quantiles`.
    spearman : float in (-1, 1)
        Rank correlation; the normal correlation is 2 sin(pi spearman/6) (Pearson 1907), exact for continuous laws.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> law = st.lengths.GaussianCopula(st.lengths.Uniform(1, 100), st.lengths.Uniform(1, 100), spearman=0.5)
    >>> round(law.normal_correlation, 4)  # 2 sin(pi/12)
    0.5176
    """

    GRID = 192

    prompt: Length
    output: Length
    spearman: float

    def __post_init__(self) -> None:
        _check_marginals(self.prompt, self.output)
        check_number("spearman", self.spearman, above=-1, below=1)

    @property
    def normal_correlation(self) -> float:
        """Correlation of the underlying normals."""
        return 2 * math.sin(math.pi * self.spearman / 6)

    def parts(self) -> tuple[Part, ...]:
        if self.spearman == 0:
            return (ProductPart(1.0, self.prompt, self.output),)
        return (AtomPart(1.0, *self._grid),)

    @cached_property
    def _grid(self) -> tuple[IntArray, IntArray, FloatArray]:
        z, weights = _normal_nodes(self.GRID)
        r = self.normal_correlation
        second = r * z[:, None] + math.sqrt(1 - r * r) * z[None, :]
        prompt = np.repeat(self.prompt.quantile(normal_distribution(z)), self.GRID)
        output = self.output.quantile(normal_distribution(second).ravel())
        return read_only(prompt), read_only(output), read_only(np.outer(weights, weights).ravel())

    def sample(self, size: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
        r = self.normal_correlation
        first = rng.standard_normal(size)
        second = r * first + math.sqrt(1 - r * r) * rng.standard_normal(size)
        return self.prompt.quantile(normal_distribution(first)), self.output.quantile(normal_distribution(second))

    @property
    def max_prompt_tokens(self) -> float:
        return self.prompt.max_tokens

    @property
    def max_output_tokens(self) -> float:
        return self.output.max_tokens

    @property
    def max_total_tokens(self) -> float:
        return self.prompt.max_tokens + self.output.max_tokens


def _check_marginals(prompt: object, output: object) -> None:
    for name, value in (("prompt", prompt), ("output", output)):
        if not isinstance(value, Length):
            raise InputError(
                f"{name} = {value!r}, must be a length distribution. Use lengths.Constant({value!r}) for a fixed length."
            )


def _normal_nodes(count: int) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights of a quadrature over the standard normal.

    The midpoint rule after the change of variable t = (P(Z <= z) + (z + R)/(2R))/2 on [-R, R]. Equal steps of
    probability alone would miss the tail that carries the second moments, equal steps of z alone would resolve atoms badly.
    """
    reach = 7.0
    fine = np.linspace(-reach, reach, 2801)
    t = (normal_distribution(fine) + (fine + reach) / (2 * reach)) / 2
    z = np.interp((np.arange(count) + 0.5) / count, t, fine)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    weights = density / (density + 1 / (2 * reach))
    return z, weights / weights.sum()


def token_array(name: str, tokens: ArrayLike, *, least: int = 1) -> IntArray:
    """Lengths as a read-only array.

    Parameters
    ----------
    name : str
        What the array is, for messages.
    tokens : (n,) array_like of whole numbers >= least
        Lengths, tokens.
    least : int
        Smallest that makes sense.

    Returns
    -------
    (n,) ndarray of int64
        A copy.

    Raises
    ------
    InputError
        Naming the first bad entry and the rule.

    Examples
    --------
    >>> import stability as st
    >>> st.lengths.token_array("prompt_tokens", [1, 2.0]).tolist()
    [1, 2]
    """
    try:
        raw = np.asarray(tokens)
    except ValueError as error:
        raise InputError(f"{name} is ragged, must be one-dimensional. Give one number a request.") from error
    if raw.ndim != 1 or raw.dtype.kind not in "iuf":
        raise InputError(
            f"{name} has shape {raw.shape} and type {raw.dtype}, must be one-dimensional and numeric. Give one number a request."
        )
    if raw.dtype.kind == "f":
        bad = ~np.isfinite(raw) | (raw != np.rint(raw))
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(f"{name}[{row}] = {raw[row]}, must be a whole number of tokens. Correct or drop the row.")
    bad = (raw < least) | (raw > MAX_TOKENS)
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"{name}[{row}] = {raw[row]}, must be between {least} and {MAX_TOKENS} tokens. Correct or drop the row."
        )
    array = raw.astype(np.int64, copy=True)
    array.flags.writeable = False
    return array
