r"""The operating point of a replica at a given rate: iteration time, inter-token latency, occupancy.

An idle replica does no work, so at busy share u the work of a request is met at rate lambda/u while iterating:
:math:`\tau = c_0/(1 - \lambda E[W]/u)`. Requests come and go like a network with many servers, hence
:math:`u \approx 1 - e^{-\lambda \tau E[n]}` (the chance that someone is resident, M/G/infinity). A decoding request sees the
others' work and its own: :math:`\mathrm{ITL} \approx (c_0 + c_d + c_k E[\text{own KV}])/(1 - \lambda E[W]/u)`.
**Approximations**; measured within 1.5 % (uniform lengths) and 5 % (lognormal) at loads 0.3 to 0.95, poor for 32k-token
prompts at low concurrency (-13 to -28 %).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..model.iteration import IterationLaw
from .conditions import work_s
from .moments import Demand
from .steps import PromptLaw, composition, effective_law

ROUNDS = 60
"""Fixed-point rounds for the busy share; it contracts by less than 0.8 a round."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OperatingPoint:
    """Mean state of replicas, arrays of one shape.

    Attributes
    ----------
    iteration_s : ndarray
        Mean iteration time while busy, s.
    itl_s : ndarray
        Token-weighted inter-token latency, s.
    busy : ndarray
        Share of time in which the replica iterates.
    running : ndarray
        Mean requests resident.
    kv_tokens : ndarray
        Mean KV held over time, tokens.
    """

    iteration_s: FloatArray
    itl_s: FloatArray
    busy: FloatArray
    running: FloatArray
    kv_tokens: FloatArray


def operating_point(coefficients: FloatArray, demand: FloatArray, rate_per_s: FloatArray) -> OperatingPoint:
    """Operating point at a rate below capacity.

    Parameters
    ----------
    coefficients : (..., 5) ndarray
        Affine (or effective) step-time law.
    demand : (..., 15) ndarray
        Mean demand.
    rate_per_s : (...,) ndarray, > 0
        Arrivals per replica, 1/s; `rate * E[W] < 1`.
    """
    work = np.minimum(rate_per_s * work_s(coefficients, demand), 1 - 1e-9)
    base, iterations = coefficients[..., 0], demand[..., Demand.ITERATIONS]
    busy = np.ones_like(work)
    iteration = base / (1 - work)
    for _ in range(ROUNDS):
        least = work + (1 - work) * 1e-9
        # From above: fewer busy moments make longer iterations, which keep the replica busy for longer.
        resident = 1 - np.exp(-rate_per_s * iteration * iterations)
        updated = np.maximum(0.5 * (busy + resident), least)
        iteration = np.where(updated > work, base / np.maximum(1 - work / updated, 1e-12), iteration)
        if np.max(np.abs(updated - busy)) < 1e-12:
            busy = updated
            break
        busy = updated
    decodes = np.maximum(demand[..., Demand.DECODE], 1e-300)
    own = np.where(demand[..., Demand.DECODE] > 0, demand[..., Demand.READ] / decodes, 0.0)
    # A decode's own cost is stretched like the base: it too lengthens iterations in which others arrive.
    stretch = 1 / np.maximum(1 - work / busy, 1e-2)
    itl = iteration + (coefficients[..., 2] + coefficients[..., 3] * own) * stretch
    return _point(iteration, itl, busy, demand, rate_per_s, coefficients, stretch)


def law_operating_point(
    law: IterationLaw,
    demand: FloatArray,
    prompts: PromptLaw,
    rate_per_s: float,
    budget: float,
    most_per_iteration: float,
) -> OperatingPoint:
    """The same for a law that is not affine, by bisection on the completions per iteration; 0-d arrays.

    Parameters
    ----------
    law : IterationLaw
        Step-time law.
    demand : (15,) ndarray
        Mean demand.
    prompts : PromptLaw
        Prompt lengths.
    rate_per_s : float > 0
        Arrivals per replica, 1/s.
    budget : float
        Token budget B.
    most_per_iteration : float
        Completions per iteration with every resource full.
    """
    # Rate served at y per iteration less the rate offered; rising in y as far as full batches are best.
    low, high = 0.0, most_per_iteration
    below, above = -rate_per_s, math.inf
    for turn in range(60):
        secant = math.isfinite(above) and turn % 3
        middle = low - below * (high - low) / (above - below) if secant else (low + high) / 2
        over = composition(demand, prompts, middle, budget)
        time = over.mean_time_s(law)
        busy = -math.expm1(-rate_per_s * time * demand[Demand.ITERATIONS])
        excess = middle * busy / time - rate_per_s
        if excess < 0:
            low, below = middle, excess
        else:
            high, above = middle, excess
        if abs(excess) < 1e-5 * rate_per_s or high - low < 1e-6 * high:
            break
    slopes = effective_law(law, over)
    own = demand[Demand.READ] / demand[Demand.DECODE] if demand[Demand.DECODE] > 0 else 0.0
    stretch = min(max(time / slopes[0], 1.0), 100.0) if slopes[0] > 0 else 1.0
    itl = time + (slopes[2] + slopes[3] * own) * stretch
    return _point(
        np.array(time), np.array(itl), np.array(busy), demand, np.array(rate_per_s), slopes, np.array(stretch)
    )


def _point(
    iteration: FloatArray,
    itl: FloatArray,
    busy: FloatArray,
    demand: FloatArray,
    rate_per_s: FloatArray,
    coefficients: FloatArray,
    stretch: FloatArray,
) -> OperatingPoint:
    # Over time, a request's KV counts for longer in the iterations that it makes long itself.
    own = coefficients[..., 1] * demand[..., Demand.PREFILL_HELD] + coefficients[..., 2] * demand[..., Demand.READ]
    own = own + coefficients[..., 3] * demand[..., Demand.READ_HELD]
    own = own + coefficients[..., 4] * demand[..., Demand.CONTEXT_HELD]
    return OperatingPoint(
        iteration_s=np.asarray(iteration),
        itl_s=np.asarray(itl),
        busy=np.asarray(busy),
        running=np.asarray(rate_per_s * iteration * demand[..., Demand.ITERATIONS]),
        kv_tokens=np.asarray(rate_per_s * (iteration * demand[..., Demand.VOLUME] + own * stretch)),
    )
