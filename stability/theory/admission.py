r"""Wait for admission below capacity: the stationary diffusion around the fluid equilibrium. **Approximation**.

While someone waits, the binding resource is full and the work in the queue falls by one second a second: counted as
:math:`b = W + x\,a`, what a request takes of the iteration time (x the seconds that a unit of the resource is worth),
every iteration works off its own length. New work comes as a compound Poisson sum, and :math:`E[b] = 1/\lambda^*` with
evictions and slack in it. Hence, in heavy traffic, a wait is exponential with the mean of M/G/1,

.. math:: E[\text{wait} \mid \text{wait}] = \frac{E[b^2]}{2\,E[b]\,(1 - \rho)}, \qquad \rho = \lambda/\lambda^* .

While no one waits, the resource in use fluctuates around its mean m with variance v (`stability.theory.fluctuations`) as if it
had no end. In units u = v/m that is a Poisson number of mean m/u in C/u places, and the chance to find them taken is
Erlang's C, with gamma functions for factorials: the diffusion of Halfin and Whitt (1981) for large C, exact for M/M/n. C is what
an arrival may find in use and still be admitted: the capacity less headroom and less what the head of a queue leaves unused,
E[s^2]/(2E[s]), the stationary excess of what it needs. Nothing is fitted. Evictions that come of fluctuations alone are not
in P(wait): a gate without headroom is underestimated by up to a third near capacity.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, IntArray, dot
from ..model.lengths import AtomPart, Lengths, ProductPart
from ..model.workload import RequestClass
from .moments import Demand, demands

CELLS = 128
"""Bins of a length axis, of equal ratio, for second moments of the demands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A wait that is 0 or exponential.

    Attributes
    ----------
    probability : float
        P(wait > 0).
    mean_s : float
        E[wait | wait > 0], s.
    """

    probability: float
    mean_s: float

    def tail(self, time_s: FloatArray) -> FloatArray:
        """P(wait > t), elementwise; 1 for t < 0."""
        later = self.probability * np.exp(-np.maximum(time_s, 0.0) / max(self.mean_s, 1e-300))
        return np.where(time_s < 0, 1.0, later)

    def then_tail(self, other: Wait, time_s: FloatArray) -> FloatArray:
        """P(this wait and an independent one > t), elementwise."""
        p, q, a, b = self.probability, other.probability, self.mean_s, other.mean_s
        if abs(a - b) < 1e-6 * max(a, b):
            b = b * (1 + 2e-6) + 1e-300
        y = np.maximum(time_s, 0.0)
        ea, eb = np.exp(-y / max(a, 1e-300)), np.exp(-y / max(b, 1e-300))
        both = (a * ea - b * eb) / (a - b)
        return np.where(time_s < 0, 1.0, p * (1 - q) * ea + (1 - p) * q * eb + p * q * both)


NO_WAIT = Wait(probability=0.0, mean_s=0.0)


def erlang_c(places: float, offered: float) -> float:
    r"""P(all of n places are taken) of M/M/n at offered load a < n, n real.

    Parameters
    ----------
    places : float > 0
        n.
    offered : float >= 0
        a.

    Notes
    -----
    :math:`1/B = \Gamma(n+1, a)\,e^a/a^n`, :math:`C = B/(1 - (a/n)(1 - B))`.

    Examples
    --------
    >>> round(erlang_c(1, 0.8), 12), round(erlang_c(2, 1.0), 12)  # M/M/1: rho; M/M/2: 2 rho^2/(1 + rho)
    (0.8, 0.333333333333)
    """
    if offered >= places:
        return 1.0
    if offered <= 0:  # a rate so low that its square is 0 in floating point
        return 0.0
    # The power series of the lower function, which is at most about one half: scipy.special is slow to import.
    steps = np.arange(50 + 10 * math.sqrt(places))
    series = 1 + float(np.cumprod(offered / (places + 2 + steps)).sum())
    last = math.exp(places * math.log(offered) - offered - math.lgamma(places + 1))
    blocked = last / (1 - last * offered / (places + 1) * series)
    return blocked / (1 - offered / places * (1 - blocked))


def admission_wait(
    *, room: float, mean: float, variance: float, load: float, demand_mean_s: float, demand_square: float
) -> Wait:
    """The wait for one resource.

    Parameters
    ----------
    room : float
        What may be in use and an arrival still be admitted (C).
    mean, variance : float
        Of what is in use, as if there were no limit; in the units of `room`.
    load : float
        rho = lambda/lambda*.
    demand_mean_s, demand_square : float
        E[b], s, and E[b^2], s^2.

    Examples
    --------
    M/M/2 with service rate 1 at load 1/2: Erlang's C, and a wait of mean 1/(2 (1 - 1/2)) = 1 s.

    >>> admission_wait(room=2, mean=1, variance=1, load=0.5, demand_mean_s=0.5, demand_square=0.5)
    Wait(probability=0.33333333333333337, mean_s=1.0)
    """
    if load >= 1:
        return Wait(probability=1.0, mean_s=math.inf)
    if not variance > 0:
        return Wait(probability=float(mean >= room), mean_s=0.0)
    probability = 1.0 if room <= 0 else erlang_c(room * mean / variance, mean * mean / variance)
    return Wait(probability=probability, mean_s=demand_square / (2 * demand_mean_s * (1 - load)))


def safety_buffer(*, mean: float, variance: float, overflow: float) -> float:
    """What must be free beside the mean so that an arrival finds no room with probability `overflow`.

    It grows with the logarithm of 1/overflow: like its square root while the tail is normal, then in proportion.

    Parameters
    ----------
    mean, variance : float > 0
        Of what is in use, as if there were no limit.
    overflow : float in (0, 1)
        Accepted chance.

    Examples
    --------
    With a mean of 100 places of Poisson variance, one in a hundred arrivals waits with 24.9 more, one in a million with 51.6.

    >>> [round(safety_buffer(mean=100, variance=100, overflow=p), 1) for p in (1e-2, 1e-4, 1e-6)]
    [24.9, 39.9, 51.6]
    """

    def chance(level: float) -> float:
        return erlang_c(level * mean / variance, mean * mean / variance)

    low, high = mean, mean + 2 * math.sqrt(variance)
    while chance(high) > overflow:
        high = mean + 2 * (high - mean)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) > overflow else (low, middle)
    return high - mean


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandMoments:
    """Of what a request takes with one resource full.

    Attributes
    ----------
    mean_s, square : float
        E[b] = 1/capacity, s, and E[b^2], s^2.
    own_s, own_limit : float
        E[W], s, and E[R W], token-seconds, R the request's reservation: its own work makes the iterations longer in which it
        holds a slot, or its reservation.
    """

    mean_s: float
    square: float
    own_s: float
    own_limit: float


def demand_moments(
    classes: Sequence[RequestClass],
    mix: FloatArray,
    *,
    coefficients: FloatArray,
    row: Demand,
    capacity_per_s: float,
    budget: int,
    block_size: int,
) -> DemandMoments:
    """Moments over the requests of a mix.

    Parameters
    ----------
    classes, mix
        The requests.
    coefficients : (5,) ndarray
        Step-time law.
    row : Demand
        Demand on the binding resource (a).
    capacity_per_s : float
        lambda*.
    budget, block_size : int
        Of the replica.
    """
    work, amount, limit, weights = [], [], [], []
    for item, share in zip(classes, mix.tolist(), strict=True):
        table, mass = _table(item.lengths, budget, block_size, item.max_output_tokens)
        work.append(coefficients[1:] @ table[:4])
        amount.append(table[row])
        limit.append(table[Demand.LIMIT])
        weights.append(share * mass)
    w, a, r, p = (np.concatenate(columns) for columns in (work, amount, limit, weights))
    worth = max(1 / capacity_per_s - dot(p, w), 0.0) / dot(p, a)
    b = w + worth * a
    return DemandMoments(mean_s=dot(p, b), square=dot(p, b * b), own_s=dot(p, w), own_limit=dot(p, r * w))


@lru_cache(maxsize=64)
def _table(lengths: Lengths, budget: int, block_size: int, limit: int | None) -> tuple[FloatArray, FloatArray]:
    """Demands of representative requests, (15, n), and their weights."""
    prompts, outputs, weights = [], [], []
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            s, ps = _binned(part.prompt.values, part.prompt.probabilities)
            o, po = _binned(part.output.values, part.output.probabilities)
            prompts.append(np.repeat(s, len(o)))
            outputs.append(np.tile(o, len(s)))
            weights.append(part.weight * np.outer(ps, po).ravel())
        else:
            s, o, mass = _cells(part)
            prompts.append(s)
            outputs.append(o)
            weights.append(part.weight * mass)
    s, o = np.concatenate(prompts), np.concatenate(outputs)
    return demands(s, o, budget, block_size, limit), np.concatenate(weights)


def _edges(values: IntArray) -> FloatArray:
    low, high = math.log(float(values.min())), math.log(float(values.max()) + 1.0)
    return np.asarray(np.exp(np.linspace(low, high, CELLS + 1)[1:-1]))


def _binned(values: IntArray, probabilities: FloatArray) -> tuple[IntArray, FloatArray]:
    """Means of the bins of a marginal law, whole, and their probabilities."""
    bins = np.searchsorted(_edges(values), values, side="right")
    mass = np.bincount(bins, weights=probabilities, minlength=CELLS)
    total = np.bincount(bins, weights=probabilities * values, minlength=CELLS)
    used = mass > 0
    return np.maximum(1, np.rint(total[used] / mass[used])).astype(np.int64), mass[used].astype(np.float64)


def _cells(part: AtomPart) -> tuple[IntArray, IntArray, FloatArray]:
    """The same of observed pairs."""
    s, o = part.prompt_tokens, part.output_tokens
    cell = CELLS * np.searchsorted(_edges(s), s, side="right") + np.searchsorted(_edges(o), o, side="right")
    weights = np.full(len(s), 1.0 / len(s)) if part.probabilities is None else part.probabilities
    sums = [np.bincount(cell, weights=w, minlength=CELLS**2) for w in (weights, weights * s, weights * o)]
    used = sums[0] > 0
    mass = sums[0][used]
    prompt, output = (np.maximum(1, np.rint(total[used] / mass)).astype(np.int64) for total in sums[1:])
    return prompt, output, mass / mass.sum()
