"""`transient`: hand numbers for bursts and lost replicas, headroom and shedding; schedules read from a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

import stability as st

L = st.lengths
SMALL = L.Independent(L.Constant(10), L.Constant(50))


def slots(replicas: int = 1) -> st.Fleet:
    """100 slots of 0.5 s a replica: 200 requests/s of `SMALL`."""
    engine = st.Engine(max_num_seqs=100, admission="reserve", block_size=1)
    law = st.IterationTime(base_s=0.01)
    return st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine), replicas)


def test_a_burst_by_hand() -> None:
    """150/s on 200/s; twice that for 60 s leaves 6000, worked off at 50/s; the last of the burst waits 6000/200 s."""
    burst = st.Burst(factor=2.0, duration_s=60.0, at_s=30.0)
    found = st.transient(slots(), st.Workload.poisson(150.0, SMALL), burst=burst, wait_limit_s=10.0)
    assert found.recovers
    assert found.peak_backlog == pytest.approx(6000.0, rel=0.01)
    assert found.recovery_s == pytest.approx(120.0, rel=0.02)
    assert found.longest_wait_s == pytest.approx(30.0, rel=0.03)
    assert found.load_before == pytest.approx(0.75)
    assert found.load_during == pytest.approx(1.5)
    assert found.safe_rate_per_s == pytest.approx(100.0)
    assert found.headroom == pytest.approx(0.5)
    # A wait of 10 s is 2000 requests; 100/s of them gather, from 30 s on; 4000 of the 6000 must be refused.
    assert found.shed_from_s == pytest.approx(50.0, rel=0.03)
    assert found.shed_requests == pytest.approx(4000.0, rel=0.02)
    assert found.shed_share == pytest.approx(4000 / (300 * 40.0), rel=0.05)
    with pytest.raises(TypeError):
        bool(found)


def test_refusing_what_it_says_keeps_the_wait() -> None:
    """The burst less the share shed: the wait stays at its limit."""
    workload = st.Workload.poisson(150.0, SMALL)
    found = st.transient(slots(), workload, burst=st.Burst(factor=2.0, duration_s=60.0, at_s=30.0), wait_limit_s=10.0)
    bursts = [
        st.Burst(factor=2.0, duration_s=found.shed_from_s - 30.0, at_s=30.0),
        st.Burst(factor=2.0 * (1 - found.shed_share), duration_s=90.0 - found.shed_from_s, at_s=found.shed_from_s),
    ]
    path = st.fluid_path(slots(), workload, horizon_s=300.0, bursts=bursts)
    assert path.longest_wait_s == pytest.approx(10.0, rel=0.06)


def test_a_pool_lost_for_good_strands_what_it_held() -> None:
    """100/s over two equal pools, 50/s x 0.5 s = 25 in each: those of the lost one are stranded, the other serves 100 of 200/s."""
    (pool,) = slots().pools
    fleet = st.Fleet([replace(pool, name="a"), replace(pool, name="b")])
    outage = st.Outage(pool="b", replicas=None, at_s=60.0)
    found = st.transient(fleet, st.Workload.poisson(100.0, SMALL), outage=outage, horizon_s=120.0, wait_limit_s=2.0)
    assert found.stranded_pools == ("b",)
    assert found.stranded_requests == pytest.approx(25.0, rel=0.05)
    assert found.recovers
    assert found.peak_backlog < 1
    assert found.longest_wait_s < 0.1
    assert found.shed_requests == 0
    assert "no backlog" in found.reason
    assert "b, down for good" in found.summary()
    # A backlog on the live pool is still one.
    found = st.transient(fleet, st.Workload.poisson(300.0, SMALL), outage=outage, horizon_s=120.0)
    assert not found.recovers
    assert found.peak_backlog == pytest.approx(100.0 * 60, rel=0.05)
    # A pool that returns later has nothing stranded.
    back = replace(outage, until_s=90.0)
    assert st.transient(fleet, st.Workload.poisson(100.0, SMALL), outage=back, horizon_s=240.0).stranded_pools == ()


def test_headroom_for_a_lost_replica_by_hand() -> None:
    """One of four lost: a quarter must be free."""
    outage = st.Outage(replicas=1, at_s=20.0, until_s=80.0)
    found = st.transient(slots(4), st.Workload.poisson(700.0, SMALL), outage=outage)
    assert found.headroom == pytest.approx(0.25)
    assert found.safe_rate_per_s == pytest.approx(600.0)
    assert found.load_during == pytest.approx(700 / 600)
    assert found.recovers
    at_limit = st.transient(slots(4), st.Workload.poisson(595.0, SMALL), outage=outage)
    # Constant lengths: what the lost one had is taken over at once, and gone within the second.
    assert at_limit.peak_backlog < 0.15 * found.peak_backlog


def test_never_and_nothing() -> None:
    never = st.transient(slots(), st.Workload.poisson(250.0, SMALL), burst=st.Burst(duration_s=30.0))
    assert not never.recovers
    assert math.isinf(never.recovery_s)
    assert "grows by" in never.reason
    nothing = st.transient(slots(), st.Workload.poisson(50.0, SMALL))
    assert nothing.peak_backlog <= 0.5
    assert nothing.recovery_s == 0.0
    assert math.isinf(nothing.shed_from_s)
    dead = st.transient(slots(2), st.Workload.poisson(50.0, SMALL), outage=st.Outage(replicas=None, at_s=10.0))
    assert not dead.recovers
    assert "no replica is up" in dead.reason
    assert dead.headroom == 1.0
    for found in (never, nothing, dead):
        json.dumps(found.to_dict(), allow_nan=False)
        assert "backlog" in found.summary()


def test_production_rates_drive_it_end_to_end(shared_data: Path, tmp_path: Path) -> None:
    """ServeGen's ten-minute rates of one day: the mean asked for, its peak, and a backlog where the peak exceeds capacity."""
    plan = tmp_path / "plan.yaml"
    file = shared_data / "servegen" / "aggregate_rate_10min.csv"
    plan.write_text(
        "schema: stability/plan/1\n"
        "workload:\n"
        "  rate_per_s: 30\n"
        "  lengths: {prompt: {uniform: [100, 900]}, output: {uniform: [50, 450]}}\n"
        f"  schedule: {{file: {file}, where: {{workload: deepseek-r1}}}}\n"
        "fleet:\n"
        "  - {pool: chat, gpu: H100-SXM, model: Llama-3.1-8B, replicas: 2}\n",
        encoding="utf-8",
    )
    read = st.read_plan(plan)
    schedule = read.workload.classes[0].rate_per_s
    assert isinstance(schedule, st.RateSchedule)
    assert schedule.end_s == 86_400.0
    assert read.workload.rate_per_s == pytest.approx(30.0)
    capacity = st.analyze(read.fleet, read.workload).capacity_per_s
    peak = schedule.peak_per_s / schedule.mean_per_s
    calm = st.transient(read.fleet, read.workload.scaled(rate_per_s=0.95 * capacity / peak))
    busy = st.transient(read.fleet, read.workload.scaled(rate_per_s=1.1 * capacity / peak))
    assert calm.peak_backlog <= 0.5
    assert calm.load_during == pytest.approx(0.95, rel=1e-6)
    assert busy.peak_backlog > 100
    assert busy.recovers
    assert busy.path.time_s[-1] == 86_400.0
    plan.write_text(plan.read_text(encoding="utf-8").replace("deepseek-r1", "unknown"), encoding="utf-8")
    with pytest.raises(st.InputError, match="no rows"):
        st.read_plan(plan)
