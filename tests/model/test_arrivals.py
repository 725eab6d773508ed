"""Arrival processes and rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import InputError, RateSchedule
from stability.model.arrivals import Poisson, Renewal, Replay


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_renewal_gaps_have_mean_one_and_the_stated_cv(cv: float) -> None:
    """200 000 gaps. The mean is within 5 standard errors; the sample cv of a gamma law has a relative standard error
    below sqrt((1 + 2.5*cv**2)/n), and 6 of those are allowed: false alarm below 1e-6."""
    n = 200_000
    gaps = Renewal(cv).unit_gaps(n, np.random.default_rng(11))
    assert abs(gaps.mean() - 1) < 5 * cv / math.sqrt(n)
    assert abs(gaps.std() / gaps.mean() / cv - 1) < 6 * math.sqrt((1 + 2.5 * cv * cv) / n)


def test_poisson_gaps_are_exponential() -> None:
    """Kolmogorov-Smirnov at false alarm 1e-6: sqrt(n)*D < sqrt(ln(2e6)/2) = 2.69."""
    n = 50_000
    gaps = np.sort(Poisson().unit_gaps(n, np.random.default_rng(12)))
    exact = -np.expm1(-gaps)
    distance = max((np.arange(1, n + 1) / n - exact).max(), (exact - np.arange(n) / n).max())
    assert math.sqrt(n) * distance < 2.69


def test_metronome() -> None:
    assert Renewal(0).unit_gaps(3, np.random.default_rng(0)).tolist() == [1, 1, 1]


def test_replay() -> None:
    replay = Replay([5, 6, 9])
    assert replay.span_s == 4
    assert replay.rate_per_s == 0.5
    assert Replay([1.0, 1.0]).rate_per_s == math.inf


def test_schedule_by_hand() -> None:
    schedule = RateSchedule([0, 10, 15], [2.0, 0.0, 6.0], end_s=20)
    assert schedule.mean_per_s == (10 * 2 + 5 * 0 + 5 * 6) / 20
    assert schedule.peak_per_s == 6
    assert schedule.at([0, 9.99, 10, 15, 20, 35]).tolist() == [2, 2, 0, 6, 2, 6]
    assert schedule.scaled(2).at(0) == 4


def test_schedule_without_repeat_ends() -> None:
    schedule = RateSchedule([0], [3.0], end_s=10, repeat=False)
    assert schedule.at([-1, 0, 9.9, 10, 25]).tolist() == [0, 3, 3, 0, 0]


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 50)), min_size=1, max_size=6), st.floats(0.1, 10))
def test_schedule_mean_scales_with_rate_and_not_with_time(windows: list[tuple[float, float]], by: float) -> None:
    widths, rates = zip(*windows, strict=True)
    if sum(rates) == 0:
        return
    starts = np.concatenate(([0], np.cumsum(widths)))
    schedule = RateSchedule(starts[:-1].tolist(), rates, end_s=float(starts[-1]))
    stretched = RateSchedule((by * starts[:-1]).tolist(), rates, end_s=float(by * starts[-1]))
    assert stretched.mean_per_s == pytest.approx(schedule.mean_per_s)
    assert schedule.scaled(by).mean_per_s == pytest.approx(by * schedule.mean_per_s)
    assert min(rates) <= schedule.mean_per_s * (1 + 1e-12)
    assert schedule.mean_per_s <= schedule.peak_per_s * (1 + 1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Renewal(-1), "cv = -1"),
        (lambda: Renewal(math.nan), "cv = nan"),
        (lambda: Replay([]), r"shape \(0,\), must be one-dimensional and non-empty"),
        (lambda: Replay([0, math.nan]), r"arrival_s\[1\] = nan, must be finite"),
        (lambda: Replay([0, 2, 1]), r"arrival_s\[2\] = 1 comes after 2, must not decrease"),
        (lambda: RateSchedule([], [], end_s=1), "at least one"),
        (lambda: RateSchedule([0, 1], [1], end_s=2), "2 start_s and 1 rates_per_s"),
        (lambda: RateSchedule([1], [1], end_s=2), "must start at 0"),
        (lambda: RateSchedule([0, 5], [1, 1], end_s=5), "increase strictly"),
        (lambda: RateSchedule([0], [0], end_s=5), "rates_per_s are all 0"),
        (lambda: RateSchedule([0], [-1], end_s=5), r"rates_per_s\[0\] = -1"),
    ],
)
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
