r"""Least price of the replicas kept in use: the split of a workload that leaves the most money idle.

.. math:: \min \sum_i p_i y_i \quad\text{s.t.}\quad \sum_k T_{irk} x_{ik} \le b_i y_i,\ \sum_i x_{ik} = \lambda_k,\ 0 \le y_i \le n_i

in fractional replicas y. Rounding y up keeps every row, so ceil(y) is a plan, dearer by less than one replica a pool. Choosing how many
replicas to buy is another problem, of integers.
"""

from __future__ import annotations

import numpy as np

from .._types import FloatArray
from ..errors import InputError
from ..model.fleet import Fleet
from .linear import LinearProgram, LinearSolution, solve_linear
from .program import routing_variables
from .rows import FleetRows


def least_cost(
    fleet: Fleet, system: FleetRows, caps: FloatArray, *, solver: str = "HIGHS"
) -> tuple[FloatArray, FloatArray, LinearSolution]:
    """Shares (n, K), replicas kept (n,), and the program solved, whose value is the price per hour.

    Parameters
    ----------
    fleet : Fleet
        For messages.
    system : FleetRows
    caps : (n,) ndarray
        Largest loads b.
    solver : {"HIGHS", "CLARABEL"}
    """
    from scipy import sparse

    prices = [replica.price_per_hour for replica in system.types]
    for i, price in enumerate(prices):
        if price is None:
            raise InputError(
                f"pool {system.names_of(i)!r} has no price_per_hour, must have one for objective='cost'. "
                f"State the price of a replica in each of the {len(fleet.pools)} pools."
            )
    variables = routing_variables(system, system.rates_per_s, caps)
    n, height = system.seconds.shape[:2]
    # Variables: shares, then y_i/n_i. Loads are relative to n_i b_i.
    use = sparse.csr_array((-np.ones(n * height), (np.arange(n * height), np.repeat(np.arange(n), height))))
    once = sparse.hstack([variables.once, sparse.csr_array((variables.once.shape[0], n))]).tocsr()
    cost = np.concatenate([np.zeros(variables.count), np.array(prices, dtype=np.float64) * system.replicas])
    found = solve_linear(
        LinearProgram(
            cost=cost,
            below=sparse.hstack([variables.load, use]).tocsr(),
            limits=np.zeros(n * height),
            equal=once,
            values=np.ones(once.shape[0]),
            highest=np.concatenate([np.full(variables.count, np.inf), np.ones(n)]),
        ),
        solver=solver,
    )
    shares = variables.matrix(found.point[: variables.count])
    return shares, found.point[variables.count :] * system.replicas, found
