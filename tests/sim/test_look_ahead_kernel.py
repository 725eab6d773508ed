"""Compiled look-ahead against the oracle: the same decisions, the same times, the same books."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stability as stb
from stability.model.engine import Scheduler
from stability.policies import AMax, AMin, HindsightShortestFirst, Interval, Noisy, ShortestFirst, SortedF
from stability.sim import engine, run
from stability.sim.domain import INTERPRETED, limits_of
from stability.sim.interpreted import InterpretedRun
from stability.sim.kernels import forecast, pairing_heap
from stability.sim.kernels.policies import NODE
from stability.sim.kernels.state import NONE, REPLICA
from tests.sim.test_kernel import AFFINE, assert_same, cases, long_runs, reference
from tests.sim.test_schedulers import same_result

EXACT: list[Scheduler] = [
    ShortestFirst(),
    ShortestFirst("volume", residency="engine"),
    HindsightShortestFirst(),
    HindsightShortestFirst("engine"),
    AMax(30),
    AMax(Interval(1.0, 2.5), residency="engine"),
]
WRONG: list[Scheduler] = [
    ShortestFirst(predictor=Noisy(0.9)),
    ShortestFirst("volume", predictor=Noisy(1.5, "lognormal")),
    ShortestFirst(predictor=Interval(0.2, 1.0, "lower"), residency="engine"),
    AMin(1),
    AMin(4, residency="engine"),
    AMin(Noisy(0.9)),
    SortedF("prefix", predictor=Noisy(0.5)),
]


def under(policy: Scheduler | None, fleet: stb.Fleet, budget: int = 90) -> stb.Fleet:
    """The fleet with `policy`, a token budget that holds every prompt, and KV for the token under way."""
    pools = []
    for pool in fleet.pools:
        engine = replace(
            pool.replica.engine, scheduler=policy, prefix_caching=False, watermark=0.0, max_num_batched_tokens=budget
        )
        capacity = pool.replica.kv_capacity_tokens + engine.block_size
        pools.append(replace(pool, replica=replace(pool.replica, engine=engine, kv_capacity_tokens=capacity)))
    return stb.Fleet(pools)


@pytest.mark.parametrize("policy", EXACT + WRONG, ids=repr)
@settings(max_examples=40)
@given(case=cases(), budget=st.integers(61, 200))
def test_one_replica(policy: Scheduler, case: tuple[stb.Fleet, stb.Workload], budget: int) -> None:
    fleet, workload = case
    assert_same(under(policy, fleet, budget), workload)


@pytest.mark.parametrize("policy", [EXACT[1], *WRONG[:4]], ids=repr)
@settings(max_examples=15)
@given(case=cases(replicas=3), concurrency=st.integers(1, 12), most=st.integers(1, 4), horizon_s=st.floats(0.01, 5.0))
def test_fleets(
    policy: Scheduler, case: tuple[stb.Fleet, stb.Workload], concurrency: int, most: int, horizon_s: float
) -> None:
    fleet, workload = under(policy, case[0]), case[1]
    assert_same(fleet, workload, router="power_of_two")
    assert_same(fleet, workload, router="join_shortest_kv", concurrency=concurrency)
    assert_same(fleet, workload, router="join_shortest_queue", max_waiting=most)
    if workload.arrivals.arrival_s[0] < horizon_s:  # type: ignore[union-attr]
        assert_same(fleet, workload, horizon_s=horizon_s)


@settings(max_examples=15)
@given(case=cases(), other=cases())
def test_unlike_replicas(case: tuple[stb.Fleet, stb.Workload], other: tuple[stb.Fleet, stb.Workload]) -> None:
    """Three orders, exact and wrong, beside first come, first served."""
    (fleet, workload), (second, _) = case, other
    capacity = fleet.pools[0].replica.kv_capacity_tokens
    pools = []
    for k, policy in enumerate((None, ShortestFirst("volume"), AMin(2), ShortestFirst(predictor=Noisy(0.7)))):
        (pool,) = under(policy, fleet if k % 2 else second).pools
        size = pool.replica.engine.block_size
        pools.append(
            replace(pool, name=str(k), replica=replace(pool.replica, kv_capacity_tokens=capacity + k * 50 + 2 * size))
        )
    assert_same(stb.Fleet(pools), workload, router="join_shortest_kv")


def test_what_is_expected_not_to_fit_runs_alone() -> None:
    """Admitted as nothing else ran, it keeps out even those that fit beside it until their end."""
    workload = stb.Workload.from_requests([0.0, 0.05, 0.06, 0.07], [10, 3, 3, 4], [20, 1, 1, 2])
    settings = stb.Engine(max_num_seqs=16, block_size=1, scheduler=AMax(Interval(1.0, 20.0)))
    fleet = stb.Fleet.of(stb.Replica(iteration=AFFINE, kv_capacity_tokens=100, engine=settings))
    assert_same(fleet, workload)
    records = stb.simulate(fleet, workload).requests
    assert records is not None
    assert (records.admitted_s[1:] >= records.finish_s[0]).all()


@pytest.mark.parametrize("policy", [EXACT[0], EXACT[5], WRONG[0], WRONG[5]], ids=repr)
@settings(max_examples=20)
@given(case=long_runs())
def test_long_outputs(policy: Scheduler, case: tuple[stb.Fleet, stb.Workload]) -> None:
    """Spans, refusals that stand for many iterations, and a forecast of many chunks."""
    fleet, workload = under(policy, case[0]), case[1]
    jobs = reference(fleet, workload).requests
    for record_steps in (True, False):
        got = stb.simulate(fleet, workload, rng=3, router="round_robin", record_steps=record_steps).requests
        assert got is not None
        np.testing.assert_array_equal(got.preemptions, [job.preemptions for job in jobs])
        for name in ("admitted_s", "first_token_s", "finish_s"):
            np.testing.assert_allclose(
                getattr(got, name), [getattr(job, name) for job in jobs], rtol=1e-9, err_msg=name
            )


@pytest.mark.parametrize("policy", [EXACT[0], WRONG[0], WRONG[3]], ids=repr)
@pytest.mark.parametrize("options", [{}, {"concurrency": 40}, {"saturated": True}, {"keep": "summary"}], ids=str)
def test_same_books(policy: Scheduler, options: dict[str, object]) -> None:
    lengths = stb.lengths.Independent(prompt=stb.lengths.Uniform(1, 40), output=stb.lengths.Uniform(1, 60))
    workload = stb.Workload.poisson(60.0, lengths)
    settings = stb.Engine(max_num_seqs=16, max_num_batched_tokens=64, scheduler=policy)
    fleet = stb.Fleet.of(stb.Replica(iteration=AFFINE, kv_capacity_tokens=400, engine=settings), count=2)
    arguments = {"requests": 250, "rng": 5, "record_steps": True, "resolution_s": 0.05, **options}
    got = stb.simulate(fleet, workload, **arguments)  # type: ignore[arg-type]
    with patch.object(run, "Run", InterpretedRun):
        expected = stb.simulate(fleet, workload, **arguments)  # type: ignore[arg-type]
    if "keep" in options:
        np.testing.assert_array_equal(got.ttft_counts, expected.ttft_counts)
        assert got.preemptions == expected.preemptions
    else:
        same_result(got, expected)
    assert (got.preemptions > 0) == (policy in WRONG)


def test_several_blocks_of_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Predictions of a block stay with its requests when the next one comes; the forecast grows with the lengths."""
    lengths = stb.lengths.Independent(prompt=stb.lengths.Uniform(1, 40), output=stb.lengths.Uniform(1, 400))
    workload = stb.Workload.poisson(20.0, lengths)
    engine_of = stb.Engine(max_num_seqs=16, scheduler=ShortestFirst(predictor=Noisy(0.8)))
    fleet = stb.Fleet.of(stb.Replica(iteration=AFFINE, kv_capacity_tokens=2000, engine=engine_of))
    whole = stb.simulate(fleet, workload, requests=300, rng=2)
    draw = engine.draw_blocks

    def in_pieces(*args: object, **options: object) -> object:
        for block in draw(*args, **options):  # type: ignore[arg-type]
            for begin in range(0, len(block), 37):
                columns = {name: getattr(block, name)[begin : begin + 37] for name in block.__slots__}
                yield replace(block, **columns)

    monkeypatch.setattr(engine, "draw_blocks", in_pieces)
    pieces = stb.simulate(fleet, workload, requests=300, rng=2)
    assert whole.requests is not None
    assert pieces.requests is not None
    np.testing.assert_array_equal(whole.requests.finish_s, pieces.requests.finish_s)


