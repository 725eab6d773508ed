"""Components of joint laws: products of two marginals, and weighted pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..._types import FloatArray, IntArray
from .marginal import Length

CHUNK = 1 << 18
"""Pairs evaluated at a time, so that memory stays bounded however long the trace."""

PairFunction = Callable[[IntArray, IntArray], FloatArray]
"""A function of (prompt, output) arrays of one shape, evaluated elementwise."""


@dataclass(frozen=True, slots=True, eq=False)
class ProductPart:
    """Independent prompt and output lengths: one component of a mixture.

    Parameters
    ----------
    weight : float in [0, 1]
        Probability of the component.
    prompt, output : Length
        The two marginal laws.

    Examples
    --------
    >>> import stability as st
    >>> law = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Uniform(1, 3))
    >>> [part] = law.parts()
    >>> part.weight, round(part.mean(lambda s, o: s + o), 6)
    (1.0, 102.0)
    """

    weight: float
    prompt: Length
    output: Length

    def mean(self, function: PairFunction) -> float:
        """E[f(s, o)] for f = `function`, by visiting every pair."""
        s, ps = self.prompt.values, self.prompt.probabilities
        o, po = self.output.values, self.output.probabilities
        rows = max(1, CHUNK // len(o))
        total = 0.0
        for start in range(0, len(s), rows):
            block = s[start : start + rows, None]
            shape = (len(block), len(o))
            values = function(np.broadcast_to(block, shape), np.broadcast_to(o, shape))
            total += float(ps[start : start + rows] @ (values @ po))
        return total


@dataclass(frozen=True, slots=True, eq=False)
class AtomPart:
    """Pairs of lengths: one component of a mixture.

    Parameters
    ----------
    weight : float in [0, 1]
        Probability of the component.
    prompt_tokens, output_tokens : (n,) array of int
        The pairs, tokens.
    probabilities : (n,) array or None
        Probability of each pair within the component; None if all are equally likely.
    cached_prefix_tokens : (n,) array of int or None
        Prompt tokens of each that are known to be in the prefix cache.

    Examples
    --------
    >>> import stability as st
    >>> [part] = st.lengths.Empirical([100, 300], [10, 30]).parts()
    >>> part.weight, part.mean(lambda s, o: s + o)
    (1.0, 220.0)
    """

    weight: float
    prompt_tokens: IntArray
    output_tokens: IntArray
    probabilities: FloatArray | None
    cached_prefix_tokens: IntArray | None = None

    def mean(self, function: PairFunction) -> float:
        """E[f(s, o)] for f = `function`, over the pairs."""
        total = 0.0
        for start in range(0, len(self.prompt_tokens), CHUNK):
            piece = slice(start, start + CHUNK)
            values = function(self.prompt_tokens[piece], self.output_tokens[piece])
            total += float(values.sum() if self.probabilities is None else self.probabilities[piece] @ values)
        return total / len(self.prompt_tokens) if self.probabilities is None else total


Part = ProductPart | AtomPart
