r"""Capacity of an evicting gate: flow balance with what eviction wastes.

.. math:: \lambda^*(h) = 1/(c_0/y + E[W] + e\,w),\quad
          y = \min\{E\min(N, D)/(E[n] + e\,n'),\ B/(E[s + o - 1] + e\,s')\},\quad
          E[D] = (M - E[F])\,\frac{E[n] + e\,n'}{E[g] + e\,v}

with e evictions per request (`eviction`) and the free memory F. A victim keeps the tokens it has generated: what it loses is a
second prefill of s' = E[s] + generated tokens, whose last chunk gives the token that a decode would have given. Its other
chunks are the n' iterations lost, v their KV volume; w is the work of s' less that decode's (`symbolic.eviction_waste`).

Slots. The N requests of a full batch hold K tokens, normal with mean N E[g]/E[n] and N times the variance of one resident's
KV; memory binds while K would exceed the cache, and requests are evicted then only. With D the number that fills the cache,
E min(N, D) run.

Prefix caching. A victim finds its blocks again unless growth has taken them; until it returns memory grows by 1/theta on
average (a ladder time), so of x tokens the last (1 - exp(-theta x))/(theta x) are computed again.

**Approximation**, without fit. `chunk_gate` adds what chunk gates waste.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import BoolArray, FloatArray
from ..model.lengths import Lengths
from .chunk_gate import half_way
from .conditions import Resource, work_s
from .eviction import evictions
from .moments import Demand
from .steps import prompt_law
from .surplus import surplus

BINDS = 1e-4
"""Share of the time in which memory must bind for evictions to count."""

NEAR = 1.1
"""Memory row over that of the token budget up to which memory can bind: fluctuations fill it now and then."""

LEAST_USED = 0.1
"""Share of the memory beside the headroom that is in use at least: free memory is a mean for many requests."""

ROUNDS, INNER_ROUNDS = 12, 8
"""Fixed-point rounds for the completions per iteration, and those between two looks at the chances."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gates:
    """Evicting gates, one per replica. Arrays of shape (n,), or (n, 3) for the limits.

    Attributes
    ----------
    limits : ndarray
        KV tokens, slots, token budget.
    headroom : ndarray, >= 0
        KV kept free at admission (h), tokens.
    chunked : ndarray of bool
        Whether the next chunk has to fit instead of the whole prompt.
    prefix_caching : ndarray of bool
        Whether a victim may find its KV blocks again.
    """

    limits: FloatArray
    headroom: FloatArray
    chunked: BoolArray
    prefix_caching: BoolArray

    def rows(self, which: BoolArray) -> Gates:
        """Some of them."""
        return Gates(
            limits=self.limits[which],
            headroom=self.headroom[which],
            chunked=self.chunked[which],
            prefix_caching=self.prefix_caching[which],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GateCapacity:
    """Capacity of replicas with evicting gates, and what eviction costs there. Arrays over replicas. **Approximation**.

    Attributes
    ----------
    capacity_per_s : ndarray
    floor_per_s : ndarray
        The same if, under a chunk gate, prompts that come to nothing took the whole token budget.
    spared_per_s : ndarray
        The capacity if eviction cost nothing: what memory, slots and token budget allow.
    per_iteration : ndarray
        Completions per iteration at capacity (y).
    evictions_per_request : ndarray
        0 where memory does not bind.
    wasted_tokens : ndarray
        Tokens computed more than once per completed request.
    evicting : ndarray of bool
        Whether memory binds, if only now and then.
    """

    capacity_per_s: FloatArray
    floor_per_s: FloatArray
    spared_per_s: FloatArray
    per_iteration: FloatArray
    evictions_per_request: FloatArray
    wasted_tokens: FloatArray
    evicting: BoolArray


def gate_capacity(
    gates: Gates,
    coefficients: FloatArray,
    demand: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
) -> GateCapacity:
    """Capacity of evicting gates, waste included.

    Parameters
    ----------
    gates : Gates
        Limits and admission of each replica.
    coefficients : (n, 5) ndarray
        Affine step-time laws (or tangents).
    demand : (n, 15) ndarray
        Mean demand of a request.
    laws, shares
        The mix of length laws.
    """
    memory, slots, budget = gates.limits.T
    free = memory - gates.headroom
    rows = np.stack([free / demand[:, Demand.VOLUME], *_other_rows(gates, demand)])
    batch = slots * demand[:, Demand.VOLUME] / demand[:, Demand.ITERATIONS]
    spread = np.sqrt(slots * resident_variance(demand))
    full = (normal_tail((free - batch) / spread) > BINDS) & (rows[0] < NEAR * rows[2])
    y, e, lost = rows.min(axis=0), np.zeros(len(free)), np.zeros(len(free))
    spared = y.copy()
    if full.any():
        y[full], e[full], lost[full], spared[full] = _when_full(gates.rows(full), demand[full], laws, shares)
    gone = np.where(gates.prefix_caching, missed(demand[:, Demand.PROMPT] + lost, laws, shares), 1.0)
    tokens, work = second_prefill(coefficients, demand, lost, gone)
    plain = coefficients[:, 0] / y + work_s(coefficients, demand) + e * work
    vain_s, vain_tokens, vain_evictions, most_s = np.zeros((4, len(free)))
    for row in np.flatnonzero(full & gates.chunked).tolist():
        room = max(float(budget[row] - y[row] * demand[row, Demand.DECODE]), 1.0)
        vain = half_way(laws, shares, prompt_law(laws, shares), float(gates.headroom[row]), float(y[row]), room)
        vain_s[row] = coefficients[row, 1] * vain.tokens + coefficients[row, 4] * vain.context
        vain_tokens[row], vain_evictions[row] = vain.tokens, vain.evictions
        unused = max(room / float(y[row]) - float(demand[row, Demand.PREFILL]), 0.0)
        depth = float(prompt_law(laws, shares).values.max())
        most_s[row] = unused * (coefficients[row, 1] + coefficients[row, 4] * depth)
    return GateCapacity(
        capacity_per_s=1 / (plain + np.minimum(vain_s, most_s)),
        floor_per_s=1 / (plain + most_s),
        spared_per_s=1 / (coefficients[:, 0] / spared + work_s(coefficients, demand)),
        per_iteration=y,
        evictions_per_request=e + vain_evictions,
        wasted_tokens=e * tokens + vain_tokens,
        evicting=full,
    )


def resident_variance(demand: FloatArray) -> FloatArray:
    """Variance of the KV that a resident request holds at a typical iteration, tokens**2.

    A prompt in prefill is taken to hold a uniform part of itself.
    """
    chunks = demand[..., Demand.ITERATIONS] - demand[..., Demand.DECODE]
    square = demand[..., Demand.READ_HELD] + chunks * 2 * demand[..., Demand.CONTEXT] / 3
    mean = demand[..., Demand.VOLUME] / demand[..., Demand.ITERATIONS]
    return np.asarray(np.maximum(square / demand[..., Demand.ITERATIONS] - mean * mean, 1e-9 * mean * mean))


def _other_rows(gates: Gates, demand: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Completions per iteration that slots and token budget allow."""
    return (
        gates.limits[:, Resource.BATCH_SLOTS] / demand[:, Demand.ITERATIONS],
        gates.limits[:, Resource.TOKEN_BUDGET] / demand[:, Demand.TOKENS],
    )


def second_prefill(
    coefficients: FloatArray, demand: FloatArray, lost: FloatArray, share: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Tokens computed again per eviction, and the time they take less that of the decode they replace.

    Parameters
    ----------
    coefficients : (n, 5) ndarray
        Step-time law.
    demand : (n, 15) ndarray
        Mean demand of a request.
    lost : (n,) ndarray
        Tokens a victim had generated.
    share : (n,) ndarray
        Share of its tokens, the last ones, whose KV is gone; 1 without prefix caching.
    """
    prompt = demand[:, Demand.PROMPT]
    _, prefill, decode, read, attention = coefficients.T
    redone = prompt + lost
    context = (demand[:, Demand.CONTEXT] + prompt * lost + lost * lost / 2) * (1 - (1 - share) ** 2)
    return share * redone, prefill * share * redone + attention * context - decode - read * redone


def missed(tokens: FloatArray, laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> FloatArray:
    """Share of a victim's tokens whose blocks growth has taken before it returns."""
    reach = surplus(laws, shares).exponent * tokens
    return np.asarray(-np.expm1(-reach) / np.maximum(reach, 1e-12))


def _when_full(
    gates: Gates, demand: FloatArray, laws: tuple[Lengths, ...], shares: tuple[float, ...]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Where memory binds: completions per iteration, evictions per request, tokens a victim had generated.

    Last, completions per iteration if eviction cost nothing.
    """
    memory, slots, budget = gates.limits.T
    prompt, volume, iterations, decodes = (
        demand[:, d] for d in (Demand.PROMPT, Demand.VOLUME, Demand.ITERATIONS, Demand.DECODE)
    )
    spread = np.sqrt(resident_variance(demand))
    y = np.minimum((memory - gates.headroom) / volume, np.minimum(*_other_rows(gates, demand)))
    e = np.zeros_like(y)
    for _ in range(ROUNDS):
        before = y
        room = np.maximum(budget - y * decodes, 1.0)
        at = evictions(laws, shares, headroom=gates.headroom, per_iteration=y, running=y * iterations, room=room)
        lost = at.generated_tokens
        usable = np.maximum(memory - at.free_tokens, LEAST_USED * (memory - gates.headroom))
        redone = prompt + lost
        longer = np.ceil(redone / room) - 1  # chunks of the second prefill but the last
        wasted = longer / 2 * redone
        for _ in range(INNER_ROUNDS):
            stays = iterations + e * longer
            share, running = filling(slots, usable, (volume + e * wasted) / stays, spread)
            rows = np.minimum(running / stays, budget / (demand[:, Demand.TOKENS] + e * redone))
            y = np.sqrt(rows * y)  # halves the step in the logarithm: long victims feed back on y
            e = (e + at.per_request * share) / 2
        if np.max(np.abs(y / before - 1)) < 1e-5:
            break
    unspoilt = filling(slots, usable, volume / iterations, spread)[1] / iterations
    return y, e, lost, np.minimum(unspoilt, budget / demand[:, Demand.TOKENS])


def filling(
    slots: FloatArray | float, memory: FloatArray | float, held: FloatArray | float, spread: FloatArray | float
) -> tuple[FloatArray, FloatArray]:
    """Share of the time in which memory binds rather than slots, and the mean number running, E min(slots, D).

    Parameters
    ----------
    slots : ndarray
        Batch slots.
    memory : ndarray
        KV that residents may hold, tokens.
    held, spread : ndarray
        Mean and standard deviation of the KV of a resident, tokens.
    """
    fills = memory / held  # requests that fill the cache: D, normal
    deviation = spread * np.sqrt(fills) / held
    place = (slots - fills) / deviation
    share = 1 - normal_tail(place)
    density = np.exp(-place * place / 2) / math.sqrt(2 * math.pi)
    return share, np.asarray(slots - (slots - fills) * share - deviation * density)


_erfc = np.frompyfunc(math.erfc, 1, 1)
"""scipy.special would take longer to import than a check may take."""


def normal_tail(deviations: FloatArray) -> FloatArray:
    """P(standard normal > x)."""
    return np.asarray(_erfc(np.asarray(deviations) / math.sqrt(2)) / 2, dtype=np.float64)