def test_prefixes_of_least_f_are_shortest_output_first() -> None:
    """Every batch is a prefix of the waiting requests in ascending output, so that the order is that of MC-SF."""
    rng = np.random.default_rng(6)
    workload = stb.Workload.from_requests(
        np.cumsum(rng.exponential(0.1, 80)), rng.integers(1, 30, 80), rng.integers(1, 60, 80)
    )
    seen = []
    for policy in (SortedF("prefix", predictor=Noisy(0.5)), ShortestFirst(predictor=Noisy(0.5))):
        settings = stb.Engine(max_num_seqs=16, scheduler=policy)
        fleet = stb.Fleet.of(stb.Replica(iteration=AFFINE, kv_capacity_tokens=300, engine=settings))
        seen.append([job.finish_s for job in reference(fleet, workload).requests])
    assert seen[0] == seen[1]


def test_circles_are_found_out() -> None:
    """Sixty requests told to end at once are admitted and evicted for as long as the oldest runs."""
    workload = stb.Workload.from_requests(np.zeros(60), [2] * 60, [9000] * 60)
    policy = ShortestFirst(predictor=Interval(0.0, 1.0, "lower"))
    settings = stb.Engine(max_num_seqs=256, block_size=1, scheduler=policy)
    fleet = stb.Fleet.of(stb.Replica(iteration=AFFINE, kv_capacity_tokens=9100, engine=settings))
    with pytest.raises(stb.InputError, match="evicts in circles"):
        stb.simulate(fleet, workload)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("size", [1, 3, 5, 16, 64])
