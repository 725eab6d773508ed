r"""Non-negative robust least squares of step times, with the uncertainty that the data leave.

With x_i a row of the design, t_i its time and m_i = x_i.c the fitted one, relative residuals r_i = (t_i - m_i)/m_i have about
the same scale at short and long steps. The coefficients solve

.. math:: \min_{c \ge 0} \sum_i w_i\, \rho\bigl(\sqrt{w_i}\, (t_i - x_i c)/(m_i \sigma)\bigr)

with Huber's rho (quadratic to 1.345 sigma, linear beyond), sigma from the median absolute residual, by iterated
reweighting; each pass is Lawson and Hanson's non-negative least squares (`scipy.optimize.nnls`). The m_i are those of
the pass before: dividing by t_i instead would bias all times low by twice the variance of r.

Uncertainty: where a coefficient comes out as zero, the constrained estimate has no normal law, and the intervals of the
others, taken with that zero as given, are too short. So covariance and intervals are those of the *signed* estimate, the
same equations without c >= 0, which is normal whatever the true coefficients are; the true ones are >= 0, so what lies
below 0 is cut off the interval and costs no coverage. Covariance: the jackknife over blocks of consecutive rows
(CR3), right whatever the variance of a row and its dependence on rows near by; a block is a stretch of decode-only and one of
mixed rows. Up to `BLOCKS` rows are blocks of their own.

References: Huber and Ronchetti, *Robust Statistics*, 2nd ed., sections 7.4 and 7.6. Lawson and Hanson, *Solving Least Squares
Problems*, chapter 23. Bell and McCaffrey, "Bias reduction in standard errors for linear regression with multi-stage
samples", Survey Methodology 28 (2002) 169, for CR3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import BoolArray, FloatArray, IntArray

HUBER = 1.345
"""Residuals beyond this many scales count linearly: 95 % efficient under normal errors."""

BLOCKS = 100
"""Blocks of consecutive rows that the covariance rests on."""

OUTLYING = 4.0
"""Scales from which a row is called an outlier."""

PASSES = 100
PRECISION, COARSE = 1e-8, 1e-5
"""Change of the fitted times, over the longest time, that ends the passes: of the estimate, and of a trial of a form."""
LEAST_SCALE = 1e-9
"""Relative scale below which data are exact."""

COLLINEAR = 1e-7
"""Singular value over the largest below which columns count as one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """Coefficients of one design.

    Attributes
    ----------
    coefficients : (p,) ndarray
        >= 0.
    signed : (p,) ndarray
        The same without the constraint.
    covariance : (p, p) ndarray
        Of `signed`.
    degrees : int
        Degrees of freedom of Student's t.
    scale : float
        Robust standard deviation of the relative residuals.
    outliers : (n,) ndarray of bool
        Rows beyond `OUTLYING` scales.
    """

    coefficients: FloatArray
    signed: FloatArray
    covariance: FloatArray
    degrees: int
    scale: float
    outliers: BoolArray


def collinear(design: FloatArray, time_s: FloatArray) -> list[int]:
    """Columns that are a combination of each other; empty if all can be told apart."""
    rows = design / time_s[:, None]
    norms = np.linalg.norm(rows, axis=0)
    _, values, vectors = np.linalg.svd(rows / norms, full_matrices=False)
    if len(rows) < len(norms):
        return list(range(len(norms)))
    if values[-1] > COLLINEAR * values[0]:
        return []
    null = np.abs(vectors[values <= COLLINEAR * values[0]]).max(axis=0)
    return np.flatnonzero(null > 1e-3 * null.max()).tolist()


def point_estimate(design: FloatArray, time_s: FloatArray, weights: FloatArray, *, robust: bool) -> FloatArray:
    """The coefficients alone, for the choice of a form."""
    return _iterate(design, time_s, weights / weights.mean(), robust=robust, precision=COARSE)[0]


def estimate(
    design: FloatArray, time_s: FloatArray, weights: FloatArray, strata: BoolArray, *, robust: bool = True
) -> Estimate:
    """The coefficients of `design`, of full rank, without zero columns; see the module.

    Parameters
    ----------
    design : (n, p) ndarray, >= 0
    time_s, weights : (n,) ndarray, > 0
    strata : (n,) ndarray of bool
        Two kinds of rows; a block is a stretch of either.
    robust : bool
        Huber's loss; otherwise squares.
    """
    w = weights / weights.mean()
    constrained, level, scale = _iterate(design, time_s, w, robust=robust)
    rows, target = design / level[:, None], time_s / level
    unit = np.linalg.norm(rows, axis=0)
    signed = _signed(rows / unit, target, w, scale, robust=robust)
    residual = target - (rows / unit) @ signed
    size = np.sqrt(w) * np.abs(residual) / scale
    inside = size <= HUBER if robust else np.ones(len(size), dtype=bool)
    scores = (rows / unit) * (w * residual * np.where(inside, 1.0, HUBER / np.maximum(size, HUBER)))[:, None]
    block = _blocks(strata)
    covariance = _jackknife(rows / unit, w * inside, scores, block)
    outer = np.outer(unit, unit)
    return Estimate(
        coefficients=constrained,
        signed=signed / unit,
        covariance=covariance / outer,
        degrees=_degrees(design > 0, block),
        scale=scale,
        outliers=size > OUTLYING,
    )


