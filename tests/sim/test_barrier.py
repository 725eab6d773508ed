"""Barrier groups: kernel against reference step by step, hand-computed runs, conservation, metrics from the log."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stability
from stability.errors import InputError, NotModelledError, UnservableError
from stability.model.engine import Engine
from stability.model.fleet import Barrier, Fleet, Pool
from stability.model.iteration import IterationLaw, IterationTime, Staircase, TwoPhase
from stability.model.lengths import Independent, LogNormal, Uniform
from stability.model.replica import Replica
from stability.model.requests import draw
from stability.model.streams import Stream, generator, seed_sequence
from stability.model.workload import Workload
from stability.policies import (
    BalanceFuture,
    BalanceRoute,
    LeastPredictedWork,
    LengthPartition,
    PowerOfChoices,
    WeightedSplit,
)
from stability.policies.balance import BalanceRouter
from stability.policies.routers import (
    JoinShortestKv,
    JoinShortestQueue,
    PowerOfTwo,
    Random,
    RoundRobin,
    Router,
)
from stability.sim.barrier import simulate_barrier, tables_for
from stability.sim.reference.barrier import Group, run_group

AFFINE = IterationTime(
    base_s=0.012,
    per_prefill_token_s=1.3e-4,
    per_decode_token_s=2.1e-4,
    per_kv_token_s=7e-6,
    per_prefill_context_s=3e-7,
)
LAWS: tuple[IterationLaw, ...] = (
    AFFINE,
    TwoPhase(decode=AFFINE, mixed=AFFINE.scaled(1.7)),
    Staircase(base_s=0.01, per_step_s=0.02, step_tokens=8, per_kv_token_s=1e-5),
)
ROUTERS: tuple[Router, ...] = (
    RoundRobin(),
    Random(),
    JoinShortestQueue(),
    JoinShortestKv(),
    PowerOfTwo(),
    PowerOfChoices(3),
    WeightedSplit([1.0]),
    WeightedSplit([0.5, 0.0, 2.0]),
    LeastPredictedWork(),
    LeastPredictedWork("oracle"),
    LengthPartition((12,), (1, 2)),
    BalanceRoute(),
    BalanceRoute(horizon=3, window=4, greedy_slots=1),
    BalanceRoute(horizon=5, predictor="oracle", greedy_slots=3),
    BalanceFuture(horizon=4, window=6),
    BalanceFuture(horizon=0, window=3, greedy_slots=2),
)


def group_of(
    law: IterationLaw = AFFINE, *, role: str = "mixed", workers: int = 3, room: int = 100_000, **engine: object
) -> Fleet:
    settings = {"max_num_seqs": 3, "max_num_batched_tokens": 16, **engine}
    replica = Replica(iteration=law, kv_capacity_tokens=room, engine=Engine(**settings))  # type: ignore[arg-type]
    return Fleet([Pool("group", replica, workers, role=role, coupling=Barrier(workers, sync_s=0.003))])


@st.composite
def cases(draw: st.DrawFn) -> tuple[Fleet, Workload, Router, str, int]:
    count, longest = draw(st.integers(1, 40)), draw(st.sampled_from((2, 6, 30)))
    role = draw(st.sampled_from(("mixed", "decode")))
    prompt = draw(st.lists(st.integers(1, longest), min_size=count, max_size=count))
    shortest = 1 if role == "mixed" else 2
    output = draw(st.lists(st.integers(shortest, longest), min_size=count, max_size=count))
    gaps = draw(st.lists(st.sampled_from((0.0, 0.006, 0.05)), min_size=count, max_size=count))
    router = draw(st.sampled_from(ROUTERS))
    central = isinstance(router, BalanceRouter) or draw(st.booleans())
    memory: dict[str, object] = {}
    if draw(st.booleans()):  # prompt and output of some reserved in 4-token blocks, one or two requests at a time
        room = 4 * -(-2 * longest // 4) + 4 * draw(st.integers(1, 8))
        memory = {
            "admission": "reserve",
            "room": room,
            "block_size": 4,
            "watermark": draw(st.sampled_from((0.0, 0.1))),
        }
    fleet = group_of(draw(st.sampled_from(LAWS)), role=role, max_num_seqs=draw(st.integers(1, 4)), **memory)  # type: ignore[arg-type]
    workload = Workload.from_requests(np.cumsum(gaps), prompt, output)
    return fleet, workload, router, "central" if central else "immediate", draw(st.sampled_from((0, 1, 7, 20)))


@given(cases())
def test_kernel_equals_the_reference_step_by_step(case: tuple[Fleet, Workload, Router, str, int]) -> None:
    fleet, workload, router, assignment, concurrency = case
    pool, engine = fleet.pools[0], fleet.pools[0].replica.engine
    requests = draw(workload, requests=len(workload.arrivals.arrival_s))  # type: ignore[union-attr]
    group = Group(
        workers=3,
        slots=engine.max_num_seqs,
        budget=engine.max_num_batched_tokens,
        law=pool.replica.iteration,
        sync_s=0.003,
        decode_only=pool.role == "decode",
        central=assignment == "central",
        router=router,
        tables=tables_for(router, workload),
        capacity_blocks=pool.replica.capacity_blocks if engine.admission == "reserve" else None,
        watermark_blocks=engine.watermark_blocks(pool.replica.kv_capacity_tokens),
        block_size=engine.block_size,
    )
    uniforms = generator(seed_sequence(3), Stream.ROUTING).random((len(requests), router.draws))
    jobs, steps = run_group(group, requests, uniforms=uniforms, shares=router.shares(fleet, 1), concurrency=concurrency)
    got = simulate_barrier(
        fleet,
        workload,
        router=router,
        assignment=assignment,
        concurrency=concurrency or None,
        record_steps=True,
        rng=3,
    )
    for name in ("worker", "assigned_s", "first_token_s", "finish_s"):
        np.testing.assert_array_equal(getattr(got, name), [getattr(job, name) for job in jobs], err_msg=name)
    for name in ("start_s", "end_s", "prefill", "decodes", "kv_tokens", "waiting"):
        np.testing.assert_array_equal(got.log[name], [getattr(step, name) for step in steps], err_msg=name)
    assert not np.isnan(got.finish_s).any()
    if engine.admission == "reserve":
        assert got.over_capacity == 0
        assert got.kv_peak_tokens <= pool.replica.usable_kv_tokens


def test_a_run_by_hand() -> None:
    law = IterationTime(base_s=1.0, per_prefill_token_s=0.1, per_kv_token_s=0.01)
    fleet = group_of(law, workers=2, max_num_seqs=1, max_num_batched_tokens=4)
    trace = Workload.from_requests([0.0, 0.0, 0.5], [6, 2, 1], [2, 3, 1])
    got = simulate_barrier(fleet, trace, router="round_robin", record_steps=True)
    # 4 and 2 prompt tokens; the other 2 beside a decode that reads 3; decodes of 7 and 4 tokens; the last prompt
    durations = [1.4 + 0.003, 1.2 + 0.003, 1.07 + 0.003, 1.1 + 0.003]
    np.testing.assert_allclose(got.log["end_s"] - got.log["start_s"], durations)
    np.testing.assert_array_equal(got.log["prefill"], [[4, 2], [2, 0], [0, 0], [1, 0]])
    np.testing.assert_array_equal(got.log["kv_tokens"], [[0, 0], [0, 3], [7, 4], [0, 0]])
    np.testing.assert_allclose(got.finish_s, np.cumsum(durations)[[2, 2, 3]])


def lognormal_run(**options: object) -> stability.BarrierResult:
    law = IterationTime(base_s=0.005, per_kv_token_s=1e-6)
    fleet = group_of(law, role="decode", workers=4, max_num_seqs=16, max_num_batched_tokens=64)
    lengths = Independent(LogNormal(300, cv=1.0, limit=4000), LogNormal(50, cv=0.6, limit=400))
    options = {"router": "join_shortest_queue", "requests": 1500, "concurrency": 80, "rng": 1, **options}
    return simulate_barrier(fleet, Workload.poisson(1.0, lengths), **options)  # type: ignore[arg-type]


def test_figures_are_those_of_the_log() -> None:
    got = lognormal_run(record_steps=True)
    begin, end = got.window_s
    inside = (got.log["start_s"] >= begin) & (got.log["end_s"] <= end + 1e-12)
    kv, decodes = got.log["kv_tokens"][inside], got.log["decodes"][inside]
    seconds = (got.log["end_s"] - got.log["start_s"])[inside]
    assert got.steps == inside.sum()
    assert got.tokens_per_s == pytest.approx(decodes.sum() / seconds.sum())
    assert got.iteration_mean_s == pytest.approx(seconds.mean())
    assert got.imbalance_tokens == pytest.approx((4 * kv.max(axis=1) - kv.sum(axis=1)).mean())
    assert got.spread_tokens == pytest.approx((kv.max(axis=1) - kv.min(axis=1)).mean())
    assert got.peak_ratio == pytest.approx(kv.max(axis=1).mean() / kv.mean())
    own = 0.005 + 1e-6 * kv + 0.003
    assert got.waste == pytest.approx((seconds[:, None] - own).sum() / (4 * seconds.sum()))
    watts = (100 + 300 * (kv / kv.max(axis=1, keepdims=True)) ** 0.7).sum(axis=1)
    assert got.energy_per_token_j == pytest.approx(watts @ seconds / decodes.sum())
    assert got.running_mean == pytest.approx(decodes.sum(axis=1) @ seconds / seconds.sum())
    finished = (got.finish_s > begin) & (got.finish_s <= end)
    assert got.completed == finished.sum()
    assert got.throughput_per_s == pytest.approx(finished.sum() / (end - begin))


def test_slots_are_never_exceeded_and_all_tokens_are_given() -> None:
    got = lognormal_run(record_steps=True, saturated=True, concurrency=None, router="balance_route")
    assert got.log["decodes"].max() == 16
    lengths = Independent(LogNormal(300, cv=1.0, limit=4000), LogNormal(50, cv=0.6, limit=400))
    drawn = draw(Workload.poisson(1.0, lengths), requests=1500, rng=1)
    outputs = drawn.output_tokens[drawn.output_tokens > 1]
    assert got.log["decodes"].sum() == (outputs - 1).sum()


def test_balancing_lowers_waste_and_energy() -> None:
    runs = [lognormal_run(router=router) for router in ("random", "join_shortest_queue", "balance_route")]
    assert runs[0].tokens_per_s < runs[1].tokens_per_s < runs[2].tokens_per_s
    assert runs[0].energy_per_token_j > runs[2].energy_per_token_j
    assert runs[2].waste < 0.5 * runs[1].waste


def test_immediate_and_central_round_robin_differ_when_slots_are_scarce() -> None:
    # Worker 0 gets the long request and, in turn, the third, which waits there although worker 1 is free.
    law = IterationTime(base_s=1.0)
    fleet = group_of(law, role="decode", workers=2, max_num_seqs=1, max_num_batched_tokens=4)
    trace = Workload.from_requests([0.0, 0.0, 1.5], [1, 1, 1], [9, 2, 2])
    push = simulate_barrier(fleet, trace, router="round_robin", assignment="immediate")
    pull = simulate_barrier(fleet, trace, router="round_robin", assignment="central")
    assert push.worker.tolist() == [0, 1, 0]
    assert pull.worker.tolist() == [0, 1, 1]
    assert push.assigned_s[2] > pull.assigned_s[2]


def test_partition_keeps_long_prompts_apart() -> None:
    fleet = group_of(role="mixed", workers=3)
    trace = Workload.from_requests([0.0] * 12, [5, 20] * 6, [3] * 12)
    for assignment in ("central", "immediate"):
        got = simulate_barrier(fleet, trace, router=LengthPartition((12,), (1, 2)), assignment=assignment)
        assert set(got.worker[::2]) == {0}
        assert set(got.worker[1::2]) == {1, 2}


def test_kv_beyond_the_cache_is_reported() -> None:
    fleet = group_of(role="decode", workers=2)
    pool = fleet.pools[0]
    small = Fleet([replace(pool, replica=replace(pool.replica, kv_capacity_tokens=32))])
    trace = Workload.from_requests([0.0, 0.0], [20, 60], [5, 5])
    assert simulate_barrier(fleet, trace).over_capacity == 0
    assert simulate_barrier(small, trace).over_capacity == pytest.approx(0.5)


def test_reservation_waits_for_room() -> None:
    """Two workers of 40 tokens, three requests of 20 + 5: the third has a slot but no KV until one of the others ends."""
    trace = Workload.from_requests([0.0] * 3, [20] * 3, [5] * 3)
    for assignment in ("central", "immediate"):
        for admission in ("reserve", "prompt_gate"):
            fleet = group_of(role="decode", workers=2, room=40, block_size=1, admission=admission)
            got = simulate_barrier(fleet, trace, router="round_robin", assignment=assignment)
            waited = got.assigned_s[2] > 0
            assert waited == (admission == "reserve")
            assert (got.over_capacity == 0) == (admission == "reserve")
            if waited:
                assert got.assigned_s[2] == got.finish_s[0]
    balanced = simulate_barrier(
        group_of(role="decode", workers=2, room=40, block_size=1, admission="reserve"), trace, router=BalanceRoute()
    )
    assert balanced.over_capacity == 0
    assert sorted(balanced.assigned_s)[2] == balanced.finish_s.min()
    with pytest.raises(UnservableError, match="request 0 needs 25"):
        simulate_barrier(group_of(role="decode", workers=2, room=24, block_size=1, admission="reserve"), trace)


def test_a_weighted_split_over_workers() -> None:
    """No weight, no request; three quarters of 4000 within six standard deviations of 27."""
    trace = Workload.from_requests(np.arange(4000) * 0.1, [5] * 4000, [3] * 4000)
    got = simulate_barrier(group_of(max_num_seqs=16), trace, router=WeightedSplit([0.75, 0.0, 0.25]), rng=5)
    counts = np.bincount(got.worker, minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 3000) < 6 * 28
    with pytest.raises(InputError, match="weights"):
        simulate_barrier(group_of(), trace, router=WeightedSplit([0.5, 0.5]))


def test_what_is_refused() -> None:
    fleet, trace = group_of(), Workload.from_requests([0.0], [5], [3])
    independent = Fleet.of(fleet.pools[0].replica, 3)
    with pytest.raises(NotModelledError, match="Barrier"):
        simulate_barrier(independent, trace)
    with pytest.raises(NotModelledError, match="simulate_barrier"):
        stability.simulate(independent, trace, router=BalanceRoute())
    with pytest.raises(NotModelledError, match="simulate_barrier"):
        stability.simulate(fleet, trace)
    with pytest.raises(InputError, match="central"):
        simulate_barrier(fleet, trace, router="balance_route", assignment="immediate")
    with pytest.raises(InputError, match="workers"):
        simulate_barrier(fleet, trace, router=LengthPartition((12,), (1, 1)))
    with pytest.raises(InputError, match="requests is missing"):
        simulate_barrier(fleet, Workload.poisson(1.0, Independent(Uniform(1, 5), Uniform(1, 5))))
    with pytest.raises(InputError, match="both given"):
        simulate_barrier(fleet, trace, saturated=True, concurrency=3)


def test_result_serialises() -> None:
    got = lognormal_run()
    data = got.to_dict()
    assert data["schema"] == "stability/barrier/1"
    assert "log" not in data
    assert len(got.to_frame()) == len(got.worker)
    assert "waste" in data
    assert "idle at the barrier" in got.summary()
    assert math.isfinite(got.interval.half_width)
