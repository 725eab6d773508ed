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

Small programs go to HiGHS. For many pools and classes its simplex takes half a minute and its interior point two seconds
(1000 pools, 50 classes), because neither sees that pools share nothing but the K sums of the classes; `_interior_point` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .._types import BoolArray, FloatArray

GAP = 5e-8
"""Relative distance of the two bounds at which the interior point stops."""

SMALL = 2_000
"""Variables up to which HiGHS is used."""

MOST_STEPS = 120

PATIENCE = 3
"""Steps without a tenth less gap after which the interior point stops."""

REFINEMENTS = 1
"""Times that a late Newton step is corrected by its own residual."""

CORRECTORS = 2
"""Centrality corrections tried in a step (Gondzio 1996)."""

RIDGE = 1e-15

SLICE = 256
"""Rows multiplied at a time.""" 


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
    solver : {"HIGHS", "interior point"}, optional
        By size if not given.
    """
    allowed = fits & (rates_per_s > 0)
    loads = np.where(allowed[:, None, :], seconds, 0.0) * (rates_per_s / replicas[:, None])[:, None, :]
    chosen = solver or ("HIGHS" if allowed.size <= SMALL else "interior point")
    find = _highs if chosen == "HIGHS" else _interior_point
    shares, weights = find(loads, allowed)
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
        solver=chosen,
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
    time = [[[Fraction(float(seconds[i, r, k])) if fits[i, k] else Fraction(0) for k in classes] for r in rows] for i in types]
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


def _highs(loads: FloatArray, allowed: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Shares and row weights (summing to 1) by HiGHS."""
    from scipy import sparse

    from .linear import LinearProgram, solve_linear

    n, rows, classes = loads.shape
    used = allowed.any(axis=0)
    type_, class_ = np.nonzero(allowed)
    columns = np.arange(len(type_))
    row = (type_[:, None] * rows + np.arange(rows)).ravel()
    block = sparse.csr_array(
        (loads[type_, :, class_].ravel(), (row, np.repeat(columns, rows))), shape=(n * rows, len(columns))
    )
    capacity = sparse.hstack([block, sparse.csr_array(-np.ones((n * rows, 1)))])
    once = sparse.csr_array((np.ones(len(columns)), (class_, columns)), shape=(classes, len(columns) + 1))[used]
    cost = np.zeros(len(columns) + 1)
    cost[-1] = 1.0
    found = solve_linear(
        LinearProgram(
            cost=cost, below=capacity, limits=np.zeros(n * rows), equal=once, values=np.ones(int(used.sum()))
        )
    )
    shares = np.zeros((n, classes))
    shares[type_, class_] = found.point[:-1]
    return shares, found.below_duals.reshape(n, rows)


