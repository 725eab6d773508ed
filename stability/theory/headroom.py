r"""The headroom of a prompt gate that serves the most, in closed form.

With :math:`P = P_0 e^{-\theta h}` and w the time that an eviction costs (its work, and its KV at c0/M a token-iteration), setting
the derivative of :math:`c_0 g/(M - h) + P w` to 0 gives, for h much smaller than M,

.. math:: h^* \approx \frac1\theta \ln\frac{\theta\, w\, P_0\, M^2}{c_0\, g} ,

and w = cp s' where only the recomputed prompt counts. **Approximation**: it takes one eviction per victim; the exact optimum of
`gate.gate_capacity` is found by search (`stability.control`).
"""

from __future__ import annotations

import math

import numpy as np

from .._types import FloatArray
from ..model.lengths import Lengths
from .eviction import evictions
from .excursions import chances
from .moments import Demand
from .surplus import surplus

ROUNDS = 8
"""Fixed-point rounds for the tokens that a victim has generated."""


def closed_form_headroom(
    coefficients: FloatArray,
    demand: FloatArray,
    limits: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
) -> float:
    """h*, tokens: 0 where slots or token budget bind before memory, or where evicting costs less than any headroom.

    Parameters
    ----------
    coefficients : (5,) ndarray
        Affine step-time law, or a tangent.
    demand : (14,) ndarray
        Mean demand of a request.
    limits : (3,) ndarray
        KV tokens, slots, token budget.
    laws, shares
        The mix of length laws.
    """
    memory, slots, budget = limits.tolist()
    base, prefill, _, _, attention = coefficients.tolist()
    volume, iterations = float(demand[Demand.VOLUME]), float(demand[Demand.ITERATIONS])
    y = memory / volume
    room = budget - y * float(demand[Demand.DECODE])
    if base <= 0 or y >= min(slots / iterations, budget / float(demand[Demand.TOKENS])) or room <= 0:
        return 0.0
    walk = surplus(laws, shares)
    first = float(chances(laws, shares, np.zeros(1), np.array([y]), np.array([room]))[0][0])
    chunks = iterations - float(demand[Demand.DECODE])
    headroom = 2 / walk.exponent  # from above: a victim's work grows with h, and 0 can be a fixed point, too
    for _ in range(ROUNDS):
        at = evictions(
            laws,
            shares,
            headroom=np.array([headroom]),
            per_iteration=np.array([y]),
            running=np.array([y * iterations]),
            room=np.array([room]),
        )
        redone = walk.prompt_mean + float(at.generated_tokens[0])
        work = prefill * redone + attention * redone * redone / 2
        held = base / memory * redone * (chunks * redone / walk.prompt_mean + 1) / 2
        gain = walk.exponent * (work + held) * first * memory**2 / (base * volume)
        headroom = max(math.log(gain), 0.0) / walk.exponent if gain > 0 else 0.0
    return headroom
