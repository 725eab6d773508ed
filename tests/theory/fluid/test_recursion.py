"""The fluid recursion of one replica: tables against sums by hand, conservation, and the scaled simulation it is the limit of."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

import stability as st
from stability.model.lengths import Lengths
from stability.theory.fluid.ages import age_table
from stability.theory.fluid.kernels.columns import Column
from stability.theory.fluid.replica import FluidReplica, kinds_of, limits_of, steady_rates, tables_of
from stability.theory.fluid.saturated import saturated
from stability.theory.moments import Demand, moments

L = st.lengths
RNG = np.random.default_rng(3)
LAWS: dict[str, Lengths] = {
    "constant": L.Independent(L.Constant(100), L.Constant(50)),
    "uniform": L.Independent(L.Uniform(10, 160), L.Uniform(1, 160)),
    "chunked": L.Independent(L.Uniform(100, 3000), L.Geometric(50, limit=400)),
    "joint": L.Empirical(RNG.integers(1, 900, 300), RNG.integers(1, 200, 300)),
    "mixture": L.Mixture(
        [L.Independent(L.Constant(30), L.Constant(7)), L.Independent(L.Uniform(5, 90), L.Constant(70))], [1, 2]
    ),
}
LAW = st.IterationTime(base_s=0.01, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)


def test_a_table_by_hand() -> None:
    """Prompt 5 in chunks of 2, outputs 1 or 3, blocks of 2."""
    table = age_table(L.Independent(L.Constant(5), L.Discrete([1, 3])), 2, 2).columns
    assert table[:, Column.RESIDENT].tolist() == [1, 1, 1, 0.5, 0.5]
    assert table[:, Column.PREFILL].tolist() == [2, 2, 1, 0, 0]
    assert table[:, Column.CONTEXT].tolist() == [2, 6, 4.5, 0, 0]  # chunk * (done + chunk/2)
    assert table[:, Column.HELD].tolist() == [2, 4, 6, 3, 4]  # blocks of 2, 4, 5, 6, 7 tokens
    assert table[:, Column.DECODE].tolist() == [0, 0, 0, 0.5, 0.5]
    assert table[:, Column.READ].tolist() == [0, 0, 0, 3, 3.5]
    assert table[:, Column.TOKENS].tolist() == [0, 0, 1, 0.5, 0.5]
    assert table[:, Column.REDO].tolist() == [0, 2, 4, 2.5, 3]
    assert table[:, Column.RESERVED].tolist() == [7, 7, 7, 4, 4]  # blocks of 6 and 8


@pytest.mark.parametrize("width", [1, 2, 7])
@pytest.mark.parametrize("limit", [None, 4000])
@pytest.mark.parametrize("name", LAWS)
def test_tables_add_up_to_the_demands(name: str, limit: int | None, width: int) -> None:
    lengths = LAWS[name]
    table = width * age_table(lengths, 512, 16, limit, width).columns.sum(axis=0)
    mean = moments(lengths, 512, 16, limit).mean
    pairs = [
        (Column.RESIDENT, Demand.ITERATIONS),
        (Column.HELD, Demand.VOLUME),
        (Column.RESERVED, Demand.RESERVED),
        (Column.DECODE, Demand.DECODE),
        (Column.READ, Demand.READ),
        (Column.PREFILL, Demand.PREFILL),
        (Column.CONTEXT, Demand.CONTEXT),
    ]
    for column, demand in pairs:
        assert table[column] == pytest.approx(mean[demand], rel=1e-9), column.name


def replica(memory: int = 6000, law: st.iteration.IterationLaw = LAW, **engine: object) -> st.Replica:
    settings_ = {"max_num_seqs": 64, "max_num_batched_tokens": 512, **engine}
    return st.Replica(iteration=law, kv_capacity_tokens=memory, engine=st.Engine(**settings_))  # type: ignore[arg-type]


def start(of: st.Replica, lengths: Lengths, width: int = 1) -> FluidReplica:
    classes = [st.RequestClass("c", 1.0, lengths)]
    tables = tables_of(of, classes, width, of.engine.max_num_batched_tokens)
    return FluidReplica.empty(limits_of(of), kinds_of(tables, np.ones((1, 1))), 1)


@settings(max_examples=40, deadline=None)
@given(
    name=hyp.sampled_from(sorted(LAWS)),
    admission=hyp.sampled_from(["reserve", "prompt_gate"]),
    watermark=hyp.sampled_from([0.0, 0.1]),
    slots=hyp.sampled_from([3, 64]),
    memory=hyp.integers(4500, 12000),
    rate=hyp.floats(0.1, 200.0),
    queue=hyp.floats(0.0, 500.0),
    width=hyp.sampled_from([1, 5]),
)
def test_nothing_is_lost_and_no_limit_is_passed(
    name: str, admission: str, watermark: float, slots: int, memory: int, rate: float, queue: float, width: int
) -> None:
    of = replica(memory, admission=admission, watermark=watermark, max_num_seqs=slots)
    run = start(of, LAWS[name], width)
    if queue > 0:
        run.queue(queue, 0)
    samples = run.advance(steady_rates(rate), until_steps=600, rows=700)
    arrived = queue + rate * run.totals[0]
    assert run.totals[1] == pytest.approx(arrived, rel=1e-12)
    assert run.waiting + run.resident + run.totals[3] == pytest.approx(arrived, rel=1e-11)
    assert np.isfinite(samples).all()
    assert (samples >= 0).all()
    assert (samples[:, 2] <= slots * (1 + 1e-9)).all()
    assert (samples[:, 3] <= of.usable_kv_tokens * (1 + 1e-8)).all()
    if admission == "reserve":
        assert run.totals[4] == 0.0


def test_an_isolated_pulse_is_served_like_one_request() -> None:
    """One request's worth of (100, 50): the first iteration computes the prompt, 49 decode; nothing waits."""
    run = start(replica(block_size=1), LAWS["constant"])
    run.queue(1.0, 0)
    samples = run.advance(steady_rates(0.0), until_s=100.0, rows=100)
    assert len(samples) == 51
    assert samples[0, 6] == 100
    assert samples[49, 3] == 149
    times = LAW.time_s(np.r_[100, np.zeros(49)], np.r_[0, np.ones(49)], np.r_[0, np.arange(101, 150)])
    assert samples[50, 0] == pytest.approx(times.sum(), rel=1e-12)
    assert samples[50, 9] == 1.0


