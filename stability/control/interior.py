r"""The balance of a large fleet by an interior point method that uses its structure.

    minimise rho   subject to   sum_k L_irk z_ik + s_ir = rho,   sum_i z_ik = 1,   z, s >= 0

Duals: u_ir = multiplier of a row, complementary to s; w_k of a class; sigma_ik = sum_r u_ir L_irk - w_k, complementary to z; sum u = 1.
Mehrotra's predictor and corrector, with centrality corrections (Gondzio 1996). Newton's system

    sum_i dz = e,   L dz + ds - drho = c,   L' du - dw - dsigma = -d,   sum du = f,   z dsigma + sigma dz = a,   s du + u ds = b

falls apart by types: with D = z/sigma, `B_i = L D L' + diag(s/u)` is R x R, and what is left is K + 1 equations for (dw, drho). A step
costs O(n R K^2), where a method that sees one sparse matrix needs the fill of its factors (`benchmarks/region.py --highs`). What it
returns needs no trust: `balance.factor_bounds` proves it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._types import BoolArray, FloatArray

GAP = 8e-8
"""Relative distance of the two bounds at which it stops."""

MOST_STEPS = 120

PATIENCE, EARLY_PATIENCE = 3, 20
"""Steps that shrink the gap by less than a tenth after which it stops, near the end and before."""

NEAR, NEARER = 1e-4, 2e-6
"""Gaps from which a step is corrected by its own residual, once and twice."""

CORRECTORS = 2
"""Centrality corrections tried in a step."""

RIDGE = 1e-15

SLICE = 96
"""Rows multiplied at a time: 96 x 50 x 50 is below the size at which OpenBLAS wakes its threads."""


class Point(NamedTuple):
    """An iterate, or a change of one."""

    z: FloatArray
    s: FloatArray
    rho: float
    u: FloatArray
    w: FloatArray
    sigma: FloatArray

    def plus(self, change: Point, primal: float = 1.0, dual: float = 1.0) -> Point:
        """The point moved by `change` times the step lengths."""
        return Point(
            self.z + primal * change.z,
            self.s + primal * change.s,
            self.rho + primal * change.rho,
            self.u + dual * change.u,
            self.w + dual * change.w,
            self.sigma + dual * change.sigma,
        )

    def reach(self, change: Point) -> tuple[float, float]:
        """Largest primal and dual steps that keep the positive parts positive."""
        return (
            min(_reach(self.z, change.z), _reach(self.s, change.s)),
            min(_reach(self.sigma, change.sigma), _reach(self.u, change.u)),
        )


class Residual(NamedTuple):
    """Right-hand sides of Newton's system."""

    e: FloatArray
    c: FloatArray
    d: FloatArray
    f: float
    a: FloatArray
    b: FloatArray


class Newton:
    """Newton's system at one point, factorised.

    Parameters
    ----------
    load : (n, R, K) ndarray
    mask : (n, K) ndarray
        1 where the class may go.
    at : Point
    """

    def __init__(self, load: FloatArray, mask: FloatArray, at: Point) -> None:
        self.load, self.mask, self.at = load, mask, at
        _, rows, classes = load.shape
        self.ratio = mask * at.z / at.sigma
        self.weighted = load * self.ratio[:, None, :]
        block = np.matmul(self.weighted, load.transpose(0, 2, 1))
        block[:, range(rows), range(rows)] += at.s / at.u
        root = 1 / np.sqrt(block[:, range(rows), range(rows)])
        inverse = np.linalg.inv(block * root[:, :, None] * root[:, None, :] + 1e-14 * np.eye(rows))
        self.inverse = inverse * root[:, :, None] * root[:, None, :]
        self.solved = np.matmul(self.inverse, self.weighted)
        system = np.empty((classes + 1, classes + 1))
        gram = _gram(self.weighted.reshape(-1, classes), self.solved.reshape(-1, classes))
        system[:-1, :-1] = np.diag(self.ratio.sum(axis=0)) - gram
        system[:-1, -1] = system[-1, :-1] = self.solved.sum(axis=(0, 1))
        system[-1, -1] = -float(self.inverse.sum())
        self.size = 1 / np.sqrt(np.maximum(np.abs(np.diag(system)), 1e-300))
        self.core = np.linalg.inv(system * self.size * self.size[:, None] + RIDGE * np.eye(classes + 1))

    def solve(self, right: Residual, refinements: int = 0) -> Point:
        """The change for a right-hand side, corrected so many times by what it leaves."""
        found = self._once(right)
        for _ in range(refinements):
            left = Residual(
                right.e - found.z.sum(axis=0),
                np.zeros_like(right.c),
                np.zeros_like(right.d),
                right.f - float(found.u.sum()),
                self.mask * (right.a - self.at.z * found.sigma - self.at.sigma * found.z),
                right.b - self.at.s * found.u - self.at.u * found.s,
            )
            found = found.plus(self._once(left))
        return found

    def _once(self, right: Residual) -> Point:
        at, load = self.at, self.load
        free = self.mask * (right.a / at.sigma) - self.ratio * right.d
        g = np.einsum("irk,ik->ir", load, free) + right.b / at.u - right.c
        along = np.einsum("irq,iq->ir", self.inverse, g)
        target = np.append(
            right.e - free.sum(axis=0) + np.einsum("irk,ir->k", self.weighted, along), right.f - float(along.sum())
        )
        answer = self.size * (self.core @ (self.size * target))
        dw, drho = answer[:-1], float(answer[-1])
        du = along + np.einsum("irk,k->ir", self.solved, dw) - drho * self.inverse.sum(axis=2)
        dsigma = self.mask * (np.einsum("irk,ir->ik", load, du) - dw + right.d)
        dz = free - self.ratio * (dsigma - right.d)
        # From the row itself, not from its complementarity: s/u spans many orders of magnitude near the end.
        return Point(dz, right.c + drho - np.einsum("irk,ik->ir", load, dz), drho, du, dw, dsigma)


