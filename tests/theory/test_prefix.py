"""Prefix caches in theory: demands against brute force, residence, the balance and its equilibria."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hs

import stability as st
from stability import Verdict
from stability import lengths as L
from stability.errors import InputError, NotModelledError
from stability.model.turns import draw_sessions
from stability.theory.cached import found_tokens
from stability.theory.hits import at_hits, class_moments, computed_lengths
from stability.theory.moments import Demand, demands, moments
from stability.theory.prefix import PrefixCache, most_lags, revisits
from stability.theory.residence import reuse
from stability.theory.turn_demand import turn_demand

LAW = st.IterationTime(base_s=0.02, per_prefill_token_s=1e-4, per_decode_token_s=5e-5, per_kv_token_s=5e-8)
CHAT = st.Sessions(
    L.Geometric(8.0),
    L.Uniform(50, 350),
    L.Uniform(20, 100),
    think_s=30.0,
    system_prompt_tokens=[1000] * 4,
    popularity=1.0,
    limit_tokens=16_000,
)


def replica(tokens: int = 240_000, **engine: object) -> st.Replica:
    return st.Replica(iteration=LAW, kv_capacity_tokens=tokens, engine=st.Engine(**{"prefix_caching": True, **engine}))  # type: ignore[arg-type]


def cache(tokens: int = 240_000, sessions: st.Sessions = CHAT, returns: tuple[float, ...] = (1.0,)) -> PrefixCache:
    classes = st.Workload.sessions(1.0, sessions).classes
    return PrefixCache(replica(tokens), classes, np.ones(1), returns, np.array(LAW.coefficients))


def by_steps(s: int, o: int, budget: int, block: int, cached: int) -> dict[Demand, float]:
    """What a request takes, iteration by iteration."""
    done = min(cached, s - 1) // block * block
    found = dict.fromkeys(Demand, 0.0)
    found[Demand.PREFILL], found[Demand.PROMPT], found[Demand.DECODE] = s - done, s, o - 1
    held = s
    while held > done:  # the ragged chunk first: whole ones end at s, s - B, ...
        found[Demand.LEAST_VOLUME] += -(-held // block) * block
        held -= budget
    while done < s:
        chunk = min(budget, s - done)
        context = chunk * (done + chunk / 2)
        done += chunk
        found[Demand.ITERATIONS] += 1
        found[Demand.VOLUME] += -(-done // block) * block
        found[Demand.CONTEXT] += context
        found[Demand.PREFILL_HELD] += chunk * done
        found[Demand.CONTEXT_HELD] += context * done
    for j in range(1, o):
        found[Demand.ITERATIONS] += 1
        found[Demand.VOLUME] += -(-(s + j) // block) * block
        found[Demand.LEAST_VOLUME] += -(-(s + j) // block) * block
        found[Demand.READ] += s + j
        found[Demand.READ_HELD] += (s + j) ** 2
    found[Demand.LIMIT] = -(-(s + o) // block) * block
    found[Demand.RESERVED] = found[Demand.LIMIT] * found[Demand.ITERATIONS]
    found[Demand.LIMIT_SQUARE] = found[Demand.LIMIT] ** 2
    found[Demand.TOKENS] = found[Demand.PREFILL] + o - 1
    return found


@given(hs.integers(1, 300), hs.integers(1, 30), hs.integers(1, 90), hs.sampled_from((1, 3, 16)), hs.integers(0, 400))
def test_demands_behind_a_prefix_are_those_of_the_iterations(s: int, o: int, budget: int, block: int, cached: int):
    table = demands(np.array([s]), np.array([o]), budget, block, None, np.array([cached]))[:, 0]
    for name, value in by_steps(s, o, budget, block, cached).items():
        assert table[name] == pytest.approx(value, rel=1e-12), name


def test_product_laws_and_pairs_agree_on_a_known_prefix() -> None:
    law = L.Independent(L.Uniform(20, 300), L.Uniform(1, 20))
    s, o = (axis.ravel() for axis in np.meshgrid(np.arange(20, 301), np.arange(1, 21)))
    product, pairs = moments(law, 64, 16, None, 100).mean, moments(L.Empirical(s, o), 64, 16, None, 100).mean
    np.testing.assert_allclose(product, pairs, rtol=1e-12)
    own = L.Empirical(s, o, np.full(len(s), 100))
    np.testing.assert_allclose(moments(own, 64, 16).mean, pairs, rtol=1e-12)


def test_computed_lengths_leave_out_what_is_found() -> None:
    law = L.Independent(L.Discrete([50, 200]), L.Constant(3))
    item = st.RequestClass("a", 1.0, law, cached_prefix_tokens=100)
    rest = computed_lengths(item, 16)
    assert rest.parts()[0].prompt.values.tolist() == [2, 104]  # type: ignore[union-attr]
    assert found_tokens(np.array([50, 200]), 100, 16).tolist() == [48, 96]
    assert computed_lengths(replace(item, cached_prefix_tokens=0), 16) is law


def test_constant_sessions_by_hand() -> None:
    """Prompts 30, 45, 60 behind a system prompt of 20; a turn leaves 34, 49, 64 tokens: the last output is not stored."""
    law = st.Sessions(L.Constant(3), L.Constant(10), L.Constant(5), think_s=1, system_prompt_tokens=20)
    table = turn_demand(law, 2, 1000, 1)
    np.testing.assert_allclose(table.weight, [[1, 2 / 3, 1 / 3]])
    np.testing.assert_allclose(table.kept_tokens, [[(14 + 29 + 44) / 3, (14 + 29) / 3, 14 / 3]])
    nothing = table.mean(np.zeros(2), np.zeros(1))
    assert nothing[Demand.PREFILL] == pytest.approx(45)
    every = table.mean(np.array([1.0, 0.0]), np.ones(1))
    assert every[Demand.PREFILL] == pytest.approx((10 + 11 + 11) / 3)
    assert every[Demand.PROMPT] == pytest.approx(45)
    assert every[Demand.CONTEXT] == pytest.approx((10 * 25 + 11 * 39.5 + 11 * 54.5) / 3)
    two_ago = table.mean(np.array([0.0, 1.0]), np.zeros(1))
    assert two_ago[Demand.PREFILL] == pytest.approx((30 + 45 + 26) / 3)


@pytest.mark.parametrize("lag", [1, 2, 3])
def test_demand_of_turns_against_drawn_ones(lag: int) -> None:
    law = st.Sessions(
        L.Geometric(6.0),
        L.Uniform(50, 350),
        L.Uniform(20, 100),
        think_s=1,
        system_prompt_tokens=1000,
        limit_tokens=20_000,
    )
    drawn = draw_sessions(st.Workload.sessions(1.0, law), rng=4)
    blocks = [next(drawn) for _ in range(25)]
    s = np.concatenate([block.prompt_tokens for block in blocks])
    o = np.concatenate([block.output_tokens for block in blocks])
    turn = np.concatenate(
        [np.arange(len(block.prompt_tokens)) - np.repeat(block.first[:-1], np.diff(block.first)) for block in blocks]
    )
    cached = np.where(turn >= lag, np.roll(s + o - 1, lag), 1000)
    observed = demands(s, o, 2048, 16, None, cached).mean(axis=1)
    chances = np.zeros(3)
    chances[lag - 1] = 1.0
    table = turn_demand(law, 3, 2048, 16)
    # 25 600 sessions; the product of what is found and what is computed is approximate beyond one turn
    np.testing.assert_allclose(table.mean(chances, np.ones(1)), observed, rtol=0.06)
    x = table.computed(chances.tolist(), [1.0])
    assert x.sum() == pytest.approx(1.0)
    assert np.arange(len(x)) @ x == pytest.approx(table.mean(chances, np.ones(1))[Demand.PREFILL], rel=1e-3)


def test_reuse_is_the_law_of_the_gap() -> None:
    times = np.array([0.0, 5.0, 40.0])
    rng = np.random.default_rng(1)
    for cv, gaps in ((1.0, 1), (0.5, 2), (2.0, 1), (0.0, 2)):
        shape = math.inf if cv == 0 else cv**-2
        gap = np.full((200_000, gaps), 10.0) if cv == 0 else rng.gamma(shape, 10.0 / shape, (200_000, gaps))
        total = gap.sum(axis=1) + 3.0
        found, kept = reuse(times, 10.0, cv, gaps=gaps, between_s=3.0)
        np.testing.assert_allclose(found, [(total <= t).mean() for t in times], atol=0.008)
        np.testing.assert_allclose(kept, [np.minimum(total, t).mean() for t in times], rtol=0.02)


def test_revisits_sum_to_what_the_lags_cover() -> None:
    assert revisits(1, stays=False) == revisits(8, stays=True) == (1.0,)
    assert sum(revisits(4, stays=False, lags=500)) == pytest.approx(1 - 0.75**25)  # all but a chance of 1e-3
    fixed = st.Sessions(L.Constant(60), L.Constant(100), L.Constant(20), think_s=5)
    assert most_lags(st.Workload.sessions(1.0, fixed).classes) == 59
    assert len(revisits(24, stays=False, lags=59)) == 59


def test_an_unbounded_cache_finds_every_earlier_turn_of_long_sessions() -> None:
    """60 turns of 100 and 20 tokens over 24 replicas; by hand, turn k finds the whole blocks of turn k - j with chance 1/24 (23/24)**(j - 1)."""
    fixed = st.Sessions(L.Constant(60), L.Constant(100), L.Constant(20), think_s=5)
    fleet = st.Fleet.of(replica(2_000_000), 24)
    pool = st.prefix_equilibria(fleet, st.Workload.sessions(0.24, fixed), router="random").pools[0]
    found = sum((23 / 24) ** (j - 1) / 24 * ((120 * (k - j) - 1) // 16 * 16) for k in range(1, 61) for j in range(1, k))
    assert pool.unbounded_hit_rate == pytest.approx(found / sum(120 * k - 20 for k in range(1, 61)), rel=0.005)


def test_system_prompts_in_use_are_held_once() -> None:
    """With one prompt, A is the volume of all less S (rho - 1 + exp(-rho)), and it is found with 1 - exp(-rho) at T = 0."""
    law = st.Sessions(L.Constant(1), L.Constant(100), L.Constant(50), think_s=1, system_prompt_tokens=1600)
    one = cache(100_000, law)
    state = one.at(2.0, np.zeros(1))
    demand = state.demand[0]
    tau = 0.02 / (1 - 2.0 * float(np.array(LAW.coefficients[1:]) @ demand[:4]))
    rho = 2.0 * tau * demand[Demand.ITERATIONS]
    assert state.system[0][0, 0] == pytest.approx(1 - math.exp(-rho), rel=1e-4)
    whole = 2.0 * tau * demand[Demand.VOLUME]
    shared = 1600 * (rho - 1 + math.exp(-rho))
    busy = 1 - math.exp(-rho)  # idle moments shorten the mean iteration a little
    assert state.active_tokens[0] == pytest.approx(whole - shared, rel=2 * (1 - busy))


def test_hits_rise_and_running_requests_shrink_with_the_residence() -> None:
    one = cache()
    state = one.at(3.0, np.geomspace(0.1, 1e4, 30))
    assert (np.diff(state.found[0][:, 0]) >= 0).all()
    assert (np.diff(state.system[0][:, 0]) >= 0).all()
    assert (np.diff(state.active_tokens) <= 1e-6).all()
    assert (np.diff(state.kept_tokens) > 0).all()


@pytest.mark.parametrize("tokens", [60_000, 120_000, 240_000])
def test_equilibria_fill_memory_and_alternate(tokens: int) -> None:
    one = cache(tokens)
    cold, warm = one.cold_capacity(), one.warm_capacity()
    assert cold <= warm * (1 + 1e-3)
    for rate in (0.5 * cold, 0.95 * cold, (cold + warm) / 2):
        times, stable = one.equilibria(rate)
        state = one.at(rate, np.array(times))
        full = np.isclose(state.active_tokens + state.kept_tokens, tokens, rtol=1e-3)
        assert (full | (~np.array(stable) & np.isclose(state.load, 1, rtol=1e-2))).all()
        assert stable[-1]
        assert all(a != b for a, b in itertools.pairwise(stable))
    assert one.equilibria(1.05 * warm)[0] == []


def test_between_the_capacities_there_are_two() -> None:
    one = cache()
    cold, warm = one.cold_capacity(), one.warm_capacity()
    assert warm > 1.3 * cold
    _, stable = one.equilibria((cold + warm) / 2)
    assert stable == [False, True]
    assert one.excess_tokens((cold + warm) / 2, np.zeros(1))[0] > 0  # overloaded without hits


def test_more_memory_keeps_prefixes_longer() -> None:
    found = [cache(tokens).equilibria(2.0)[0][-1] for tokens in (60_000, 120_000, 240_000)]
    assert found == sorted(found)
    rates = [cache(tokens).warm_capacity() for tokens in (60_000, 120_000, 240_000)]
    assert rates == sorted(rates)


def test_verdicts_by_region() -> None:
    fleet, workload = st.Fleet.of(replica(), 2), st.Workload.sessions(1.0, CHAT)
    pool = st.prefix_equilibria(fleet, workload).pools[0]
    cold, warm = pool.cold_capacity_per_s, pool.warm_capacity_per_s
    low, between, high = (
        st.analyze(fleet, workload.scaled(rate_per_s=rate)) for rate in (0.9 * cold, (cold + warm) / 2, 1.2 * warm)
    )
    assert [report.verdict for report in (low, between, high)] == [
        Verdict.STABLE,
        Verdict.UNDETERMINED,
        Verdict.UNSTABLE,
    ]
    assert "two equilibria" in between.reason
    assert between.prefixes is not None
    assert between.prefixes.pools[0].metastable
    assert between.capacity_per_s == pytest.approx(cold, rel=1e-3)
    assert between.upper_bound_per_s >= warm
    assert "with a warm cache" in between.summary()
    assert between.to_dict()["prefixes"]["pools"][0]["equilibria"][0]["stable"] is False
    assert low.kv_occupancy < 0.5


def test_without_prefix_caching_every_token_is_computed() -> None:
    plain = replica(prefix_caching=False)
    workload = st.Workload.sessions(0.2, CHAT)
    report = st.analyze(st.Fleet.of(plain), workload)
    same = st.analyze(st.Fleet.of(plain), st.Workload.poisson(workload.rate_per_s, CHAT.lengths))
    assert report.prefixes is None
    assert report.capacity_per_s == pytest.approx(same.capacity_per_s)


def test_conversations_are_lost_where_turns_go_anywhere() -> None:
    fleet, workload = st.Fleet.of(replica(120_000), 4), st.Workload.sessions(1.2, CHAT)
    affinity, anywhere = (
        st.prefix_equilibria(fleet, workload, router=r).pools[0] for r in ("prefix_affinity", "random")
    )
    assert affinity.at is not None
    assert anywhere.at is not None
    assert affinity.at.conversation_hits > 1.5 * anywhere.at.conversation_hits
    assert affinity.warm_capacity_per_s > anywhere.warm_capacity_per_s


def test_known_hits_raise_capacity_as_their_work_says() -> None:
    """Compute alone binds: capacity goes with 1/(prefill work)."""
    law = st.IterationTime(base_s=1e-6, per_prefill_token_s=1e-4)
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=10**7, engine=st.Engine(admission="reserve")))
    lengths = L.Independent(L.Constant(1600), L.Constant(2))
    rates = [
        st.analyze(fleet, st.Workload([st.RequestClass("a", 1.0, lengths, cached_prefix_tokens=c)])).capacity_per_s
        for c in (0, 800, 1600)
    ]
    assert rates[1] / rates[0] == pytest.approx(2.0, rel=1e-3)
    assert rates[2] / rates[0] == pytest.approx(100.0, rel=0.02)  # the last block is computed


@settings(max_examples=20, deadline=None)
@given(hs.floats(0, 1), hs.floats(0, 1))
def test_what_is_found_only_saves_work(found: float, system: float) -> None:
    item = st.Workload.sessions(1.0, CHAT).classes[0]
    less = class_moments(at_hits(item, (found,), (system,), 0.0), 2048, 16).mean
    none = class_moments(item, 2048, 16).mean
    for name in (Demand.PREFILL, Demand.CONTEXT, Demand.ITERATIONS, Demand.TOKENS):
        assert less[name] <= none[name] * (1 + 1e-9)
    for name in (Demand.READ, Demand.PROMPT, Demand.DECODE):  # memory is held and read in any case
        assert less[name] == pytest.approx(none[name], rel=2e-3)


def test_latency_falls_with_hits() -> None:
    fleet, workload = st.Fleet.of(replica()), st.Workload.sessions(0.3, CHAT)
    cached, plain = st.latency(fleet, workload), st.latency(st.Fleet.of(replica(prefix_caching=False)), workload)
    assert cached.ttft_mean_s < 0.5 * plain.ttft_mean_s


def test_report_prints_and_plots() -> None:
    report = st.prefix_equilibria(st.Fleet.of(replica()), st.Workload.sessions(0.6, CHAT))
    assert "repelling" in report.summary()
    assert len(report.to_frame()) == 2
    assert report.plot().get_xlabel() == "unused prefixes stay (s)"
    assert report.to_dict()["schema"] == "stability/prefix/1"


def test_what_the_theory_does_not_take_in_is_refused() -> None:
    workload = st.Workload.sessions(0.1, CHAT)
    with pytest.raises(InputError, match="no sessions"):
        st.prefix_equilibria(st.Fleet.of(replica()), st.Workload.poisson(1.0, CHAT.lengths))
    with pytest.raises(InputError, match="prefix_caching = False"):
        st.prefix_equilibria(st.Fleet.of(replica(prefix_caching=False)), workload)
    barrier = st.Fleet([st.Pool("p", replica(), 2, coupling=st.Barrier(2))])
    with pytest.raises(NotModelledError, match="barrier"):
        st.analyze(barrier, workload)
    with pytest.raises(NotModelledError, match="prefix cache"):
        st.fluid_path(st.Fleet.of(replica()), workload, horizon_s=10)
    with pytest.raises(NotModelledError, match="prefix cache"):
        st.capacity_region(st.Fleet.of(replica()), workload)
