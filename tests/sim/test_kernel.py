"""The compiled kernels against the oracle: the same decisions, the same times."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stability.model.engine import ADMISSIONS, Engine
from stability.model.fleet import Fleet, Pool
from stability.model.iteration import Hinge, IterationLaw, IterationTime, Roofline, Staircase, Table, TwoPhase
from stability.model.replica import Replica
from stability.model.requests import draw
from stability.model.streams import Stream, generator, seed_sequence
from stability.model.workload import Workload
from stability.policies.routers import ROUTERS, WeightedSplit, router_of
from stability.sim.domain import limits_of, replicas_of
from stability.sim.engine import simulate
from stability.sim.kernels.laws import encode, step_time
from stability.sim.reference import ReferenceRun, run_reference

AFFINE = IterationTime(
    base_s=0.0123,
    per_prefill_token_s=1.3e-4,
    per_decode_token_s=2.1e-4,
    per_kv_token_s=7e-6,
    per_prefill_context_s=3e-7,
)
LAWS: tuple[IterationLaw, ...] = (
    AFFINE,
    IterationTime(base_s=1.0),
    TwoPhase(decode=AFFINE, mixed=AFFINE.scaled(1.7)),
    Hinge(base_s=0.01, per_token_s=1e-3, threshold_tokens=5, per_kv_token_s=1e-5),
    Staircase(base_s=0.01, per_step_s=0.02, step_tokens=8, per_kv_token_s=1e-5, per_prefill_context_s=1e-6),
    Roofline(overhead_s=0.003, weights_s=0.01, per_token_compute_s=1e-3, experts_s=0.01, expert_share=0.06),
    Table([0, 16, 64], [0, 4, 32], [0, 300], np.arange(1, 19).reshape(3, 3, 2) * 1e-3, per_prefill_context_s=1e-7),
)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)
def test_kernel_laws_are_the_laws(law: IterationLaw) -> None:
    kind, coefficients = encode(law, 4096)
    rng = np.random.default_rng(5)
    for _ in range(300):
        prompt, decodes = (int(v) for v in rng.integers(0, 2048, 2) * rng.integers(0, 2, 2))
        kv, context = int(rng.integers(0, 10**6)), float(rng.integers(0, 10**6)) / 2
        padded = np.concatenate(([np.nan] * 3, coefficients))
        assert step_time(padded, kind, 3, prompt, decodes, kv, context) == law.time_s(prompt, decodes, kv, context)


engines = st.builds(
    lambda seqs, extra, admission, watermark, block, caching: Engine(
        max_num_seqs=seqs,
        max_num_batched_tokens=seqs + extra,
        admission=admission,
        watermark=watermark,
        block_size=block,
        prefix_caching=caching,
    ),
    seqs=st.integers(1, 12),
    extra=st.integers(0, 40),
    admission=st.sampled_from(ADMISSIONS),
    watermark=st.sampled_from((0.0, 0.0, 0.05, 0.2)),
    block=st.sampled_from((1, 2, 3, 4, 16)),
    caching=st.booleans(),
)


@st.composite
def cases(draw: st.DrawFn, replicas: int = 1) -> tuple[Fleet, Workload]:
    count = draw(st.integers(1, 40))
    longest = draw(st.sampled_from((1, 6, 30)))
    prompt = draw(st.lists(st.integers(1, 2 * longest), min_size=count, max_size=count))
    output = draw(st.lists(st.integers(1, longest), min_size=count, max_size=count))
    gap = draw(st.sampled_from((0.0, 0.013, 0.2, 3.0)))
    gaps = draw(st.lists(st.sampled_from((0.0, 0.5, 1.0, 2.71)), min_size=count, max_size=count))
    pools = []
    for index in range(draw(st.integers(1, 2)) if replicas > 1 else 1):
        engine, law = draw(engines), draw(st.sampled_from(LAWS))
        fits = max(s + o for s, o in zip(prompt, output, strict=True)) + engine.block_size
        capacity = draw(st.integers(fits, 4 * fits))
        if engine.watermark_blocks(capacity) >= capacity // engine.block_size:
            engine = Engine(max_num_seqs=4, max_num_batched_tokens=8, block_size=engine.block_size)
        replica = Replica(iteration=law, kv_capacity_tokens=capacity, engine=engine)
        pools.append(
            Pool(f"pool{index}", replica, draw(st.integers(min(replicas, 2), replicas)), weight=draw(st.integers(1, 3)))
        )
    return Fleet(pools), Workload.from_requests(np.cumsum(gaps) * gap, prompt, output)


def reference(fleet: Fleet, workload: Workload, *, router: str = "round_robin", **options: object) -> ReferenceRun:
    policy = router_of(router, fleet)
    requests = draw(workload, requests=len(workload.arrivals.arrival_s))  # type: ignore[union-attr]
    uniforms = generator(seed_sequence(3), Stream.ROUTING).random((len(requests), policy.draws))
    return run_reference(
        [(limits_of(replica), replica.iteration) for replica in replicas_of(fleet)[0]],
        requests,
        router=policy,
        shares=policy.shares(fleet, 1),
        uniforms=uniforms,
        root=seed_sequence(3),
        **options,  # type: ignore[arg-type]
    )


def assert_same(fleet: Fleet, workload: Workload, *, router: str = "round_robin", **options: object) -> None:
    expected = reference(
        fleet,
        workload,
        router=router,
        **{k: v for k, v in options.items() if k in {"concurrency", "horizon_s", "max_waiting"}},
    )
    # With a bounded queue nothing but the bound leaves a request without a replica.
    arrived = len(expected.requests) if "max_waiting" in options else int((expected.replica >= 0).sum())
    for record_steps in (True, False):
        result = simulate(fleet, workload, router=router, rng=3, record_steps=record_steps, **options)  # type: ignore[arg-type]
        got = result.requests
        assert got is not None
        assert len(got) == arrived
        assert result.rejected == (got.replica < 0).sum()
        jobs = expected.requests[:arrived]
        np.testing.assert_array_equal(got.replica, expected.replica[:arrived])
        np.testing.assert_array_equal(got.preemptions, [job.preemptions for job in jobs])
        for name in ("arrival_s", "admitted_s", "first_token_s", "finish_s"):
            np.testing.assert_array_equal(getattr(got, name), [getattr(job, name) for job in jobs], err_msg=name)
        if record_steps:
            rows = sorted(expected.steps, key=lambda row: (row[0], row[1].start_s))
            for name in result.steps:
                values: Sequence[object] = [r if name == "replica" else getattr(step, name) for r, step in rows]
                np.testing.assert_array_equal(result.steps[name], values, err_msg=name)


@settings(max_examples=300)
@given(cases())
def test_one_replica(case: tuple[Fleet, Workload]) -> None:
    assert_same(*case)


@given(cases(), st.floats(0.01, 5.0))
def test_horizon(case: tuple[Fleet, Workload], horizon_s: float) -> None:
    fleet, workload = case
    if workload.arrivals.arrival_s[0] < horizon_s:  # type: ignore[union-attr]
        assert_same(fleet, workload, horizon_s=horizon_s)


@settings(max_examples=100)
@given(cases(replicas=2), st.integers(1, 4), st.sampled_from(["round_robin", "join_shortest_queue"]))
def test_bounded_queue(case: tuple[Fleet, Workload], most: int, router: str) -> None:
    assert_same(*case, router=router, max_waiting=most)


@pytest.mark.parametrize("router", sorted(ROUTERS))
@settings(max_examples=30)
@given(case=cases(replicas=3))
def test_routers(case: tuple[Fleet, Workload], router: str) -> None:
    assert_same(*case, router=router)


@pytest.mark.parametrize("router", sorted(ROUTERS))
@settings(max_examples=20)
@given(case=cases(replicas=2), concurrency=st.integers(1, 12))
def test_closed_loop(case: tuple[Fleet, Workload], router: str, concurrency: int) -> None:
    assert_same(*case, router=router, concurrency=concurrency)


@st.composite
def long_runs(draw: st.DrawFn) -> tuple[Fleet, Workload]:
    count = draw(st.integers(1, 12))
    prompt = draw(st.lists(st.integers(1, 60), min_size=count, max_size=count))
    output = draw(st.lists(st.integers(1, 700), min_size=count, max_size=count))
    # Irregular gaps: an arrival that falls on a step boundary to the last bit may go either way after rounding.
    gaps = np.cumsum(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count))) * 1.23456789
    engine = Engine(
        max_num_seqs=8,
        max_num_batched_tokens=64,
        admission=draw(st.sampled_from(ADMISSIONS)),
        block_size=draw(st.sampled_from((1, 3, 16))),
        prefix_caching=draw(st.booleans()),
    )
    longest = max(s + o for s, o in zip(prompt, output, strict=True)) + engine.block_size
    law = draw(st.sampled_from([item for item in LAWS if item != IterationTime(base_s=1.0)]))
    replica = Replica(iteration=law, kv_capacity_tokens=draw(st.integers(longest, 3 * longest)), engine=engine)
    return Fleet.of(replica), Workload.from_requests(gaps, prompt, output)


@given(long_runs())
def test_closed_form_spans(case: tuple[Fleet, Workload]) -> None:
    fleet, workload = case
    expected = reference(fleet, workload)
    result = simulate(fleet, workload, warmup=0.0)
    stepped = simulate(fleet, workload, warmup=0.0, record_steps=True)
    assert result.requests is not None
    jobs = expected.requests
    np.testing.assert_array_equal(result.requests.preemptions, [job.preemptions for job in jobs])
    for name in ("admitted_s", "first_token_s", "finish_s"):
        np.testing.assert_allclose(
            getattr(result.requests, name), [getattr(job, name) for job in jobs], rtol=1e-9, err_msg=name
        )
    assert result.end_s == pytest.approx(stepped.end_s, rel=1e-9)
    assert result.window_s == pytest.approx(stepped.window_s, rel=1e-9)
    assert result.replicas.steps.tolist() == stepped.replicas.steps.tolist()
    for name in ("iteration_mean_s", "running_mean", "waiting_mean", "kv_occupancy", "throughput_per_s"):
        assert getattr(result, name) == pytest.approx(getattr(stepped, name), rel=1e-9, nan_ok=True), name


def test_constant_step_times_jump_exactly() -> None:
    replica = Replica(iteration=IterationTime(base_s=1.0), kv_capacity_tokens=100_000)
    workload = Workload.from_requests([0.0, 100.0], [10, 10], [5000, 3000])
    assert_same(Fleet.of(replica), workload)


def test_weighted_split_by_class_keeps_classes_apart() -> None:
    replica = Replica(iteration=AFFINE, kv_capacity_tokens=1000)
    fleet = Fleet([Pool("a", replica, 2), Pool("b", replica)])
    shares = WeightedSplit([[1.0, 0.0], [0.0, 2.0]]).shares(fleet, 2)
    np.testing.assert_allclose(shares, [[0.5, 1.0, 1.0], [0.0, 0.0, 1.0]])
