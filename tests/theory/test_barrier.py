"""Barrier groups in theory: order statistics, the resident law, capacities, verdicts; the simulator as witness."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

import stability as st
from stability.theory.barrier import barrier_ratios, break_even_memory, decode_capacity, excess_s
from stability.theory.coupled import BARRIER_TOLERANCE, worker_of
from stability.theory.moments import moments
from stability.theory.order_statistics import harmonic, largest_normal, largest_normal_limit, largest_of
from stability.theory.resident import resident_moments, resident_transform

LAW = st.IterationTime(base_s=4.8875e-3, per_kv_token_s=1.00525e-7)
LENGTHS = st.lengths.Independent(st.lengths.LogNormal(3197, cv=1.0), st.lengths.LogNormal(1185, cv=0.6))
WORKLOAD = st.Workload.poisson(1.0, LENGTHS)
SMALL = st.Workload.poisson(
    1.0,
    st.lengths.Independent(st.lengths.LogNormal(300, cv=1.0, limit=4000), st.lengths.LogNormal(40, cv=0.6, limit=300)),
)


def group(
    law: st.IterationTime, *, workers: int, slots: int, role: str = "mixed", sync_s: float = 0.0, **more: int
) -> st.Fleet:
    engine = st.Engine(max_num_seqs=slots, admission="reserve", block_size=1, **more)  # type: ignore[arg-type]
    replica = st.Replica(iteration=law, kv_capacity_tokens=10**9, engine=engine)
    return st.Fleet([st.Pool("group", replica, workers, role=role, coupling=st.Barrier(workers, sync_s))])


def test_largest_of_normals_by_simulation_and_closed_forms() -> None:
    assert largest_normal(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-12)
    assert largest_normal(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-12)
    assert [round(largest_normal(g), 2) for g in (4, 8, 16)] == [1.03, 1.42, 1.77]
    for g in (2, 4, 8, 16, 64, 1024):
        assert largest_normal(g) < largest_normal_limit(g)
        low, high = 0.29 if g > 8 else 0.3, 0.67
        if 4 <= g <= 16:
            assert low < largest_normal_limit(g) / largest_normal(g) - 1 < high  # 62, 43, 33 %


def test_largest_on_a_lattice() -> None:
    rng = np.random.default_rng(1)
    mass = rng.random(6)
    mass /= mass.sum()
    grid = np.array(np.meshgrid(*[np.arange(6)] * 3)).reshape(3, -1)
    exact = float((grid.max(axis=0) * mass[grid].prod(axis=0)).sum())
    assert largest_of(mass, 3) == pytest.approx(exact)
    assert harmonic(4) == pytest.approx(25 / 12)


def test_resident_law_request_by_request() -> None:
    prompts, outputs = np.array([5, 9, 30]), np.array([2, 6, 4])
    reads = np.concatenate([s + np.arange(1, o) for s, o in zip(prompts, outputs, strict=True)])
    for lengths in (
        st.lengths.Empirical(prompts, outputs),
        st.lengths.Independent(st.lengths.Discrete([5, 9], [1, 3]), st.lengths.Discrete([2, 4, 7], [1, 1, 2])),
    ):
        mean, deviation = resident_moments(moments(lengths, 1 << 20).mean)
        mass = np.fft.irfft(resident_transform((lengths,), (1.0,), 1.0, 64), 64)
        at = np.arange(64)
        assert mass.sum() == pytest.approx(1.0)
        assert mass @ at == pytest.approx(mean)
        assert math.sqrt(mass @ at**2 - mean**2) == pytest.approx(deviation)
        if isinstance(lengths, st.lengths.Empirical):
            np.testing.assert_allclose(mass, np.bincount(reads, minlength=64) / len(reads), atol=1e-12)


def test_ratios_of_the_published_setting() -> None:
    found = barrier_ratios(WORKLOAD, workers=8, decoding=72)
    assert found.mean_tokens == pytest.approx(3197 + 1185 * 1.36 / 2, rel=2e-3)
    assert found.normal == pytest.approx(1.137, abs=1e-3)
    assert found.independent == pytest.approx(1.146, abs=1e-3)
    assert found.limit > found.independent > found.normal > found.balanced > found.aged > 1
    more = barrier_ratios(WORKLOAD, workers=16, decoding=72)
    assert more.independent > found.independent
    assert barrier_ratios(WORKLOAD, workers=8, decoding=1000).independent < 1.04


def test_separation_grows_like_the_root_of_the_slots() -> None:
    few, many = (barrier_ratios(WORKLOAD, workers=16, decoding=n).separation for n in (100, 400))
    assert many / few == pytest.approx(2.0, rel=0.1)


def test_decode_capacity_by_hand() -> None:
    # 20 decodes of 11 .. 30 tokens: 0.001*20 + 1e-4*410*1.5 + (0.01 + 0.005)*20/4
    law = st.IterationTime(base_s=0.01, per_decode_token_s=1e-3, per_kv_token_s=1e-4)
    fleet = group(law, workers=2, slots=4)
    lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Constant(21))
    unit = st.Workload.poisson(1.0, lengths)
    found = decode_capacity(fleet.pools[0].replica, unit, workers=2, sync_s=0.005, ratio=1.5)
    assert found == pytest.approx(1 / (0.02 + 0.0615 + 0.075))


def test_break_even_memory_is_where_both_serve_alike() -> None:
    replica = group(LAW, workers=8, slots=72).pools[0].replica
    factor = break_even_memory(replica, WORKLOAD, workers=8)
    assert 1 < factor < 10
    at = barrier_ratios(WORKLOAD, workers=8, decoding=round(72 * factor))
    wide = replace(replica, engine=replace(replica.engine, max_num_seqs=round(72 * factor)))
    alone = decode_capacity(replica, WORKLOAD, workers=8, ratio=1.0)
    assert decode_capacity(wide, WORKLOAD, workers=8, ratio=at.normal) == pytest.approx(alone, rel=0.01)
    no_base = st.IterationTime(per_decode_token_s=1e-9, per_kv_token_s=1e-7)
    assert break_even_memory(replace(replica, iteration=no_base), WORKLOAD, workers=8) > 1e5


def test_excess_of_prompts_alone() -> None:
    """Without KV cost a step waits for a prompt somewhere: E max - E of Bernoulli(q) prompts of 0.1 s, few per step."""
    law = np.array([0.01, 1e-3, 0, 0, 0])
    lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(50))
    demand = moments(lengths, 1 << 20).mean
    found = excess_s(law, demand, (lengths,), (1.0,), workers=4, per_iteration=0.02, budget=10_000.0)
    rng = np.random.default_rng(3)
    arrivals = rng.poisson(0.02, (400_000, 4)) * 0.1
    assert found == pytest.approx((arrivals.max(axis=1) - arrivals.mean(axis=1)).mean(), rel=0.02)


@pytest.mark.parametrize("router", ["random", "round_robin"])
@pytest.mark.parametrize("workers", [4, 16])
def test_loss_of_unbalanced_routing_against_simulation(router: str, workers: int) -> None:
    fleet = group(LAW, workers=workers, slots=24, role="decode")
    run = st.simulate_barrier(
        fleet, SMALL, router=router, assignment="central", requests=60_000 * workers, concurrency=26 * workers, rng=1
    )
    found = barrier_ratios(SMALL, workers=workers, decoding=24)
    assert run.peak_ratio - 1 == pytest.approx(found.independent - 1, rel=0.05)
    capacity = workers * decode_capacity(fleet.pools[0].replica, SMALL, workers=workers, ratio=found.independent)
    assert run.throughput_per_s == pytest.approx(capacity, rel=0.01)


@pytest.mark.parametrize("workers", [4, 8, 16])
def test_residual_of_balanced_routing_within_a_factor(workers: int) -> None:
    run = st.simulate_barrier(
        group(LAW, workers=workers, slots=72, role="decode"),
        WORKLOAD,
        router="balance_route",
        requests=3000 * workers,
        concurrency=76 * workers,
        rng=1,
    )
    found = barrier_ratios(WORKLOAD, workers=workers, decoding=72)
    assert 1 / 1.5 < (found.balanced - 1) / (run.peak_ratio - 1) < 1.5


def test_mixed_group_capacity_against_simulation() -> None:
    law = st.IterationTime(
        base_s=0.01, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=1e-6, per_prefill_context_s=1e-9
    )
    fleet = group(law, workers=8, slots=24, sync_s=0.001)
    report = st.analyze(fleet, SMALL)
    run = st.simulate_barrier(fleet, SMALL, router="round_robin", requests=80_000, saturated=True, rng=1)
    alone = st.analyze(st.Fleet.of(fleet.pools[0].replica, 8), SMALL)
    assert report.capacity_per_s < 0.9 * alone.capacity_per_s
    assert run.throughput_per_s == pytest.approx(report.capacity_per_s, rel=BARRIER_TOLERANCE)


def test_operating_point_below_capacity_against_simulation() -> None:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=1e-6)
    fleet = group(law, workers=4, slots=64)
    rate = 0.7 * st.analyze(fleet, SMALL).capacity_per_s
    at = SMALL.scaled(rate_per_s=rate)
    report = st.analyze(fleet, at)
    run = st.simulate_barrier(fleet, at, router="join_shortest_queue", requests=60_000, rng=1)
    assert run.iteration_mean_s == pytest.approx(report.iteration_s, rel=0.05)
    assert run.running_mean / 4 == pytest.approx(report.running_mean, rel=0.05)


def test_verdicts() -> None:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=2e-5, per_kv_token_s=1e-6)
    fleet = group(law, workers=8, slots=24, sync_s=0.002)
    unit = st.analyze(fleet, SMALL)
    assert unit.stable_below_per_s < unit.capacity_per_s < unit.unstable_above_per_s
    assert unit.proved_capacity_per_s is None
    for rate, verdict in (
        (0.99 * unit.stable_below_per_s, st.Verdict.STABLE),
        (1.01 * unit.unstable_above_per_s, st.Verdict.UNSTABLE),
        (unit.capacity_per_s, st.Verdict.UNDETERMINED),
    ):
        report = st.analyze(fleet, SMALL.scaled(rate_per_s=rate))
        assert report.verdict is verdict
    assert "balanced" in report.reason
    assert max(report.pools[0].loads.values()) == pytest.approx(report.load, rel=1e-3)
    assert any("barrier" in note for note in report.assumptions)
    checked = st.check(fleet, SMALL)
    assert {"one more group", "no barrier"} <= {lever.change for lever in checked.levers}
    with pytest.raises(NotImplementedError, match="tuning"):
        st.tune(fleet, SMALL)


def test_the_time_of_the_barrier_is_part_of_every_iteration() -> None:
    fleet = group(LAW, workers=4, slots=24, sync_s=0.5)
    assert worker_of(fleet.pools[0]).iteration == replace(LAW, base_s=LAW.base_s + 0.5)
    slow, fast = (st.analyze(group(LAW, workers=4, slots=24, sync_s=x), SMALL).capacity_per_s for x in (0.5, 0.0))
    demand = moments(SMALL.classes[0].lengths, 2048).mean
    occupied = float(demand[4]) / 24
    assert 4 / slow - 4 / fast == pytest.approx(0.5 * occupied, rel=1e-6)
