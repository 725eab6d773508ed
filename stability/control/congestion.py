r"""Convex congestion: the split of least :math:`F(x) = \sum_i n_i\,\rho_i/(1-\rho_i)`, :math:`\rho_i` the greatest load of type i.

The cost of M/M/1 queues at these loads: a convex increasing function of the loads, hence convex in the rates; any other such function
could stand in its place. It keeps away from the boundary on every pool, where least load cares only for the worst.

Certificate: with theta_ir >= 0, sum_r theta_ir = 1, the function G(x) = sum_i n_i phi(sum_r theta_ir L_ir(x)) is smooth, convex and nowhere
above F, so for every feasible x'

.. math:: F(x') \ge G(x) + \nabla G(x)(x' - x) \ge G(x) + \nabla G(x)\cdot x\,(-1) + \sum_k \min_i \partial G/\partial z_{ik} ,

each class to its cheapest type: no solver is trusted. theta comes from the solver's multipliers.
"""

from __future__ import annotations

import numpy as np

from .._types import FloatArray
from ..errors import StabilityError
from .linear import cvxpy_module
from .program import routing_variables
from .rows import FleetRows


def least_congestion(system: FleetRows, caps: FloatArray) -> tuple[FloatArray, float, float]:
    """Shares (n, K), their congestion and a bound below which no split gets; for loads that can be below the caps.

    Parameters
    ----------
    system : FleetRows
    caps : (n,) ndarray
        Largest loads; congestion is that of the loads relative to them.
    """
    cvxpy = cvxpy_module()
    n, height = system.seconds.shape[:2]
    variables = routing_variables(system, system.rates_per_s, caps)
    z = cvxpy.Variable(variables.count, nonneg=True)
    load = cvxpy.Variable(n)
    rate_rules = [variables.load @ z <= np.kron(np.eye(n), np.ones((height, 1))) @ load]
    rules = [*rate_rules, variables.once @ z == 1, load >= 0]
    cost = cvxpy.sum(cvxpy.multiply(system.replicas, cvxpy.inv_pos(1 - load)))
    problem = cvxpy.Problem(cvxpy.Minimize(cost), rules)
    problem.solve(solver=cvxpy.CLARABEL, tol_gap_abs=1e-10, tol_gap_rel=1e-10, tol_feas=1e-10)
    if z.value is None:
        raise StabilityError(f"Clarabel stopped: {problem.status}")
    point = np.maximum(np.asarray(z.value), 0.0)
    point = point / (variables.once.T @ (variables.once @ point))
    theta = np.maximum(np.asarray(rate_rules[0].dual_value).reshape(n, height), 0.0)
    theta = np.where(theta.sum(axis=1, keepdims=True) > 0, theta, 1.0)
    theta /= theta.sum(axis=1, keepdims=True)
    loads = np.asarray(variables.load @ point).reshape(n, height)
    value = float(system.replicas @ _phi(loads.max(axis=1)))
    mixed = (theta * loads).sum(axis=1)
    slope = variables.load.T @ (theta * (system.replicas / (1 - mixed) ** 2)[:, None]).ravel()
    lower = float(system.replicas @ _phi(mixed)) - float(slope @ point)
    for k in np.unique(variables.class_).tolist():
        lower += float(slope[variables.class_ == k].min())
    return variables.matrix(point), value, lower


def _phi(load: FloatArray) -> FloatArray:
    return np.asarray(load / (1 - load))
