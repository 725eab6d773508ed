r"""The walk behind evictions: KV that completions free, less what decoding grows.

Let Z be the KV that completions have freed less what decoding has grown, per completion: it rises by S = s + o at completions
and falls by E[o] per completion in between, with drift E[s]. With

.. math:: \psi(\beta) = \beta E[o] - 1 + E[e^{-\beta S}], \qquad \psi(\theta) = 0,\ \theta > 0

(the root exists iff E[s] > 0) fluctuation theory of one-sided jumps gives, per completion time and without any fit,

- P(Z falls x below a level) = exp(-theta x): the depth below the running maximum is Exp(theta);
- the overshoot over a far level has density :math:`(\theta/E[s])\,e^{\theta x}\int_x^\infty e^{-\theta z}P(S > z)\,dz`, hence
  :math:`p_0 = E[e^{-\theta X}] = \psi'(\theta)/E[s]`;
- a ladder height X has :math:`p_1 = E[e^{-\theta X}] = 1 - \psi'(\theta)/E[o]` and the mean E[s]/(theta E[o]).

**Exact** for a constant number of decoding requests and Poisson completions in continuous time; `excursions` adds iterations.

References: Asmussen and Albrecher, Ruin Probabilities (2010), ch. IV; Kyprianou, Fluctuations of Levy Processes (2014),
ch. 6-8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, IntArray, dot
from ..model.lengths import AtomPart, Lengths, ProductPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Surplus:
    """The walk Z of a mix of length laws, in tokens and per completion.

    Attributes
    ----------
    exponent : float
        theta, 1/tokens: the Lundberg exponent.
    prompt_mean, output_mean : float
        E[s], E[o], tokens.
    slope, curvature : float
        psi'(theta), tokens, and psi''(theta), tokens**2.
    age_mean : float
        E[s^2]/(2 E[s]): mean age of the prompts' renewal process, tokens.
    age_transform : float
        Its E[exp(-theta age)].
    """

    exponent: float
    prompt_mean: float
    output_mean: float
    slope: float
    curvature: float
    age_mean: float
    age_transform: float

    @property
    def first(self) -> float:
        """p0: P(evict) of a request with h = 0 as y goes to 0."""
        return self.slope / self.prompt_mean

    @property
    def again(self) -> float:
        """p1: the same for a request that was just evicted."""
        return 1 - self.slope / self.output_mean

    @property
    def slack_when_evicted(self) -> float:
        """E[X | evicted], tokens: -d/dbeta log E[exp(-beta X)] at theta."""
        return 1 / self.exponent - self.curvature / (2 * self.slope)


@lru_cache(maxsize=256)
def surplus(laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> Surplus:
    """The walk of completions and growth for requests drawn from `laws` with probabilities `shares`."""
    s1, o1, s2, so, o2 = (_moment(laws, shares, *orders) for orders in ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2)))
    theta = _root(laws, shares, (s1, o1, s2 + 2 * so + o2))
    transforms = [_transform(laws, shares, theta, order) for order in (0, 1, 2)]
    prompts = _transform(laws, shares, theta, 0, prompt_only=True)
    return Surplus(
        exponent=theta,
        prompt_mean=s1,
        output_mean=o1,
        slope=o1 - transforms[1],
        curvature=transforms[2],
        age_mean=s2 / (2 * s1),
        age_transform=(1 - prompts) / (theta * s1),
    )


def lundberg_exponent(lengths: Lengths) -> float:
    """Theta > 0 with theta E[o] = 1 - E[exp(-theta (s + o))], 1/tokens.

    Parameters
    ----------
    lengths : Lengths
        Joint law of prompt and output.

    Examples
    --------
    For long lengths and short prompts theta is near 2 E[s]/E[(s + o)^2]:

    >>> from stability.model.lengths import Constant, Independent
    >>> round(1 / lundberg_exponent(Independent(Constant(10), Constant(1000))))
    50668
    """
    return surplus((lengths,), (1.0,)).exponent


def _root(laws: tuple[Lengths, ...], shares: tuple[float, ...], means: tuple[float, float, float]) -> float:
    """Theta by safeguarded Newton on psi, convex, from 2 E[s]/E[S^2]; `means` are E[s], E[o], E[S^2]."""
    prompt, output, square = means
    low, high = 0.0, 1 / output
    theta = min(2 * prompt / square, high)
    for _ in range(200):
        value = theta * output - 1 + _transform(laws, shares, theta, 0)
        slope = output - _transform(laws, shares, theta, 1)
        low, high = (theta, high) if value < 0 else (low, theta)
        new = theta - value / slope if slope > 0 else math.inf
        if not low < new < high:
            new = (low + high) / 2
        if abs(new - theta) <= 1e-12 * theta:
            return new
        theta = new
    return theta


def _transform(
    laws: tuple[Lengths, ...], shares: tuple[float, ...], theta: float, order: int, *, prompt_only: bool = False
) -> float:
    """E[S**order exp(-theta S)] with S = s + o, or S = s."""
    total = 0.0
    for lengths, share in zip(laws, shares, strict=True):
        for index, part in enumerate(lengths.parts()):
            if isinstance(part, ProductPart):
                s = [dot(part.prompt.probabilities, _weighed(part.prompt.values, theta, k)) for k in range(order + 1)]
                o = [dot(part.output.probabilities, _weighed(part.output.values, theta, k)) for k in range(order + 1)]
                if prompt_only:
                    found = s[order]
                else:
                    found = sum(math.comb(order, k) * s[k] * o[order - k] for k in range(order + 1))
            else:
                values, mass = observed_sizes(lengths, index, prompt_only)
                found = dot(mass, _weighed(values, theta, order))
            total += share * part.weight * found
    return total


def _weighed(values: IntArray, theta: float, order: int) -> FloatArray:
    x = values.astype(np.float64)
    return np.asarray(x**order * np.exp(-theta * x))


def _moment(laws: tuple[Lengths, ...], shares: tuple[float, ...], prompt: int, output: int) -> float:
    total = 0.0
    for lengths, share in zip(laws, shares, strict=True):
        for part in lengths.parts():
            if isinstance(part, ProductPart):
                found = part.prompt.moment(prompt) * part.output.moment(output)
            else:
                found = part.mean(lambda s, o: s.astype(np.float64) ** prompt * o.astype(np.float64) ** output)
            total += share * part.weight * found
    return total


@lru_cache(maxsize=64)
def observed_sizes(lengths: Lengths, index: int, prompt_only: bool = False) -> tuple[IntArray, FloatArray]:
    """Distinct sizes of the observed pairs in part `index`, prompt + output or prompt alone, and their probabilities."""
    part = lengths.parts()[index]
    assert isinstance(part, AtomPart)
    sizes = part.prompt_tokens if prompt_only else part.prompt_tokens + part.output_tokens
    mass = np.bincount(sizes, weights=part.probabilities).astype(np.float64)
    values = np.flatnonzero(mass)
    return values, mass[values] / mass.sum()
