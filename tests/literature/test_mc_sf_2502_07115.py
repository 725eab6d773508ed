"""Jaillet et al., MC-SF (arXiv 2502.07115): shortest first with look-ahead against the hindsight integer program."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from stability._types import IntArray
from stability.model.requests import Requests
from stability.policies import HindsightShortestFirst, Predictor, ShortestFirst
from tests.sim.slotted import requests_at, run_slots, steps_of, total_latency


def hindsight(requests: Requests, memory: int, latest: int) -> float:
    """Least total latency of the paper's integer program: x_it = 1 if request i starts at slot t."""
    arrival, prompt, output = requests.arrival_s.astype(int), requests.prompt_tokens, requests.output_tokens
    count, slots = len(requests), latest + 1
    once = lil_array((count, count * slots))
    kv = lil_array((slots + int(output.max()) + 1, count * slots))
    cost = np.zeros(count * slots)
    upper = np.ones(count * slots)
    for i in range(count):
        for start in range(slots):
            column = i * slots + start
            once[i, column] = 1
            cost[column] = start
            upper[column] = start >= arrival[i]
            for t in range(start + 1, start + output[i] + 1):
                kv[t, column] = prompt[i] + t - start
    result = milp(
        cost,
        constraints=[LinearConstraint(once.tocsr(), 1, 1), LinearConstraint(kv.tocsr(), -np.inf, memory)],
        integrality=np.ones(count * slots),
        bounds=Bounds(0, upper),
    )
    assert result.status == 0, result.message
    return float(result.fun + (output - arrival).sum())


@numba.njit
def _fits(usage, prompt, output, start, memory):  # type: ignore[no-untyped-def]
    for j in range(1, output + 1):  # noqa: SIM110 - a loop is what numba is fast at
        if usage[start + j] + prompt + j > memory:
            return False
    return True


