"""Confidence intervals: hand numbers, coverage on AR(1) and M/M/1, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability._types import FloatArray
from stability.errors import InputError
from stability.evidence.intervals import Interval, batch_means_interval, ratio_interval, regenerative_interval

# Coverage near 95 % over 400 runs has standard error 1.1 %: leaving 95 +- 5.5 % by chance has probability below 1e-6.
RUNS, SLACK = 400, 0.055


def autoregressive(rng: np.random.Generator, samples: int, correlation: float) -> FloatArray:
    """Stationary AR(1) with mean 10."""
    from scipy.signal import lfilter

    noise = rng.standard_normal(samples)
    noise[0] /= math.sqrt(1 - correlation**2)
    return 10 + np.asarray(lfilter([1.0], [1.0, -correlation], noise))


def waits(rng: np.random.Generator, customers: int, load: float) -> FloatArray:
    """Waits in an M/M/1 queue from an empty start (Lindley), mean service 1."""
    steps = rng.exponential(1, customers - 1) - rng.exponential(1 / load, customers - 1)
    free = np.concatenate([[0.0], np.cumsum(steps)])
    return np.asarray(free - np.minimum.accumulate(free))


def coverage(intervals: list[Interval], value: float) -> float:
    return float(np.mean([value in interval for interval in intervals]))


def test_batch_means_cover_the_mean_of_ar1() -> None:
    rng = np.random.default_rng(1)
    paths = [autoregressive(rng, 4000, 0.8) for _ in range(RUNS)]
    assert coverage([batch_means_interval(path, batches=20) for path in paths], 10.0) == pytest.approx(0.95, abs=SLACK)
    # Single samples for batches ignore the correlation: the standard error is three times too small.
    assert coverage([batch_means_interval(path, batches=4000) for path in paths], 10.0) < 0.6


def test_regenerative_intervals_cover_the_mean_wait() -> None:
    rng = np.random.default_rng(2)
    load = 0.6
    found = []
    for _ in range(RUNS):
        path = waits(rng, 8000, load)
        found.append(regenerative_interval(path, np.flatnonzero(path == 0)))
    assert coverage(found, load / (1 - load)) == pytest.approx(0.95, abs=SLACK)
    assert found[0].batches > 2000


def test_ratio_intervals_cover_a_rate() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(RUNS):
        gaps = rng.exponential(2.0, (400, 5)).sum(axis=1)
        found.append(ratio_interval(np.full(400, 5), gaps, batches=20))
    assert coverage(found, 0.5) == pytest.approx(0.95, abs=SLACK)


def test_half_width_by_hand() -> None:
    interval = batch_means_interval([0.0, 2.0], batches=2, level=0.5)
    assert interval.half_width == pytest.approx(1.0)  # t(1) at 75 % is 1; sd of the mean is 1
    assert (interval.low + interval.high) / 2 == pytest.approx(1.0)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=4, max_size=60),
    st.sampled_from((0.5, 3.0, 1e4)),
    st.floats(-1e3, 1e3),
)
def test_unit_and_origin_carry_through(values: list[float], factor: float, shift: float) -> None:
    plain = batch_means_interval(values, batches=4)
    moved = batch_means_interval(factor * (np.array(values) + shift), batches=4)
    assert moved.low == pytest.approx(factor * (plain.low + shift), rel=1e-7, abs=1e-6 * factor)
    assert moved.high == pytest.approx(factor * (plain.high + shift), rel=1e-7, abs=1e-6 * factor)


@given(st.lists(st.floats(-1e3, 1e3), min_size=20, max_size=60))
def test_more_confidence_is_wider(values: list[float]) -> None:
    widths = [batch_means_interval(values, batches=5, level=level).half_width for level in (0.5, 0.9, 0.99)]
    assert widths == sorted(widths)


def test_the_remainder_leaves_the_front() -> None:
    assert batch_means_interval([99.0, 1, 2, 3, 4], batches=2) == batch_means_interval([1, 2, 3, 4], batches=2)


def test_constant_series_has_width_zero() -> None:
    interval = batch_means_interval(np.full(40, 3.0))
    assert interval.low == interval.high == 3.0


def test_too_little_is_infinite() -> None:
    found = [
        batch_means_interval([1.0] * 19, batches=20),
        regenerative_interval([0.0, 1.0, 0.0], [0, 2]),
        regenerative_interval([0.0, 1.0], []),
        ratio_interval([1.0], [1.0]),
        ratio_interval([1.0, 1.0], [0.0, 0.0]),
    ]
    for interval in found:
        assert math.isinf(interval.half_width)
        assert 1e300 in interval


@pytest.mark.parametrize("starts", [[2, 1], [1, 1], [-1, 2], [0, 4], [0.0, 1.0], [[0, 1]]])
def test_cycle_starts_must_be_increasing_indices(starts: object) -> None:
    with pytest.raises(InputError, match=r"cycle_starts.*\[0, 4\)"):
        regenerative_interval([0.0, 1.0, 2.0, 3.0], starts)  # type: ignore[arg-type]


def test_gaps_are_refused() -> None:
    with pytest.raises(InputError, match=r"values\[1\] = nan"):
        batch_means_interval([0.0, math.nan])
    with pytest.raises(InputError, match=r"values\[0\] = inf"):
        regenerative_interval([math.inf, 0.0], [0])
    with pytest.raises(InputError, match="batches"):
        batch_means_interval([0.0, 1.0], batches=1)
    with pytest.raises(InputError, match="level"):
        batch_means_interval([0.0, 1.0], level=1.0)
