r"""Linear and mixed-integer linear programs: built block by block, solved by HiGHS, checked in plain arithmetic.

.. math:: \min c^T x \quad \text{s.t.} \quad l \le A x \le u, \quad \underline{x} \le x \le \bar x, \quad
          x_j \in \mathbb{Z} \text{ for some } j.

For a linear program any row prices y give the lower bound

.. math:: \sum_r (l_r y_r^+ - u_r y_r^-) + \sum_j \min_{\underline{x}_j \le x \le \bar x_j} (c - A^T y)_j\, x ,

which is what `Optimum.bound` holds, computed here from the solver's prices, not taken from the solver. With integers the
bound is the one that HiGHS reports from its branch and bound; small cases are checked by enumeration in the tests.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray, read_only
from ..errors import StabilityError

GAP = 1e-7
"""Relative gap between a value and its bound at which a program counts as solved."""

TINY = 1e-9
"""Reduced cost, relative to the largest cost, that counts as none: the solver's dual tolerance."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Time for a series of programs.

    Parameters
    ----------
    seconds : float > 0
        For all of them.
    """

    seconds: float
    _started: float = field(default_factory=time.monotonic)

    def half(self) -> float:
        """Half of what is left, s; at least a second, so that a late program is solved as well as may be."""
        return max(1.0, (self.seconds - (time.monotonic() - self._started)) / 2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Optimum:
    """The outcome of a program.

    Attributes
    ----------
    status : str
        "optimal", "limit" (a solution, stopped by time or gap), "infeasible", "unbounded" or "none" (out of time).
    values : (n,) ndarray
        The variables; empty where there is no solution.
    value, bound : float
        Objective of `values`, and what no solution gets below.
    violation : float
        Largest violation of a row or a bound by `values`, integers rounded.
    prices : (m,) ndarray
        Row prices of a linear program; empty with integers.
    """

    status: str
    values: FloatArray
    value: float
    bound: float
    violation: float
    prices: FloatArray

    @property
    def gap(self) -> float:
        """(value - bound)/max(1, |value|)."""
        return (self.value - self.bound) / max(1.0, abs(self.value))


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A program under construction."""

    cost: list[float] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    integral: list[int] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)
    _columns: list[int] = field(default_factory=list)
    _entries: list[float] = field(default_factory=list)
    _row_lower: list[float] = field(default_factory=list)
    _row_upper: list[float] = field(default_factory=list)

    def variables(
        self,
        count: int,
        *,
        cost: ArrayLike = 0.0,
        lower: ArrayLike = 0.0,
        upper: ArrayLike = math.inf,
        integer: bool = False,
    ) -> IntArray:
        """Indices of `count` new variables."""
        first = len(self.cost)
        for kept, given in ((self.cost, cost), (self.lower, lower), (self.upper, upper)):
            kept.extend(np.broadcast_to(np.asarray(given, dtype=np.float64), count).tolist())
        self.integral.extend([int(integer)] * count)
        return np.arange(first, first + count)

    def row(
        self, columns: ArrayLike, entries: ArrayLike, *, at_least: float = -math.inf, at_most: float = math.inf
    ) -> int:
        """Index of the new row at_least <= sum of entries * variables <= at_most."""
        index = len(self._row_lower)
        wide = np.atleast_1d(np.asarray(columns, dtype=np.int64))
        self._columns.extend(wide.tolist())
        self._entries.extend(np.broadcast_to(np.asarray(entries, dtype=np.float64), wide.shape).tolist())
        self._rows.extend([index] * len(wide))
        self._row_lower.append(at_least)
        self._row_upper.append(at_most)
        return index

    def minimise(
        self, *, gap: float = GAP, time_limit_s: float = 60.0, start: tuple[IntArray, FloatArray] | None = None
    ) -> Optimum:
        """Solve: by branch and bound where there are integers, by the simplex method where there are none.

        `start` holds columns and values of a known solution, or of its integers, from which branch and bound goes on.
        """
        return self._integer(gap, time_limit_s, start) if any(self.integral) else self._linear()

    def _matrix(self) -> Any:
        from scipy.sparse import csr_array

        shape = (len(self._row_lower), len(self.cost))
        return csr_array((self._entries, (self._rows, self._columns)), shape=shape)

    def _integer(self, gap: float, time_limit_s: float, start: tuple[IntArray, FloatArray] | None) -> Optimum:
        import highspy

        matrix = self._matrix()
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model = highspy.HighsLp()
        model.num_row_, model.num_col_ = matrix.shape
        model.col_cost_ = np.array(self.cost)
        model.col_lower_, model.col_upper_ = np.array(self.lower), np.array(self.upper)
        model.row_lower_, model.row_upper_ = np.array(self._row_lower), np.array(self._row_upper)
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_, model.a_matrix_.index_ = matrix.indptr, matrix.indices
        model.a_matrix_.value_ = matrix.data
        model.integrality_ = [kinds[one] for one in self.integral]
        solver = highspy.Highs()  # type: ignore[no-untyped-call]
        solver.silent()
        solver.passModel(model)
        solver.setOptionValue("mip_rel_gap", gap)
        solver.setOptionValue("mip_abs_gap", 1e-9)  # its default stops small objectives early
        solver.setOptionValue("time_limit", time_limit_s)
        if start is not None:
            solver.setSolution(len(start[0]), start[0].astype(np.int32), np.asarray(start[1], dtype=np.float64))
        solver.run()
        status, info = solver.getModelStatus(), solver.getInfo()
        if info.primal_solution_status != 2:  # no feasible solution
            named = {
                highspy.HighsModelStatus.kInfeasible: "infeasible",
                highspy.HighsModelStatus.kUnbounded: "unbounded",
                highspy.HighsModelStatus.kUnboundedOrInfeasible: "infeasible",
            }
            return _nothing(named.get(status, "none"))
        found = np.array(solver.getSolution().col_value)
        values = np.where(np.array(self.integral) == 1, np.round(found), found)
        return Optimum(
            status="optimal" if status == highspy.HighsModelStatus.kOptimal else "limit",
            values=read_only(values),
            value=float(np.array(self.cost) @ values),
            bound=float(info.mip_dual_bound),
            violation=self._violation(matrix, values),
            prices=read_only(np.empty(0)),
        )

    def _linear(self) -> Optimum:
        from scipy.optimize import linprog
        from scipy.sparse import vstack

        matrix = self._matrix()
        low, high = np.array(self._row_lower), np.array(self._row_upper)
        equal = low == high
        above, below = np.isfinite(low) & ~equal, np.isfinite(high) & ~equal
        cost = np.array(self.cost)
        bounded = bool((below | above).any())
        inequalities: Any = vstack([matrix[below], -matrix[above]]) if bounded else None
        limits: Any = np.concatenate([high[below], -low[above]]) if bounded else None
        equalities: Any = matrix[equal] if equal.any() else None
        values: Any = low[equal] if equal.any() else None
        box: Any = np.stack([self.lower, self.upper], axis=1)
        found: Any = linprog(
            cost, A_ub=inequalities, b_ub=limits, A_eq=equalities, b_eq=values, bounds=box, method="highs"
        )
        if found.status in (2, 3):
            return _nothing("infeasible" if found.status == 2 else "unbounded")
        if found.x is None:
            raise StabilityError(f"HiGHS gave no solution of a linear program: {found.message}")
        prices = np.zeros(len(low))
        if equal.any():
            prices[equal] = found.eqlin.marginals
        if bounded:
            prices[below] = found.ineqlin.marginals[: int(below.sum())]
            prices[above] -= found.ineqlin.marginals[int(below.sum()) :]
        return Optimum(
            status="optimal",
            values=read_only(found.x),
            value=float(cost @ found.x),
            bound=self._lagrangian(matrix, prices),
            violation=self._violation(matrix, found.x),
            prices=read_only(prices),
        )

    def _lagrangian(self, matrix: Any, prices: FloatArray) -> float:
        """The bound that `prices` prove, in plain arithmetic."""
        low, high = np.array(self._row_lower), np.array(self._row_upper)
        cost = np.array(self.cost)
        rows = np.where(prices > 0, low, high)
        reduced = cost - matrix.T @ prices
        reduced[np.abs(reduced) <= TINY * max(1.0, float(np.abs(cost).max(initial=0.0)))] = 0.0
        ends = np.where(reduced > 0, np.array(self.lower), np.array(self.upper))
        used, moved = prices != 0, reduced != 0
        return float(rows[used] @ prices[used] + ends[moved] @ reduced[moved])

    def _violation(self, matrix: Any, values: FloatArray) -> float:
        sums = matrix @ values
        gaps = [
            np.array(self._row_lower) - sums,
            sums - np.array(self._row_upper),
            np.array(self.lower) - values,
            values - np.array(self.upper),
        ]
        return max(0.0, *(float(gap.max(initial=0.0)) for gap in gaps))


def _nothing(status: str) -> Optimum:
    empty = read_only(np.empty(0))
    value = -math.inf if status == "unbounded" else math.inf
    return Optimum(status=status, values=empty, value=value, bound=value, violation=math.inf, prices=empty)