@numba.njit
def _search(left, last, cost, best, usage, arrival, prompt, output, memory):  # type: ignore[no-untyped-def]
    if left == 0:
        return min(best, cost)
    count = len(output)
    first = np.zeros(count, dtype=np.int64)
    for i in range(count):
        if left >> i & 1:
            first[i] = max(last, arrival[i])
            while not _fits(usage, prompt[i], output[i], first[i], memory):
                first[i] += 1
    # The j-th of those left to end does so no earlier than the j-th soonest alone, nor before the free KV-time since `last`
    # holds the j least volumes.
    ends = np.sort(np.array([first[i] + output[i] for i in range(count) if left >> i & 1]))
    volumes = np.array(
        [prompt[i] * output[i] + output[i] * (output[i] + 1) // 2 for i in range(count) if left >> i & 1]
    )
    needed = np.cumsum(np.sort(volumes))
    free, t, bound = 0, last, cost
    for j in range(len(ends)):
        while free < needed[j]:
            t += 1
            free += memory - usage[t]
        bound += max(ends[j], t)
    for i in range(count):
        if left >> i & 1:
            bound -= arrival[i]
    if bound >= best:
        return best
    for i in range(count):
        if not left >> i & 1:
            continue
        start = first[i]
        while True:
            bound = cost
            for j in range(count):
                if left >> j & 1:
                    bound += (start if j == i else max(first[j], start)) + output[j] - arrival[j]
            if bound >= best:
                break
            if _fits(usage, prompt[i], output[i], start, memory):
                for j in range(1, output[i] + 1):
                    usage[start + j] += prompt[i] + j
                done = cost + start + output[i] - arrival[i]
                best = _search(left ^ (1 << i), start, done, best, usage, arrival, prompt, output, memory)
                for j in range(1, output[i] + 1):
                    usage[start + j] -= prompt[i] + j
            start += 1
    return best


def optimum(requests: Requests, memory: int, known: float) -> float:
    """The same by branch and bound over starts in order, if below the latency `known` of some schedule.

    Bounds: every request left starts alone, as early as those placed and the order allow; and volumes.
    """
    columns = [c.astype(np.int64) for c in (requests.arrival_s, requests.prompt_tokens, requests.output_tokens)]
    usage = np.zeros(4 * int(columns[0].max() + columns[2].sum()) + 9, dtype=np.int64)
    return float(_search((1 << len(requests)) - 1, 0, 0, round(known), usage, *columns, memory))


def paper_instance(seed: int, *, online: bool = False, most: int = 7) -> tuple[Requests, int]:
    """M ~ U[30, 50], s ~ U[1, 5], o ~ U[1, M - s], 5 to `most` requests, all at once or over the first 15 slots."""
    rng = np.random.default_rng(seed)
    memory, count = int(rng.integers(30, 51)), int(rng.integers(5, most + 1))
    prompt = rng.integers(1, 6, count)
    output = rng.integers(1, memory - prompt + 1)
    arrival = np.sort(rng.integers(0, 16, count)) if online else np.zeros(count)
    return requests_at(arrival, prompt, output), memory


def test_against_the_integer_program() -> None:
    """Never below the optimum, mean ratio at most 1.03 (the paper: 1.005 over 200 larger ones).

    25 instances of 5 requests, and 8 of 5 to 7: with more, some take the search minutes.
    """
    ratios = []
    for seed, most in [*((seed, 5) for seed in range(25)), *((seed, 7) for seed in range(1, 9))]:
        requests, memory = paper_instance(seed, most=most)
        run = run_slots(ShortestFirst(), requests, memory)
        best = optimum(requests, memory, total_latency(run))
        assert max(step.used_blocks for step in steps_of(run)) <= memory
        assert sum(step.preempted for step in steps_of(run)) == 0
        ratios.append(total_latency(run) / best)
    assert min(ratios) >= 1 - 1e-9
    assert np.mean(ratios) <= 1.03
    assert sum(ratio < 1 + 1e-9 for ratio in ratios) >= 5


def test_online_arrivals_stay_above_the_integer_program() -> None:
    """The same with arrivals over 15 slots: the branch and bound starts above the schedule found, so that it may come out above."""
    ratios = []
    for seed in range(15):
        requests, memory = paper_instance(seed, online=True, most=5)
        run = run_slots(ShortestFirst(), requests, memory)
        assert max(step.used_blocks for step in steps_of(run)) <= memory
        ratios.append(total_latency(run) / optimum(requests, memory, total_latency(run) + 1))
    assert min(ratios) >= 1
    assert np.mean(ratios) <= 1.1


@pytest.mark.parametrize("seed", [0, 2, 3, 4, 6])
def test_branch_and_bound_is_the_integer_program(seed: int) -> None:
    """HiGHS on the paper's program, for instances it solves at once, with starts up to twice MC-SF's last."""
    requests, memory = paper_instance(seed, most=5)
    run = run_slots(ShortestFirst(), requests, memory)
    latest = 2 * int(max(job.admitted_s for job in run.requests)) + 2
    assert optimum(requests, memory, total_latency(run) + 1) == pytest.approx(hindsight(requests, memory, latest))


@pytest.mark.parametrize("by", ["output", "volume"])
def test_memory_holds_on_larger_instances(by: str) -> None:
    rng = np.random.default_rng(7)
    for memory in (60, 300):
        prompt = rng.integers(1, 20, 80)
        requests = requests_at(np.sort(rng.integers(0, 100, 80)), prompt, rng.integers(1, memory - prompt + 1))
        run = run_slots(ShortestFirst(by), requests, memory)
        used = [step.used_blocks for step in steps_of(run)]
        assert max(used) <= memory
        assert max(used) > 0.8 * memory
        assert sum(step.preempted for step in steps_of(run)) == 0


def test_the_look_ahead_admits_all_that_fits_and_no_more() -> None:
    """M = 10: one of (1, 5) peaks at 6. A second one beside it would peak at 12; started with 3 slots to go, at 6 + 4 = 10."""
    run = run_slots(ShortestFirst(), requests_at(np.zeros(2), 1, 5), 10)
    # Second start k: at slot 5 the first holds 6 and the second 1 + 5 - k; 6 + 6 - k <= 10 gives k = 2.
    assert [job.admitted_s for job in run.requests] == [0.0, 2.0]
    assert max(step.used_blocks for step in steps_of(run)) == 10


@dataclass(frozen=True)
class Scaled(Predictor):
    """Lengths off by a factor."""

    factor: float

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        return np.maximum(1, np.round(output_tokens * self.factor)).astype(np.int64)


def test_predictions_too_long_cost_latency_and_too_short_evict() -> None:
    rng = np.random.default_rng(3)
    requests = requests_at(np.zeros(60), rng.integers(1, 6, 60), rng.integers(1, 40, 60))
    runs = {factor: run_slots(ShortestFirst(predictor=Scaled(factor)), requests, 90) for factor in (0.3, 1.0, 1.5)}
    evictions = {factor: sum(step.preempted for step in steps_of(run)) for factor, run in runs.items()}
    assert evictions[1.0] == evictions[1.5] == 0
    assert evictions[0.3] > 0
    assert total_latency(runs[1.0]) < total_latency(runs[1.5])
    for run in runs.values():
        assert max(step.used_blocks for step in steps_of(run)) <= 90
        assert all(job.finish_s > 0 for job in run.requests)


def test_hindsight_ignores_predictors() -> None:
    rng = np.random.default_rng(4)
    requests = requests_at(np.zeros(40), rng.integers(1, 6, 40), rng.integers(1, 40, 40))
    exact, same = (run_slots(policy, requests, 80) for policy in (ShortestFirst(), HindsightShortestFirst()))
    assert [job.finish_s for job in exact.requests] == [job.finish_s for job in same.requests]
