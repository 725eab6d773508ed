"""Nested WAIT: the exact root, the conditions, and the overflow promise against the segment dynamics."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.optimize import brentq

import stability as st
from stability import lengths as L
from stability.errors import InputError
from stability.theory.nested_thresholds import (
    check_nested,
    equal_segments,
    nested_thresholds,
    required_by_segments,
    thresholds_from,
)
from stability.theory.nested_wait import NestedModel, decay_rate, nested_engine_model, nested_paper_model


def model(**changes: object) -> NestedModel:
    settings_ = {"base_s": 1.0, "per_kv_token_s": 1e-5, "rates_per_s": [4.0, 2.0, 2.0], "prompt_tokens": 10}
    return nested_paper_model(**{**settings_, "decode_tokens": [2, 4, 8], "kv_capacity_tokens": 20_000, **changes})


@given(before=some.integers(2, 60), share=some.floats(0.02, 0.95), extra=some.floats(0.01, 1.0))
@settings(max_examples=60)
def test_decay_rate_is_the_root(before: int, share: float, extra: float) -> None:
    after = math.floor(before * share) + 1 + int(extra * (before - 2 - math.floor(before * share)))
    if not before * share < after < before:
        return
    theta = decay_rate(before, after, share)

    def log_left(x: float) -> float:
        return before * math.log1p(share * math.expm1(x)) - x * after

    lower = 8 * (after - before * share) / before
    assert theta >= lower * (1 - 1e-9)  # Hoeffding
    top = -before * math.log(share) / (before - after)
    assert theta == pytest.approx(brentq(log_left, lower * 0.999, top * 1.001 + 1e-9), rel=1e-6)


def test_no_root_is_needed_or_exists_at_the_ends() -> None:
    assert decay_rate(4, 4, 0.9) == math.inf
    with pytest.raises(InputError, match="would grow"):
        decay_rate(10, 3, 0.3)


def test_hand_computed_memory() -> None:
    """n = (4, 3, 2), s = 10: stages 0-2 hold 10, 11, 12; then 13, 14; then 15..18."""
    found = check_nested(model(), [2, 4, 8], [4, 3, 2], horizon_s=99.0, overflow=0.01)
    assert found.shares.tolist() == [1.0, 0.5, 0.5]
    assert found.memory_tokens == 4 * 33 + 3 * 27 + 2 * 66
    assert found.iteration_s == pytest.approx(1 + 1e-5 * 345)
    odds = math.log(3 * (1 + 99) / 0.01)
    assert found.buffers_tokens[1] == pytest.approx(12 * (3 + odds / decay_rate(4, 3, 0.5)))
    assert found.buffers_tokens[2] == pytest.approx(14 * (2 + odds / decay_rate(3, 2, 0.5)))
    assert found.required_tokens == pytest.approx(345 + found.buffers_tokens.sum())
    assert not found.holds  # 4/8 s between batches of 1 s


def test_conditions() -> None:
    holds = model(base_s=0.3)
    assert check_nested(holds, [2, 4, 8], [4, 3, 2]).holds
    assert not check_nested(holds, [2, 4, 8], [4, 2, 1]).holds  # on the drift boundary
    assert not check_nested(holds, [2, 4, 8], [4, 4, 3]).holds  # ratio 1
    short = model(base_s=0.3, kv_capacity_tokens=500)
    assert not check_nested(short, [2, 4, 8], [4, 3, 2]).holds
    with pytest.raises(InputError, match="longest output"):
        check_nested(holds, [2, 4], [4, 3])


def test_found_design_meets_its_own_conditions_and_prefers_less_latency() -> None:
    found = nested_thresholds(model(base_s=0.1))
    assert found.holds
    assert found.iteration_s < found.gap_s
    assert found.required_tokens <= 20_000
    assert found.policy.thresholds == tuple(found.thresholds.tolist())
    for first in range(1, 12):
        for count in (1, 2, 3):
            boundaries = equal_segments(model(), count)
            chosen = thresholds_from(model(), boundaries, first)
            if chosen is not None:
                other = check_nested(model(base_s=0.1), boundaries, chosen)
                assert not other.holds or other.latency_s >= found.latency_s
    with pytest.raises(InputError, match="no segments"):
        nested_thresholds(model(kv_capacity_tokens=100))


def test_memory_is_u_shaped_in_the_number_of_segments() -> None:
    """M^pi falls as segments are added, buffers rise (the paper's figure): the least is inside."""
    decodes = np.arange(20, 401, 20)
    long = nested_paper_model(
        base_s=1.0,
        per_kv_token_s=1e-7,
        rates_per_s=0.8 ** np.arange(20),
        prompt_tokens=50,
        decode_tokens=decodes,
        kv_capacity_tokens=1e9,
    )
    need = required_by_segments(long, [1, 2, 4, 5, 10, 20], first=400)
    best = int(np.nanargmin(need))
    assert 0 < best < 5
    assert need[0] > 1.2 * need[best]
    assert need[-1] > need[best]


def test_boundary_queues_overflow_less_often_than_promised() -> None:
    """V <- V + Bin(n1, p) - n2 1{V + Bin >= n2}: P(max V - n2 >= x) <= B exp(-theta x), 4 000 runs of 200 rounds.

    At x = 8 the bound is 200 exp(-0.87106 8) = 0.19; a mean above it in 4 000 runs would be 20 standard errors from the simulated
    frequency, so the false-alarm rate is far below 1e-6.
    """
    rng = np.random.default_rng(3)
    theta, x, rounds, runs = decay_rate(10, 4, 0.3), 8, 200, 4_000
    v, most = np.zeros(runs), np.zeros(runs)
    for _ in range(rounds):
        v = v + rng.binomial(10, 0.3, runs)
        v = np.where(v >= 4, v - 4, v)
        most = np.maximum(most, v)
    frequency = float((most - 4 >= x).mean())
    assert 0 < frequency <= rounds * math.exp(-theta * x)


def test_engine_model_reads_the_output_law() -> None:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=1e-7)
    replica = st.Replica(iteration=law, kv_capacity_tokens=50_000)
    outputs = L.Discrete([1, 11, 21], [0.2, 0.5, 0.3])
    found = nested_engine_model(replica, st.Workload.poisson(3.0, L.Independent(L.Constant(100), outputs)))
    assert found.decode_tokens.tolist() == [0, 10, 20]
    assert found.survival(0) == pytest.approx(0.8)
    assert found.survival(10) == pytest.approx(0.3)
    assert found.prompts_equal
    assert found.prompt_square == pytest.approx(10_000)
    one = check_nested(found, [20], [1])
    assert one.iteration_s == pytest.approx(0.01 + 100e-4 + 20 * 2e-5 + 1e-7 * (20 * 100 + 210))
    assert nested_thresholds(found).proved
    mixed = nested_engine_model(replica, st.Workload.poisson(3.0, L.Independent(L.Uniform(50, 150), outputs)))
    assert not mixed.prompts_equal
    assert "approximate" in nested_thresholds(mixed).summary()
