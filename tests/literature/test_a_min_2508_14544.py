"""Chen, Ye and Zhou, A_max, A_min and H-SF (arXiv 2508.14544): output lengths known to an interval."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stability.policies import AMax, AMin, HindsightShortestFirst, Oracle
from stability.sim.reference import ReferenceRun
from tests.sim.slotted import requests_at, run_slots, steps_of, total_latency


def schedule(run: ReferenceRun) -> list[float]:
    return [job.finish_s for job in run.requests]


def test_all_agree_at_exact_predictions() -> None:
    """alpha = 1, identical prompts and outputs, and A_min with exact lengths of any kind."""
    for output in (1, 7, 30):
        requests = requests_at(np.zeros(50), 5, output)
        exact = schedule(run_slots(HindsightShortestFirst(), requests, 120))
        assert schedule(run_slots(AMax(output), requests, 120)) == exact
        assert schedule(run_slots(AMin(output), requests, 120)) == exact
    mixed = requests_at(np.zeros(60), 5, np.random.default_rng(1).integers(1, 50, 60))
    assert schedule(run_slots(AMin(Oracle()), mixed, 150)) == schedule(run_slots(HindsightShortestFirst(), mixed, 150))
    assert schedule(run_slots(AMax(Oracle()), mixed, 150)) == schedule(run_slots(HindsightShortestFirst(), mixed, 150))


@pytest.mark.parametrize("seed", range(6))
def test_no_round_exceeds_the_memory_and_all_finish(seed: int) -> None:
    rng = np.random.default_rng(seed)
    requests = requests_at(np.zeros(80), 4, rng.integers(2, 41, 80))
    low = run_slots(AMin(2), requests, 110)
    high = run_slots(AMax(40), requests, 110)
    for run in (low, high):
        assert max(step.used_blocks for step in steps_of(run)) <= 110
        assert all(job.finish_s > 0 for job in run.requests)
    assert sum(step.preempted for step in steps_of(low)) > 0
    assert sum(step.preempted for step in steps_of(high)) == 0


def test_a_min_does_not_know_the_upper_bound_and_a_max_lives_by_it() -> None:
    """The same outputs under wider intervals: A_max's latency grows, A_min has nothing that could change."""
    requests = requests_at(np.zeros(60), 4, np.random.default_rng(2).integers(2, 11, 60))
    loose = [total_latency(run_slots(AMax(upper), requests, 130)) for upper in (10, 40, 120)]
    assert loose[0] < loose[1] < loose[2]
    assert total_latency(run_slots(AMin(2), requests, 130)) < loose[0]
    assert not hasattr(AMin(2), "upper")


def ratios(lower: int, upper: int, output: np.ndarray, memory: int) -> tuple[float, float]:
    requests = requests_at(np.zeros(len(output)), 1, output)
    best = total_latency(run_slots(HindsightShortestFirst(), requests, memory))
    return (
        total_latency(run_slots(AMax(upper), requests, memory)) / best,
        total_latency(run_slots(AMin(lower), requests, memory)) / best,
    )


def test_growth_with_the_width_of_the_interval() -> None:
    """alpha = 1/4, 1/16, 1/64 with outputs log-uniform on [ell, u]: A_max within its proved bound and growing like a power,
    A_min within 1 + log2(1/alpha).

    A_max's bound is alpha**-1 (1 + alpha**-1) / 2 for large M; all outputs at ell are its worst case here.
    """
    worst, typical = [], []
    for upper in (4, 16, 64):
        output = np.exp(np.random.default_rng(upper).uniform(0, math.log(upper + 1), 150)).astype(int)
        a_max, a_min = ratios(1, upper, output, 300)
        short, _ = ratios(1, upper, np.ones(150, dtype=int), 300)
        assert a_min < 1 + math.log2(upper)
        for value in (a_max, short):
            assert 1 <= value <= upper * (1 + upper) / 2
        worst.append(short)
        typical.append((a_max, a_min))
    assert worst[2] > 3 * worst[1] / 2 > worst[0]
    assert all(a_max > a_min for a_max, a_min in typical[1:])
    assert typical[2][1] / typical[0][1] < typical[2][0] / typical[0][0]
