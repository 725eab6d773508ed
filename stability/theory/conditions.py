r"""Stability conditions of one replica: load per resource, capacity, and which of them is proved.

Flow balance. Under the affine law an iteration takes `tau = c0 + W-work of its tokens`, so at rate lambda the mean
iteration time of a replica that never idles is :math:`\tau(\lambda) = c_0 / (1 - \lambda E[W])`. Resource r has
capacity C_r and a request occupies a_r of it, summed over its iterations; mean use may not exceed capacity,

.. math:: \mathrm{load}_r = \lambda\,(E[W] + c_0 E[a_r]/C_r) \le 1,
          \qquad \lambda^* = 1 / (E[W] + c_0 \max_r E[a_r]/C_r).

- With the least demands this is **necessary** for every policy, idling and small batches included
  (`upper_bound`): I c0 + sum W <= T and sum a_r <= C_r I over I iterations.
- With the demands of a policy (`RESERVE_ROWS`, `GATE_ROWS`) it is that policy's capacity: exact in the large-system limit of an
  i.i.d. mix served first come, first served; **approximate** otherwise.
- Reservation admission is **proved** stable when :math:`\lambda (E[W] + c_0 \sum_r E[a_r]/((1-\delta_r)C_r)) < 1`,
  with delta the largest reservation over M (`proved_capacity`): each iteration that blocks the head of the queue
  lowers the sum over requests of remaining work and remaining occupancy by at least its own duration.

Not to be confused with each other: between the last and the first lies what no formula decides.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np

from .._types import FloatArray, IntArray
from ..model.replica import Replica
from .moments import Demand


class Resource(IntEnum):
    """What can bind, apart from compute."""

    KV_MEMORY = 0
    BATCH_SLOTS = 1
    TOKEN_BUDGET = 2


RESOURCE_NAMES = ("kv_memory", "batch_slots", "token_budget")

BOUND_ROWS = (Demand.LEAST_VOLUME, Demand.ITERATIONS, Demand.TOKENS)
RESERVE_ROWS = (Demand.RESERVED, Demand.ITERATIONS, Demand.TOKENS)
GATE_ROWS = (Demand.VOLUME, Demand.ITERATIONS, Demand.TOKENS)

COMPUTE_GAIN = 0.10
"""A resource is not the bottleneck when lifting every limit would raise capacity by less than this."""


def capacities(replica: Replica) -> FloatArray:
    """Capacity of each `Resource`: KV tokens in whole blocks, slots, tokens of an iteration. Shape (3,)."""
    engine = replica.engine
    return np.array([replica.usable_kv_tokens, engine.max_num_seqs, engine.max_num_batched_tokens], dtype=np.float64)


def packing_slack(demand: FloatArray) -> FloatArray:
    """KV tokens that reservations leave unused while the head of the queue does not fit: E[R^2]/(2 E[R]).

    **Approximation**: the head's reservation overshoots the cache at a uniform place, as a renewal interval that
    covers an inspection point. Measured at M = 60 000: it explains +1.08 % of U(10, 1600)^2 within 0.1 %.
    """
    return np.asarray(demand[..., Demand.LIMIT_SQUARE] / (2 * demand[..., Demand.LIMIT]))


def work_s(coefficients: FloatArray, demand: FloatArray) -> FloatArray:
    """E[W]: iteration time a request itself causes, s.

    Parameters
    ----------
    coefficients : (..., 5) ndarray
        (c0, cp, cd, ck, ca) of the affine law.
    demand : (..., 15) ndarray
        Mean demand, see `Demand`.
    """
    return np.asarray((coefficients[..., 1:] * demand[..., :4]).sum(axis=-1))


def occupancy(demand: FloatArray, rows: tuple[Demand, ...], limits: FloatArray) -> FloatArray:
    """E[a_r]/C_r for each resource: iterations' worth of the resource that a request takes. Shape (..., 3)."""
    return np.asarray(demand[..., list(rows)] / limits)


def affine_capacity(coefficients: FloatArray, demand: FloatArray, shares: FloatArray) -> FloatArray:
    """lambda* = 1/(E[W] + c0 max_r E[a_r]/C_r) under the affine law, 1/s.

    Parameters
    ----------
    coefficients : (..., 5) ndarray
        Step-time law.
    demand : (..., 15) ndarray
        Mean demand.
    shares : (..., 3) ndarray
        `occupancy` of each resource.

    Examples
    --------
    One KV-bound replica: c0 = 10 ms, work 20 ms a request, 5 iterations' worth of memory each:

    >>> import numpy as np
    >>> law, demand = np.array([0.01, 1e-4, 0, 0, 0]), np.array([200.0] + 14 * [0.0])
    >>> float(affine_capacity(law, demand, np.array([5.0, 1.0, 1.0])).round(3))
    14.286
    """
    return np.asarray(1.0 / (work_s(coefficients, demand) + coefficients[..., 0] * shares.max(axis=-1)))


def affine_loads(
    rate_per_s: FloatArray, coefficients: FloatArray, demand: FloatArray, shares: FloatArray
) -> FloatArray:
    """load_r = lambda (E[W] + c0 E[a_r]/C_r) of each resource. Shape (..., 3)."""
    return np.asarray(
        rate_per_s[..., None] * (work_s(coefficients, demand)[..., None] + coefficients[..., :1] * shares)
    )


def binding(coefficients: FloatArray, demand: FloatArray, shares: FloatArray) -> IntArray:
    """Index of the binding `Resource`; 3 (compute) when lifting every limit would gain less than `COMPUTE_GAIN`."""
    work = work_s(coefficients, demand)
    limited = work + coefficients[..., 0] * shares.max(axis=-1)
    return np.where(limited < (1 + COMPUTE_GAIN) * work, 3, shares.argmax(axis=-1))


BOTTLENECKS = (*RESOURCE_NAMES, "compute")


def proved_capacity(
    majorants: FloatArray, demand: FloatArray, limits: FloatArray, largest_reservation: float
) -> float | None:
    """Rate below which reservation admission is proved stable, 1/s; None if nothing is proved.

    Parameters
    ----------
    majorants : (m, 5) ndarray
        Affine laws that are nowhere below the step-time law; none if none is known.
    demand : (15,) ndarray
        Mean demand.
    limits : (3,) ndarray
        Capacities of the resources.
    largest_reservation : float
        Essential supremum of R(s + o_max), tokens, and any watermark. Unbounded lengths prove nothing.

    Notes
    -----
    A slot or a token blocks only when none is left, so delta is 0 for those rows.
    """
    delta = largest_reservation / limits[Resource.KV_MEMORY]
    if not delta < 1 or len(majorants) == 0:
        return None
    shares = occupancy(demand, RESERVE_ROWS, limits)
    shares[Resource.KV_MEMORY] /= 1 - delta
    times = work_s(majorants, demand) + np.maximum(majorants[:, 0], 0.0) * shares.sum()
    best = float(times.min())
    return 1.0 / best if math.isfinite(best) else None
