r"""Eviction under a prompt gate: how often, what it costs, and the capacity that remains.

LIFO eviction makes older requests autonomous. Let Z be the KV that completions have freed less what decoding has grown:
a random walk that rises by S = s + o at completions and falls by E[o] per completion in between, with drift E[s]. A
request waits at the head of the queue until Z first reaches its level, so its slack X at admission is the overshoot of
Z over a far level; it is evicted when Z falls below that level by more than the headroom h while it is resident. With

.. math:: \psi(\beta) = \beta E[o] - 1 + E[e^{-\beta S}], \qquad \psi(\theta) = 0,\ \theta > 0

(the root exists iff E[s] > 0), fluctuation theory of one-sided jumps gives, per completion time and without any fit,

- P(Z falls x below a level) = exp(-theta x): the depth below the running maximum is Exp(theta);
- the overshoot has density :math:`(\theta/E[s])\,e^{\theta x}\int_x^\infty e^{-\theta z}P(S > z)\,dz`, whatever the prompts
  in the queue, hence :math:`p_0 = E[e^{-\theta X}] = \psi'(\theta)/E[s]`;
- a victim is at the head again, just below its old level, so its next slack is one ladder height:
  :math:`p_1 = 1 - \psi'(\theta)/E[o]`;
- iterations make Z a walk in discrete time; both the first passage up and the one down lose the same factor C(y), the
  constant of the walk's maximum, which one FFT gives exactly. It tends to 1 as the completions per iteration y do to 0.

So P(evict | admitted) = p0 C^2 exp(-theta h) and the evictions per request are e = P/(1 - P1) with P1 the same for a
victim. **Approximation**: exact for a constant number of decoding requests and Poisson completions; see `few_running`
and `synchrony` for where that fails. Mean free memory follows from the same walk (age of the prompts' renewal process less the depth).

Measured against saturated simulation: e within 10 % where it exceeds 0.01 and capacity within 1.5 % for uniform,
geometric and lognormal lengths at h = 0, .5, 1, 2, 4 over theta (`tests/theory/test_eviction.py`).

References: Asmussen and Albrecher, Ruin Probabilities (2010), ch. IV; Kyprianou, Fluctuations of Levy Processes (2014),
ch. 6-8; Spitzer (1956).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import BoolArray, ComplexArray, FloatArray, IntArray, dot
from ..model.lengths import AtomPart, Lengths, ProductPart
from .conditions import work_s
from .lattice import SIZE, Walk, lattice_law
from .moments import Demand

POINTS = 32
"""Lattice points per 1/theta."""

STEPS = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512])
"""Growths per iteration, in lattice points, at which the discretisation is tabulated."""

NEAR = 1.1
"""Memory row over the next one up to which memory counts as binding: fluctuations fill it now and then."""

MANY_RUNNING = 0.2
"""1/(theta E[s]) over the running count up to which older requests last as long as an excursion."""

ROUNDS = 30
"""Fixed-point rounds for the completions per iteration; each gains about a digit."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Discretisation:
    """C(y), the constant of P(max of the walk > x) ~ C exp(-theta x) watched once per iteration, on a grid of y."""

    per_iteration: FloatArray
    constant: FloatArray

    def at(self, per_iteration: FloatArray) -> FloatArray:
        """C at y completions per iteration, interpolated; 1 at y = 0."""
        return np.interp(per_iteration, self.per_iteration, self.constant)


