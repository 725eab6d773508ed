r"""Eviction under a prompt gate: how often, what it costs, and the capacity that remains.

LIFO eviction makes older requests autonomous. A request waits at the head of the queue until the walk Z of `surplus`, KV
freed less KV grown, first reaches its level; its slack X at admission is what Z lies above it then. It is evicted when Z
falls below that level by more than the headroom h while it is resident:

.. math:: P = P(\mathrm{evict} \mid \mathrm{admitted}) = E\,\bar M(X + h), \qquad e = P/(1 - P_1)

evictions per request, with P1 the same for a victim, whose next slack is one ladder height, for it waits just below its old
level. In the limit of short iterations P = p0 exp(-theta h) and P1 = p1 exp(-theta h); `excursions` counts iterations and the
token budget.

**Approximation**, without fit: exact for a constant number of decoding requests and Poisson completions; see `few_running`
and `synchrony` for where that fails. Mean free memory follows from the same walk (age of the prompts' renewal process less the
depth, and what the token budget leaves).

Measured against saturated simulation: docs/theory/eviction.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import BoolArray, FloatArray
from ..model.lengths import Lengths
from .excursions import chances
from .surplus import surplus

MANY_RUNNING = 0.2
"""1/(theta E[s]) over the running count up to which older requests last as long as an excursion."""

RETURNS = 0.98
"""Largest chance of one more eviction of a victim; the theory overstates it there."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evictions:
    """Eviction at headrooms h and y completions per iteration while memory binds, arrays of one shape. **Approximation**.

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
    room: FloatArray,
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
    room : ndarray
        Prompt tokens an iteration can take beside its decodes.

    Notes
    -----
    A victim's way back is one ladder height if the headroom is short against the mean height E[s]/(theta E[o]), a far
    level if it is long; in between the two are mixed by exp(-h/height). Under the measure of an eviction Z falls at rate
    psi'(theta), so a victim has generated (h + E[X | evicted])/(y psi'(theta)) tokens. With few running no excursion is
    that long, and Z falls by growth alone, at rate E[o].
    """
    walk = surplus(laws, shares)
    first, again, spare = chances(laws, shares, headroom, per_iteration, room)
    near = np.exp(-headroom * walk.exponent * walk.output_mean / walk.prompt_mean)
    again = np.minimum(near * again + (1 - near) * first, RETURNS)
    fall = np.where(few_running(laws, shares, running), walk.output_mean, walk.slope)
    generated = (headroom + max(walk.slack_when_evicted, 0.0)) / (per_iteration * fall)
    deep = np.exp(-walk.exponent * headroom) * walk.age_transform  # P(the walk is below the level: victims are out)
    free = headroom + walk.age_mean - (1 - deep) / walk.exponent + deep * walk.age_mean + spare
    return Evictions(
        per_request=first / (1 - again),
        generated_tokens=np.minimum(generated, walk.output_mean),
        free_tokens=np.maximum(free, 0.0),
    )


def few_running(laws: tuple[Lengths, ...], shares: tuple[float, ...], running: FloatArray) -> BoolArray:
    """Where older requests leave within an excursion of the walk, so that eviction is overstated.

    True where 1/(theta E[s]), the completions of an excursion, exceeds `MANY_RUNNING` of the running count.
    """
    walk = surplus(laws, shares)
    return np.asarray(1 / (walk.exponent * walk.prompt_mean) > MANY_RUNNING * running)
