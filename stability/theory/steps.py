r"""Mean iteration time of a law that is not affine: averaged over what single iterations hold.

A law's time at the mean composition is not its mean time: an iteration carries no prompt tokens or a chunk. Prompts are
admitted as a Poisson stream of y per iteration and prefilled first come, first served, at most `room = B - D` tokens an
iteration; the tokens waiting follow the Lindley recursion

.. math:: X_{t+1} = \max(X_t + A_t - \mathrm{room}, 0), \qquad P_t = \min(X_t + A_t, \mathrm{room}),

solved on a lattice by Wiener-Hopf factorisation. A prompt in prefill is not decoding, so D falls as P rises. **Approximation**: completions clump, and
the number decoding fluctuates around its mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, IntArray, dot
from ..model.iteration import IterationLaw, IterationTime
from ..model.lengths import Lengths, ProductPart
from .lattice import SIZE, Walk, compound_poisson, lattice_law
from .moments import Demand

CELLS = 64
"""Lattice points per iteration's room for prompt tokens."""

FULL = 0.995
"""Share of the room offered at which every iteration counts as full of prompt tokens."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepMix:
    """Prompt tokens carried by an iteration: values, tokens, and their probabilities. Shape (n,) each."""

    prefill_tokens: FloatArray
    probabilities: FloatArray

    @property
    def mixed_share(self) -> float:
        """P(an iteration carries prompt tokens)."""
        return float(self.probabilities[self.prefill_tokens > 0].sum())


@dataclass(frozen=True, slots=True, eq=False)
class PromptLaw:
    """Prompt lengths of a mix of classes, tokens, and their probabilities. Shape (n,) each; values may repeat."""

    values: IntArray
    probabilities: FloatArray


@lru_cache(maxsize=64)
def prompt_law(laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> PromptLaw:
    """Law of the prompt of a request drawn from `laws` with probabilities `shares`."""
    values, weights = [], []
    for lengths, share in zip(laws, shares, strict=True):
        for part in lengths.parts():
            if isinstance(part, ProductPart):
                values.append(part.prompt.values)
                weights.append(share * part.weight * part.prompt.probabilities)
            else:
                mass = np.bincount(part.prompt_tokens, weights=part.probabilities).astype(np.float64)
                found = np.flatnonzero(mass)
                values.append(found)
                weights.append(share * part.weight * mass[found] / mass.sum())
    return PromptLaw(np.concatenate(values), np.concatenate(weights))


@lru_cache(maxsize=1024)
def step_mix(prompts: PromptLaw, per_iteration: float, room: float) -> StepMix:
    """Law of the prompt tokens in an iteration.

    Parameters
    ----------
    prompts : PromptLaw
        Prompt lengths.
    per_iteration : float > 0
        Prompts admitted per iteration (y).
    room : float > 0
        Prompt tokens an iteration can take beside its decodes.
    """
    values, weights = prompts.values, prompts.probabilities
    offered = per_iteration * dot(weights, values)
    if offered >= FULL * room:
        return StepMix(prefill_tokens=np.array([room]), probabilities=np.ones(1))
    cap = max(1, min(CELLS, int(room), int(room * SIZE / (4 * float(values.max())))))
    cell = room / cap  # the room is a whole number of cells, or a small drift would change its sign
    mass = lattice_law(values / cell, weights)
    arrivals = compound_poisson(per_iteration, mass)
    waiting = _stationary_waiting(per_iteration, mass, cap)
    present = np.convolve(waiting[:cap], arrivals[:cap])[:cap]
    carried = np.append(present, max(0.0, 1.0 - float(present.sum())))
    tokens = np.arange(cap + 1, dtype=np.float64) * cell
    tokens *= offered / float(carried @ tokens)  # the lattice rounds; the mean is known
    used = carried > 1e-12
    return StepMix(prefill_tokens=tokens[used], probabilities=carried[used] / carried[used].sum())


def _stationary_waiting(rate: float, mass: FloatArray, room: int) -> FloatArray:
    """Stationary law of X' = max(X + A - room, 0), A compound Poisson: the maximum of the walk with steps A - room."""
    sizes = np.arange(SIZE)
    tilt = _saddle(rate, mass, room)
    tilted = mass * np.exp(np.where(mass > 0, tilt * sizes, 0.0))
    circle = np.fft.ifft(tilted) * SIZE  # transform of the size law at z = r exp(2 pi i k/SIZE)
    angle = 2j * np.pi * sizes / SIZE
    return Walk.of(np.exp(rate * (circle - 1) - room * (tilt + angle)), tilt).maximum()