def _interior_point(loads: FloatArray, allowed: BoolArray) -> tuple[FloatArray, FloatArray]:
    r"""Shares and row weights by Mehrotra's predictor and corrector.

    Variables z (shares), s (slack of each row), rho; duals u (of the rows, complementary to s), w (of the classes), sigma
    (reduced costs, complementary to z). Newton's system

        sum_i dz = e,   L dz + ds - drho = c,   L' du - dw - dsigma = -d,   sum du = f,   z dsigma + sigma dz = a,   s du + u ds = b

    falls apart by types: with D = z/sigma, `B_i = L D L' + diag(s/u)` is R x R, and what is left is K + 1 equations for
    (dw, drho). One step costs O(n R K^2).
    """
    used = allowed.any(axis=0)
    loads, allowed = loads[:, :, used], allowed[:, used]
    n, rows, classes = loads.shape
    scale = max(float(np.einsum("irk,ik->ir", loads, allowed / allowed.sum(axis=0)).max()), 1e-300)
    load = loads / scale
    mask = allowed.astype(np.float64)
    z = mask / allowed.sum(axis=0)
    used_load = np.einsum("irk,ik->ir", load, z)
    rho = 1.5 * float(used_load.max())
    s = rho - used_load
    u = np.full((n, rows), 1.0 / (n * rows))
    cost = np.einsum("irk,ir->ik", load, u)
    w = 0.5 * np.where(allowed, cost, np.inf).min(axis=0)
    sigma = np.where(allowed, cost - w, 1.0)
    products = int(allowed.sum()) + n * rows
    best_gap, best = np.inf, (z, u)
    stalled = 0
    zero_e, zero_s, zero_z = np.zeros(classes), np.zeros_like(s), np.zeros_like(z)
    for _ in range(MOST_STEPS):
        primal = 1 / max(float(np.einsum("irk,ik->ir", load, z / z.sum(axis=0)).max()), 1e-300)
        cost = np.einsum("irk,ir->ik", load, u)
        dual = float(u.sum()) / float(np.where(allowed, cost, np.inf).min(axis=0).sum())
        if dual / primal - 1 < best_gap:
            stalled = 0 if dual / primal - 1 < 0.9 * best_gap else stalled + 1
            best_gap, best = dual / primal - 1, (z, u)
        else:
            stalled += 1
        if best_gap < GAP or stalled > PATIENCE:
            break
        e = 1 - z.sum(axis=0)
        c = rho - s - np.einsum("irk,ik->ir", load, z)
        d = mask * (cost - w - sigma)
        f = 1 - float(u.sum())
        ratio = mask * z / sigma
        weighted = load * ratio[:, None, :]
        block = np.matmul(weighted, load.transpose(0, 2, 1))
        block[:, range(rows), range(rows)] += s / u
        root = 1 / np.sqrt(block[:, range(rows), range(rows)])
        inverse = np.linalg.inv(block * root[:, :, None] * root[:, None, :] + 1e-14 * np.eye(rows))
        inverse *= root[:, :, None] * root[:, None, :]
        solved = np.matmul(inverse, weighted)
        border = solved.sum(axis=(0, 1))
        system = np.empty((classes + 1, classes + 1))
        system[:-1, :-1] = np.diag(ratio.sum(axis=0)) - _gram(weighted.reshape(-1, classes), solved.reshape(-1, classes))
        system[:-1, -1] = system[-1, :-1] = border
        system[-1, -1] = -float(inverse.sum())
        if not np.all(np.isfinite(system)):
            break
        size = 1 / np.sqrt(np.maximum(np.abs(np.diag(system)), 1e-300))
        scaled = np.linalg.inv(system * size * size[:, None] + RIDGE * np.eye(classes + 1))

        refinements = REFINEMENTS if best_gap < 1e-4 else 0

        def solve(e: FloatArray, c: FloatArray, d: FloatArray, f: float, a: FloatArray, b: FloatArray) -> _Step:
            free = mask * (a / sigma) - ratio * d
            g = np.einsum("irk,ik->ir", load, free) + b / u - c
            along = np.einsum("irq,iq->ir", inverse, g)
            right = np.append(e - free.sum(axis=0) + np.einsum("irk,ir->k", weighted, along), f - float(along.sum()))
            answer = size * (scaled @ (size * right))
            dw, drho = answer[:-1], float(answer[-1])
            du = along + np.einsum("irk,k->ir", solved, dw) - drho * inverse.sum(axis=2)
            dsigma = mask * (np.einsum("irk,ir->ik", load, du) - dw + d)
            dz = free - ratio * (dsigma - d)
            # From the row itself, not from its complementarity: s/u spans many orders of magnitude near the end.
            return dz, c + drho - np.einsum("irk,ik->ir", load, dz), drho, du, dw, dsigma

        def step(a: FloatArray, b: FloatArray) -> _Step:
            found = solve(e, c, d, f, a, b)
            for _ in range(refinements):
                dz, ds, _, du, _, dsigma = found
                rest = solve(
                    e - dz.sum(axis=0),
                    np.zeros_like(c),
                    np.zeros_like(d),
                    f - float(du.sum()),
                    mask * (a - z * dsigma - sigma * dz),
                    b - s * du - u * ds,
                )
                found = tuple(x + y for x, y in zip(found, rest, strict=True))
            return found

        mean = (float((z * sigma * mask).sum()) + float((s * u).sum())) / products
        dz, ds, drho, du, dw, dsigma = step(-z * sigma, -s * u)
        ahead, back = min(_reach(z, dz), _reach(s, ds)), min(_reach(sigma, dsigma), _reach(u, du))
        tried = (
            float(((z + ahead * dz) * (sigma + back * dsigma) * mask).sum())
            + float(((s + ahead * ds) * (u + back * du)).sum())
        ) / products
        target = mean * (tried / mean) ** 3
        dz, ds, drho, du, dw, dsigma = step(target - z * sigma - dz * dsigma, target - s * u - ds * du)
        ahead, back = min(_reach(z, dz), _reach(s, ds)), min(_reach(sigma, dsigma), _reach(u, du))
        for _ in range(CORRECTORS):
            wider, deeper = min(1.0, 1.08 * ahead + 0.08), min(1.0, 1.08 * back + 0.08)
            one = (z + wider * dz) * (sigma + deeper * dsigma) * mask
            two = (s + wider * ds) * (u + deeper * du)
            a = mask * np.maximum(np.clip(one, 0.1 * target, 10 * target) - one, -10 * target)
            b = np.maximum(np.clip(two, 0.1 * target, 10 * target) - two, -10 * target)
            more = solve(zero_e, zero_s, zero_z, 0.0, a, b)
            tries = (dz + more[0], ds + more[1], drho + more[2], du + more[3], dw + more[4], dsigma + more[5])
            farther = min(_reach(z, tries[0]), _reach(s, tries[1]))
            lower = min(_reach(sigma, tries[5]), _reach(u, tries[3]))
            if min(1.0, farther) + min(1.0, lower) < min(1.0, ahead) + min(1.0, back) + 0.01:
                break
            dz, ds, drho, du, dw, dsigma = tries
            ahead, back = farther, lower
        ahead, back = min(1.0, 0.995 * ahead), min(1.0, 0.995 * back)
        z, s, rho = z + ahead * dz, s + ahead * ds, rho + ahead * drho
        u, w, sigma = u + back * du, w + back * dw, sigma + back * dsigma
    shares = np.zeros((n, len(used)))
    shares[:, used] = best[0]
    return shares, best[1]


_Step = tuple[FloatArray, FloatArray, float, FloatArray, FloatArray, FloatArray]
"""Changes of (z, s, rho, u, w, sigma)."""


def _gram(a: FloatArray, b: FloatArray) -> FloatArray:
    """a'b in slices too short for BLAS to hand to threads, which costs more than it gains on a busy machine."""
    total = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), SLICE):
        total += a[start : start + SLICE].T @ b[start : start + SLICE]
    return total


def _reach(values: FloatArray, change: FloatArray) -> float:
    """Largest step that keeps the positive `values` positive, at most 1/0.995."""
    fall = float((change / np.maximum(values, 1e-300)).min())
    return 1 / 0.995 if fall > -0.995 else -1 / fall
