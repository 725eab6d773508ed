"""Flow control: budgets against enumeration, the queue against its chain, the overflow bound against the saturated walk."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from stability.errors import InputError
from stability.theory.flow_control import best_budgets, check_budgets, overflow_bound, waiting


@given(
    rates=some.lists(some.floats(0.1, 4.0), min_size=1, max_size=3),
    sizes=some.lists(some.integers(1, 40), min_size=3, max_size=3),
    memory=some.integers(0, 200),
)
@settings(max_examples=60, deadline=None)
def test_best_budgets_against_enumeration(rates: list[float], sizes: list[int], memory: int) -> None:
    w = np.array(sizes[: len(rates)], dtype=float)
    ranges = [range(int(memory // x) + 1) for x in w]
    best = max(
        min(b / r for b, r in zip(option, rates, strict=True))
        for option in itertools.product(*ranges)
        if float(np.dot(option, w)) <= memory
    )
    found = best_budgets(rates, w, memory)
    assert float(found @ w) <= memory
    assert float((found / np.array(rates)).min()) == pytest.approx(best)
    # No unit more of any class fits.
    assert (memory - float(found @ w) < w).all()


@pytest.mark.parametrize(("rate", "budget"), [(3.0, 4), (0.5, 1), (3.7, 4), (0.2, 3)])
def test_waiting_is_the_stationary_law_of_the_chain(rate: float, budget: int) -> None:
    size = 600
    arrivals = np.exp([-rate + k * math.log(rate) - math.lgamma(k + 1) for k in range(size)])
    law = np.zeros(size)
    law[0] = 1.0
    for _ in range(3000 if rate > 3.5 else 400):
        total = np.convolve(law, arrivals)[: size + budget]
        law = np.concatenate(([total[: budget + 1].sum()], total[budget + 1 :]))[:size]
    x = np.arange(size)
    found = waiting(rate, budget)
    assert found.mean == pytest.approx(float(law @ x), rel=1e-6)
    assert found.variance == pytest.approx(float(law @ x**2 - (law @ x) ** 2), rel=1e-5)
    assert found.empty == pytest.approx(law[0], rel=1e-6)
    assert found.delay_slots == pytest.approx(found.mean / rate)


def test_waiting_of_an_unstable_class() -> None:
    with pytest.raises(InputError, match="would grow"):
        waiting(4.0, 4)
    found = check_budgets([4, 1], [5.0, 0.5], [10, 10], 100)
    assert found.backlog_per_slot == 1.0
    assert not found.stable
    assert math.isinf(found.waiting_mean[0])
    assert found.waiting_mean[1] < 1
    assert not check_budgets([4], [1.0], [30], 100).fits


@pytest.mark.parametrize("memory", [900, 1100, 1300, 1500])
def test_the_overflow_bound_holds_and_falls_exponentially(memory: int) -> None:
    """Every budget used: U = sum_j B_{t-j+1} (10 + j), exact by convolution of its fifteen terms."""
    law = np.ones(1)
    for j in range(1, 16):
        term = np.zeros(6 * (10 + j) + 1)
        term[:: 10 + j] = 1 / 7
        law = np.convolve(law, term)
    exact = float(law[memory + 1 :].sum())
    found = overflow_bound(0, 6, [10], [15], memory)
    assert exact <= found.per_slot
    # Chernoff gives the rate: within a factor that grows like the square root of the exponent.
    assert found.per_slot < 40 * exact
    assert found.over(1e9) == min(1.0, 1e9 * found.per_slot)


def test_the_bound_says_nothing_below_the_mean_and_zero_above_the_most() -> None:
    assert overflow_bound(0, 6, [10], [15], 800).per_slot == 1.0
    assert overflow_bound(0, 6, [10], [15], 1621).per_slot < 1e-30
    mixed = overflow_bound(0, 6, [10, 40], [15, 5], 1200, [0.5, 0.5])
    assert mixed.mean_tokens == pytest.approx(3 * (0.5 * 270 + 0.5 * 215))
