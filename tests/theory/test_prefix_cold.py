"""The capacity with a cold cache where much is shared, and gates behind cached prefixes."""

from __future__ import annotations

import math

import numpy as np
import pytest

import stability as st
from stability import lengths as L
from stability.theory.prefix import PrefixCache
from stability.theory.residence import reuse

LAW = st.IterationTime(base_s=0.02, per_prefill_token_s=1e-4)


def fleet(tokens: int, *, prefix_caching: bool = True) -> st.Fleet:
    engine = st.Engine(prefix_caching=prefix_caching)
    return st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=tokens, engine=engine))


@pytest.mark.parametrize("tokens", [60_000, 200_000])
def test_a_long_system_prompt_is_shared_up_to_the_cold_capacity(tokens: int) -> None:
    """Prompts of 4100 behind 4000 shared ones: prefill of 116 tokens (whole blocks are found) is 11.6 ms, so at most 86 turns/s."""
    chat = st.Sessions(L.Constant(1), L.Constant(100), L.Uniform(2, 40), think_s=5, system_prompt_tokens=4000)
    report = st.analyze(fleet(tokens), st.Workload.sessions(10.0, chat))
    assert report.capacity_per_s == pytest.approx(85.9, rel=1e-3)  # 85.8 simulated
    assert report.verdict is st.Verdict.STABLE


def test_the_cold_capacity_of_the_balance_and_of_the_engine_agree() -> None:
    chat = st.Sessions(L.Constant(3), L.Constant(100), L.Uniform(2, 40), think_s=5, system_prompt_tokens=4000)
    workload = st.Workload.sessions(1.0, chat)
    one = PrefixCache(fleet(60_000).pools[0].replica, workload.classes, np.ones(1), (1.0,), np.array(LAW.coefficients))
    assert st.analyze(fleet(60_000), workload).capacity_per_s == pytest.approx(one.cold_capacity(), rel=0.01)


def test_two_outputs_behind_a_known_prefix_are_not_followed_as_whole_prompts() -> None:
    """Prompts of 4000, 3888 found in whole blocks: 112 computed at 0.1 ms, 15 steps of 20 ms, 256 slots.

    Slots: 1/y = 15/256 iterations a request, 1.17 ms of base time; so 1/(1.17 + 11.2 + 4.6) ms is beyond memory: 200k tokens hold 49 such
    requests, 1/(6.0 + 11.2 ms) = 58/s at most. 57.6 was measured.
    """
    known = L.Empirical([4000, 4000], [10, 20], [3900, 3900])
    report = st.analyze(fleet(200_000, prefix_caching=False), st.Workload.poisson(5.0, known))
    assert report.capacity_per_s == pytest.approx(57.8, rel=0.02)
    assert report.verdict is st.Verdict.STABLE
    same = L.Independent(L.Constant(4000), L.Constant(15))
    item = st.RequestClass("a", 5.0, same, cached_prefix_tokens=3900)
    constant = st.analyze(fleet(200_000, prefix_caching=False), st.Workload([item]))
    assert report.capacity_per_s == pytest.approx(constant.capacity_per_s, rel=1e-3)


def test_a_cycle_left_out_behind_cached_prefixes_is_a_doubt() -> None:
    known = L.Empirical([1000, 1000], [500, 1000], [900, 900])
    only = fleet(60_000, prefix_caching=False)
    capacity = st.analyze(only, st.Workload.poisson(1.0, known)).capacity_per_s
    at = st.analyze(only, st.Workload.poisson(0.95 * capacity, known))
    assert at.verdict is st.Verdict.UNDETERMINED
    assert "not followed" in at.reason


def test_sessions_of_two_outputs_share_their_system_prompt() -> None:
    chat = st.Sessions(L.Constant(1), L.Constant(100), L.Discrete([10, 20]), think_s=5, system_prompt_tokens=4000)
    report = st.analyze(fleet(60_000), st.Workload.sessions(10.0, chat))
    assert report.capacity_per_s == pytest.approx(89.5, rel=1e-3)  # 89.3 simulated


def test_a_backlog_finds_no_conversation_however_short_the_think_time() -> None:
    found, kept_s = reuse(np.array([0.0, 1e-9]), 0.0, 1.0)
    assert found.tolist() == [0.0, 1.0]
    assert kept_s.tolist() == [0.0, 0.0]
    cold = [
        st.analyze(
            fleet(60_000),
            st.Workload.sessions(0.5, st.Sessions(L.Constant(4), L.Constant(500), L.Uniform(20, 80), think_s=think_s)),
        ).capacity_per_s
        for think_s in (0.0, 1e-9)
    ]
    assert cold[0] == pytest.approx(cold[1], rel=1e-6)


def test_one_turn_without_a_cache_is_an_ordinary_request() -> None:
    """The proof for reservation needs no independence from service: nothing waits for a turn before."""
    engine = st.Engine(admission="reserve")
    only = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=60_000, engine=engine))
    for turns, known in ((1, True), (2, False)):
        chat = st.Sessions(L.Constant(turns), L.Constant(100), L.Constant(20), think_s=5)
        report = st.analyze(only, st.Workload.sessions(1.0, chat))
        assert (report.proved_capacity_per_s is not None) is known


def test_nothing_found_is_zero() -> None:
    chat = st.Sessions(L.Constant(1), L.Constant(100), L.Constant(5), think_s=1)
    pool = st.prefix_equilibria(fleet(200_000), st.Workload.sessions(0.5, chat)).pools[0]
    assert pool.at is not None
    assert math.copysign(1.0, pool.at.hit_rate) == math.copysign(1.0, pool.unbounded_hit_rate) == 1.0
    assert pool.at.hit_rate == pytest.approx(0.0, abs=1e-12)