def _iterate(
    design: FloatArray, time_s: FloatArray, w: FloatArray, *, robust: bool, precision: float = PRECISION
) -> tuple[FloatArray, FloatArray, float]:
    """Constrained coefficients, fitted times (kept above a thousandth of the median) and scale."""
    least = 1e-3 * float(np.median(time_s))
    level, trust = time_s, np.ones(len(time_s))
    coefficients = np.zeros(design.shape[1])
    spare = np.sqrt(len(time_s) / max(len(time_s) - design.shape[1], 1))
    scale = LEAST_SCALE
    for _ in range(PASSES):
        before = coefficients
        coefficients = _non_negative(design / level[:, None], time_s / level, w * trust)
        level = np.maximum(design @ coefficients, least)
        size = np.sqrt(w) * np.abs(time_s / level - 1)
        if robust:
            scale = max(float(np.median(size)) / 0.6745 * spare, LEAST_SCALE)
            trust = HUBER / np.maximum(size / scale, HUBER)
        if np.abs(design @ (coefficients - before)).max() <= precision * float(time_s.max()):
            break
    if not robust:
        scale = max(float(np.sqrt(np.mean(size * size))) * spare, LEAST_SCALE)
    return coefficients, level, scale


def _non_negative(rows: FloatArray, target: FloatArray, weights: FloatArray) -> FloatArray:
    """Weighted least squares with coefficients >= 0, on the triangle that holds all of the rows."""
    from scipy.optimize import nnls

    root = np.sqrt(weights)
    unit = np.linalg.norm(rows, axis=0)
    triangle: FloatArray = np.asarray(np.linalg.qr(np.column_stack([rows / unit, target]) * root[:, None], mode="r"))
    return np.asarray(nnls(triangle[:, :-1], triangle[:, -1])[0] / unit)


def _signed(rows: FloatArray, target: FloatArray, w: FloatArray, scale: float, *, robust: bool) -> FloatArray:
    trust: FloatArray = np.ones(len(target))
    found: FloatArray = np.zeros(rows.shape[1])
    for _ in range(PASSES):
        root = np.sqrt(w * trust)
        before, found = found, np.asarray(np.linalg.lstsq(rows * root[:, None], target * root, rcond=None)[0])
        if not robust or np.abs(rows @ (found - before)).max() <= PRECISION:
            break
        trust = HUBER / np.maximum(np.sqrt(w) * np.abs(target - rows @ found) / scale, HUBER)
    return np.asarray(found)


def _blocks(strata: BoolArray) -> IntArray:
    """The block of each row: rows of one kind in their order, cut into stretches of equal length."""
    block = np.zeros(len(strata), dtype=np.int64)
    for rows in (strata, ~strata):
        block[rows] = np.arange(int(rows.sum())) * min(len(strata), BLOCKS) // max(int(rows.sum()), 1)
    return block


def _degrees(used: BoolArray, block: IntArray) -> int:
    """Blocks that hold a coefficient, less the coefficients it is estimated with: of the worst one."""
    present = np.zeros((int(block.max()) + 1, used.shape[1]), dtype=bool)
    np.logical_or.at(present, block, used)
    flags = used.astype(np.float64)
    together = (flags.T @ flags > 0).sum(axis=1)
    return max(int((present.sum(axis=0) - together).min()), 1)


def _jackknife(rows: FloatArray, curvature: FloatArray, scores: FloatArray, block: IntArray) -> FloatArray:
    """CR3: one Newton step after leaving out each block."""
    blocks, p = int(block.max()) + 1, rows.shape[1]
    weighted = curvature[:, None] * rows
    parts, sums = np.empty((blocks, p, p)), np.empty((blocks, p))
    for j in range(p):
        sums[:, j] = np.bincount(block, weights=scores[:, j], minlength=blocks)
        for i in range(p):
            parts[:, i, j] = np.bincount(block, weights=rows[:, i] * weighted[:, j], minlength=blocks)
    whole = parts.sum(axis=0)
    left = whole - parts
    # A block that alone carries a column leaves nothing to estimate it by: the pseudo-inverse says so by a huge step.
    ridge = 1e-12 * np.trace(whole) / len(whole) * np.eye(len(whole))
    steps = np.linalg.solve(left + ridge, sums[:, :, None])[:, :, 0]
    steps -= steps.mean(axis=0)
    return np.asarray((blocks - 1) / blocks * steps.T @ steps)
