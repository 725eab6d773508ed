r"""Least greatest load of a fleet: the split that balances it, the prices that prove no split does better.

A request of class k takes :math:`T_{irk}` seconds of one of the :math:`n_i` replicas of type i in row r (see `rows`).
With shares z of each class,

.. math:: \rho^* = \min_z \max_{i,r} \frac{1}{n_i}\sum_k T_{irk}\,\lambda_k z_{ik},
          \qquad \sum_i z_{ik} = 1,\ z \ge 0,

and :math:`\alpha^* = 1/\rho^*` is the largest factor on the rates that satisfies every row. Its dual: prices
:math:`u_{ir} \ge 0` of a second of a replica. A request of class k cannot cost less than
:math:`w_k = \min_i \sum_r u_{ir} T_{irk}`, and all that can be spent in a second is :math:`\sum_i n_i \sum_r u_{ir}`, so

.. math:: \alpha^* \le \frac{\sum_i n_i \sum_r u_{ir}}{\sum_k \lambda_k w_k} \quad\text{for any } u \ge 0 .

Any shares bound alpha from below and any prices from above: what a solver returns needs no trust, only these two
quotients (`factor_bounds`, in floats; `exact_factor_bounds`, in rationals). Strong duality closes the gap.

Small programs go to HiGHS, large ones to `interior`, which uses that pools share nothing but the K sums of the classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .._types import BoolArray, FloatArray
from .interior import interior_point
from .linear import TOLERANCE, LinearProgram, solve_linear

SMALL = 2_000
"""Variables up to which HiGHS is used."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Balance:
    """Split of least greatest load, and prices.

    Attributes
    ----------
    shares : (n, K) ndarray
        Share of each class that each type serves; columns sum to 1.
    prices : (n, R) ndarray
        u, scaled so that sum_i n_i sum_r u_ir = 1.
    class_prices : (K,) ndarray
        w, s: what a request of each class costs at these prices at least; sum_k lambda_k w_k = 1/factor.
    lower, upper : float
        Bounds on the factor, from the shares and from the prices.
    solver : str
    """

    shares: FloatArray
    prices: FloatArray
    class_prices: FloatArray
    lower: float
    upper: float
    solver: str

    @property
    def gap(self) -> float:
        """upper/lower - 1."""
        return self.upper / self.lower - 1


def least_load(
    seconds: FloatArray, replicas: FloatArray, rates_per_s: FloatArray, fits: BoolArray, *, solver: str | None = None
) -> Balance:
    """The balance of a fleet at given rates.

    Parameters
    ----------
    seconds : (n, R, K) ndarray
        T, s; anything where the class does not fit.
    replicas : (n,) ndarray
        Of each type.
    rates_per_s : (K,) ndarray, >= 0, not all 0
        Arrivals of each class, 1/s.
    fits : (n, K) ndarray of bool
        Whether the type may serve the class; every class with a rate fits somewhere.
    solver : {"HIGHS", "CLARABEL", "interior point"}, optional
        By size if not given.
    """
    allowed = fits & (rates_per_s > 0)
    loads = np.where(allowed[:, None, :], seconds, 0.0) * (rates_per_s / replicas[:, None])[:, None, :]
    chosen = solver or ("HIGHS" if allowed.size <= SMALL else "interior point")
    shares, weights = interior_point(loads, allowed) if chosen == "interior point" else _general(loads, allowed, chosen)
    found = _proved(seconds, replicas, rates_per_s, fits, shares, weights, chosen)
    if solver is None and found.gap > TOLERANCE and chosen != "HIGHS":  # stuck short of the optimum: the slow way
        found = _proved(seconds, replicas, rates_per_s, fits, *_general(loads, allowed, "HIGHS"), "HIGHS")
    return found


def _proved(
    seconds: FloatArray,
    replicas: FloatArray,
    rates_per_s: FloatArray,
    fits: BoolArray,
    shares: FloatArray,
    weights: FloatArray,
    solver: str,
) -> Balance:
    """What a solver returned, brought to satisfy its constraints, with the bounds that it then proves."""
    shares = repaired(shares, fits)
    prices = np.maximum(weights, 0.0) / replicas[:, None]
    prices /= float(replicas @ prices.sum(axis=1))
    lower, upper = factor_bounds(seconds, replicas, rates_per_s, fits, shares, prices)
    return Balance(
        shares=shares,
        prices=prices,
        class_prices=least_costs(seconds, fits, prices),
        lower=lower,
        upper=upper,
        solver=solver,
    )