def test_eviction_and_recomputation_by_hand() -> None:
    """Two requests (10, 10) in 22 tokens: after one decode each they hold 22, at the next the younger is evicted.

    It waits until the elder is done, then recomputes its 12 known tokens and goes on from there.
    """
    engine = {"block_size": 1, "max_num_seqs": 4, "max_num_batched_tokens": 10}
    of = replica(22, st.IterationTime(base_s=1.0), **engine)
    run = start(of, L.Independent(L.Constant(10), L.Constant(10)))
    run.queue(2.0, 0)  # the budget admits one in each iteration, so that one is younger
    rows = run.advance(steady_rates(0.0), until_s=100.0, rows=100)
    # t=0 elder's prompt; t=1 its decode and 0.9 of the other's prompt (the budget); t=2 the rest.
    assert rows[0, [1, 2, 3]].tolist() == [1.0, 1.0, 10.0]
    assert rows[1, [1, 2, 3]].tolist() == pytest.approx([0.1, 1.9, 20.0])
    assert run.totals[3] == pytest.approx(2.0, rel=1e-12)
    assert run.totals[4] > 0
    # 20 tokens were given, none twice.
    assert run.totals[5] == pytest.approx(20.0, rel=1e-12)


def test_saturated_equilibrium_is_flow_balance() -> None:
    """Uniform lengths do not synchronise: y = M/E[g], tau = c0 + y E[W]."""
    lengths = L.Independent(L.Uniform(10, 400), L.Uniform(10, 400))
    of = replica(20_000, max_num_seqs=512, max_num_batched_tokens=2048)
    found = saturated(of, st.Workload.poisson(1.0, lengths))
    report = st.analyze(st.Fleet.of(of), st.Workload.poisson(1.0, lengths))
    assert found.throughput_per_s == pytest.approx(report.upper_bound_per_s, rel=1e-3)
    assert found.evictions_per_request == pytest.approx(0.0, abs=1e-3)
    assert found.kv_tokens == pytest.approx(of.usable_kv_tokens, rel=1e-3)


