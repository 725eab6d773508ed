"""Loads, capacities and what must hold of them."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import stability as st
from stability import iteration as it
from stability import lengths as L
from stability.theory import conditions, envelope
from stability.theory.moments import moments

UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))

affine = some.builds(
    st.IterationTime,
    base_s=some.floats(1e-4, 0.1),
    per_prefill_token_s=some.floats(0, 1e-3),
    per_decode_token_s=some.floats(0, 1e-3),
    per_kv_token_s=some.floats(0, 1e-6),
    per_prefill_context_s=some.floats(0, 1e-7),
)
convex = some.one_of(
    affine,
    some.builds(
        it.Hinge,
        base_s=some.floats(1e-3, 0.1),
        per_token_s=some.floats(0, 1e-3),
        threshold_tokens=some.floats(0, 300),
        per_kv_token_s=some.floats(0, 1e-6),
    ),
    some.builds(
        it.Roofline,
        weights_s=some.floats(1e-3, 0.1),
        per_token_compute_s=some.floats(1e-6, 1e-3),
        per_token_s=some.floats(0, 1e-4),
        per_kv_token_s=some.floats(0, 1e-6),
    ),
)
staircase = some.builds(
    it.Staircase, base_s=some.floats(0, 0.1), per_step_s=some.floats(1e-3, 0.1), step_tokens=some.integers(1, 600)
)
two_phase = some.builds(it.TwoPhase, decode=affine, mixed=affine)
engines = some.builds(
    lambda slots, times, admission, block, watermark: st.Engine(
        max_num_seqs=slots,
        max_num_batched_tokens=slots * times,
        admission=admission,
        block_size=block,
        watermark=watermark,
    ),
    some.integers(1, 300),
    some.integers(2, 16),
    some.sampled_from(["reserve", "prompt_gate"]),
    some.sampled_from([1, 16, 32]),
    some.floats(0, 0.3),
)


def fleet(law: it.IterationLaw, engine: st.Engine, memory: int = 60_000) -> st.Fleet:
    return st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=memory, engine=engine))


def capacity(law: it.IterationLaw, engine: st.Engine, memory: int = 60_000, lengths: L.Lengths = UNIFORM) -> float:
    return st.analyze(fleet(law, engine, memory), st.Workload.poisson(1.0, lengths)).capacity_per_s


def bound(law: it.IterationLaw, engine: st.Engine, memory: int = 60_000, lengths: L.Lengths = UNIFORM) -> float:
    return st.analyze(fleet(law, engine, memory), st.Workload.poisson(1.0, lengths)).upper_bound_per_s


@given(law=affine, engine=engines)
def test_load_is_one_at_capacity(law: st.IterationTime, engine: st.Engine) -> None:
    at = st.analyze(fleet(law, engine), st.Workload.poisson(capacity(law, engine), UNIFORM))
    assert at.load == pytest.approx(1.0, rel=1e-12)
    limits = {name: load for name, load in at.pools[0].loads.items() if name != "compute"}
    assert max(limits.values()) == pytest.approx(1.0, rel=1e-9)


@given(law=convex, engine=engines, more=some.floats(1.01, 4))
def test_bound_rises_with_memory_and_slots(law: it.IterationLaw, engine: st.Engine, more: float) -> None:
    before = bound(law, engine)
    assert bound(law, engine, memory=int(60_000 * more) + 16) >= before * (1 - 1e-9)
    slots = min(int(engine.max_num_seqs * more) + 1, engine.max_num_batched_tokens)
    wider = st.Engine(
        max_num_seqs=slots,
        max_num_batched_tokens=engine.max_num_batched_tokens,
        admission=engine.admission,
        block_size=engine.block_size,
    )
    assert bound(law, wider) >= before * (1 - 1e-9)


@given(law=affine, engine=engines, more=some.floats(1.01, 4))
def test_capacity_rises_with_memory_and_slots(law: it.IterationLaw, engine: st.Engine, more: float) -> None:
    """Of reservation with budget to spare. A gate can lose by another slot, which fills memory and evicts; and where the
    budget is short, more decodes leave prompts smaller chunks."""
    reserve = replace(engine, admission="reserve", max_num_batched_tokens=8192)
    before = capacity(law, reserve)
    assert capacity(law, reserve, memory=int(60_000 * more) + 64) >= before * (1 - 1e-9)
    slots = int(engine.max_num_seqs * more) + 1
    assert capacity(law, replace(reserve, max_num_seqs=slots)) >= before * (1 - 1e-9)


@given(law=affine, engine=engines, times=some.integers(2, 5))
def test_capacity_rises_with_a_multiple_of_the_budget(law: st.IterationTime, engine: st.Engine, times: int) -> None:
    """Of reservation. A gate with a short budget admits late, with more room left, and evicts less (true, simulated)."""
    reserve = replace(engine, admission="reserve")
    longer = replace(reserve, max_num_batched_tokens=engine.max_num_batched_tokens * times)
    assert capacity(law, longer) >= capacity(law, reserve) * (1 - 1e-12)


@given(law=affine, engine=engines, index=some.integers(0, 4), more=some.floats(1.0, 3.0))
def test_capacity_falls_with_every_coefficient(
    law: st.IterationTime, engine: st.Engine, index: int, more: float
) -> None:
    raised = list(law.coefficients)
    raised[index] = raised[index] * more + 1e-12
    assert capacity(it.affine.affine(*raised), engine) <= capacity(law, engine) * (1 + 1e-12)


@given(law=affine, engine=engines, prompt=some.integers(0, 500), output=some.integers(0, 500))
def test_capacity_falls_with_stochastically_longer_lengths(
    law: st.IterationTime, engine: st.Engine, prompt: int, output: int
) -> None:
    longer = L.Independent(L.Uniform(10 + prompt, 1600 + prompt), L.Uniform(10 + output, 1600 + output))
    assert capacity(law, engine, lengths=longer) <= capacity(law, engine) * (1 + 1e-12)


@given(law=some.one_of(convex, staircase, two_phase), engine=engines, factor=some.floats(0.1, 10))
def test_time_scales(law: it.IterationLaw, engine: st.Engine, factor: float) -> None:
    assert capacity(law.scaled(factor), engine) == pytest.approx(capacity(law, engine) / factor, rel=1e-6)
    assert bound(law.scaled(factor), engine) == pytest.approx(bound(law, engine) / factor, rel=1e-6)


CLASSES = [
    st.RequestClass("chat", 2.0, UNIFORM),
    st.RequestClass("code", 5.0, L.Independent(L.Uniform(100, 3000), L.Geometric(30, limit=400))),
    st.RequestClass("long", 0.5, L.Independent(L.Constant(6000), L.Uniform(100, 900))),
]


@given(law=affine, engine=engines, order=some.permutations(CLASSES))
def test_order_of_classes_does_not_matter(
    law: st.IterationTime, engine: st.Engine, order: list[st.RequestClass]
) -> None:
    one, other = (st.analyze(fleet(law, engine), st.Workload(classes)) for classes in (CLASSES, order))
    assert one.capacity_per_s == pytest.approx(other.capacity_per_s, rel=1e-12)


@given(law=affine, engine=engines, share=some.floats(0.01, 0.99))
def test_splitting_a_class_changes_nothing(law: st.IterationTime, engine: st.Engine, share: float) -> None:
    chat = CLASSES[0]
    halves = [
        st.RequestClass("chat a", 2.0 * share, chat.lengths),
        st.RequestClass("chat b", 2.0 * (1 - share), chat.lengths),
        *CLASSES[1:],
    ]
    one, other = (st.analyze(fleet(law, engine), st.Workload(classes)) for classes in (CLASSES, halves))
    assert one.capacity_per_s == pytest.approx(other.capacity_per_s, rel=1e-12)
    assert one.load == pytest.approx(other.load, rel=1e-12)


@given(law=some.one_of(convex, staircase, two_phase), engine=engines)
def test_capacities_are_in_order(law: it.IterationLaw, engine: st.Engine) -> None:
    report = st.analyze(fleet(law, engine), st.Workload.poisson(1.0, UNIFORM))
    slack = 1 + 1e-9 if isinstance(law, st.IterationTime) else 1.1  # step averaging is not a bound
    assert report.capacity_per_s <= report.upper_bound_per_s * slack
    if report.proved_capacity_per_s is not None:
        assert report.proved_capacity_per_s <= report.upper_bound_per_s * (1 + 1e-9)
    assert report.stable_below_per_s <= report.unstable_above_per_s * (1 + 1e-9)


def test_proved_capacity_by_hand() -> None:
    # W = 0.01 s of prefill; 180 tokens reserved for 80 iterations = 14400; M = 3600, delta = 0.05; 8 slots; B = 512.
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    lengths = L.Independent(L.Constant(100), L.Constant(80))
    report = st.analyze(fleet(law, engine, 3600), st.Workload.poisson(1.0, lengths))
    occupied = 14400 / (3600 * 0.95) + 80 / 8 + 179 / 512
    assert report.proved_capacity_per_s == pytest.approx(1 / (0.01 + 0.01 * occupied))
    assert report.capacity_per_s == pytest.approx(1 / (0.01 + 0.01 * 10))
    assert report.bottleneck == "batch_slots"


def test_nothing_is_proved_for_unbounded_lengths_or_evicting_gates() -> None:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    unbounded = L.Independent(L.Constant(100), L.Geometric(50))
    reserve = fleet(law, st.Engine(admission="reserve"))
    assert st.analyze(reserve, st.Workload.poisson(1.0, unbounded)).proved_capacity_per_s is None
    assert st.analyze(fleet(law, st.Engine()), st.Workload.poisson(1.0, UNIFORM)).proved_capacity_per_s is None


def test_a_staircase_can_lose_with_a_slot_more_and_the_bound_holds() -> None:
    """10 ms + 20 ms * ceil(b/100): full batches of 100 give 3333 tokens/s, of 101 only 2020."""
    law = it.Staircase(base_s=0.010, per_step_s=0.020, step_tokens=100)
    lengths = L.Independent(L.Constant(1), L.Constant(200))  # 200 tokens computed per request
    rates = {}
    for slots in (100, 101):
        engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=slots, block_size=1, admission="reserve")
        report = st.analyze(fleet(law, engine, 10**6), st.Workload.poisson(1.0, lengths))
        rates[slots] = 200 * report.capacity_per_s
        assert report.capacity_per_s <= report.upper_bound_per_s * (1 + 1e-9)
        assert 200 * report.upper_bound_per_s == pytest.approx(100 / 0.030, rel=0.002)
    assert rates[100] == pytest.approx(100 / 0.030, rel=1e-9)
    assert rates[101] == pytest.approx(101 / 0.050, rel=1e-9)


def test_a_smaller_batch_can_be_better_than_a_full_one() -> None:
    """c + a max(0, b - b0) with a*b0 > c: the best batch is b0, so the bound is b0/c tokens per second."""
    law = it.Hinge(base_s=0.01, per_token_s=1e-3, threshold_tokens=64)
    lengths = L.Independent(L.Constant(1), L.Constant(64))
    engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=256, block_size=1, admission="reserve")
    report = st.analyze(fleet(law, engine, 10**6), st.Workload.poisson(1.0, lengths))
    assert 64 * report.upper_bound_per_s == pytest.approx(64 / 0.01)
    assert 64 * report.capacity_per_s == pytest.approx(256 / (0.01 + 192e-3), rel=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_two_phase_bound_is_the_optimum_of_its_linear_program(seed: int) -> None:
    from scipy.optimize import linprog

    rng = np.random.default_rng(seed)
    k = 10.0 ** rng.uniform(-7, -1, 10)
    law = it.TwoPhase(
        decode=st.IterationTime(base_s=k[0], per_decode_token_s=k[1] * 1e-3, per_kv_token_s=k[2] * 1e-5),
        mixed=st.IterationTime(
            base_s=k[3],
            per_prefill_token_s=k[4] * 1e-2,
            per_decode_token_s=k[5] * 1e-3,
            per_kv_token_s=k[6] * 1e-5,
            per_prefill_context_s=k[7] * 1e-6,
        ),
    )
    slots = int(rng.integers(4, 300))
    memory, budget = 10 ** rng.uniform(3.6, 6), float(slots * rng.integers(1, 20))
    demand = moments(UNIFORM, int(budget), 16).mean
    limits = np.array([memory, slots, budget])
    prefill, decode, read, context = demand[:4]
    share = (demand[list(conditions.BOUND_ROWS)] / limits).max()
    only, mixed = law.decode.coefficients, law.mixed.coefficients
    solved = linprog(  # decode-only and mixed iterations; decodes and reads in each
        [only[0], mixed[0], only[2], mixed[2], only[3], mixed[3]],
        A_ub=[
            [0, -budget, 0, 1, 0, 0],
            [-1, -1, 0, 0, 0, 0],
            [-slots, 0, 1, 0, 0, 0],
            [0, -slots, 0, 1, 0, 0],
            [-memory, 0, 0, 0, 1, 0],
            [0, -memory, 0, 0, 0, 1],
        ],
        b_ub=[-prefill, -share, 0, 0, 0, 0],
        A_eq=[[0, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1]],
        b_eq=[decode, read],
        bounds=(0, None),
    )
    least = solved.fun + mixed[1] * prefill + mixed[4] * context
    assert envelope.least_time_s(law, demand, limits) == pytest.approx(least, rel=1e-7)


@given(law=affine, engine=engines)
def test_a_table_of_an_affine_law_has_its_bound(law: st.IterationTime, engine: st.Engine) -> None:
    axes = ([0.0, float(engine.max_num_batched_tokens)], [0.0, float(engine.max_num_seqs)], [0.0, 60_000.0])
    p, d, k = np.meshgrid(*axes, indexing="ij")
    table = it.Table(*axes, law.time_s(p, d, k), law.per_prefill_context_s)
    assert bound(table, engine) == pytest.approx(bound(law, engine), rel=1e-6)


@given(law=some.one_of(staircase, convex), budget=some.integers(2, 3000))
def test_minorants_lie_below_and_majorants_above(law: it.IterationLaw, budget: int) -> None:
    b = np.arange(1, budget + 1, dtype=float)
    time = law.time_s(b, 0.0, 0.0)
    for facet in envelope.minorants(law, budget):
        assert (facet[0] + facet[1] * b <= time * (1 + 1e-9) + 1e-12).all()
    for facet in envelope.majorants(law, budget):
        assert (facet[0] + facet[1] * b >= time * (1 - 1e-9) - 1e-12).all()


def test_bottleneck_is_compute_when_no_limit_costs_much() -> None:
    law = st.IterationTime(base_s=1e-4, per_prefill_token_s=1e-3)
    report = st.analyze(fleet(law, st.Engine(admission="reserve")), st.Workload.poisson(0.1, UNIFORM))
    assert report.bottleneck == "compute"
    assert math.isclose(report.capacity_per_s, 1 / (805 * 1e-3), rel_tol=0.1)
