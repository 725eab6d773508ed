r"""Splits for uncertain rates: the least greatest load over a box, a budgeted box, or in the tail of scenarios.

Shares z are fixed before the rates are known; the load of row (i, r) at rates lambda is :math:`L_{ir}(\lambda) = \sum_k T_{irk} \lambda_k z_{ik}/n_i`.

- `uncertainty.Box`: every rate up to :math:`(1+\epsilon_k)\lambda_k`. Loads grow with every rate, so the upper corner is the worst.
- `uncertainty.Budget` (Bertsimas and Sim 2004): at most Gamma of the classes are up at a time, the last of them in part,

  .. math:: \max = L_{ir}(\lambda) + \max_{|S| \le \Gamma} \sum_{k \in S} \epsilon_k T_{irk}\lambda_k z_{ik}/n_i
            = L_{ir}(\lambda) + \min_{q, p \ge 0} \{\Gamma q + \sum_k p_k : q + p_k \ge \epsilon_k T_{irk} \lambda_k z_{ik}/n_i\} .

- `uncertainty.Scenarios`: with :math:`L_s` the greatest load in scenario s, the conditional value at risk
  :math:`\min_t t + \frac{1}{1-\beta} \sum_s \pi_s (L_s - t)^+` (Rockafellar and Uryasev 2000): the mean over the worst share 1 - beta.

All three are linear programs.
"""

from __future__ import annotations

import numpy as np

from .._types import FloatArray
from ..errors import InputError
from .linear import LinearProgram, LinearSolution, solve_linear
from .program import RoutingVariables, routing_variables
from .rows import FleetRows
from .uncertainty import Box, Scenarios, Uncertainty


def robust_load(
    system: FleetRows, caps: FloatArray, uncertainty: Uncertainty, *, solver: str = "HIGHS"
) -> tuple[FloatArray, LinearSolution]:
    """Shares (n, K) of least robust load, and the solved program, whose value is that load.

    Parameters
    ----------
    system : FleetRows
    caps : (n,) ndarray
        Loads are relative to these.
    uncertainty : Box, Budget or Scenarios
    solver : {"HIGHS", "CLARABEL"}
    """
    if isinstance(uncertainty, Scenarios):
        return _scenarios(system, caps, uncertainty, solver)
    if isinstance(uncertainty, Box):
        rates = system.rates_per_s * (1 + uncertainty.spread)
        return _least(routing_variables(system, rates, caps), None, 0.0, solver)
    variables = routing_variables(system, system.rates_per_s, caps)
    return _least(variables, uncertainty.spread * variables.load, uncertainty.classes, solver)


def _least(
    variables: RoutingVariables, excess: object, budget: float, solver: str
) -> tuple[FloatArray, LinearSolution]:
    """Minimise rho over (z, rho, q, p); q one a row, p one a non-zero of `excess`."""
    from scipy import sparse

    rows, m = variables.load.shape
    rho = sparse.csr_array(-np.ones((rows, 1)))
    if excess is None or budget == 0:
        below = sparse.hstack([variables.load, rho]).tocsr()
        limits = np.zeros(rows)
        extra = 0
    else:
        most = excess.tocoo()  # type: ignore[attr-defined]
        count = most.nnz
        nonzero = np.arange(count)
        q = sparse.csr_array(budget * np.eye(rows)) if rows < 4 else budget * sparse.eye_array(rows, format="csr")
        p = sparse.csr_array((np.ones(count), (most.row, nonzero)), shape=(rows, count))
        top = sparse.hstack([variables.load, rho, q, p])
        each = sparse.csr_array((most.data, (nonzero, most.col)), shape=(count, m))
        its_q = sparse.csr_array((-np.ones(count), (nonzero, most.row)), shape=(count, rows))
        bottom = sparse.hstack([each, sparse.csr_array((count, 1)), its_q, -sparse.eye_array(count, format="csr")])
        below = sparse.vstack([top, bottom]).tocsr()
        limits = np.zeros(rows + count)
        extra = rows + count
    once = sparse.hstack([variables.once, sparse.csr_array((variables.once.shape[0], 1 + extra))]).tocsr()
    cost = np.zeros(m + 1 + extra)
    cost[m] = 1.0
    found = solve_linear(
        LinearProgram(cost=cost, below=below, limits=limits, equal=once, values=np.ones(once.shape[0])), solver=solver
    )
    return variables.matrix(found.point[:m]), found


def _scenarios(
    system: FleetRows, caps: FloatArray, uncertainty: Scenarios, solver: str
) -> tuple[FloatArray, LinearSolution]:
    """Minimise t + sum_s pi_s v_s/(1 - beta) over (z, t, v, L)."""
    from scipy import sparse

    rates = np.array([list(row) for row in uncertainty.rates_per_s], dtype=np.float64)
    if rates.shape[1:] != system.rates_per_s.shape or (rates < 0).any() or not np.isfinite(rates).all():
        raise InputError(
            f"the scenarios have rates of shape {rates.shape}, must be (scenarios, {len(system.classes)}), finite and >= 0."
        )
    weights = np.ones(len(rates)) if uncertainty.weights is None else np.array(uncertainty.weights, dtype=np.float64)
    if (weights < 0).any() or not weights.sum() > 0:
        raise InputError(f"weights = {weights.tolist()}, must be >= 0 with a positive sum.")
    weights = weights / weights.sum()
    arriving = np.where(rates.max(axis=0) > 0, 1.0, 0.0)
    variables = routing_variables(system, arriving, caps)
    count, m, rows = len(rates), variables.count, variables.load.shape[0]
    blocks = []
    for s in range(count):
        own = variables.load @ sparse.diags_array(rates[s][variables.class_], format="csr")
        level = sparse.csr_array((-np.ones(rows), (np.arange(rows), np.full(rows, s))), shape=(rows, count))
        blocks.append(sparse.hstack([own, sparse.csr_array((rows, 1 + count)), level]))
    tail = sparse.hstack(
        [
            sparse.csr_array((count, m)),
            sparse.csr_array(-np.ones((count, 1))),
            -sparse.eye_array(count, format="csr"),
            sparse.eye_array(count, format="csr"),
        ]
    )
    below = sparse.vstack([*blocks, tail]).tocsr()
    once = sparse.hstack([variables.once, sparse.csr_array((variables.once.shape[0], 1 + 2 * count))]).tocsr()
    cost = np.concatenate([np.zeros(m), [1.0], weights / (1 - uncertainty.level), np.zeros(count)])
    found = solve_linear(
        LinearProgram(
            cost=cost, below=below, limits=np.zeros(below.shape[0]), equal=once, values=np.ones(once.shape[0])
        ),
        solver=solver,
    )
    return variables.matrix(found.point[:m]), found
