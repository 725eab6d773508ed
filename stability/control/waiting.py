r"""Fewest requests waiting: a problem that is not convex, solved locally from convex starts, with a bound for what is left.

**Approximation** (heavy traffic): a replica that gets class k at rate x_k/n works like one server whose service times are the
replica-seconds S of its requests (mean T_ik, second moment m_ik), so of Pollaczek and Khinchine

.. math:: N_i(x) = \frac{(\sum_k x_{ik})(\sum_k m_{ik} x_{ik})}{2 n_i (1-\rho_i)}, \qquad \rho_i = \sum_k T_{ik} x_{ik}/n_i

requests wait in pool i. The product of two sums is not convex: with two equal replicas and two classes of unequal size, giving each replica a
class of its own beats the even split, a saddle point. Equal pools are kept apart for that reason.

- Bound: by Cauchy and Schwarz :math:`(\sum x)(\sum m x) \ge (\sum \sqrt m\,x)^2`, so :math:`\sum_i (\sum_k \sqrt{m_{ik}} x_{ik})^2/(2 n_i(1-\rho_i))`,
  a quadratic over a linear function and convex, lies below. Its least value (CLARABEL), less its own duality gap, bounds every split.
- Starts: that optimum, the split of least load, and the vertices that random prices lead to; from each, sequential quadratic
  programming (SLSQP); the best is kept. `gap` is to the bound, not a proof that a better split exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._types import FloatArray, IntArray
from ..errors import InputError
from ..model.lengths import AtomPart, Length, ProductPart
from ..model.workload import RequestClass, Workload
from ..theory.conditions import BOUND_ROWS, GATE_ROWS, RESERVE_ROWS
from ..theory.moments import demands
from ..theory.regimes import evicts
from .linear import LinearProgram, cvxpy_module, solve_conic, solve_linear
from .program import RoutingVariables, routing_variables
from .rows import FleetRows

GROUPS = 128
"""Lengths of a marginal are joined into this many groups of about equal probability."""

MOST_PAIRS = 1 << 16
"""Observed requests that are visited."""

MOST_VARIABLES = 200

STARTS = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Waiting:
    """A split with few requests waiting.

    Attributes
    ----------
    shares : (n, K) ndarray
    value, lower : float
        Requests waiting, and the bound below which no split gets.
    starts : int
        Starts of the search.
    """

    shares: FloatArray
    value: float
    lower: float
    starts: int


def fewest_waiting(system: FleetRows, workload: Workload, caps: FloatArray, near: FloatArray) -> Waiting:
    """The best split found, for rows of pools kept apart (`fleet_rows(..., merged=False)`).

    Parameters
    ----------
    system : FleetRows
    workload : Workload
        Classes of `system`, for the spread of their lengths.
    caps : (n,) ndarray
        Largest loads.
    near : (n, K) ndarray
        Shares of least load; the row that binds there gives the service times.
    """
    variables = routing_variables(system, system.rates_per_s, caps)
    if variables.count > MOST_VARIABLES:
        raise InputError(
            f"fewest waiting has {variables.count} pairs of pool and class, must have at most {MOST_VARIABLES}. "
            "Merge pools or use objective='congestion', which is convex."
        )
    rows = np.einsum("irk,ik->ir", system.seconds, near * system.rates_per_s).argmax(axis=1)
    service = system.seconds[np.arange(len(rows)), rows]
    second = second_moments(system, workload, rows, service)
    model = _Model(system, variables, service, second)
    start, lower = _relaxed(model, variables)
    starts = [start, near[variables.type_, variables.class_], *_vertices(variables, STARTS)]
    best, value = start, np.inf
    for point in starts:
        found = _descend(model, variables, point)
        if found is not None and model.waiting(found) < value:
            best, value = found, model.waiting(found)
    return Waiting(shares=variables.matrix(best), value=value, lower=lower, starts=len(starts))


class _Model:
    """N(z) and its gradient, shares z over the pairs."""

    def __init__(self, system: FleetRows, variables: RoutingVariables, service: FloatArray, second: FloatArray) -> None:
        i, k = variables.type_, variables.class_
        self.type_ = i
        self.n = system.replicas
        self.rate = system.rates_per_s[k]
        self.service = self.rate * service[i, k]
        self.second = self.rate * second[i, k]
        self.root = self.rate * np.sqrt(second[i, k])

    def sums(self, weights: FloatArray, z: FloatArray) -> FloatArray:
        """Sum of weights * z over the classes of each type. Shape (n,)."""
        return np.bincount(self.type_, weights=weights * z, minlength=len(self.n)).astype(np.float64)

    def waiting(self, z: FloatArray) -> float:
        """Requests waiting over all pools; infinite at load 1."""
        spare = 1 - self.sums(self.service, z) / self.n
        if (spare <= 0).any():
            return np.inf
        return float((self.sums(self.rate, z) * self.sums(self.second, z) / (2 * self.n * spare)).sum())

    def gradient(self, z: FloatArray) -> FloatArray:
        """Its derivative by each share."""
        x, m = self.sums(self.rate, z), self.sums(self.second, z)
        spare = np.maximum(1 - self.sums(self.service, z) / self.n, 1e-9)
        i = self.type_
        by_count, by_second = (m / (2 * self.n * spare))[i], (x / (2 * self.n * spare))[i]
        by_load = (x * m / (2 * self.n**2 * spare**2))[i]
        return np.asarray(self.rate * by_count + self.second * by_second + self.service * by_load)


def _relaxed(model: _Model, variables: RoutingVariables) -> tuple[FloatArray, float]:
    """Minimiser of the convex bound, and a value that no split is below (its value less its duality gap)."""
    cvxpy = cvxpy_module()
    z = cvxpy.Variable(variables.count, nonneg=True)
    n = len(model.n)
    pick = np.zeros((n, variables.count))
    pick[model.type_, np.arange(variables.count)] = 1.0
    spare = 1 - (pick * model.service) @ z / model.n
    terms = [
        cvxpy.quad_over_lin((pick[i] * model.root) @ z, 2 * model.n[i] * spare[i]) for i in range(n) if pick[i].any()
    ]
    problem = cvxpy.Problem(cvxpy.Minimize(sum(terms)), [variables.once @ z == 1, variables.load @ z <= 1])
    solve_conic(problem)
    point = np.maximum(np.asarray(z.value), 0.0)
    point = point / (variables.once.T @ (variables.once @ point))
    root = model.sums(model.root, point)
    spare_ = np.maximum(1 - model.sums(model.service, point) / model.n, 1e-9)
    value = float((root**2 / (2 * model.n * spare_)).sum())
    slope = model.root * (root / (model.n * spare_))[model.type_]
    slope = slope + model.service * (root**2 / (2 * model.n**2 * spare_**2))[model.type_]
    # The farthest that the tangent falls over the splits that keep the rows.
    low = solve_linear(_over(variables, slope)).value
    return point, max(0.0, value + low - float(slope @ point))


def _over(variables: RoutingVariables, cost: FloatArray) -> LinearProgram:
    """Minimise a linear cost over the splits that keep the rows."""
    return LinearProgram(
        cost=cost,
        below=variables.load,
        limits=np.ones(variables.load.shape[0]),
        equal=variables.once,
        values=np.ones(variables.once.shape[0]),
    )


def _vertices(variables: RoutingVariables, count: int) -> list[FloatArray]:
    """Splits that are cheapest at random prices."""
    rng = np.random.default_rng(0)
    return [solve_linear(_over(variables, rng.random(variables.count))).point for _ in range(count)]


def _descend(model: _Model, variables: RoutingVariables, start: FloatArray) -> FloatArray | None:
    from scipy import optimize

    search: Any = optimize.minimize
    load, once = variables.load.toarray(), variables.once.toarray()
    middle = np.asarray(start)
    if not np.isfinite(model.waiting(middle)):
        middle = 0.98 * middle + 0.02 * np.ones(variables.count) / (
            variables.once.T @ (variables.once @ np.ones(variables.count))
        )
    if not np.isfinite(model.waiting(middle)):
        return None
    scale = model.waiting(middle)
    found = search(
        lambda z: min(model.waiting(z) / scale, 1e6),
        middle,
        jac=lambda z: model.gradient(z) / scale,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * variables.count,
        constraints=[optimize.LinearConstraint(once, 1.0, 1.0), optimize.LinearConstraint(load, -np.inf, 1.0)],
        options={"maxiter": 300, "ftol": 1e-12},
    )
    point = np.maximum(found.x, 0.0)
    point = np.asarray(point / (variables.once.T @ (variables.once @ point)))
    if (variables.load @ point > 1 + 1e-7).any() or not np.isfinite(model.waiting(point)):
        return None
    return point


def second_moments(system: FleetRows, workload: Workload, rows: IntArray, service: FloatArray) -> FloatArray:
    """E[S^2] of each class at each type, s^2: replica-seconds in the row that binds, scaled to mean T. Shape (n, K)."""
    second = np.zeros_like(service)
    for k, item in enumerate(workload.classes):
        tables: dict[tuple[int, int], tuple[FloatArray, FloatArray]] = {}
        for i, replica in enumerate(system.types):
            key = (replica.engine.max_num_batched_tokens, replica.engine.block_size)
            if key not in tables:
                tables[key] = _grouped(item, *key)
            table, weights = tables[key]
            at = min(int(rows[i]), 2)
            kind = RESERVE_ROWS if not evicts(replica) else GATE_ROWS
            wanted = (BOUND_ROWS if system.kind == "bound" else kind)[at]
            mean = float(weights @ table[wanted])
            part = float(system.occupancy[i, rows[i], :, k].sum())
            law = system.law[i]
            work = law[1] * table[0] + law[2] * table[1] + law[3] * table[2] + law[4] * table[3]
            own = work + (part / mean if mean > 0 else 0.0) * table[wanted]
            average = float(weights @ own)
            second[i, k] = float(weights @ own**2) * (service[i, k] / average) ** 2 if average > 0 else 0.0
    return second


def _grouped(item: RequestClass, budget: int, block_size: int) -> tuple[FloatArray, FloatArray]:
    """Demands of representative requests (15, m) and their probabilities."""
    tables, weights = [], []
    for part in item.lengths.parts():
        if isinstance(part, ProductPart):
            s, ps = _groups(part.prompt)
            o, po = _groups(part.output)
            pairs = np.repeat(s, len(o)), np.tile(o, len(s))
            probability = np.outer(ps, po).ravel()
        else:
            assert isinstance(part, AtomPart)
            count = len(part.prompt_tokens)
            chosen = np.arange(count)
            if part.probabilities is None and count > MOST_PAIRS:  # evenly over a long trace
                chosen = np.linspace(0, count - 1, MOST_PAIRS).astype(np.int64)
            pairs = part.prompt_tokens[chosen], part.output_tokens[chosen]
            probability = np.full(len(chosen), 1 / len(chosen)) if part.probabilities is None else part.probabilities
        tables.append(demands(*pairs, budget, block_size, item.max_output_tokens))
        weights.append(part.weight * probability)
    return np.concatenate(tables, axis=1), np.concatenate(weights)


def _groups(marginal: Length) -> tuple[IntArray, FloatArray]:
    """Rounded means of groups of neighbouring lengths, and their probabilities."""
    values, weights = marginal.values, marginal.probabilities
    if len(values) <= GROUPS:
        return values, weights
    group = np.minimum((np.cumsum(weights) - weights / 2) * GROUPS, GROUPS - 1).astype(np.int64)
    mass = np.bincount(group, weights=weights)
    mean = np.bincount(group, weights=weights * values) / np.maximum(mass, 1e-300)
    kept = mass > 0
    return np.maximum(np.rint(mean[kept]), 1).astype(np.int64), mass[kept].astype(np.float64)
