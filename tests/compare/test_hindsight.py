"""The hindsight bounds of a comparison: hand numbers, and no scheduler below them on random small instances."""

from __future__ import annotations

import numpy as np
import pytest

import stability as st
from stability import lengths as L
from stability import policies as P
from stability.compare.candidates import with_scheduler
from stability.compare.hindsight import MOST_ENTRIES, hindsight_floor
from stability.compare.schedulers import compare_schedulers
from stability.control.latency_floor import affine_below, least_total_latency_s
from stability.errors import NotModelledError

WHOLE = {
    "reserve": P.Fcfs("reserve"),
    "shortest": P.ShortestFirst("output", residency="engine"),
    "volume": P.ShortestFirst("volume"),
    "sorted-f": P.SortedF("prefix", residency="engine"),
    "a-min": P.AMin(1, "engine"),
    "random budget": P.RandomBudget(1, 3),
}
RIVALS = {
    **WHOLE,
    "gate": P.Fcfs("prompt_gate"),
    "chunk gate": P.Fcfs("chunk_gate"),
    "orca": P.Orca(),
    "prefill first": P.PrefillFirst(),
    "decode first": P.DecodeFirst(),
    "priority": P.Priority(),
    "wait": P.Wait((1,)),
}


def fleet(
    law: st.iteration.IterationLaw, room: int, *, slots: int = 64, budget: int = 512, block: int = 1, count: int = 1
) -> st.Fleet:
    engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=budget, block_size=block)
    return st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=room, engine=engine), count=count)


def test_one_slot_is_served_in_turn_and_the_bound_is_exact() -> None:
    """Three steps each, one slot: the second ends after six."""
    one = fleet(st.IterationTime(base_s=1.0), 100, slots=1)
    assert least_total_latency_s(one, np.zeros(2), np.array([4, 4]), np.array([3, 3])) == pytest.approx(3 + 6)
    two = fleet(st.IterationTime(base_s=1.0), 100, slots=1, count=2)
    assert least_total_latency_s(two, np.zeros(2), np.array([4, 4]), np.array([3, 3])) == pytest.approx(3 + 3)


def test_a_request_alone_takes_its_steps() -> None:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=1e-5, per_kv_token_s=1e-6)
    alone = least_total_latency_s(fleet(law, 1000, budget=64), np.array([5.0]), np.array([100]), np.array([3]))
    assert alone == pytest.approx(2 * 0.01 + 0.01 + 2 * (0.01 + 1e-5) + 1e-6 * (101 + 102))


def test_by_hand_with_memory() -> None:
    """s = 4, o = 4 in 7 tokens: z = 4/7, 5/7, 6/7, 1, released at 0..3; the tail is 39/22.

    The first request keeps the releases: its work ends 4/7, 12/7, 20/7, 4 and leaves gaps of 3/7, 2/7, 1/7 for the second, then
    all of it after 4. Mean times of the work: 49.1../22 and so on, summed here piece by piece.
    """
    found = least_total_latency_s(
        fleet(st.IterationTime(base_s=1.0), 7), np.zeros(2), np.array([4, 4]), np.array([4, 4])
    )
    z, work = 22 / 7, [4 / 7, 5 / 7, 6 / 7, 1.0]
    first = sum(part * (start + part / 2) for start, part in enumerate(work))
    gaps = [(4 / 7, 1.0), (1 + 5 / 7, 2.0), (2 + 6 / 7, 3.0), (4.0, 4 + z - 6 / 7)]
    second = sum((b - a) * (a + b) / 2 for a, b in gaps)
    assert found == pytest.approx((first + second) / z + 2 * 39 / 22)
    assert found < 4 + 8  # they cannot overlap: the optimum


@pytest.mark.parametrize("seed", range(12))
def test_no_scheduler_is_below_the_bound(seed: int) -> None:
    """Memory for two or three requests, laws with cheap or dear recomputation, bursts or gaps: every finished run lies above."""
    rng = np.random.default_rng(seed)
    law = st.IterationTime(
        base_s=float(rng.choice([0.0, 0.5, 1.0])),
        per_prefill_token_s=float(rng.choice([0.0, 0.01, 0.2])),
        per_decode_token_s=float(rng.choice([0.0, 0.3])),
        per_kv_token_s=float(rng.choice([0.001, 0.05])),
        per_prefill_context_s=float(rng.choice([0.0, 0.01])),
    )
    servers = fleet(
        law,
        int(rng.integers(30, 60)),
        slots=int(rng.choice([2, 8])),
        budget=int(rng.choice([12, 64])),
        block=int(rng.choice([1, 4])),
        count=int(rng.choice([1, 2])),
    )
    n = 14
    arrival = np.sort(rng.random(n) * rng.choice([0.01, 10.0, 100.0]))
    prompt, output = rng.integers(1, 12, n), rng.integers(1, 14, n)
    bound = least_total_latency_s(servers, arrival, prompt, output)
    load = st.Workload.from_requests(arrival, prompt, output)
    ran = []
    for name, policy in RIVALS.items():
        try:
            records = st.simulate(with_scheduler(servers, policy), load, rng=1).requests
        except st.StabilityError:  # refused: whole prompts beyond the budget, or a class of several lengths
            continue
        assert records is not None
        if np.isnan(records.finish_s).any():
            continue
        assert (records.finish_s - records.arrival_s).sum() >= bound * (1 - 1e-9), name
        ran.append(name)
    assert {"gate", "chunk gate", "reserve", "orca"} <= set(ran)