@lru_cache(maxsize=64)
def discretisation(laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> Discretisation:
    """C(y) from the Wiener-Hopf factors of one iteration's step, growth y E[o] less a compound Poisson sum of y sizes.

    C = exp(-sum of ascending powers - sum of descending powers at theta)/(theta y psi'(theta)). The lattice is the same
    for every y of the grid, whose growth is a whole number of its units.
    """
    walk = surplus(laws, shares)
    unit = 1 / (POINTS * walk.exponent)
    decay = 1 / POINTS
    tilt = decay / 2
    angle = tilt + 2j * np.pi * np.arange(SIZE) / SIZE
    damp = np.exp(-tilt * np.arange(SIZE))  # what lies beyond the lattice is damped to nothing

    def fold(values: FloatArray, weights: FloatArray) -> ComplexArray:
        """E z**-value on the circle."""
        return np.asarray(np.fft.fft(lattice_law(values / unit, weights) * damp))

    sizes = np.zeros(SIZE, dtype=np.complex128)
    for lengths, share in zip(laws, shares, strict=True):
        for index, part in enumerate(lengths.parts()):
            if isinstance(part, ProductPart):
                prompt = fold(part.prompt.values.astype(np.float64), part.prompt.probabilities)
                output = fold(part.output.values.astype(np.float64), part.output.probabilities)
                sizes += share * part.weight * prompt * output
            else:
                values, mass = _observed(lengths, index, False)
                sizes += share * part.weight * fold(values.astype(np.float64), mass)
    grid = STEPS * unit / walk.output_mean
    found = [1.0]
    for steps, y in zip(STEPS.tolist(), grid.tolist(), strict=True):
        step = Walk.of(np.exp(steps * angle + y * (sizes - 1)), tilt)
        logarithm = -float(step.ascending().sum()) - step.descending(decay)
        found.append(min(1.0, math.exp(logarithm) / (walk.exponent * y * walk.slope)))
    return Discretisation(np.concatenate(([0.0], grid)), np.array(found))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evictions:
    """Eviction at headrooms h and y completions per iteration, arrays of one shape. **Approximation**.

    Attributes
    ----------
    per_request : ndarray
        Evictions per completed request (e); P(evict | admitted) is e/(1 + e).
    generated_tokens : ndarray
        Mean tokens that a victim had generated.
    free_tokens : ndarray
        Mean KV left unused.
    """

    per_request: FloatArray
    generated_tokens: FloatArray
    free_tokens: FloatArray

    @property
    def probability(self) -> FloatArray:
        """P(evict | admitted), over all admissions."""
        return np.asarray(self.per_request / (1 + self.per_request))


def evictions(
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    *,
    headroom: FloatArray,
    per_iteration: FloatArray,
    running: FloatArray,
) -> Evictions:
    """How often requests are evicted under a prompt gate whose memory is full.

    Parameters
    ----------
    laws, shares
        The mix of length laws.
    headroom : ndarray, >= 0
        KV kept free at admission (h), tokens.
    per_iteration : ndarray, > 0
        Completions per iteration (y).
    running : ndarray
        Requests resident.

    Notes
    -----
    A victim's way back is one ladder height if the headroom is short against the mean height E[s]/(theta E[o]), a far
    level if it is long; in between the two are mixed by exp(-h/height). Under the measure of an eviction Z falls at rate
    psi'(theta), so a victim has generated (h + E[X | evicted])/(y psi'(theta)) tokens. With few running no excursion is
    that long, and Z falls by growth alone, at rate E[o].
    """
    walk = surplus(laws, shares)
    reach = np.exp(-walk.exponent * headroom)
    twice = discretisation(laws, shares).at(per_iteration) ** 2
    near = np.exp(-headroom * walk.exponent * walk.output_mean / walk.prompt_mean)
    first = np.minimum(walk.first * reach * twice, 1.0)
    again = np.minimum((near * walk.again + (1 - near) * walk.first) * reach * twice, 0.95)
    fall = np.where(few_running(laws, shares, running), walk.output_mean, walk.slope)
    generated = (headroom + max(walk.slack_when_evicted, 0.0)) / (per_iteration * fall)
    deep = reach * walk.age_transform  # P(the walk is below the level: victims are out)
    free = headroom + walk.age_mean - (1 - deep) / walk.exponent + deep * walk.age_mean
    return Evictions(
        per_request=first / (1 - again),
        generated_tokens=np.minimum(generated, walk.output_mean),
        free_tokens=np.maximum(free, 0.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GateCapacity:
    """Capacity of replicas with a prompt gate, and what eviction costs there. Arrays over replicas. **Approximation**.

    Attributes
    ----------
    capacity_per_s : ndarray
    per_iteration : ndarray
        Completions per iteration at capacity.
    evictions_per_request : ndarray
        0 where memory does not bind.
    evicting : ndarray of bool
        Whether memory binds.
    """

    capacity_per_s: FloatArray
    per_iteration: FloatArray
    evictions_per_request: FloatArray
    evicting: BoolArray


def gate_capacity(
    coefficients: FloatArray,
    demand: FloatArray,
    limits: FloatArray,
    headroom: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
) -> GateCapacity:
    r"""Capacity under a prompt gate with headroom h, eviction waste included.

    .. math:: \lambda^*(h) = 1/(c_0/y + E[W] + e\,w),\quad
              y = \min\{(M - E[F])/(E[g] + e\,v),\ N/(E[n] + e\,n'),\ B/(E[s + o - 1] + e\,s')\}

    with the victims' recomputed tokens s' = E[s] + generated, their lost iterations n', KV volume v and work w.

    Parameters
    ----------
    coefficients : (n, 5) ndarray
        Affine step-time laws (or tangents).
    demand : (n, 14) ndarray
        Mean demand of a request.
    limits : (n, 3) ndarray
        KV tokens, slots, token budget.
    headroom : (n,) ndarray, >= 0
        KV kept free at admission, tokens.
    laws, shares
        The mix of length laws.
    """
    memory, slots, budget = limits.T
    volume, iterations, tokens, decodes, context = (
        demand[:, d] for d in (Demand.VOLUME, Demand.ITERATIONS, Demand.TOKENS, Demand.DECODE, Demand.CONTEXT)
    )
    base, prefill, decode, read, attention = coefficients.T
    chunks = iterations - decodes
    others = np.minimum(slots / iterations, budget / tokens)
    y = np.minimum((memory - headroom) / volume, others)
    full = (memory - headroom) / volume < NEAR * others
    if not full.any():
        plain = 1 / (base / y + work_s(coefficients, demand))
        none = np.zeros_like(y)
        return GateCapacity(capacity_per_s=plain, per_iteration=y, evictions_per_request=none, evicting=full)
    prompt = surplus(laws, shares).prompt_mean
    for _ in range(ROUNDS):
        at = evictions(laws, shares, headroom=headroom, per_iteration=y, running=y * iterations)
        e, lost = np.where(full, at.per_request, 0.0), at.generated_tokens
        wasted = (lost + chunks / 2) * prompt + lost * lost / 2
        free = np.where(full, at.free_tokens, headroom)
        rows = np.stack(
            [
                np.maximum(memory - free, 0.1 * memory) / (volume + e * wasted),
                slots / (iterations + e * (chunks + lost)),
                budget / (tokens + e * (prompt + lost)),
            ]
        )
        new = rows.min(axis=0)
        change = np.max(np.abs(new - y) / y)
        y = np.sqrt(new * y)  # halves the step in the logarithm: long victims feed back on y
        if change < 1e-7:
            break
    work = prefill * (prompt + lost) + decode * lost + read * lost * (prompt + lost / 2)
    work = work + attention * (context + prompt * lost + lost * lost / 2)
    return GateCapacity(
        capacity_per_s=1 / (base / y + work_s(coefficients, demand) + e * work),
        per_iteration=y,
        evictions_per_request=e,
        evicting=full,
    )


def few_running(laws: tuple[Lengths, ...], shares: tuple[float, ...], running: FloatArray) -> BoolArray:
    """Where older requests leave within an excursion of the walk, so that eviction is overstated.

    True where 1/(theta E[s]), the completions of an excursion, exceeds `MANY_RUNNING` of the running count.
    """
    walk = surplus(laws, shares)
    return np.asarray(1 / (walk.exponent * walk.prompt_mean) > MANY_RUNNING * running)


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
                values, mass = _observed(lengths, index, prompt_only)
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
def _observed(lengths: Lengths, index: int, prompt_only: bool) -> tuple[IntArray, FloatArray]:
    """Distinct sizes of the observed pairs in part `index`, prompt + output or prompt alone, and their probabilities."""
    part = lengths.parts()[index]
    assert isinstance(part, AtomPart)
    sizes = part.prompt_tokens if prompt_only else part.prompt_tokens + part.output_tokens
    mass = np.bincount(sizes, weights=part.probabilities).astype(np.float64)
    values = np.flatnonzero(mass)
    return values, mass[values] / mass.sum()
