"""Linear programs, solved by a named solver, with the certificate that proves the answer.

    minimise c'x   subject to   A x <= b,   E x = d,   0 <= x <= h

Multipliers y >= 0 of A x <= b, v of E x = d and m >= 0 of x <= h prove that no point does better than -(b'y + d'v + h'm) when
`c + A'y + E'v + m >= 0`. `Certificate` holds the three residuals: how far x breaks its rules, how far (y, v, m) break theirs, and the
gap c'x + b'y + d'v + h'm; all relative to the size of what is compared, all by multiplication and addition only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._types import FloatArray, read_only
from ..errors import StabilityError, check_choice

SOLVERS = ("HIGHS", "CLARABEL")

TOLERANCE = 1e-7
"""Largest residual or gap of an answer that is handed on."""


def gap_text(gap: float) -> str:
    """A relative gap for people; what is below 1e-9 is rounding."""
    return "< 1e-9" if gap < 1e-9 else f"{gap:.1e}"


class InfeasibleError(StabilityError):
    """No point satisfies the constraints; callers say which and what to change."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearProgram:
    """The data of a linear program.

    Attributes
    ----------
    cost : (n,) ndarray
    below : (m, n) sparse array or ndarray
    limits : (m,) ndarray
    equal : (p, n) sparse array or ndarray, optional
    values : (p,) ndarray, optional
    highest : (n,) ndarray, optional
        Upper bounds; infinite without.
    """

    cost: FloatArray
    below: Any
    limits: FloatArray
    equal: Any = None
    values: FloatArray | None = None
    highest: FloatArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """How far an answer is from proved.

    Attributes
    ----------
    primal : float
        Largest violation of a constraint, relative to its terms.
    dual : float
        Largest violation of a dual constraint, relative to its terms.
    gap : float
        Value less the proved bound, relative to the value.
    """

    primal: float
    dual: float
    gap: float

    @property
    def worst(self) -> float:
        """The largest of the three."""
        return max(self.primal, self.dual, abs(self.gap))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearSolution:
    """An optimum and its multipliers.

    Attributes
    ----------
    value : float
        c'x.
    point : (n,) ndarray
    below_duals : (m,) ndarray, >= 0
    equal_duals : (p,) ndarray
    highest_duals : (n,) ndarray, >= 0
    certificate : Certificate
    solver : str
    """

    value: float
    point: FloatArray
    below_duals: FloatArray
    equal_duals: FloatArray
    highest_duals: FloatArray
    certificate: Certificate
    solver: str


def solve_linear(program: LinearProgram, *, solver: str = "HIGHS") -> LinearSolution:
    """The optimum of `program`.

    Parameters
    ----------
    program : LinearProgram
    solver : {"HIGHS", "CLARABEL"}
        Simplex, or interior point through cvxpy.

    Raises
    ------
    InfeasibleError
        If no point satisfies the constraints.
    """
    check_choice("solver", solver, SOLVERS)
    x, y, v, m = (_highs if solver == "HIGHS" else _clarabel)(program)
    y, m = np.maximum(y, 0.0), np.maximum(m, 0.0)
    found = certificate(program, x, y, v, m)
    if found.worst > 1e-5:
        raise StabilityError(
            f"{solver} left residuals {found.primal:.1e}, {found.dual:.1e} and gap {found.gap:.1e}, must be small. "
            "Check the units: coefficients may differ by too many orders of magnitude."
        )
    return LinearSolution(
        value=float(program.cost @ x),
        point=read_only(x),
        below_duals=read_only(y),
        equal_duals=read_only(v),
        highest_duals=read_only(m),
        certificate=found,
        solver=solver,
    )


