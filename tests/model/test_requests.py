"""Drawing and replaying requests."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import InputError, RateSchedule, RequestClass, Workload
from stability.model.arrivals import Renewal
from stability.model.lengths import Constant, Independent, Uniform
from stability.model.requests import BLOCK, Requests, draw, draw_blocks

LENGTHS = Independent(prompt=Uniform(10, 400), output=Uniform(1, 200))
OTHER = Independent(prompt=Constant(5), output=Constant(3))
TWO_CLASSES = Workload([RequestClass("a", 3.0, LENGTHS), RequestClass("b", 1.0, OTHER, max_output_tokens=8)])


def assert_same(a: Requests, b: Requests) -> None:
    for name in Requests.__slots__:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def head(requests: Requests, rows: int) -> Requests:
    return Requests(**{name: getattr(requests, name)[:rows] for name in Requests.__slots__})


@pytest.mark.parametrize(
    "workload",
    [
        Workload.poisson(5.0, LENGTHS),
        Workload.renewal(5.0, LENGTHS, cv=2.0),
        Workload.scheduled(RateSchedule([0, 60], [1.0, 9.0], end_s=120), LENGTHS),
        TWO_CLASSES,
    ],
    ids=["poisson", "renewal", "scheduled", "classes"],
)
def test_one_seed_gives_the_same_requests_for_any_count(workload: Workload) -> None:
    long = draw(workload, requests=BLOCK + 100, rng=3)
    for count in (1, 50, BLOCK, BLOCK + 1):
        assert_same(draw(workload, requests=count, rng=3), head(long, count))
    assert (draw(workload, requests=50, rng=4).arrival_s != long.arrival_s[:50]).all()
    assert (np.diff(long.arrival_s) >= 0).all()


@given(st.floats(0.5, 300))
def test_horizon_is_a_prefix(horizon_s: float) -> None:
    everything = draw(TWO_CLASSES, requests=2000, rng=1)
    blocks = list(draw_blocks(TWO_CLASSES, horizon_s=horizon_s, rng=1))
    count = sum(map(len, blocks))
    assert count == (everything.arrival_s < horizon_s).sum()
    assert sum(map(len, draw_blocks(TWO_CLASSES, requests=40, horizon_s=horizon_s, rng=1))) == min(40, count)


def test_rate_scales_time_only() -> None:
    slow, fast = draw(TWO_CLASSES, requests=500, rng=2), draw(TWO_CLASSES.scaled(factor=4), requests=500, rng=2)
    np.testing.assert_allclose(fast.arrival_s, slow.arrival_s / 4, rtol=1e-12)
    np.testing.assert_array_equal(fast.prompt_tokens, slow.prompt_tokens)
    np.testing.assert_array_equal(fast.request_class, slow.request_class)


def test_classes_come_by_their_rates_with_their_own_lengths() -> None:
    """Binomial(n, 1/4) within 5 standard deviations: false alarm 6e-7. So is the number in a stated time."""
    n = 40_000
    got = draw(TWO_CLASSES, requests=n, rng=5)
    second = got.request_class == 1
    assert abs(second.sum() - n / 4) < 5 * math.sqrt(n * 3 / 16)
    assert (got.prompt_tokens[second] == 5).all()
    assert (got.max_output_tokens[second] == 8).all()
    np.testing.assert_array_equal(got.max_output_tokens[~second], got.output_tokens[~second])
    assert abs(got.arrival_s[-1] - n / 4) < 5 * math.sqrt(n) / 4


def counts(workload: Workload, edges: list[float], rng: int = 6) -> list[int]:
    blocks = list(draw_blocks(workload, horizon_s=edges[-1], rng=rng))
    times = np.concatenate([block.arrival_s for block in blocks])
    return [int(count) for count in np.histogram(times, edges)[0]]


def near(count: int, mean: float) -> bool:
    """Poisson counts above 1000 stay within 5.5 standard deviations with a false alarm below 1e-7."""
    return abs(count - mean) < 5.5 * math.sqrt(mean)


def test_repeating_schedule_with_a_silent_window() -> None:
    workload = Workload.scheduled(RateSchedule([0, 100, 200], [50.0, 0.0, 20.0], end_s=300), LENGTHS)
    first, silent, third, again, silent_again, last = counts(workload, [0, 100, 200, 300, 400, 500, 600])
    assert silent == silent_again == 0
    assert near(first, 5000)
    assert near(third, 2000)
    assert near(again, 5000)
    assert near(last, 2000)


def test_schedule_that_starts_silent() -> None:
    workload = Workload.scheduled(RateSchedule([0, 50], [0.0, 40.0], end_s=100), LENGTHS)
    got = draw(workload, requests=1500, rng=7)
    assert got.arrival_s[0] >= 50
    assert (np.mod(got.arrival_s, 100) >= 50).all()


def test_schedule_that_ends() -> None:
    workload = Workload.scheduled(RateSchedule([0, 100], [30.0, 10.0], end_s=200, repeat=False), LENGTHS)
    first, second, after = counts(workload, [0, 100, 200, 1000])
    assert near(first, 3000)
    assert near(second, 1000)
    assert after == 0
    with pytest.raises(InputError, match=r"requests = 100000, must be <= \d+, all that come before the schedule ends"):
        draw(workload, requests=100_000, rng=6)


def test_two_classes_with_schedules() -> None:
    """A comes only in the first half, B only in the second, C all the time."""
    classes = [
        RequestClass("a", RateSchedule([0, 100], [20.0, 0.0], end_s=200), LENGTHS),
        RequestClass("b", RateSchedule([0, 100], [0.0, 30.0], end_s=200), LENGTHS),
        RequestClass("c", 20.0, OTHER),
    ]
    workload = Workload(classes)
    assert workload.rate_per_s == pytest.approx(10 + 15 + 20)
    blocks = list(draw_blocks(workload, horizon_s=400, rng=8))
    times, kinds = (np.concatenate([getattr(b, n) for b in blocks]) for n in ("arrival_s", "request_class"))
    half = (np.mod(times, 200) >= 100).astype(int)
    table = np.zeros((3, 2), dtype=int)
    np.add.at(table, (kinds, half), 1)
    assert table[0, 1] == table[1, 0] == 0
    for got, mean in ((table[0, 0], 4000), (table[1, 1], 6000), (table[2, 0], 4000), (table[2, 1], 4000)):
        assert near(int(got), mean)


def test_scheduled_renewal_is_a_time_change() -> None:
    """A metronome at rate 1, sped up fourfold after 10 s."""
    schedule = RateSchedule([0, 10], [1.0, 4.0], end_s=20)
    workload = Workload([RequestClass("a", schedule, LENGTHS)], Renewal(0))
    got = draw(workload, requests=14, rng=1).arrival_s
    np.testing.assert_allclose(got, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10.25, 10.5, 10.75, 11.0])


def test_replay_gives_exactly_its_rows() -> None:
    workload = Workload.from_requests([5.0, 6.0, 9.0], [10, 20, 30], [1, 2, 3])
    got = draw(workload, requests=3)
    assert got.arrival_s.tolist() == [5, 6, 9]
    assert got.prompt_tokens.tolist() == [10, 20, 30]
    assert got.output_tokens.tolist() == got.max_output_tokens.tolist() == [1, 2, 3]
    assert got.cached_prefix_tokens.tolist() == got.request_class.tolist() == [0, 0, 0]
    assert [len(block) for block in draw_blocks(workload, horizon_s=9.0)] == [2]
    with pytest.raises(InputError, match=r"requests = 4, must be <= 3, the rows of the replayed trace.*resampled"):
        draw(workload, requests=4)


def test_resampled_replay_keeps_the_rate_and_the_pairs() -> None:
    """n arrivals at rate 1/2 take 2n +- 5*2*sqrt(n) seconds: false alarm 6e-7."""
    workload = Workload.from_requests([0.0, 1.0, 4.0], [10, 20, 30], [1, 2, 3]).resampled()
    got = draw(workload, requests=10_000, rng=9)
    assert abs(got.arrival_s[-1] - 20_000) < 1000
    np.testing.assert_array_equal(got.prompt_tokens, 10 * got.output_tokens)


def test_generators_and_seed_sequences_are_accepted() -> None:
    workload = Workload.poisson(1.0, LENGTHS)
    assert_same(draw(workload, requests=5, rng=1), draw(workload, requests=5, rng=np.random.SeedSequence(1)))
    one = draw(workload, requests=5, rng=np.random.default_rng(1))
    assert_same(one, draw(workload, requests=5, rng=np.random.default_rng(1)))


@pytest.mark.parametrize("count", [0, -1, 2.5])
def test_bad_counts(count: float) -> None:
    with pytest.raises(InputError, match=f"requests = {count}, must be an integer >= 1"):
        draw(Workload.poisson(1.0, LENGTHS), requests=count)  # type: ignore[arg-type]


def test_endless_draw() -> None:
    with pytest.raises(InputError, match="give requests or horizon_s"):
        list(draw_blocks(Workload.poisson(1.0, LENGTHS)))