def interior_point(loads: FloatArray, allowed: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Shares (n, K) and row weights (n, R) of least greatest load.

    Parameters
    ----------
    loads : (n, R, K) ndarray, >= 0
        Load of each row when all of a class goes there.
    allowed : (n, K) ndarray of bool
        Where a class may go.
    """
    used = np.asarray(allowed.any(axis=0))
    allowed = allowed[:, used]
    load = np.ascontiguousarray(loads[:, :, used])
    load = load / max(float(np.einsum("irk,ik->ir", load, allowed / allowed.sum(axis=0)).max()), 1e-300)
    mask = allowed.astype(np.float64)
    at = _start(load, mask)
    best_gap, best, stalled = np.inf, at, 0
    for _ in range(MOST_STEPS):
        gap = _gap(load, allowed, at)
        stalled = 0 if gap < 0.9 * best_gap else stalled + 1
        if gap < best_gap:
            best_gap, best = gap, at
        if best_gap < GAP or stalled > (PATIENCE if best_gap < NEAR else EARLY_PATIENCE):
            break
        try:
            at = _step(Newton(load, mask, at), refinements=(best_gap < NEAR) + (best_gap < NEARER))
        except np.linalg.LinAlgError:  # nothing more to gain in floats
            break
        if not np.isfinite(at.rho):
            break
    shares = np.zeros((len(loads), len(used)))
    shares[:, used] = best.z
    return shares, best.u


def _start(load: FloatArray, mask: FloatArray) -> Point:
    """Feasible on both sides: even shares, even weights."""
    n, rows, _ = load.shape
    z = mask / mask.sum(axis=0)
    used = np.einsum("irk,ik->ir", load, z)
    rho = 1.5 * float(used.max())
    u = np.full((n, rows), 1.0 / (n * rows))
    cost = np.einsum("irk,ir->ik", load, u)
    w = 0.5 * np.where(mask > 0, cost, np.inf).min(axis=0)
    return Point(z, rho - used, rho, u, w, np.where(mask > 0, cost - w, 1.0))


def _gap(load: FloatArray, allowed: BoolArray, at: Point) -> float:
    """Relative distance of the bounds that shares and weights prove."""
    most = float(np.einsum("irk,ik->ir", load, at.z / at.z.sum(axis=0)).max())
    cost = np.einsum("irk,ir->ik", load, at.u)
    return most * float(at.u.sum()) / float(np.where(allowed, cost, np.inf).min(axis=0).sum()) - 1


def _step(system: Newton, *, refinements: int) -> Point:
    """The next point."""
    at, load, mask = system.at, system.load, system.mask
    products = float(mask.sum()) + at.s.size
    cost = np.einsum("irk,ir->ik", load, at.u)
    e, f = 1 - at.z.sum(axis=0), 1 - float(at.u.sum())
    c = at.rho - at.s - np.einsum("irk,ik->ir", load, at.z)
    d = mask * (cost - at.w - at.sigma)

    affine = system.solve(Residual(e, c, d, f, -at.z * at.sigma, -at.s * at.u), refinements)
    primal, dual = at.reach(affine)
    mean = (float((at.z * at.sigma * mask).sum()) + float((at.s * at.u).sum())) / products
    tried = at.plus(affine, primal, dual)
    left = (float((tried.z * tried.sigma * mask).sum()) + float((tried.s * tried.u).sum())) / products
    target = mean * (left / mean) ** 3
    a = target - at.z * at.sigma - affine.z * affine.sigma
    b = target - at.s * at.u - affine.s * affine.u
    change = system.solve(Residual(e, c, d, f, a, b), refinements)
    primal, dual = at.reach(change)
    for _ in range(CORRECTORS):
        ahead = at.plus(change, min(1.0, 1.08 * primal + 0.08), min(1.0, 1.08 * dual + 0.08))
        more = system.solve(
            Residual(
                np.zeros_like(e),
                np.zeros_like(c),
                np.zeros_like(d),
                0.0,
                mask * _towards(ahead.z * ahead.sigma, target),
                _towards(ahead.s * ahead.u, target),
            )
        )
        better = change.plus(more)
        farther, deeper = at.reach(better)
        if min(1.0, farther) + min(1.0, deeper) < min(1.0, primal) + min(1.0, dual) + 0.01:
            break
        change, primal, dual = better, farther, deeper
    return at.plus(change, min(1.0, 0.995 * primal), min(1.0, 0.995 * dual))


def _towards(products: FloatArray, target: float) -> FloatArray:
    """What brings complementarity products into [target/10, 10 target], bounded below."""
    return np.maximum(np.clip(products, 0.1 * target, 10 * target) - products, -10 * target)


def _gram(a: FloatArray, b: FloatArray) -> FloatArray:
    """The product a'b in slices too short for BLAS to hand to threads, which costs more than it gains on a busy machine."""
    total = np.zeros((a.shape[1], b.shape[1]))
    for start in range(0, len(a), SLICE):
        total += a[start : start + SLICE].T @ b[start : start + SLICE]
    return total


def _reach(values: FloatArray, change: FloatArray) -> float:
    """Largest step that keeps the positive `values` positive, at most 1/0.995."""
    fall = float((change / np.maximum(values, 1e-300)).min())
    return 1 / 0.995 if fall > -0.995 else -1 / fall