def _saddle(rate: float, mass: FloatArray, room: int) -> float:
    """The logarithm of the r > 1 at which log phi(r) = rate (Q(r) - 1) - room log r is least: Q'(r) r = room/rate."""
    used = np.flatnonzero(mass)
    weights, sizes = mass[used], used.astype(np.float64)
    largest = float(sizes[-1])
    low, high = 0.0, np.log(room / rate / float(weights[-1] * largest) + 1.0) / largest + 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        if rate * float(weights @ (sizes * np.exp(middle * sizes))) < room:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True, eq=False)
class Composition:
    """What iterations hold at y completions per iteration: one row per amount of prefill. Arrays of shape (n,)."""

    mean: FloatArray
    """(4,): mean P, D, K, A of an iteration."""
    prefill_tokens: FloatArray
    decode_tokens: FloatArray
    kv_tokens: FloatArray
    prefill_context: FloatArray
    probabilities: FloatArray

    def mean_time_s(self, law: IterationLaw, factors: FloatArray | None = None) -> float:
        """Mean of the law over iterations; `factors` (4,) stretch P, D, K, A."""
        f = np.ones(4) if factors is None else factors
        times = law.time_s(
            f[0] * self.prefill_tokens,
            f[1] * self.decode_tokens,
            f[2] * self.kv_tokens,
            f[3] * self.prefill_context,
        )
        return float(self.probabilities @ times)


def composition(demand: FloatArray, prompts: PromptLaw, per_iteration: float, budget: float) -> Composition:
    """Iterations of a replica that completes (and admits) `per_iteration` requests in each, on average.

    Parameters
    ----------
    demand : (15,) ndarray
        Mean demand of a request.
    prompts : PromptLaw
        Prompt lengths.
    per_iteration : float > 0
        Completions per iteration (y).
    budget : float
        Token budget B.
    """
    mean = per_iteration * demand[:4]
    mix = step_mix(prompts, per_iteration, max(budget - mean[1], 1.0))
    carried = mix.prefill_tokens / mean[0]
    in_prefill = per_iteration * (demand[Demand.ITERATIONS] - demand[Demand.DECODE])
    return Composition(
        mean=mean,
        prefill_tokens=mix.prefill_tokens,
        decode_tokens=np.maximum(mean[1] + in_prefill * (1 - carried), 0.0),
        kv_tokens=np.full(len(carried), mean[2]),
        prefill_context=mean[3] * carried,
        probabilities=mix.probabilities,
    )


def effective_law(law: IterationLaw, over: Composition) -> FloatArray:
    """Coefficients (c0, cp, cd, ck, ca) of the affine law tangent to the mean iteration time.

    Its value at the mean composition is the mean time over iterations; its slopes are those of that mean.
    """
    if isinstance(law, IterationTime):
        return np.array(law.coefficients)
    slopes, step = np.zeros(4), 0.05
    for axis in np.flatnonzero(over.mean > 0):
        shift = step * np.eye(4)[axis]
        change = over.mean_time_s(law, 1 + shift) - over.mean_time_s(law, 1 - shift)
        slopes[axis] = change / (2 * step * over.mean[axis])
    return np.concatenate(([over.mean_time_s(law) - float(slopes @ over.mean)], slopes))


def tangent_laws(
    laws: Sequence[IterationLaw], prompts: PromptLaw, demand: FloatArray, per_iteration: FloatArray, limits: FloatArray
) -> FloatArray:
    """Affine coefficients of each law, or of its tangent at the given completions per iteration. Shape (n, 5).

    Parameters
    ----------
    laws : sequence of IterationLaw
        One per replica.
    prompts : PromptLaw
        Prompt lengths.
    demand : (n, 15) ndarray
        Mean demand of a request at each replica.
    per_iteration : (n,) ndarray
        Completions per iteration (y).
    limits : (n, 3) ndarray
        KV tokens, slots, token budget.
    """
    found = np.empty((len(laws), 5))
    for row, law in enumerate(laws):
        if isinstance(law, IterationTime):
            found[row] = law.coefficients
        else:
            over = composition(demand[row], prompts, float(per_iteration[row]), float(limits[row, 2]))
            found[row] = effective_law(law, over)
    return found