def scaled(of: st.Replica, by: int) -> st.Replica:
    law = of.iteration
    assert isinstance(law, st.IterationTime)
    c0, *rest = law.coefficients
    names = ("per_prefill_token_s", "per_decode_token_s", "per_kv_token_s", "per_prefill_context_s")
    engine = st.Engine(
        max_num_seqs=of.engine.max_num_seqs * by,
        max_num_batched_tokens=of.engine.max_num_batched_tokens * by,
        admission=of.engine.admission,
        watermark=of.engine.watermark,
    )
    law = st.IterationTime(base_s=c0, **{name: c / by for name, c in zip(names, rest, strict=True)})
    return st.Replica(iteration=law, kv_capacity_tokens=of.kv_capacity_tokens * by, engine=engine)


@pytest.mark.parametrize(
    ("lengths", "engine", "evictions"),
    [
        (L.Independent(L.Constant(100), L.Constant(500)), {}, 0.15),
        (L.Independent(L.Constant(100), L.Constant(500)), {"watermark": 0.05}, 0.15),
        (L.Independent(L.Constant(10), L.Discrete([100, 500])), {}, 0.15),
        (L.Independent(L.Uniform(80, 120), L.Uniform(400, 600)), {}, 0.3),
        (L.Independent(L.Constant(500), L.Constant(200)), {"admission": "reserve"}, 0.15),
    ],
)
def test_limit_cycles_are_those_of_the_scaled_simulation(
    lengths: Lengths, engine: dict[str, object], evictions: float
) -> None:
    """At R = 32; 2 %, four times the largest deviation seen at R = 64.

    Uniform lengths are evicted by chance, too: .58, .53, .48 per request at R = 16, 32, 64, .44 in the limit.
    """
    of = replica(60_000, max_num_seqs=1024, max_num_batched_tokens=2048, **engine)
    workload = st.Workload.poisson(1.0, lengths)
    found = saturated(of, workload)
    run = st.simulate(st.Fleet.of(scaled(of, 32)), workload, requests=150_000, saturated=True, keep="summary", rng=5)
    assert found.throughput_per_s == pytest.approx(run.throughput_per_s / 32, rel=0.02)
    assert found.evictions_per_request == pytest.approx(run.preemptions / run.completed, rel=evictions, abs=0.02)


def test_pacing_limits_admissions_and_slots_limit_what_runs() -> None:
    lengths = LAWS["constant"]
    of = replica(200_000, st.IterationTime(base_s=0.01), max_num_seqs=64)
    assert saturated(of, st.Workload.poisson(1.0, lengths)).running == pytest.approx(64.0, rel=1e-3)
    paced = saturated(of, st.Workload.poisson(1.0, lengths), admissions=0.5)
    assert paced.per_iteration == pytest.approx(0.5, rel=1e-3)
    assert paced.running == pytest.approx(25.0, rel=1e-3)


def test_a_law_without_a_base_is_refused() -> None:
    law = st.IterationTime(per_prefill_token_s=1e-4)
    with pytest.raises(st.InputError, match="no time for an empty iteration"):
        limits_of(replica(law=law))
    assert math.isinf(limits_of(replica()).grain)


def test_the_youngest_are_evicted_and_wait_ahead_of_the_queue() -> None:
    of = replica(3000, block_size=1)
    run = start(of, L.Independent(L.Constant(100), L.Constant(500)))
    run.place(200, fill=0.5)  # five requests of 300 tokens
    run.queue(100.0, 0)
    run.advance(steady_rates(0.0), until_steps=40)
    cohorts, waiting, (counts, totals, _, _) = run.state
    assert totals[4] > 0
    assert cohorts.age[0] == 240
    assert cohorts.mass[0] == 0.5 * 3000 / 300
    evicted = int(counts[1])
    assert evicted > 0
    assert (waiting.age[:evicted] <= 40).all()
    assert (np.diff(cohorts.age[: int(counts[0])]) < 0).all()  # in the order of admission
    before = totals[2]
    run.advance(steady_rates(0.0), until_steps=300)  # those evicted are admitted again before anyone new
    assert totals[2] == before
