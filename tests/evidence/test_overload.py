"""Tests that may be looked at after every sample: their wealth by brute force, its expectation, and how often they are wrong."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy.stats import binom

from stability.errors import InputError
from stability.evidence.overload import STAKES, QueueTest, RateTest


def weight(j: int) -> float:
    return 1 / math.log2(j + 1) - 1 / math.log2(j + 2)


def queue_wealth(waiting: list[float], arrivals: list[float], start: int, stake: float) -> float:
    """Of one starting time and one stake, straight from the formula."""
    events = 0.0
    for i in range(start + 1, len(waiting)):
        admitted = arrivals[i] - (waiting[i] - waiting[i - 1])
        events += arrivals[i] + abs(admitted)
    return math.cosh(stake * waiting[-1]) / math.cosh(stake * waiting[start]) / math.cosh(stake) ** events


def test_starting_weights_sum_to_one() -> None:
    assert math.isclose(sum(weight(j) for j in range(1, 100_000)), 1 - 1 / math.log2(100_001), rel_tol=1e-12)


@given(some.lists(some.tuples(some.integers(0, 9), some.integers(0, 9)), min_size=2, max_size=8))
def test_queue_wealth_by_brute_force(steps: list[tuple[int, int]]) -> None:
    test, waiting, arrivals, now = QueueTest(), [], [], 0
    for arrived, admitted in steps:
        now = max(now + arrived - admitted, 0)
        waiting.append(float(now))
        arrivals.append(float(arrived))
        test.update(now, arrived)
    expected = sum(
        weight(j + 1) * queue_wealth(waiting, arrivals, j, stake) / len(STAKES)
        for j in range(len(waiting) - 1)
        for stake in STAKES
    )
    assert math.isclose(math.exp(test.log_wealth), expected, rel_tol=1e-9)


@given(some.lists(some.tuples(some.integers(0, 20), some.floats(0.0, 5.0)), min_size=1, max_size=8), some.booleans())
def test_rate_wealth_by_brute_force(steps: list[tuple[int, float]], above: bool) -> None:
    test = RateTest(2.0, above=above)
    for arrived, elapsed in steps:
        test.update(arrived, elapsed)
    expected = 0.0
    for j in range(len(steps)):
        count = sum(arrived for arrived, _ in steps[j:])
        time = sum(elapsed for _, elapsed in steps[j:])
        for stake in STAKES if above else -STAKES:
            expected += weight(j + 1) / len(STAKES) * math.exp(stake * count - 2.0 * time * math.expm1(stake))
    assert math.isclose(test.log_wealth, math.log(expected), rel_tol=1e-9, abs_tol=1e-9)


@pytest.mark.parametrize("up", [0.5, 0.4])
@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_reflected_walk_is_a_fair_game_at_most(up: float, start: int) -> None:
    """Expectation over all paths of 10 events; at load 1 from an empty line it is 1 exactly, with a step up at zero certain."""
    for stake in (2.0, 0.5, 1 / 128):
        mean = 0.0
        for path in itertools.product((1, -1), repeat=10):
            queue, chance = start, 1.0
            for step in path:
                if queue == 0 and step < 0:
                    chance = 0.0
                    break
                chance *= 1.0 if queue == 0 else (up if step > 0 else 1 - up)
                queue += step
            mean += chance * math.cosh(stake * queue) / math.cosh(stake * start) / math.cosh(stake) ** 10
        assert mean <= 1 + 1e-12
        if up == 0.5:
            assert math.isclose(mean, 1.0, rel_tol=1e-12)


def walk(rng: np.random.Generator, scrapes: int, load: float) -> tuple[list[float], list[float]]:
    """A line that Poisson arrivals join and Poisson admissions leave (10 a scrape at most); event by event, also at zero."""
    waiting, arrivals, queue = [0.0], [0.0], 0
    for _ in range(scrapes):
        arrived, chances = int(rng.poisson(10 * load)), int(rng.poisson(10))
        events = np.r_[np.ones(arrived), -np.ones(chances)]
        rng.shuffle(events)
        for event in events:
            queue = max(queue + int(event), 0)
        waiting.append(queue)
        arrivals.append(arrived)
    return waiting, arrivals


def called(test: QueueTest, waiting: list[float], arrivals: list[float]) -> bool:
    for queue, arrived in zip(waiting, arrivals, strict=True):
        test.update(queue, arrived)
    return test.rejected


def test_false_alarms_at_load_one() -> None:
    """100 watches of 150 scrapes at load 1, alpha 5 %: more calls than the limit come with probability 1e-6."""
    rng = np.random.default_rng(1)
    calls = sum(called(QueueTest(alpha=0.05), *walk(rng, 150, 1.0)) for _ in range(100))
    assert calls <= int(binom.isf(1e-6, 100, 0.05))


def evicting(seed: int, *, share: float, load: float = 1.0) -> list[tuple[float, float, float]]:
    """(waiting, arrivals, evictions) by scrape: of those who join the line, `share` were evicted; event by event."""
    rng = np.random.default_rng(seed)
    found, queue = [], 0
    for _ in range(150):
        counts = [0, 0]
        for _ in range(40):
            if queue == 0 or rng.random() < load / (1 + load):
                queue += 1
                counts[int(rng.random() < share)] += 1
            else:
                queue -= 1
        found.append((float(queue), float(counts[0]), float(counts[1])))
    return found


def test_false_alarms_with_evictions() -> None:
    """At load 1, half of those who join evicted. Arrivals net of evictions make the same walks look like overload."""
    calls = {True: 0, False: 0}
    for counted in calls:
        for seed in range(60):
            test = QueueTest(alpha=0.05)
            for waiting, arrived, evicted in evicting(seed, share=0.5):
                test.update(waiting, arrived, evicted if counted else 0.0)
            calls[counted] += test.rejected
    assert calls[True] <= int(binom.isf(1e-6, 60, 0.05))
    assert calls[False] > 30
    test = QueueTest(alpha=0.05)
    for waiting, arrived, evicted in evicting(0, share=0.5, load=1.5):
        test.update(waiting, arrived, evicted)
    assert test.rejected


@given(some.lists(some.tuples(some.integers(0, 9), some.booleans()), min_size=2, max_size=8), some.integers(1, 4))
def test_nothing_is_won_while_arrivals_are_unknown(steps: list[tuple[int, bool]], queues: int) -> None:
    """Started once: wealth does not rise over an unknown interval, whatever the line does (one line: it stays)."""
    test = QueueTest(queues=queues)
    test.update(0, 0)
    test.update(3, 3)
    test._log_sum = np.full(len(STAKES), -1.0) - np.log(np.cosh(STAKES * 3))
    for waiting, known in steps:
        before = test._log_sum + test._value(test._waiting)
        test.update(waiting, 5 if known else math.nan)
        after = test._log_sum + test._value(waiting)
        weight_now = math.log(weight(test._starts))
        fresh = weight_now - np.log(np.cosh(STAKES * waiting)) + test._value(waiting)
        if not known:
            assert (after <= np.logaddexp(before, fresh) + 1e-9).all()
            if queues == 1:
                assert after == pytest.approx(np.logaddexp(before, weight_now), abs=1e-9)


def test_false_alarms_of_the_rate_test() -> None:
    rng = np.random.default_rng(2)
    calls = 0
    for _ in range(200):
        test = RateTest(3.0, alpha=0.05)
        for arrived in rng.poisson(3.0, 200):
            test.update(int(arrived), 1.0)
        calls += test.rejected
    assert calls <= int(binom.isf(1e-6, 200, 0.05))
    test = RateTest(3.0, alpha=0.05)
    for arrived in rng.poisson(3.8, 200):
        test.update(int(arrived), 1.0)
    assert test.rejected


def test_overload_is_called_after_a_quiet_hour() -> None:
    rng = np.random.default_rng(3)
    test = QueueTest(alpha=0.01)
    for _ in range(720):
        test.update(0, int(rng.poisson(40)))
    assert not test.rejected
    waiting = 0.0
    for _ in range(7):
        waiting += 20
        test.update(waiting, 40)
    assert test.rejected


@given(
    some.lists(some.tuples(some.integers(0, 9), some.integers(0, 9)), min_size=2, max_size=6), some.sampled_from([2, 3])
)
def test_clumps_count_as_one(steps: list[tuple[int, int]], clump: int) -> None:
    one, many, now = QueueTest(), QueueTest(dispersion=clump), 0
    for arrived, admitted in steps:
        now = max(now + arrived - admitted, 0)
        one.update(now, arrived)
        many.update(clump * now, clump * arrived)
    assert math.isclose(one.log_wealth, many.log_wealth, rel_tol=1e-9, abs_tol=1e-9)


@given(
    some.lists(some.integers(0, 30), min_size=1, max_size=5), some.lists(some.integers(0, 30), min_size=5, max_size=5)
)
def test_the_sum_of_lines_never_has_more_than_their_product(now: list[int], before: list[int]) -> None:
    """Value and price of several lines against those of their sum, for every stake."""
    begun = before[: len(now)]
    for stake in STAKES:
        product = sum(math.log(math.cosh(stake * q)) for q in now) - sum(math.log(math.cosh(stake * q)) for q in begun)
        pooled = len(now) * math.log(math.cosh(stake * sum(now) / len(now))) - math.log(math.cosh(stake * sum(begun)))
        assert pooled <= product + 1e-9


def test_many_lines_at_load_one_are_not_called() -> None:
    """Forty lines: taken for one, their sum is called in most watches; told that they are many, never."""
    rng = np.random.default_rng(4)
    calls = {1: 0, 40: 0}
    for _ in range(6):
        lines = [walk(rng, 60, 1.0) for _ in range(40)]
        waiting, arrivals = (np.sum([line[k] for line in lines], axis=0) for k in (0, 1))
        for queues in calls:
            calls[queues] += called(QueueTest(alpha=0.01, queues=queues), waiting.tolist(), arrivals.tolist())
    assert calls[1] >= 4
    assert calls[40] == 0


def test_evicted_requests_join_the_line() -> None:
    """Ten more wait though none arrived: ten events, all upward."""
    test = QueueTest()
    test.update(0, 0)
    test.update(10, 0)
    expected = weight(1) * np.mean([math.cosh(10 * stake) / math.cosh(stake) ** 10 for stake in STAKES])
    assert math.isclose(math.exp(test.log_wealth), expected, rel_tol=1e-12)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 1.0}, {"dispersion": 0.5}])
def test_bad_settings(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be"):
        QueueTest(**settings)


def test_bad_samples() -> None:
    with pytest.raises(InputError, match="waiting = -1"):
        QueueTest().update(-1, 0)
    with pytest.raises(InputError, match="arrivals = nan"):
        RateTest(1.0).update(math.nan, 1.0)
