"""The balance of a fleet: bounds from any split and any prices, three solvers, brute force, exact rationals."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from stability.control.balance import exact_factor_bounds, factor_bounds, least_load
from stability.control.interior import interior_point
from stability.control.linear import (
    SOLVERS,
    InfeasibleError,
    LinearProgram,
    certificate,
    solve_linear,
)

from .fleets import random_rows

sizes = some.tuples(some.integers(1, 6), some.integers(1, 3), some.integers(1, 4))


def brute_force(seconds: np.ndarray, replicas: np.ndarray, rates: np.ndarray, fits: np.ndarray) -> float:
    """Least greatest load by visiting every basis of the program in standard form."""
    n, rows, classes = seconds.shape
    pairs = [(i, k) for i in range(n) for k in range(classes) if fits[i, k]]
    size = len(pairs) + n * rows + 1  # shares, slacks, rho
    matrix, right = np.zeros((n * rows + classes, size)), np.zeros(n * rows + classes)
    for column, (i, k) in enumerate(pairs):
        matrix[i * rows : (i + 1) * rows, column] = seconds[i, :, k] * rates[k] / replicas[i]
        matrix[n * rows + k, column] = 1.0
    matrix[: n * rows, len(pairs) : -1] = np.eye(n * rows)
    matrix[: n * rows, -1] = -1.0
    right[n * rows :] = 1.0
    best = np.inf
    for basis in combinations(range(size), len(right)):
        part = matrix[:, basis]
        if abs(np.linalg.det(part)) < 1e-10:
            continue
        point = np.linalg.solve(part, right)
        if (point >= -1e-9).all() and size - 1 in basis:
            best = min(best, point[basis.index(size - 1)])
    return best


@pytest.mark.parametrize("seed", range(6))
def test_balance_is_the_best_basis(seed: int) -> None:
    seconds, replicas, rates, fits = random_rows(seed, 2, 2, 2)
    found = least_load(seconds, replicas, rates, fits)
    assert 1 / found.lower == pytest.approx(brute_force(seconds, replicas, rates, fits), rel=1e-9)


@given(some.integers(0, 10_000), sizes, some.sampled_from(["HIGHS", "interior point"]))
def test_split_and_prices_prove_each_other(seed: int, size: tuple[int, int, int], solver: str) -> None:
    seconds, replicas, rates, fits = random_rows(seed, *size)
    found = least_load(seconds, replicas, rates, fits, solver=solver)
    assert found.lower <= found.upper * (1 + 1e-12)
    assert found.gap <= 1e-7
    # In plain arithmetic: primal, dual, gap.
    assert (found.shares >= 0).all()
    assert not found.shares[~fits].any()
    assert found.shares.sum(axis=0) == pytest.approx(1, abs=1e-12)
    for i in range(len(replicas)):
        for r in range(seconds.shape[1]):
            load = sum(seconds[i, r, k] * rates[k] * found.shares[i, k] for k in range(len(rates)) if fits[i, k])
            assert load * found.lower <= replicas[i] * (1 + 1e-12)
    assert (found.prices >= 0).all()
    assert sum(replicas[i] * found.prices[i].sum() for i in range(len(replicas))) == pytest.approx(1, abs=1e-12)
    for i, k in zip(*np.nonzero(fits), strict=True):
        assert found.class_prices[k] <= found.prices[i] @ seconds[i, :, k] * (1 + 1e-12)
    assert found.upper == pytest.approx(1 / float(rates @ found.class_prices), rel=1e-12)


@given(some.integers(0, 10_000), sizes)
def test_any_split_and_any_prices_bound(seed: int, size: tuple[int, int, int]) -> None:
    seconds, replicas, rates, fits = random_rows(seed, *size)
    found = least_load(seconds, replicas, rates, fits)
    rng = np.random.default_rng(seed)
    shares = rng.random(fits.shape) * fits
    shares /= shares.sum(axis=0)
    lower, upper = factor_bounds(seconds, replicas, rates, fits, shares, rng.random(seconds.shape[:2]))
    assert lower <= found.upper * (1 + 1e-9)
    assert upper >= found.lower * (1 - 1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_exact_rationals(seed: int) -> None:
    seconds, replicas, rates, fits = random_rows(seed, 3, 2, 3)
    found = least_load(seconds, replicas, rates, fits)
    low, high = exact_factor_bounds(seconds, replicas, rates, fits, found.shares, found.prices)
    assert isinstance(low, Fraction)
    assert isinstance(high, Fraction)
    assert low <= high  # weak duality, without rounding
    assert high - low <= Fraction(1, 10**7) * low
    assert float(low) == pytest.approx(found.lower, rel=1e-12)


def test_exact_rationals_by_hand() -> None:
    # Two types of one replica, one class: 1/2 and 1/4 s a request, so 2 + 4 = 6 requests/s.
    seconds = np.array([[[0.5]], [[0.25]]])
    ones, fits = np.ones(2), np.ones((2, 1), dtype=bool)
    found = least_load(seconds, ones, np.array([1.0]), fits)
    shares, prices = np.array([[1.0], [2.0]]) / 4, np.array([[1.0], [2.0]])  # shares need not sum to 1
    assert exact_factor_bounds(seconds, ones, np.array([1.0]), fits, shares, prices) == (Fraction(6), Fraction(6))
    assert found.lower == pytest.approx(6, rel=1e-12)
    assert found.prices.ravel() == pytest.approx([1 / 3, 2 / 3])


@pytest.mark.parametrize("seed", range(5))
def test_three_solvers_agree(seed: int) -> None:
    seconds, replicas, rates, fits = random_rows(seed, 12, 3, 5)
    highs = least_load(seconds, replicas, rates, fits, solver="HIGHS")
    inner = least_load(seconds, replicas, rates, fits, solver="interior point")
    conic = least_load(seconds, replicas, rates, fits, solver="CLARABEL")
    assert [inner.lower, conic.lower] == pytest.approx([highs.lower] * 2, rel=1e-7)
    assert max(inner.gap, conic.gap) <= 1e-7
    allowed = fits & (rates > 0)
    loads = np.where(allowed[:, None], seconds, 0) * (rates / replicas[:, None])[:, None]
    shares, weights = interior_point(loads, allowed)
    assert shares.sum(axis=0) == pytest.approx(1, abs=1e-6)
    assert weights.sum() == pytest.approx(1, abs=1e-6)


def test_rows_that_are_nearly_parallel() -> None:
    # Every pool as good as every other: the program is all but degenerate everywhere.
    n, classes = 300, 12
    base = 0.008 + 1e-5 * np.arange(n)
    work, volume, stay = 0.035 + 1e-3 * np.arange(classes), 2e5 + 2e4 * np.arange(classes), 150 + 5 * np.arange(classes)
    memory, slots = 3e5 + 100 * np.arange(n), 128 + np.arange(n) % 128
    seconds = np.stack(
        [work + base[:, None] * volume / memory[:, None], work + base[:, None] * stay / slots[:, None]], axis=1
    )
    found = least_load(seconds, np.full(n, 4.0), np.full(classes, 10.0), np.ones((n, classes), dtype=bool))
    assert found.solver == "interior point"
    assert found.gap <= 1e-7


def random_program(seed: int) -> LinearProgram:
    rng = np.random.default_rng(seed)
    below = rng.uniform(0.1, 1, (4, 5))
    return LinearProgram(
        cost=rng.uniform(-1, 0.5, 5),
        below=below,
        limits=rng.uniform(1, 2, 4),
        equal=np.ones((1, 5)),
        values=np.array([1.0]),
        highest=np.full(5, 0.7),
    )


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("seed", range(8))
def test_linear_programs_carry_their_proof(seed: int, solver: str) -> None:
    program = random_program(seed)
    found = solve_linear(program, solver=solver)
    # Plain arithmetic, apart from `certificate`.
    x, y, v, m = found.point, found.below_duals, found.equal_duals, found.highest_duals
    assert (program.below @ x <= program.limits + 1e-7).all()
    assert abs(x.sum() - 1) <= 1e-7
    assert ((x >= -1e-9) & (x <= 0.7 + 1e-7)).all()
    assert (program.cost + program.below.T @ y + v[0] + m >= -1e-7).all()
    bound = -(program.limits @ y + v[0] + 0.7 * m.sum())
    assert abs(program.cost @ x - bound) <= 1e-7
    assert found.certificate.worst <= 1e-7
    assert found.value == pytest.approx(solve_linear(program).value, abs=1e-7)


def test_certificate_notices_a_wrong_answer() -> None:
    program = random_program(0)
    found = solve_linear(program)
    multipliers = found.below_duals, found.equal_duals, found.highest_duals
    assert certificate(program, found.point * 1.01, *multipliers).primal > 1e-3
    assert certificate(program, found.point, found.below_duals, found.equal_duals - 1, found.highest_duals).worst > 1e-3
    worse = np.roll(found.point, 1)
    assert certificate(program, worse, *multipliers).worst > 1e-4


@pytest.mark.parametrize("solver", SOLVERS)
def test_no_point_at_all(solver: str) -> None:
    program = LinearProgram(
        cost=np.ones(1),
        below=np.array([[1.0]]),
        limits=np.array([1.0]),
        equal=np.array([[1.0]]),
        values=np.array([2.0]),
    )
    with pytest.raises(InfeasibleError):
        solve_linear(program, solver=solver)