def certificate(program: LinearProgram, x: FloatArray, y: FloatArray, v: FloatArray, m: FloatArray) -> Certificate:
    """The residuals of x and of the multipliers (y, v, m)."""
    highest = np.full(len(x), np.inf) if program.highest is None else program.highest
    finite = np.isfinite(highest)
    used = program.below @ x
    size = abs(program.below) @ np.abs(x) + np.abs(program.limits) + 1e-12
    primal = float(np.max((used - program.limits) / np.maximum(size, 1.0), initial=0.0))
    primal = max(primal, float(np.max(-x, initial=0.0)), float(np.max((x - highest)[finite], initial=0.0)))
    reduced = program.cost + program.below.T @ y + m
    scale = np.abs(program.cost) + abs(program.below).T @ y + m
    bound = -float(program.limits @ y) - float(highest[finite] @ m[finite])
    terms = float(np.abs(program.limits) @ y)
    if program.equal is not None and program.values is not None:
        primal = max(primal, float(np.max(np.abs(program.equal @ x - program.values), initial=0.0)))
        reduced = reduced + program.equal.T @ v
        scale = scale + abs(program.equal).T @ np.abs(v)
        bound -= float(program.values @ v)
        terms += float(np.abs(program.values) @ np.abs(v))
    dual = float(np.max(-reduced / np.maximum(scale, 1e-6 * max(1.0, float(scale.max(initial=0.0)))), initial=0.0))
    value = float(program.cost @ x)
    return Certificate(primal=primal, dual=dual, gap=(value - bound) / max(abs(value), terms, 1e-12))


_Answer = tuple[FloatArray, FloatArray, FloatArray, FloatArray]


def cvxpy_module() -> Any:
    """The package cvxpy, loaded when it is used."""
    import cvxpy

    return cvxpy


def solve_conic(problem: Any, tolerance: float | None = None) -> str:
    """Solve a cvxpy problem by CLARABEL; its status.

    A warning that an answer may be inaccurate is not passed on: every answer is judged by its own bounds.
    """
    import warnings

    options = {} if tolerance is None else dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), tolerance)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        problem.solve(solver="CLARABEL", **options)
    status: str = problem.status
    if status not in ("optimal", "optimal_inaccurate", "infeasible", "infeasible_inaccurate"):
        raise StabilityError(f"CLARABEL stopped: {status}.")
    return status


def linprog(*arguments: Any, **options: Any) -> Any:
    """`scipy.optimize.linprog` by HiGHS, loaded when it is used."""
    from scipy import optimize

    function: Any = optimize.linprog
    return function(*arguments, method="highs", **options)


def _highs(program: LinearProgram) -> _Answer:
    upper = np.full(len(program.cost), np.inf) if program.highest is None else program.highest
    found = linprog(
        program.cost,
        A_ub=program.below,
        b_ub=program.limits,
        A_eq=program.equal,
        b_eq=program.values,
        bounds=np.stack([np.zeros(len(program.cost)), upper], axis=1),
        options={"primal_feasibility_tolerance": 1e-9, "dual_feasibility_tolerance": 1e-9},
    )
    if found.status == 2:
        raise InfeasibleError("no point satisfies the constraints.")
    if found.status != 0:
        raise StabilityError(f"HiGHS stopped: {found.message}")
    equal = -found.eqlin.marginals if program.equal is not None else np.zeros(0)
    return (
        np.asarray(found.x, dtype=np.float64),
        np.asarray(-found.ineqlin.marginals, dtype=np.float64),
        np.asarray(equal, dtype=np.float64),
        np.asarray(-found.upper.marginals, dtype=np.float64),
    )


def _clarabel(program: LinearProgram) -> _Answer:
    cvxpy = cvxpy_module()
    x = cvxpy.Variable(len(program.cost), nonneg=True)
    rules = [program.below @ x <= program.limits]
    if program.equal is not None:
        rules.append(program.equal @ x == program.values)
    bounded = np.zeros(0, dtype=np.int64)
    if program.highest is not None:
        bounded = np.flatnonzero(np.isfinite(program.highest))
        rules.append(x[bounded] <= program.highest[bounded])
    problem = cvxpy.Problem(cvxpy.Minimize(program.cost @ x), rules)
    if solve_conic(problem, 1e-10).startswith("infeasible"):
        raise InfeasibleError("no point satisfies the constraints.")
    duals = [np.atleast_1d(np.asarray(rule.dual_value, dtype=np.float64)) for rule in rules]
    upper = np.zeros(len(program.cost))
    if len(bounded):
        upper[bounded] = duals[-1]
    return (
        np.maximum(np.asarray(x.value, dtype=np.float64), 0.0),
        duals[0],
        duals[1] if program.equal is not None else np.zeros(0),
        upper,
    )
