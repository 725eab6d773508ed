r"""What a chunk gate wastes: long prompts that are admitted too early evict themselves half-way, again and again.

A chunk gate admits the head of the queue as soon as its next chunk fits. A prompt of s tokens that needs several chunks
starts when f >= room + h tokens are free, fills them chunk by chunk, finds no block for the next one, is the most recently
admitted and evicts itself. Older requests do not notice: completions per iteration stay those of the prompt gate, but every
iteration of the wait carries prompt tokens that come to nothing.

The wait is known from the walk of `surplus`. Before Z first passes a level it spends, per token of height,

.. math:: \frac{1 - p_0\,e^{-\theta z}}{y\,E[s]}

iterations at the depth z below it (1/(y E[s]) in all, less those after the passage). With k = floor(f/room) chunks an attempt
from f = s - z takes k + 1 iterations, the last of which admits nothing, and fails unless Z rises by z in the meantime. So per
request

.. math:: \text{tokens} = \mathrm{room}\,E\int \frac{1 - p_0 e^{-\theta z}}{y E[s]}\,\frac{k}{k+1}\,P(\text{fails})\,df, \qquad
          \text{evictions} = E\int \frac{1 - p_0 e^{-\theta z}}{y E[s]}\,\frac{1}{k+1}\,P(\text{fails})\,df .

**Approximation**, nothing fitted. The floor takes every iteration's budget as spent in vain: the capacity to which a chunk
gate can collapse. Prompts of at most one chunk are admitted whole: for them the gate is a prompt gate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..model.lengths import Lengths
from .excursions import rise
from .steps import PromptLaw
from .surplus import surplus

STRATA, PLACES = 200, 64
"""Prompt lengths and depths over which the integrals are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfWay:
    """What prompts that evict themselves half-way cost, per completed request.

    Attributes
    ----------
    tokens : float
        Prompt tokens computed in vain.
    context : float
        Prefill attention work in vain, tokens**2.
    evictions : float
    """

    tokens: float
    context: float
    evictions: float


def half_way(
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    prompts: PromptLaw,
    headroom: float,
    per_iteration: float,
    room: float,
) -> HalfWay:
    """Waste of a chunk gate whose memory is full.

    Parameters
    ----------
    laws, shares
        The mix of length laws.
    prompts : PromptLaw
        Its prompts.
    headroom : float, >= 0
        KV kept free at admission, tokens.
    per_iteration : float, > 0
        Completions per iteration (y).
    room : float, > 0
        Prompt tokens an iteration can take beside its decodes.
    """
    walk = surplus(laws, shares)
    lengths, mass = _strata(prompts)
    wide = np.maximum(lengths - room - headroom, 0.0)
    depth = wide[:, None] * ((np.arange(PLACES) + 0.5) / PLACES)
    chunks = np.maximum(np.floor((lengths[:, None] - depth) / room), 1.0)
    # Iterations spent at each depth, and of them those of attempts that fail.
    spent = -np.expm1(math.log(walk.first) - walk.exponent * depth) / (per_iteration * walk.prompt_mean)
    spent *= (mass * wide / PLACES)[:, None]
    risen = rise(laws, shares, per_iteration, chunks.ravel(), depth.ravel()).reshape(depth.shape)
    attempts = spent * (1 - risen) / (chunks + 1)
    return HalfWay(
        tokens=float((attempts * chunks).sum()) * room,
        context=float((attempts * chunks**2).sum()) * room**2 / 2,
        evictions=float(attempts.sum()),
    )


def _strata(prompts: PromptLaw) -> tuple[FloatArray, FloatArray]:
    """At most `STRATA` prompt lengths with their probabilities: neighbours taken together at their mean."""
    order = np.argsort(prompts.values)
    values, mass = prompts.values[order].astype(np.float64), prompts.probabilities[order]
    cell = np.minimum((values / values[-1] * STRATA).astype(np.int64), STRATA - 1)
    weight = np.bincount(cell, weights=mass, minlength=STRATA).astype(np.float64)
    total = np.bincount(cell, weights=mass * values, minlength=STRATA)
    used = weight > 0
    return total[used] / weight[used], weight[used]
