"""arXiv 2604.11001 (Dong, Cao), the theory: three classes (10, 20), (10, 40), (10, 60) in M = 16 492."""

import math

import pytest

from stability.theory.flow_control import (
    best_budgets,
    check_budgets,
    largest_common_rate,
    overflow_bound,
    waiting,
    workloads,
)

W = workloads([10, 10, 10], [20, 40, 60])
M = 16_492


def test_workloads_and_the_necessary_bound() -> None:
    assert W.tolist() == [410, 1220, 2430]
    assert largest_common_rate(W, M) == pytest.approx(4.0621, abs=5e-5)


def test_budgets_of_four_peak_at_16_240_and_are_the_best() -> None:
    assert check_budgets([4, 4, 4], [3, 3, 3], W, M).peak_tokens == 16_240
    assert best_budgets([3, 3, 3], W, M).tolist() == [4, 4, 4]


@pytest.mark.parametrize(("rate", "stable", "growth"), [(3.0, True, 0.0), (4.0, False, 0.0), (5.0, False, 3.0)])
def test_stability_flips_at_the_budget(rate: float, stable: bool, growth: float) -> None:
    """Theorem 3.3; at lambda = 5 each queue grows by one per slot."""
    found = check_budgets([4, 4, 4], [rate] * 3, W, M)
    assert found.stable is stable
    assert found.backlog_per_slot == growth
    assert found.fits


def test_stationary_queue_and_throughput_at_rate_three() -> None:
    """Three classes of rate 3: 3 (20 + 40 + 60) = 360 tokens a slot; the queue is the reflected walk's."""
    assert 3 * (20 + 40 + 60) == 360
    law = waiting(3.0, 4)
    assert law.mean == pytest.approx(0.80088, abs=1e-5)
    assert law.delay_slots == pytest.approx(law.mean / 3)


def test_algorithm_2_overload_has_no_bound_and_slack_an_exponential_one() -> None:
    """(10, 15), budgets U{0..6}: mean usage 810 is far above M = 120, so evictions must occur there."""
    crowded = overflow_bound(0, 6, [10], [15], 120)
    assert crowded.mean_tokens == 3 * 270
    assert crowded.per_slot == 1
    logs = [math.log(overflow_bound(0, 6, [10], [15], 810 + slack).per_slot) for slack in (200, 300, 400)]
    assert logs[0] - logs[1] > 1
    assert logs[1] - logs[2] > logs[0] - logs[1]  # concave: at least exponential
