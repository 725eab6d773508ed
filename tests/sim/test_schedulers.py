"""Published schedulers in the reference engine: run by `simulate`, checked against each other and against first come first served."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings

import stability as stb
from stability.errors import NotModelledError
from stability.model.iteration import IterationTime
from stability.policies import (
    AMax,
    AMin,
    ClassBudgets,
    DecodeFirst,
    Fcfs,
    HindsightShortestFirst,
    NestedWait,
    Oracle,
    Orca,
    Plan,
    PrefillFirst,
    Priority,
    RandomBudget,
    Sarathi,
    ShortestFirst,
    SortedF,
    UserScheduler,
    Wait,
)
from stability.policies.user import EngineState, RequestView
from stability.sim.engine import simulate
from stability.sim.reference.planners.disciplines import ChunkedPlanner
from tests.sim.test_kernel import cases

LAW = IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=1e-4, per_kv_token_s=1e-6)
POLICIES = (
    Wait((2,)),
    NestedWait((5, 30), (3, 2)),
    ClassBudgets((2,)),
    RandomBudget(0, 3),
    ShortestFirst(),
    ShortestFirst("volume", residency="engine"),
    HindsightShortestFirst(),
    AMax(30),
    AMin(3),
    AMin(Oracle()),
    SortedF(),
    SortedF("prefix"),
    Sarathi(),
    Sarathi(gate=False),
    Orca(),
    Orca(gate=False),
    PrefillFirst(),
    PrefillFirst(gate=False),
    DecodeFirst(),
    DecodeFirst(gate=False),
    Priority(),
    Priority("deadline", (3.0,)),
    Priority("class", watermark=0.05),
)


@dataclass(frozen=True)
class AsTheyCame(UserScheduler):
    """First come, first served under the prompt gate, as a scheduler of one's own."""

    def plan(self, state: EngineState) -> Plan:
        return ChunkedPlanner().plan(state)  # type: ignore[arg-type]


class OneAtATime(UserScheduler):
    """No batching at all."""

    def plan(self, state: EngineState) -> Plan:
        for request in (*state.running, *state.waiting):
            return Plan([(request, min(request.known_tokens - request.computed, state.max_num_batched_tokens))])
        return Plan()


def with_scheduler(fleet: stb.Fleet, scheduler: object) -> stb.Fleet:
    pools = [
        replace(pool, replica=replace(pool.replica, engine=replace(pool.replica.engine, scheduler=scheduler)))
        for pool in fleet.pools
    ]
    return stb.Fleet(pools)