def repaired(shares: FloatArray, fits: BoolArray) -> FloatArray:
    """Shares >= 0 that sum to 1 over the types a class fits on; a class without any is split evenly."""
    kept = np.where(fits & (shares > 1e-10), shares, 0.0)
    kept = np.where(kept.sum(axis=0) > 0, kept, fits)
    return np.asarray(kept / kept.sum(axis=0))


def least_costs(seconds: FloatArray, fits: BoolArray, prices: FloatArray) -> FloatArray:
    """w_k: the least that a request of class k costs at the prices, over the types that it fits on. Shape (K,)."""
    cost = np.einsum("ir,irk->ik", prices, seconds)
    return np.asarray(np.where(fits, cost, np.inf).min(axis=0))


def factor_bounds(
    seconds: FloatArray,
    replicas: FloatArray,
    rates_per_s: FloatArray,
    fits: BoolArray,
    shares: FloatArray,
    prices: FloatArray,
) -> tuple[float, float]:
    """What shares (columns that sum to 1) and prices (>= 0) prove about the factor: at least, at most."""
    loads = np.einsum("irk,ik->ir", np.where(fits[:, None, :], seconds, 0.0), shares * rates_per_s)
    lower = 1 / float((loads / replicas[:, None]).max())
    worth = float(rates_per_s @ np.where(rates_per_s > 0, least_costs(seconds, fits, prices), 0.0))
    return lower, float(replicas @ prices.sum(axis=1)) / worth


def exact_factor_bounds(
    seconds: FloatArray,
    replicas: FloatArray,
    rates_per_s: FloatArray,
    fits: BoolArray,
    shares: FloatArray,
    prices: FloatArray,
) -> tuple[Fraction, Fraction]:
    """`factor_bounds` in rational arithmetic: every float is taken at its exact value, nothing is rounded.

    Shares are brought to sum 1 exactly; prices only have to be >= 0.
    """
    types, rows, classes = (range(count) for count in seconds.shape)
    rate = [Fraction(value) for value in rates_per_s.tolist()]
    count = [Fraction(value) for value in replicas.tolist()]
    kept = [[Fraction(float(shares[i, k])) if fits[i, k] else Fraction(0) for k in classes] for i in types]
    total = [sum((kept[i][k] for i in types), Fraction(0)) for k in classes]
    price = [[Fraction(float(prices[i, r])) for r in rows] for i in types]
    time = [
        [[Fraction(float(seconds[i, r, k])) if fits[i, k] else Fraction(0) for k in classes] for r in rows]
        for i in types
    ]
    load = max(
        sum((time[i][r][k] * rate[k] * kept[i][k] / total[k] for k in classes if rate[k]), Fraction(0)) / count[i]
        for i in types
        for r in rows
    )
    spent = sum((count[i] * price[i][r] for i in types for r in rows), Fraction(0))
    worth = sum(
        (
            rate[k] * min(sum((price[i][r] * time[i][r][k] for r in rows), Fraction(0)) for i in types if fits[i, k])
            for k in classes
            if rate[k]
        ),
        Fraction(0),
    )
    return 1 / load, spent / worth


def _general(loads: FloatArray, allowed: BoolArray, solver: str) -> tuple[FloatArray, FloatArray]:
    """Shares and row weights (summing to 1) by a general solver."""
    from scipy import sparse

    n, rows, classes = loads.shape
    used = allowed.any(axis=0)
    type_, class_ = np.nonzero(allowed)
    columns = np.arange(len(type_))
    row = (type_[:, None] * rows + np.arange(rows)).ravel()
    block = sparse.csr_array(
        (loads[type_, :, class_].ravel(), (row, np.repeat(columns, rows))), shape=(n * rows, len(columns))
    )
    capacity = sparse.hstack([block, sparse.csr_array(-np.ones((n * rows, 1)))])
    once = sparse.csr_array((np.ones(len(columns)), (class_, columns)), shape=(classes, len(columns) + 1))[
        np.flatnonzero(used)
    ]
    cost = np.zeros(len(columns) + 1)
    cost[-1] = 1.0
    program = LinearProgram(
        cost=cost, below=capacity, limits=np.zeros(n * rows), equal=once, values=np.ones(int(used.sum()))
    )
    found = solve_linear(program, solver=solver)
    shares = np.zeros((n, classes))
    shares[type_, class_] = found.point[:-1]
    return shares, found.below_duals.reshape(n, rows)
