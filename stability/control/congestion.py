r"""Convex congestion: the split of least :math:`F(x) = \sum_i n_i\,\rho_i/(1-\rho_i)`, :math:`\rho_i` the greatest load of type i.

The cost of M/M/1 queues at these loads: a convex increasing function of the loads, hence convex in the rates; any other such function
could stand in its place. It keeps away from the boundary on every pool, where least load cares only for the worst.

Certificate: with theta_ir >= 0, sum_r theta_ir = 1, the function G(z) = sum_i n_i phi(sum_r theta_ir L_ir(z)) is smooth, convex and nowhere
above F, so for every feasible z'

.. math:: F(z') \ge G(z) + \nabla G(z)\cdot(z' - z) \ge G(z) - \nabla G(z)\cdot z + \sum_k \min_i \partial G/\partial z_{ik} ,

each class at its cheapest type. No solver is trusted: theta and z may come from anywhere. They come from CLARABEL, and then from a few steps of
Newton's method on the optimality conditions with the support and the binding rows that it found, since an interior point that is 1e-7
short leaves a gap of 1e-5.
"""

from __future__ import annotations

import numpy as np

from .._types import FloatArray, IntArray
from .linear import cvxpy_module, solve_conic
from .program import RoutingVariables, routing_variables
from .rows import FleetRows

SUPPORT = 1e-6
"""Shares and weights of rows below which they are taken for 0."""

STEPS, ROUNDS = 12, 8
"""Newton steps, and changes of the support."""

MOST_POLISHED = 2_000
"""Shares up to which this is done."""

NEARLY_FULL = 1 - 1e-9


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
    rows = variables.load @ z <= np.kron(np.eye(n), np.ones((height, 1))) @ load
    cost = cvxpy.sum(cvxpy.multiply(system.replicas, cvxpy.inv_pos(1 - load)))
    problem = cvxpy.Problem(cvxpy.Minimize(cost), [rows, variables.once @ z == 1, load >= 0])
    solve_conic(problem)
    theta = _weights(np.asarray(rows.dual_value).reshape(n, height))
    first = _normalised(variables, np.asarray(z.value))
    tried = [(first, theta), *_polished(variables, system.replicas, first, theta)]
    bounded = [(*_bounds(variables, system.replicas, *one), one[0]) for one in tried]
    value, lower, best = min(bounded, key=lambda one: one[0] - one[1])
    return variables.matrix(best), value, lower


def _bounds(
    variables: RoutingVariables, replicas: FloatArray, point: FloatArray, theta: FloatArray
) -> tuple[float, float]:
    """F at a split, and the bound that it proves with row weights theta."""
    loads = np.asarray(variables.load @ point).reshape(theta.shape)
    if not loads.max() < 1:
        return np.inf, -np.inf
    mixed = (theta * loads).sum(axis=1)
    slope = variables.load.T @ (theta * (replicas / (1 - mixed) ** 2)[:, None]).ravel()
    lower = float(replicas @ _phi(mixed)) - float(slope @ point)
    for k in np.unique(variables.class_).tolist():
        lower += float(slope[variables.class_ == k].min())
    return float(replicas @ _phi(loads.max(axis=1))), lower


def _polished(
    variables: RoutingVariables, replicas: FloatArray, point: FloatArray, theta: FloatArray
) -> list[tuple[FloatArray, FloatArray]]:
    """Optima for the support and the binding rows of the given point, and for those that each of them asks for."""
    n, height = theta.shape
    support, binding = point > SUPPORT, (theta > SUPPORT).ravel()
    found: list[tuple[FloatArray, FloatArray]] = []
    for _ in range(ROUNDS if len(point) <= MOST_POLISHED else 0):
        tried = _newton(variables, replicas, point, theta, np.flatnonzero(support), np.flatnonzero(binding))
        if tried is None:
            break
        z, rho, y, w = tried
        found.append((_normalised(variables, z), _weights(y.reshape(n, height))))
        # Shares and weights below 0 leave; shares that would be cheaper and rows above their type's load enter.
        reduced = variables.load.T @ y - variables.once.T @ w
        cheaper = ~support & (reduced < -SUPPORT * np.abs(variables.once.T @ w))
        above = ~binding & (np.asarray(variables.load @ z) > np.repeat(rho, height) + SUPPORT)
        if not (cheaper.any() or above.any() or (z < 0).any() or (y < 0).any()):
            break
        support, binding = (support & (z > 0)) | cheaper, (binding & (y > 0)) | above
    return found


def _newton(
    variables: RoutingVariables,
    replicas: FloatArray,
    point: FloatArray,
    theta: FloatArray,
    support: IntArray,
    binding: IntArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray] | None:
    """Solve: loads of binding rows equal rho_i, sums 1, n phi'(rho) = sum of y, L'y = w on the support. All (z, rho, y, w)."""
    n, height = theta.shape
    load = variables.load.toarray()[np.ix_(binding, support)]
    once = variables.once.toarray()[:, support]
    pick = np.zeros((len(binding), n))
    pick[np.arange(len(binding)), binding // height] = 1.0
    m, b, k = len(support), len(binding), len(once)
    z = point[support]
    rho = np.minimum((theta * np.asarray(variables.load @ point).reshape(n, height)).sum(axis=1), NEARLY_FULL)
    y = (theta * (replicas / (1 - rho) ** 2)[:, None]).ravel()[binding]
    w = np.linalg.lstsq(once.T, load.T @ y, rcond=None)[0]
    for _ in range(STEPS):
        system = np.zeros((m + n + b + k, m + n + b + k))
        system[:m, m + n : m + n + b], system[:m, m + n + b :] = load.T, -once.T
        system[m : m + n, m : m + n] = np.diag(2 * replicas / (1 - rho) ** 3)
        system[m : m + n, m + n : m + n + b] = -pick.T
        system[m + n : m + n + b, :m], system[m + n : m + n + b, m : m + n] = load, -pick
        system[m + n + b :, :m] = once
        rest = np.concatenate(
            [load.T @ y - once.T @ w, replicas / (1 - rho) ** 2 - pick.T @ y, load @ z - pick @ rho, once @ z - 1]
        )
        size = 1 / np.maximum(np.sqrt(np.abs(system).max(axis=1)), 1e-300)  # loads near 1 make derivatives huge
        step = size * np.linalg.lstsq(system * size * size[:, None], -rest * size, rcond=1e-13)[0]
        z, y, w = z + step[:m], y + step[m + n : m + n + b], w + step[m + n + b :]
        rho = np.minimum(rho + step[m : m + n], (rho + 1) / 2)  # stay below 1
    if not np.isfinite(z).all():
        return None
    whole, weights = np.zeros(len(point)), np.zeros(n * height)
    whole[support], weights[binding] = z, y
    return whole, rho, weights, w


def _normalised(variables: RoutingVariables, point: FloatArray) -> FloatArray:
    """Shares >= 0 that sum to 1 for each class."""
    kept = np.maximum(point, 0.0)
    return np.asarray(kept / np.maximum(variables.once.T @ (variables.once @ kept), 1e-300))


def _weights(theta: FloatArray) -> FloatArray:
    """Row weights >= 0 that sum to 1 for each type."""
    kept = np.maximum(theta, 0.0)
    kept = np.where(kept.sum(axis=1, keepdims=True) > 0, kept, 1.0)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def _phi(load: FloatArray) -> FloatArray:
    return np.asarray(load / (1 - load))
