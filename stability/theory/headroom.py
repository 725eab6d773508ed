r"""The headroom of a prompt gate that serves the most, in closed form.

With :math:`P = P_0 x, P_1 x`, :math:`x = e^{-\theta h}`, the chances of a first and of another eviction, e = P_0 x/(1 - P_1 x) and w
the time that an eviction costs (its work, and its KV at c0/M a token-iteration), the derivative of
:math:`c_0 g/(M - h) + e\,w` is 0, for h much smaller than M, where

.. math:: A x = (1 - P_1 x)^2, \qquad A = \frac{\theta\, w\, P_0\, M^2}{c_0\, g},
          \qquad h^* = -\frac{\ln x}{\theta} .

For rare evictions x = 1/A, h* = ln(A)/theta. **Approximation**: a victim is taken to return to its own level, and the tail to be
exponential; the optimum of `gate.gate_capacity` itself is found by search (`stability.control`).
"""

from __future__ import annotations

import math

import numpy as np

from .._types import FloatArray
from ..model.lengths import Lengths
from .eviction import evictions
from .excursions import chances
from .gate import second_prefill
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
    demand : (15,) ndarray
        Mean demand of a request.
    limits : (3,) ndarray
        KV tokens, slots, token budget.
    laws, shares
        The mix of length laws.
    """
    memory, slots, budget = limits.tolist()
    base = float(coefficients[0])
    volume, iterations = float(demand[Demand.VOLUME]), float(demand[Demand.ITERATIONS])
    y = memory / volume
    room = budget - y * float(demand[Demand.DECODE])
    if base <= 0 or y >= min(slots / iterations, budget / float(demand[Demand.TOKENS])) or room <= 0:
        return 0.0
    walk = surplus(laws, shares)
    at_zero = chances(laws, shares, np.zeros(1), np.array([y]), np.array([room]))
    first, again = float(at_zero[0][0]), float(at_zero[1][0])
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
        work = float(second_prefill(coefficients[None], demand[None], at.generated_tokens, np.ones(1))[1][0])
        held = base / memory * redone * (math.ceil(redone / room) - 1) / 2
        gain = max(walk.exponent * (work + held), 0.0) * first * memory**2 / (base * volume)
        headroom = max(-math.log(_reach(gain, again)), 0.0) / walk.exponent
    return headroom


def _reach(gain: float, again: float) -> float:
    """The x in (0, 1/P1) with A x = (1 - P1 x)^2."""
    half = again + gain / 2
    return 1 / (half + math.sqrt(max(half * half - again * again, 0.0)))