def test_forecast_is_the_sum_at_every_iteration(size: int, extra: int) -> None:
    """Requests come and go; a decision and how long it stands are those of a walk through all iterations."""
    rng = np.random.default_rng(size + extra)
    longest, capacity = 300, 3000 // size
    s = np.zeros(1, dtype=REPLICA).view(np.recarray)[0]
    s.block_size, s.capacity_blocks, s.extra_tokens = size, capacity, extra
    s.block_shift = size.bit_length() - 1 if size & (size - 1) == 0 else -1
    held = forecast.empty_forecast(1, longest, size)
    usage: dict[int, int] = {}
    present: list[tuple[int, int]] = []
    now = known = refused = standing = 0

    def blocks(tokens: int) -> int:
        return -(-(tokens + extra) // size)

    for _ in range(600):
        now += int(rng.choice((0, 0, 1, 7, 70, 400), p=(0.4, 0.2, 0.2, 0.1, 0.09, 0.01)))
        known = forecast.forget(held, 0, known, now)
        present = [(start, end) for start, end in present if end > now]
        if present and rng.random() < 0.2:
            start, end = present.pop(int(rng.integers(len(present))))
            forecast.change(held, 0, s, -1, now + 1 - start, now + 1, end)
            for j in range(now + 1, end + 1):
                usage[j] -= blocks(j - start)
            continue
        prompt, output = int(rng.integers(1, 300)), int(rng.integers(2, longest + 1))
        end = now + output - 1

        def fits(at: int, now: int = now, prompt: int = prompt, end: int = end) -> bool:
            later = range(at + 1, end + at - now + 1)
            return all(usage.get(j, 0) + blocks(prompt + j - at) <= capacity for j in later)

        until = forecast.blocked_until(held, 0, s, prompt + 1, now + 1, end)
        assert (until == 0) == fits(now)
        if until:
            assert until > now
            assert not any(fits(at) for at in range(now, until))
            refused += 1
            standing += until > now + 1
        else:
            forecast.change(held, 0, s, 1, prompt + 1, now + 1, end)
            present.append((now - prompt, end))
            for j in range(now + 1, end + 1):
                usage[j] = usage.get(j, 0) + blocks(prompt + j - now)
    assert refused > 50
    assert standing > 30


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=60))
def test_heap_gives_the_least_and_lets_any_go(moves: list[tuple[int, int]]) -> None:
    nodes = np.zeros(60, dtype=NODE).view(np.recarray)
    heap, inside = NONE, []
    for place, (what, key) in enumerate(moves):
        if what == 0 and inside:
            heap = pairing_heap.without_least(nodes, heap)
            inside.remove(min(inside))
        elif what == 1 and inside:
            gone = inside.pop(key % len(inside))
            heap = pairing_heap.without(nodes, heap, gone[2])
        else:
            nodes[place].key, nodes[place].tie = key, -place
            heap = pairing_heap.insert(nodes, heap, place)
            inside.append((key, -place, place))
        assert heap == (min(inside)[2] if inside else NONE)


@settings(max_examples=20)
@given(case=cases(replicas=2), most=st.integers(1, 4))
def test_a_bounded_queue_under_a_policy_without_a_kernel(case: tuple[stb.Fleet, stb.Workload], most: int) -> None:
    fleet = under(SortedF(), case[0])
    assert limits_of(fleet.pools[0].replica).discipline == INTERPRETED
    assert_same(fleet, case[1], router="join_shortest_queue", max_waiting=most)
