r"""Least worst inter-token latency: the split that keeps the slowest pool in use as fast as it can be.

With :math:`\mathrm{ITL}_i = b_i/(1 - \sum_k W_{ik} x_{ik}/n_i)`, :math:`b_i = c_0 + c_d + c_k E[\text{own KV}]` (own KV of the workload's mix),
the bound :math:`\mathrm{ITL}_i \le 1/s` is linear: :math:`\sum_k W_{ik}x_{ik}/n_i + b_i s \le 1`. Largest s is a linear program once it is known
which types may be used: a type in use has ITL >= b_i. Types in order of b_i, the best prefix is found by bisection, since what is
within reach with some types stays so with more.
"""

from __future__ import annotations

import numpy as np

from .._types import FloatArray
from .linear import InfeasibleError, LinearProgram, LinearSolution, solve_linear
from .program import RoutingVariables, routing_variables
from .rows import FleetRows


def bases(system: FleetRows) -> FloatArray:
    """b_i: ITL of a type that carries next to nothing, s. Shape (n,)."""
    weight = system.rates_per_s * np.maximum(system.decodes, 1e-300)
    return np.asarray(np.maximum(system.law[:, 0], 0.0) + system.decode_s @ weight / weight.sum())


def least_itl(
    system: FleetRows, caps: FloatArray, *, solver: str = "HIGHS"
) -> tuple[FloatArray, RoutingVariables, LinearSolution]:
    """Shares (n, K) of least worst ITL; the program's value is -b_0/ITL, b_0 the least base.

    Parameters
    ----------
    system : FleetRows
    caps : (n,) ndarray
        Largest loads of the rows.
    solver : {"HIGHS", "CLARABEL"}

    Raises
    ------
    InfeasibleError
        If the rows cannot be kept.
    """
    base = bases(system)
    levels = np.unique(base[caps > 0])
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        try:
            tried = _within(system, caps, base, levels[middle], solver)[2]
        except InfeasibleError:
            low = middle + 1
            continue
        # Slower types help only if the types up to here cannot be as fast as the next type's base.
        if -tried.value / levels[0] * levels[middle + 1] >= 1:
            high = middle
        else:
            low = middle + 1
    return _within(system, caps, base, levels[low], solver)


def _within(
    system: FleetRows, caps: FloatArray, base: FloatArray, slowest: float, solver: str
) -> tuple[FloatArray, RoutingVariables, LinearSolution]:
    from scipy import sparse

    allowed = np.where(base <= slowest * (1 + 1e-12), caps, 0.0)
    variables = routing_variables(system, system.rates_per_s, allowed)
    n = len(base)
    unit = base[allowed > 0].min()
    work = system.work_s[variables.type_, variables.class_] * system.rates_per_s[variables.class_]
    pace = sparse.csr_array(
        (work / system.replicas[variables.type_], (variables.type_, np.arange(variables.count))),
        shape=(n, variables.count),
    )[np.flatnonzero(allowed > 0)]
    rows = variables.load.shape[0]
    below = sparse.vstack(
        [
            sparse.hstack([variables.load, sparse.csr_array((rows, 1))]),
            sparse.hstack([pace, sparse.csr_array((base[allowed > 0] / unit)[:, None])]),
        ]
    ).tocsr()
    once = sparse.hstack([variables.once, sparse.csr_array((variables.once.shape[0], 1))]).tocsr()
    if variables.once.shape[0] and (np.bincount(variables.once.nonzero()[0], minlength=once.shape[0]) == 0).any():
        raise InfeasibleError("a class fits none of the types allowed.")
    cost = np.zeros(variables.count + 1)
    cost[-1] = -1.0
    found = solve_linear(
        LinearProgram(
            cost=cost,
            below=below,
            limits=np.ones(below.shape[0]),
            equal=once,
            values=np.ones(once.shape[0]),
        ),
        solver=solver,
    )
    return variables.matrix(found.point[:-1]), variables, found
