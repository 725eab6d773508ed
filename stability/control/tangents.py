r"""Tangents to the least engine time of two-phase laws and tables, which no affine minorant describes well.

The least time :math:`t(d)` that any policy spends per request of mean demand d is the value of a linear program with d on its right-hand
side, hence convex and homogeneous of degree one: sublinear. Every dual point y gives :math:`t(d) \ge y \cdot d` for all d, with equality at
the demand for which y is optimal. **Necessary** rows: one dual point for the mix, one for each class. The same programs as
`theory.envelope.upper_bound` solves, for a row in place of a value.
"""

from __future__ import annotations

import numpy as np

from .._types import ArrayLike, BoolArray, FloatArray
from ..errors import NotModelledError
from ..model.iteration import IterationLaw, Table, TwoPhase
from ..theory.conditions import BOUND_ROWS
from ..theory.envelope import clipped_axis, table_axes
from ..theory.moments import Demand
from .linear import linprog


def tangent_rows(
    law: IterationLaw, demand: FloatArray, limits: FloatArray, mix: FloatArray, fits: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Rows (m, K) and the part of them that falls as 1/capacity (m, 3, K).

    Parameters
    ----------
    law : TwoPhase or Table
    demand : (K, 15) ndarray
        Mean demand of each class.
    limits : (3,) ndarray
        Capacities of the resources.
    mix : (K,) ndarray
        Rates, up to a factor.
    fits : (K,) ndarray of bool
        Classes whose own tangents are wanted.
    """
    points = [(mix / mix.sum()) @ demand, *demand[fits]] if fits.any() else [demand[0]]
    if isinstance(law, TwoPhase):
        duals = [_two_phase(law, point, limits) for point in points]
        fixed = (
            law.mixed.coefficients[1] * demand[:, Demand.PREFILL]
            + law.mixed.coefficients[4] * demand[:, Demand.CONTEXT]
        )
    elif isinstance(law, Table):
        duals = [_table(law, point, limits) for point in points]
        fixed = law.per_prefill_context_s * demand[:, Demand.CONTEXT]
    else:
        raise NotModelledError(f"{law!r} has no bound for several classes yet.")
    terms = demand[:, [Demand.PREFILL, Demand.DECODE, Demand.READ]]
    shares = demand[:, list(BOUND_ROWS)] / limits
    seconds = np.array([fixed + terms @ dual[:3] + shares @ dual[3:] for dual in duals])
    occupancy = np.array([(shares * dual[3:]).T for dual in duals])
    return seconds, occupancy


def _two_phase(law: TwoPhase, demand: FloatArray, limits: FloatArray) -> FloatArray:
    """Duals of (prompt tokens, decodes, reads, shares of memory, slots, budget): u decode-only and v mixed iterations, and where decodes and reads go."""
    memory, slots, budget = (float(limit) for limit in limits)
    only, mixed = law.decode.coefficients, law.mixed.coefficients
    cost = [only[0], mixed[0], only[2], mixed[2], only[3], mixed[3]]
    supply = [
        [0, budget, 0, -1, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [slots, 0, -1, 0, 0, 0],
        [0, slots, 0, -1, 0, 0],
        [memory, 0, 0, 0, -1, 0],
        [0, memory, 0, 0, 0, -1],
    ]
    return _duals(cost, np.array(supply, dtype=np.float64), demand, limits)


def _table(law: Table, demand: FloatArray, limits: FloatArray) -> FloatArray:
    axes = [
        clipped_axis(axis, limit)
        for axis, limit in zip(table_axes(law), (limits[2], limits[1], limits[0]), strict=True)
    ]
    p, d, k = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    ones = np.ones_like(p)
    return _duals(law.time_s(p, d, k), np.vstack([p, d, k, ones, ones, ones]), demand, limits)


def _duals(cost: ArrayLike, supply: FloatArray, demand: FloatArray, limits: FloatArray) -> FloatArray:
    wanted = np.concatenate(
        [
            demand[[Demand.PREFILL, Demand.DECODE, Demand.READ]],
            demand[list(BOUND_ROWS)] / limits,
            np.zeros(len(supply) - 6),
        ]
    )
    scale = 1 / np.abs(supply).max(axis=1)
    found = linprog(cost, A_ub=-supply * scale[:, None], b_ub=-wanted * scale, bounds=(0, None))
    if found.x is None:  # beyond what any mix of iterations supplies: no rate is possible, and no tangent exists
        raise NotModelledError("demands exceed what the step-time table covers. Extend its grid.")
    return np.asarray(np.maximum(-found.ineqlin.marginals * scale, 0.0)[:6], dtype=np.float64)