@pytest.mark.parametrize("seed", range(6))
def test_the_program_is_below_all_that_never_pause(seed: int) -> None:
    """Steps of 0.4 s from arrivals at any instant: the relaxed program beats the other bound somewhere, and nobody is below it."""
    rng = np.random.default_rng(seed)
    servers = fleet(st.IterationTime(base_s=0.4), 40)
    n = 16
    arrival = np.sort(rng.random(n) * rng.choice([1.0, 8.0]))
    prompt, output = rng.integers(1, 10, n), rng.integers(1, 16, n)
    floor = hindsight_floor(servers, WHOLE.values(), arrival, prompt, output)
    assert floor.method == "relaxed program"
    assert floor.latency_s is not None
    assert floor.latency_s > least_total_latency_s(servers, arrival, prompt, output) / n
    load = st.Workload.from_requests(arrival, prompt, output)
    best = np.inf
    for name, policy in WHOLE.items():
        records = st.simulate(with_scheduler(servers, policy), load, rng=1).requests
        assert records is not None
        mean = float((records.finish_s - records.arrival_s).mean())
        assert mean >= floor.latency_s * (1 - 1e-9), name
        best = min(best, mean)
    assert best < 1.35 * floor.latency_s  # and it is of use
    assert hindsight_floor(servers, [P.Fcfs()], arrival, prompt, output).method == "mean busy times"  # it resumes


def test_what_is_not_computed_says_why() -> None:
    law = st.IterationTime(base_s=0.4)
    many = np.full(400, 5)
    floor = hindsight_floor(fleet(law, 40), [P.Fcfs("reserve")], np.zeros(400), many, many)
    assert str(MOST_ENTRIES) in floor.note
    assert floor.latency_s is not None
    other = st.Fleet(
        [
            st.Pool("a", fleet(law, 40).pools[0].replica, 1),
            st.Pool("b", fleet(law, 50).pools[0].replica, 1),
        ]
    )
    assert "several kinds" in hindsight_floor(other, [P.Fcfs()], np.zeros(400), many, many).note
    with pytest.raises(NotModelledError, match="at most"):
        least_total_latency_s(fleet(law, 40), np.zeros(200_001), np.full(200_001, 5), np.full(200_001, 5))


def test_ignoring_memory_is_allowed_for() -> None:
    tight = fleet(st.IterationTime(base_s=1.0), 20)
    burst, ten = np.zeros(10), np.full(10, 9)
    limited = least_total_latency_s(tight, burst, ten, ten)
    free = hindsight_floor(tight, [P.Sarathi(gate=False)], burst, ten, ten)
    assert free.latency_s == pytest.approx(9.0)  # all at once
    assert 320 < limited < 9 * 55  # below one at a time, in turn


@pytest.mark.parametrize("budget", [512, 2048])
def test_affine_laws_lie_below_theirs(budget: int) -> None:
    """On random compositions within the budget."""
    rng = np.random.default_rng(budget)
    laws = [
        st.iteration.Hinge(base_s=0.01, per_token_s=1e-4, threshold_tokens=128, per_kv_token_s=1e-7),
        st.iteration.TwoPhase(
            decode=st.IterationTime(base_s=0.01, per_decode_token_s=1e-5, per_kv_token_s=1e-7),
            mixed=st.IterationTime(base_s=0.02, per_prefill_token_s=1e-5, per_kv_token_s=5e-8),
        ),
        st.replica("A100-80GB-SXM", "Llama-2-7B").iteration,
    ]
    for law in laws:
        rows = affine_below(law, budget)
        assert len(rows)
        assert (rows[:, 0] >= 0).all()
        for _ in range(200):
            p = int(rng.integers(0, budget + 1))
            d = int(rng.integers(0 if p else 1, max(budget - p, 1) + 1))
            k, a = float(rng.integers(0, 10**5)), float(p * rng.integers(0, 3000))
            least = (rows @ np.array([1.0, p, d, k, a])).max()
            assert float(law.time_s(p, d, k, a)) >= least * (1 - 1e-12)


def test_a_comparison_shows_it() -> None:
    load = st.Workload.poisson(60.0, L.Independent(L.Constant(100), L.Constant(8)))
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_kv_token_s=1e-7)
    found = compare_schedulers(
        fleet(law, 2000), load, {"gate": P.Fcfs(), "reserve": P.Fcfs("reserve")}, requests=200, replications=2, rng=4
    )
    assert found.hindsight_s is not None
    assert found.latency_floor_s is not None
    assert found.hindsight_s >= found.latency_floor_s * (1 - 1e-9)
    assert found.hindsight_s <= found["gate"].samples["latency_mean_s"].mean()
    assert "no scheduler serves these requests" in found.summary()
    assert float(found.rows()[0][-1]) >= 1
    assert found.to_dict()["hindsight_s"] == found.hindsight_s
    axes = found.plot().get_figure().axes
    dashed = [line for panel in axes for line in panel.lines if line.get_linestyle() == "--"]
    assert [line.get_xdata()[0] for line in dashed] == [found.hindsight_s]