def same_result(a: stb.SimulationResult, b: stb.SimulationResult) -> None:
    for name in a.requests.__slots__:  # type: ignore[union-attr]
        np.testing.assert_array_equal(getattr(a.requests, name), getattr(b.requests, name), err_msg=name)
    for name in a.steps:
        np.testing.assert_array_equal(a.steps[name], b.steps[name], err_msg=name)
    assert a.to_dict().keys() == b.to_dict().keys()
    for name in ("throughput_per_s", "itl_mean_s", "iteration_mean_s", "ttft_mean_s", "running_mean", "waiting_mean"):
        assert getattr(a, name) == pytest.approx(getattr(b, name), rel=1e-9, nan_ok=True), name
    for name in ("preemptions", "arrived", "completed", "generated_tokens", "computed_prompt_tokens"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.kv_occupancy == pytest.approx(b.kv_occupancy, rel=1e-9, nan_ok=True)
    for name in a.series:
        np.testing.assert_allclose(a.series[name], b.series[name], rtol=1e-9, err_msg=name)


def small_fleet(scheduler: object, **engine: object) -> stb.Fleet:
    settings = stb.Engine(scheduler=scheduler, **engine)  # type: ignore[arg-type]
    return stb.Fleet.of(stb.Replica(iteration=LAW, kv_capacity_tokens=400, engine=settings))


@given(cases())
def test_planned_first_come_first_served_is_the_kernels(case: tuple[stb.Fleet, stb.Workload]) -> None:
    fleet, workload = case
    fleet = with_scheduler(fleet, None)
    if any(pool.replica.engine.prefix_caching for pool in fleet.pools):
        return
    gate = with_scheduler(fleet, Fcfs("prompt_gate"))
    expected = simulate(gate, workload, rng=3, record_steps=True)
    got = simulate(with_scheduler(fleet, Priority("class")), workload, rng=3, record_steps=True)
    same_result(got, expected)
    same_result(simulate(with_scheduler(fleet, Sarathi()), workload, rng=3, record_steps=True), expected)


@pytest.mark.parametrize("options", [{}, {"concurrency": 40}, {"saturated": True}, {"horizon_s": 6.0}])
def test_both_engines_keep_the_same_books(options: dict[str, object]) -> None:
    lengths = stb.lengths.Independent(prompt=stb.lengths.Uniform(1, 40), output=stb.lengths.Uniform(1, 60))
    workload = stb.Workload.poisson(60.0, lengths)
    fleet = small_fleet(None, max_num_seqs=16, max_num_batched_tokens=64)
    fleet = stb.Fleet([replace(fleet.pools[0], replicas=2)])
    for router in ("join_shortest_kv", "power_of_two", "round_robin"):
        run = {"requests": 400, "rng": 5, "router": router, "record_steps": True, "resolution_s": 0.05, **options}
        expected = simulate(with_scheduler(fleet, Fcfs("prompt_gate")), workload, **run)  # type: ignore[arg-type]
        got = simulate(with_scheduler(fleet, AsTheyCame()), workload, **run)  # type: ignore[arg-type]
        assert expected.preemptions > 0
        same_result(got, expected)
    summary = simulate(with_scheduler(fleet, AsTheyCame()), workload, requests=400, rng=5, keep="summary", **options)  # type: ignore[arg-type]
    expected = simulate(with_scheduler(fleet, None), workload, requests=400, rng=5, keep="summary", **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(summary.ttft_counts, expected.ttft_counts)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=15)
@given(case=cases())
def test_every_policy_serves_what_it_can_and_conserves_tokens(
    policy: object, case: tuple[stb.Fleet, stb.Workload]
) -> None:
    fleet, workload = case
    replica = replace(
        fleet.pools[0].replica,
        engine=replace(
            fleet.pools[0].replica.engine, max_num_batched_tokens=200, prefix_caching=False, scheduler=policy
        ),
    )
    if isinstance(policy, NestedWait):
        replica = replace(replica, kv_capacity_tokens=20_000)
    result = simulate(stb.Fleet.of(replica), workload, rng=1, record_steps=True)
    records = result.requests
    assert records is not None
    done = np.isfinite(records.finish_s)
    if not isinstance(policy, Wait | NestedWait):  # these wait for more arrivals than may come
        assert done.all()
    if not isinstance(policy, Sarathi | Orca | PrefillFirst | DecodeFirst) or policy.gate:
        assert (result.steps["used_blocks"] <= replica.capacity_blocks).all()
    assert (result.steps["running"] <= replica.engine.max_num_seqs).all()
    assert (result.steps["scheduled_tokens"] <= 200).all()
    assert result.preemptions == records.preemptions.sum() == result.steps["preempted"].sum()
    if result.preemptions == 0 and done.all():
        assert result.generated_tokens == records.output_tokens.sum()
        assert result.computed_prompt_tokens == records.prompt_tokens.sum()
    assert result.generated_tokens >= records.output_tokens[done].sum()
    ordered = records.first_token_s[done] <= records.finish_s[done]
    assert ordered.all()
    assert (records.admitted_s[done] >= records.arrival_s[done]).all()


def test_low_priority_starves() -> None:
    """Class 0 alone loads the replica to 0.95: of class 1, nothing that arrives is served while class 0 keeps coming."""
    lengths = stb.lengths.Independent(prompt=stb.lengths.Constant(10), output=stb.lengths.Constant(10))
    urgent = stb.RequestClass("urgent", 5.7, lengths)
    patient = stb.RequestClass("patient", 2.0, lengths)
    law = IterationTime(base_s=0.1)
    engine = stb.Engine(max_num_seqs=6, scheduler=Priority("class"))
    fleet = stb.Fleet.of(stb.Replica(iteration=law, kv_capacity_tokens=10_000, engine=engine))
    workload = stb.Workload([urgent, patient])
    starved = simulate(fleet, workload, horizon_s=400.0, rng=2)
    fair = simulate(with_scheduler(fleet, None), workload, horizon_s=400.0, rng=2)

    def served(result: stb.SimulationResult, index: int) -> float:
        records = result.requests
        assert records is not None
        return float(np.isfinite(records.finish_s[records.request_class == index]).mean())

    assert served(starved, 0) > 0.97
    assert served(starved, 1) < 0.35
    assert abs(served(fair, 0) - served(fair, 1)) < 0.05


def test_deadlines_order_admission() -> None:
    lengths = stb.lengths.Independent(prompt=stb.lengths.Constant(1), output=stb.lengths.Constant(1))
    classes = [stb.RequestClass("slack", 5.0, lengths), stb.RequestClass("tight", 5.0, lengths)]
    engine = stb.Engine(max_num_seqs=1, scheduler=Priority("deadline", (100.0, 1.0)))
    fleet = stb.Fleet.of(stb.Replica(iteration=IterationTime(base_s=1.0), kv_capacity_tokens=64, engine=engine))
    result = simulate(fleet, stb.Workload(classes), requests=40, rng=1, saturated=True)
    records = result.requests
    assert records is not None
    order = np.argsort(records.finish_s)
    assert (np.diff(records.request_class[order].astype(int)) <= 0).all()


def test_user_scheduler_serves_one_at_a_time() -> None:
    workload = stb.Workload.from_requests([0.0, 0.0], [5, 5], [3, 2])
    fleet = small_fleet(OneAtATime())
    fleet = stb.Fleet.of(replace(fleet.pools[0].replica, iteration=IterationTime(base_s=1.0)))
    result = simulate(fleet, workload)
    assert result.requests is not None
    assert result.requests.finish_s.tolist() == [3.0, 5.0]


def test_a_cache_too_small_for_nested_thresholds_is_found_out() -> None:
    """Two at the second segment's entry are needed, and only one fits beside a prompt."""
    engine = stb.Engine(block_size=1, scheduler=NestedWait((2, 9), (1, 2)))
    fleet = stb.Fleet.of(stb.Replica(iteration=LAW, kv_capacity_tokens=20, engine=engine))
    with pytest.raises(stb.InputError, match="evicts in circles"):
        simulate(fleet, stb.Workload.from_requests(np.zeros(9), [10] * 9, [8] * 9))


class TooMuch(UserScheduler):
    def plan(self, state: EngineState) -> Plan:
        return Plan([(request, request.known_tokens + 1) for request in state.waiting])


class OverMemory(UserScheduler):
    def plan(self, state: EngineState) -> Plan:
        batch: list[tuple[RequestView, int]] = [(r, r.known_tokens - r.computed) for r in state.running]
        return Plan(batch + [(r, r.known_tokens) for r in state.waiting])


@pytest.mark.parametrize(("policy", "message"), [(TooMuch(), "must be 1 to"), (OverMemory(), "KV blocks, must need")])
def test_a_plan_beyond_the_limits_is_refused(policy: UserScheduler, message: str) -> None:
    workload = stb.Workload.from_requests(np.zeros(20), [70] * 20, [3] * 20)
    with pytest.raises(stb.InputError, match=message):
        simulate(small_fleet(policy), workload)


def test_what_cannot_be_served_is_said_first() -> None:
    workload = stb.Workload.from_requests([0.0], [100], [3])
    fleet = small_fleet(ShortestFirst(), max_num_seqs=8, max_num_batched_tokens=64)
    with pytest.raises(stb.InputError, match="splits no prompts"):
        simulate(fleet, workload)
    simulate(with_scheduler(fleet, Orca()), workload)
    two = stb.Workload([stb.RequestClass(str(k), 1.0, workload.classes[0].lengths) for k in range(2)])
    with pytest.raises(stb.InputError, match="must have 2 entries"):
        simulate(small_fleet(Wait((3,))), two, requests=5)
    with pytest.raises(NotModelledError, match="prefix_caching"):
        simulate(small_fleet(Wait((3,)), prefix_caching=True), workload)


def test_requests_are_the_same_under_every_policy() -> None:
    lengths = stb.lengths.Independent(prompt=stb.lengths.Uniform(1, 40), output=stb.lengths.Uniform(1, 30))
    workload = stb.Workload.poisson(10.0, lengths)
    seen = [
        simulate(small_fleet(policy), workload, requests=60, rng=9).requests for policy in (None, Wait((2,)), AMin(1))
    ]
    for records in seen[1:]:
        for name in ("arrival_s", "prompt_tokens", "output_tokens"):
            np.testing.assert_array_equal(getattr(records, name), getattr(seen[0], name))
