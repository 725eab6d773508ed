"""`tune`: against brute force, its own invariants, and what it must never do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import stability as st
from stability import lengths as L
from stability.control.search import ladder
from stability.errors import InputError, NotModelledError

from .cases import CONSTANT, LAW, LOGNORMAL, UNIFORM, load, pool


def tuned(fleet: st.Fleet, workload: st.Workload, **options: object) -> st.PoolTuning:
    return st.tune(fleet, workload, **{"latencies": False, **options}).pools[0]  # type: ignore[arg-type]


def with_engine(fleet: st.Fleet, engine: st.Engine) -> st.Fleet:
    return st.Fleet([replace(p, replica=replace(p.replica, engine=engine)) for p in fleet.pools])


@pytest.mark.parametrize("lengths", [UNIFORM, LOGNORMAL], ids=["uniform", "lognormal"])
def test_headroom_is_the_best_of_a_fine_grid(lengths: L.Lengths) -> None:
    """201 watermarks, each analysed by itself."""
    fleet, workload = pool(), load(lengths)
    found = tuned(fleet, workload, vary=["watermark"], worth=0.0)
    engine = fleet.pools[0].replica.engine
    grid = [replace(engine, watermark=float(h)) for h in np.linspace(0, 0.2, 201)]
    capacities = [st.analyze(with_engine(fleet, e), workload).capacity_per_s for e in grid]
    assert found.then.capacity_per_s >= max(capacities) * (1 - 1e-5)
    assert 0 < found.then.engine.watermark < 0.2
    assert st.analyze(with_engine(fleet, found.then.engine), workload).capacity_per_s == pytest.approx(
        found.then.capacity_per_s
    )


@pytest.mark.parametrize("lengths", [UNIFORM, LOGNORMAL], ids=["uniform", "lognormal"])
def test_headroom_is_near_the_closed_form(lengths: L.Lengths) -> None:
    found = tuned(pool(), load(lengths), vary=["watermark"])
    assert found.sensitivity.closed_form_watermark == pytest.approx(found.then.engine.watermark, rel=0.1)


@pytest.mark.parametrize("slots", [32, 1024])
def test_joint_settings_are_the_best_of_a_coarse_grid(slots: int) -> None:
    """From either side: slots that bind below memory and slots that never do."""
    fleet, workload = pool(max_num_seqs=slots, max_num_batched_tokens=1024), load()
    found = tuned(fleet, workload, worth=0.0)
    capacities = [
        st.analyze(with_engine(fleet, e), workload).capacity_per_s
        for n in (48, 64, 80, 96, 128, 1024)
        for b in (1024, 2048, 8192)
        for h in (0.0, 0.01, 0.02, 0.03, 0.04, 0.06)
        for e in [st.Engine(max_num_seqs=n, max_num_batched_tokens=b, watermark=h)]
    ]
    assert found.then.capacity_per_s >= max(capacities) * (1 - 1e-4)


@pytest.mark.parametrize("lengths", [UNIFORM, LOGNORMAL, CONSTANT], ids=["uniform", "lognormal", "constant"])
@pytest.mark.parametrize("admission", ["prompt_gate", "reserve", "chunk_gate"])
@pytest.mark.parametrize("slots", [32, 1024])
def test_what_tuning_keeps_to(lengths: L.Lengths, admission: str, slots: int) -> None:
    fleet = pool(admission=admission, max_num_seqs=slots)
    found = tuned(fleet, load(lengths))
    if not found.now.doubt:
        assert not found.then.doubt
        assert found.then.capacity_per_s >= found.now.capacity_per_s
    assert not (found.then.doubt and found.then.engine.admission == "chunk_gate")
    again = tuned(with_engine(fleet, found.then.engine), load(lengths))
    assert again.now.engine == again.then.engine
    assert again.change == "present settings are best"


@settings(max_examples=20, deadline=None)
@given(
    prompt=some.integers(20, 3000),
    output=some.integers(20, 2000),
    memory=some.integers(60_000, 400_000),
    slots=some.sampled_from([16, 64, 256, 1024]),
    watermark=some.sampled_from([0.0, 0.01, 0.1]),
)
def test_tuning_never_loses(prompt: int, output: int, memory: int, slots: int, watermark: float) -> None:
    """Any pool: what is certain stays so, nothing certain is lost, and the analysis of the result agrees."""
    lengths = L.Independent(L.Uniform(1, prompt), L.Uniform(1, output))
    fleet = pool(memory, max_num_seqs=slots, watermark=watermark)
    found = tuned(fleet, load(lengths))
    if not found.now.doubt:
        assert not found.then.doubt
        assert found.then.capacity_per_s >= found.now.capacity_per_s
    report = st.analyze(with_engine(fleet, found.then.engine), load(lengths))
    assert report.capacity_per_s == pytest.approx(found.then.capacity_per_s)
    assert report.stable_below_per_s == pytest.approx(found.then.stable_below_per_s)


def test_a_change_has_to_be_worth_it() -> None:
    fleet, workload = pool(watermark=0.02), load()
    found = tuned(fleet, workload)
    assert found.now.engine == found.then.engine
    eager = tuned(fleet, workload, worth=0.0)
    assert 0 < eager.gain < 0.005


def test_only_what_may_vary_varies() -> None:
    fleet = pool(max_num_seqs=32, watermark=0.01)
    engine = tuned(fleet, load(), vary=["max_num_batched_tokens"], worth=0.0).then.engine
    assert (engine.max_num_seqs, engine.watermark, engine.admission) == (32, 0.01, "prompt_gate")


def test_slots_stay_within_a_budget_that_may_not_vary() -> None:
    fleet = pool(1_000_000, max_num_seqs=64, max_num_batched_tokens=256)
    engine = tuned(fleet, load(), vary=["max_num_seqs", "watermark"], worth=0.0).then.engine
    assert engine.max_num_seqs <= engine.max_num_batched_tokens == 256


def test_reservations_that_do_not_fit_are_no_candidates() -> None:
    item = st.RequestClass("a", 1.0, UNIFORM, max_output_tokens=200_000)
    found = tuned(pool(), st.Workload([item]))
    assert "reserve" not in {s.engine.admission for s in found.admissions}


def test_replicas_and_speed_scale_the_rates_and_change_no_setting() -> None:
    one = tuned(pool(), load())
    three = tuned(pool(count=3), load())
    slow = tuned(pool(law=LAW.scaled(2.0)), load())
    assert one.then.engine == three.then.engine == slow.then.engine
    assert three.then.capacity_per_s == pytest.approx(3 * one.then.capacity_per_s)
    assert slow.then.capacity_per_s == pytest.approx(one.then.capacity_per_s / 2)


def test_slots_go_as_far_as_the_certain_capacity_does() -> None:
    """10 ms and 50 iterations a request; 125 tokens held on average fill 100 000 with 800 requests."""
    law = st.IterationTime(base_s=0.01)
    lengths = L.Independent(L.Constant(100), L.Constant(50))
    fleet = pool(100_000, law=law, max_num_seqs=100, max_num_batched_tokens=8192, block_size=1)
    found = tuned(fleet, load(lengths), vary=["max_num_seqs"])
    assert (found.now.capacity_per_s, found.then.capacity_per_s) == pytest.approx((200, 1280))
    assert found.standing == "validated"


def test_a_smaller_budget_is_no_way_to_keep_memory_from_filling() -> None:
    """2048 tokens would hold 896 slots to 1374 requests/s and so below synchronised evictions; certain, but no advice."""
    law = st.IterationTime(base_s=0.01)
    lengths = L.Independent(L.Constant(100), L.Constant(50))
    fleet = pool(100_000, law=law, max_num_seqs=896, max_num_batched_tokens=8192, watermark=0.0, block_size=1)
    late = st.Targets(ttft_mean_s=1e6)  # so that smaller budgets are looked at
    for vary in (["max_num_batched_tokens"], ["max_num_seqs", "max_num_batched_tokens"]):
        found = tuned(fleet, load(lengths), worth=0.0, targets=late, vary=vary)
        assert found.then.bottleneck != "token_budget"
    few = tuned(
        pool(100_000, law=law, max_num_seqs=100, max_num_batched_tokens=8192, block_size=1),
        load(lengths),
        worth=0.0,
        targets=late,
        vary=["max_num_seqs", "max_num_batched_tokens"],
    )
    assert few.then.capacity_per_s == pytest.approx(1280)


def test_constant_lengths_in_memory_are_called_approximate() -> None:
    found = tuned(pool(), load(CONSTANT), vary=["watermark"], worth=0.0)
    assert found.standing == "approximate"
    assert "synchronise" in found.now.doubt
    assert found.gain > 0


def test_a_chunk_gate_that_can_collapse_is_left() -> None:
    found = tuned(pool(admission="chunk_gate"), load())
    assert found.now.stable_below_per_s < 0.5 * found.now.capacity_per_s  # it can collapse
    assert found.then.engine.admission == "prompt_gate"
    assert not found.then.doubt
    assert {s.engine.admission for s in found.admissions} == {"prompt_gate", "reserve", "chunk_gate"}


def test_reserve_wins_where_recomputation_costs_the_most() -> None:
    """Equal lengths: reservations waste nothing but growth, and nothing is certain of a gate."""
    law = st.IterationTime(base_s=0.01)
    lengths = L.Independent(L.Constant(100), L.Constant(50))
    fleet = pool(100_000, law=law, max_num_seqs=100, max_num_batched_tokens=8192, block_size=1)
    found = tuned(fleet, load(lengths))
    assert found.then.engine.admission == "reserve"
    assert found.then.capacity_per_s > 1280
    assert any("max_output_tokens" in note for note in found.notes)


def test_an_inter_token_latency_bounds_the_rate() -> None:
    fleet, workload = pool(), load()
    light = st.analyze(fleet, workload.scaled(rate_per_s=0.01)).itl_s
    found = tuned(fleet, workload, targets=st.Targets(itl_s=1.2 * light))
    assert found.rate_within_per_s < 0.9 * found.then.capacity_per_s
    reached = with_engine(fleet, found.then.engine)
    assert found.rate_within_per_s == pytest.approx(st.rate_within(reached, workload, itl_s=1.2 * light), rel=2e-3)
    # No setting makes the iterations of the same requests shorter; what is left to gain is capacity.
    assert found.rate_within_per_s == pytest.approx(found.rate_within_now_per_s, rel=5e-3)
    assert found.then.engine.watermark == pytest.approx(0.022)


def test_smaller_budgets_only_where_a_target_says_how_late_a_first_token_may_be() -> None:
    """A two-phase law gains half a percent from small chunks, and first tokens come later."""
    replica = st.replica("L40S", "Llama-3.1-8B", engine=st.Engine(watermark=0.02))
    fleet = st.Fleet.of(replace(replica, kv_capacity_tokens=60_000))
    workload = load(L.Independent(L.Uniform(50, 2000), L.Uniform(50, 900)))
    free = tuned(fleet, workload, worth=0.0)
    assert free.then.engine.max_num_batched_tokens >= 2048
    late = tuned(fleet, workload, worth=0.0, targets=st.Targets(ttft_mean_s=10.0))
    assert late.then.engine.max_num_batched_tokens < 2048
    assert late.then.capacity_per_s > free.then.capacity_per_s


def test_a_target_that_no_setting_meets_says_how_near_it_comes() -> None:
    result = st.tune(pool(), load(), targets=st.Targets(itl_s=0.001))
    assert (result.met, result.exit_code) == (False, 1)
    assert "ITL" in result.pools[0].missed
    assert "against 1 ms at a light load" in result.pools[0].missed


def test_spare_capacity_is_a_target() -> None:
    best = tuned(pool(), load()).then.capacity_per_s
    near = st.tune(pool(), load(rate_per_s=0.95 * best), targets=st.Targets(headroom=0.1), latencies=False)
    assert not near.met
    assert "capacity binds" in near.pools[0].missed
    assert "10 % of it to stay free" in near.pools[0].missed
    assert st.tune(pool(), load(rate_per_s=0.89 * best), targets=st.Targets(headroom=0.1), latencies=False).met


def test_an_overloaded_pool_without_targets_is_tuned_all_the_same() -> None:
    result = st.tune(pool(), load(rate_per_s=100.0))
    assert result.exit_code == 0
    assert result.pools[0].latency_then is not None
    assert result.pools[0].latency_then.ttft_mean_s == np.inf
    assert result.to_dict()["pools"][0]["latency_then"]["ttft_mean_s"] is None


def test_first_token_targets_are_met_at_the_rate_found() -> None:
    fleet, workload = pool(max_num_batched_tokens=1024), load()
    targets = st.Targets(ttft_p99_s=0.12)
    found = tuned(fleet, workload, targets=targets)
    at = st.latency(with_engine(fleet, found.then.engine), workload.scaled(rate_per_s=found.rate_within_per_s))
    assert at.ttft_p99_s <= 0.12
    assert found.rate_within_per_s >= found.rate_within_now_per_s * (1 - 1e-3)


def two_pools() -> st.Fleet:
    first = pool().pools[0].replica
    second = pool(watermark=0.022).pools[0].replica
    return st.Fleet([st.Pool("a", first, 2, weight=2.0), st.Pool("b", second, 1, weight=1.0)])


def test_pools_are_tuned_one_by_one() -> None:
    result = st.tune(two_pools(), load(), latencies=False)
    assert [p.change for p in result.pools] == ["watermark 0 -> 0.022", "present settings are best"]
    assert result.pool("a").gain == pytest.approx(result.gain, rel=0.01)
    assert st.tune(two_pools(), load(), pool="b", latencies=False).changed is False


def test_a_schedule_is_tuned_at_its_peak() -> None:
    rates = st.RateSchedule([0.0, 60.0], [1.0, 3.0], end_s=120.0)
    workload = st.Workload([st.RequestClass("a", rates, UNIFORM)])
    assert tuned(pool(), workload).rate_per_s == pytest.approx(3.0)


def test_bad_arguments() -> None:
    fleet, workload = pool(), load()
    with pytest.raises(InputError, match="unknown pool 'c'"):
        st.tune(fleet, workload, pool="c")
    with pytest.raises(InputError, match="vary = 'slots', must be one of"):
        st.tune(fleet, workload, vary=["slots"])
    with pytest.raises(InputError, match="vary is empty"):
        st.tune(fleet, workload, vary=[])
    with pytest.raises(InputError, match="worth = 2"):
        st.tune(fleet, workload, worth=2)
    with pytest.raises(InputError, match="swapped"):
        st.tune(workload, fleet)  # type: ignore[arg-type]
    idle = st.Fleet(
        [st.Pool("a", fleet.pools[0].replica, weight=1.0), st.Pool("b", fleet.pools[0].replica, weight=0.0)]
    )
    with pytest.raises(InputError, match="pool 'b' gets no requests"):
        st.tune(idle, workload, pool="b")
    barrier = st.Fleet([st.Pool("a", fleet.pools[0].replica, 2, coupling=st.Barrier(2))])
    with pytest.raises(NotModelledError):
        st.tune(barrier, workload)


def test_a_scheduler_object_is_read_as_its_settings() -> None:
    policy = st.policies.Fcfs("prompt_gate", watermark=0.022)
    assert tuned(pool(scheduler=policy), load()).now.engine.watermark == 0.022


def test_results_print_and_serialise() -> None:
    result = st.tune(pool(), load())
    assert repr(result) == "TuningResult(3.75 -> 3.904/s (+4.1 %), validated)"
    text = result.summary()
    for part in (
        "watermark 0 -> 0.022",
        "to paste",
        "--watermark 0.022",
        "GUARANTEED_NO_EVICT",
        "evictions per request",
    ):
        assert part in text
    assert "<table" in result._repr_html_()
    answer = result.to_dict()
    assert answer["schema"] == "stability/tuning/1"
    assert answer["gain"] == pytest.approx(0.05, abs=0.01)
    frame = st.tune(two_pools(), load(), latencies=False).to_frame()
    assert set(frame["pool"]) == {"a", "b"}
    assert {"watermark", "headroom_tokens", "capacity_per_s", "memory_branch_per_s"} <= set(frame.columns)


def test_the_ladder_doubles() -> None:
    assert ladder(16, 64, 4) == [16, 20, 24, 28, 32, 40, 48, 56, 64]
    assert ladder(100, 100, 4) == []
    assert ladder(1, 8, 1) == [1, 2, 4, 8]
