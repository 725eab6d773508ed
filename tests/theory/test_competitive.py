"""Competitive bounds against every schedule of small instances."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from stability.errors import InputError
from stability.theory.competitive import a_max_ratio, mc_sf_bounds, svf_ratio, svf_waiting_slack, volume_lower_bound


def best_total(s: list[int], o: list[int], memory: int) -> int:
    """Least total latency over all start slots, by search: request i started at k holds s + (t - k) at t = k+1 .. k+o."""
    horizon, best = sum(o), 10**9
    for starts in itertools.product(range(horizon), repeat=len(s)):
        total = sum(k + b for k, b in zip(starts, o, strict=True))
        if total >= best:
            continue
        use = np.zeros(2 * horizon + 2)
        for k, a, b in zip(starts, s, o, strict=True):
            use[k + 1 : k + b + 1] += a + np.arange(1, b + 1)
        if use.max() <= memory:
            best = total
    return best


def svf_run(s: list[int], o: list[int], memory: int) -> tuple[list[int], list[int]]:
    """Least volume first while the peak fits at all later slots. Returns order of admission and start slots."""
    volume = [a * b + b * (b + 1) // 2 for a, b in zip(s, o, strict=True)]
    waiting, use, order, starts, now = (
        sorted(range(len(s)), key=volume.__getitem__),
        np.zeros(10 * sum(o) + 10),
        [],
        [],
        0,
    )
    while waiting:
        i = waiting[0]
        span = slice(now + 1, now + o[i] + 1)
        grown = use[span] + s[i] + np.arange(1, o[i] + 1)
        if grown.max() <= memory:
            use[span] = grown
            order.append(waiting.pop(0))
            starts.append(now)
        else:
            now += 1
    return order, starts


REQUESTS = some.lists(some.tuples(some.integers(1, 3), some.integers(1, 3)), min_size=1, max_size=4)


@given(requests=REQUESTS, memory=some.integers(6, 10))
@settings(max_examples=25, deadline=None)
def test_the_volume_bound_is_below_the_best_schedule_and_svf_within_its_ratio(
    requests: list[tuple[int, int]], memory: int
) -> None:
    s, o = [a for a, _ in requests], [b for _, b in requests]
    best = best_total(s, o, memory)
    assert volume_lower_bound(s, o, memory) <= best
    order, starts = svf_run(s, o, memory)
    total = sum(starts) + sum(o)
    alpha = max(a + b for a, b in requests) / memory
    if alpha < 1:
        assert best <= total <= svf_ratio(alpha) * best
        assert svf_waiting_slack(starts, np.array(s)[order], np.array(o)[order], memory) >= 0


def test_a_request_as_large_as_the_cache_has_no_waiting_bound() -> None:
    with pytest.raises(InputError, match="must be below"):
        svf_waiting_slack([0], [5], [5], 10)


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1.0])
def test_a_max_bounds_are_ordered_and_meet_at_exact_predictions(alpha: float) -> None:
    low, high = a_max_ratio(alpha)
    assert low <= high
    assert (low == high) == (alpha == 1.0)
    assert a_max_ratio(0.01)[1] == pytest.approx(0.01**-2 / 2, rel=0.02)


@given(outputs=some.lists(some.integers(1, 4), min_size=1, max_size=4))
@settings(max_examples=15, deadline=None)
def test_mc_sf_constants_bracket_the_best_schedule(outputs: list[int]) -> None:
    s = [1] * len(outputs)
    bounds = mc_sf_bounds(s, outputs, 12)
    assert bounds.applies
    best = best_total(s, outputs, 12) if len(outputs) < 4 else sum(outputs) + 0
    assert bounds.most / bounds.least >= 144
    if len(outputs) < 4:
        assert bounds.least <= best <= bounds.most
    assert not mc_sf_bounds([1, 2], [3, 3], 12).applies
