"""Workloads: rates, scaling, mixing, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import InputError, RateSchedule, RequestClass, Workload
from stability.model.arrivals import Poisson, Renewal, Replay
from stability.model.lengths import Constant, Empirical, Geometric, Independent, Uniform

LENGTHS = Independent(prompt=Uniform(10, 400), output=Uniform(1, 200))
OTHER = Independent(prompt=Constant(1000), output=Constant(10))
DAY = RateSchedule([0, 10], [1.0, 3.0], end_s=20)


@given(st.floats(0.01, 100), st.floats(0.01, 100), st.floats(0.1, 10))
def test_scaling_keeps_the_mix(a: float, b: float, factor: float) -> None:
    workload = Workload([RequestClass("a", a, LENGTHS), RequestClass("b", b, OTHER)])
    by_factor, by_rate = workload.scaled(factor=factor), workload.scaled(rate_per_s=workload.rate_per_s * factor)
    assert by_factor.rate_per_s == pytest.approx(workload.rate_per_s * factor)
    np.testing.assert_allclose(by_factor.rates_per_s, by_rate.rates_per_s)
    np.testing.assert_allclose(by_factor.rates_per_s / by_factor.rate_per_s, workload.rates_per_s / workload.rate_per_s)


def test_lengths_of_the_mix() -> None:
    """3/4 of prompts with mean 205, 1/4 of 1000."""
    workload = Workload([RequestClass("a", 3.0, LENGTHS), RequestClass("b", 1.0, OTHER)])
    assert workload.lengths.prompt_mean_tokens == pytest.approx(0.75 * 205 + 0.25 * 1000)
    assert Workload.poisson(1.0, LENGTHS).lengths is LENGTHS


def test_scaled_schedule_and_replay() -> None:
    scheduled = Workload.scheduled(DAY, LENGTHS)
    assert scheduled.is_scheduled
    assert scheduled.scaled(rate_per_s=4).at(15).rate_per_s == pytest.approx(6)
    replay = Workload.from_requests([5.0, 6.0, 9.0], [1, 1, 1], [1, 1, 1]).scaled(rate_per_s=1.0)
    assert isinstance(replay.arrivals, Replay)
    np.testing.assert_allclose(replay.arrivals.arrival_s, [5.0, 5.5, 7.0])
    assert replay.rate_per_s == pytest.approx(1.0)


def test_instants_windows_and_average_of_a_schedule() -> None:
    workload = Workload(
        [
            RequestClass("a", DAY, LENGTHS),
            RequestClass("b", RateSchedule([0, 5], [4.0, 0.0], end_s=20), OTHER),
            RequestClass("c", 2.0, OTHER),
        ]
    )
    assert workload.window_starts_s().tolist() == [0, 5, 10]
    assert workload.at(2).rates_per_s.tolist() == [1, 4, 2]
    assert workload.at(12).rates_per_s.tolist() == [3, 0, 2]
    averaged = workload.averaged()
    assert not averaged.is_scheduled
    assert averaged.rates_per_s.tolist() == [2, 1, 2]
    assert Workload.poisson(1.0, LENGTHS).window_starts_s().tolist() == [0]


def test_constructors_choose_the_arrivals() -> None:
    assert isinstance(Workload.poisson(1.0, LENGTHS).arrivals, Poisson)
    assert Workload.renewal(1.0, LENGTHS, cv=2.0).arrivals == Renewal(2.0)
    replay = Workload.from_requests([0.0, 1.0], [1, 2], [3, 4], name="mine")
    assert replay.classes[0].name == "mine"
    assert isinstance(replay.resampled().arrivals, Poisson)
    assert replay.resampled().rate_per_s == replay.rate_per_s == 1.0


def from_one_instant() -> Workload:
    return Workload.from_requests([3.0, 3.0], [1, 1], [1, 1])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Workload([]), "classes is empty"),
        (lambda: Workload([LENGTHS]), r"classes\[0\] = .* must be a RequestClass"),  # type: ignore[list-item]
        (lambda: Workload.poisson(0.0, LENGTHS), "rates of all classes are 0"),
        (lambda: Workload.poisson(-1.0, LENGTHS), "rate_per_s = -1.0"),
        (lambda: Workload.poisson(math.nan, LENGTHS), "rate_per_s = nan"),
        (lambda: Workload.poisson(1.0, Constant(3)), "must be a joint law"),  # type: ignore[arg-type]
        (lambda: Workload([RequestClass("a", 1.0, LENGTHS)] * 2), "repeat, must be distinct"),
        (
            lambda: Workload(
                [
                    RequestClass("a", DAY, LENGTHS),
                    RequestClass("b", RateSchedule([0], [1.0], end_s=30), LENGTHS),
                ]
            ),
            r"schedules have \(end_s, repeat\) = .*must agree",
        ),
        (lambda: Workload.from_requests([0, 1], [1], [1]), "2 arrivals but 1 length pairs"),
        (lambda: Workload.from_requests([], [], []), "the trace is empty"),
        (lambda: Workload.from_requests([1, 0], [1, 1], [1, 1]), "must not decrease"),
        (lambda: Workload([RequestClass("a", 1.0, LENGTHS)], Replay([0, 1])), "a replay of 2 arrivals"),
        (lambda: Workload([RequestClass("a", 1.0, Empirical([1], [1]))], Replay([0, 1])), "a replay of 2 arrivals"),
        (lambda: RequestClass("a", 1.0, LENGTHS, value=-1), "value = -1"),
        (lambda: RequestClass("a", 1.0, LENGTHS, cached_prefix_tokens=-1), "cached_prefix_tokens = -1"),
        (lambda: RequestClass("a", 1.0, LENGTHS, max_output_tokens=100), "max_output_tokens = 100, must be >= 200"),
        (
            lambda: RequestClass("a", 1.0, Independent(prompt=Constant(1), output=Geometric(5)), max_output_tokens=100),
            "Truncate the output law",
        ),
        (lambda: Workload.poisson(1.0, LENGTHS).scaled(), "give either rate_per_s or factor"),
        (lambda: Workload.poisson(1.0, LENGTHS).scaled(rate_per_s=1, factor=1), "give either rate_per_s or factor"),
        (lambda: Workload.poisson(1.0, LENGTHS).scaled(factor=0), "factor = 0"),
        (lambda: from_one_instant().scaled(factor=2), "all come at once"),
        (lambda: from_one_instant().resampled(), "all come at once"),
    ],
)
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
