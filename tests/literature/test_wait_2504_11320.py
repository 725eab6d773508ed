"""Ao, Luo, Simchi-Levi and Wang, WAIT and Nested WAIT (arXiv 2504.11320).

The paper's decode length l' counts iterations after prefill: l' = output_tokens - 1 here.
"""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability.model.iteration import IterationTime
from stability.model.requests import Requests
from stability.policies import NestedWait, Plan, RandomBudget, UserScheduler, Wait
from stability.policies.user import EngineState
from stability.sim.reference import ReferenceRun
from stability.sim.reference.planners.wait import NestedWaitPlanner, WaitPlanner
from tests.sim.slotted import requests_at, run_slots, steps_of

GREEDY = RandomBudget(10**6, 10**6, residency="engine")
"""The paper's FCFS: admit whatever fits this iteration, evict the newest on overflow."""


def paper_law(d0: float, d1: float) -> IterationTime:
    """d0 + d1 * tokens held by the batch."""
    return IterationTime(base_s=d0, per_prefill_token_s=d1, per_kv_token_s=d1)


def work(prompt: int, decode: int) -> float:
    """W = (l' + 1)(l + l'/2)."""
    return (decode + 1) * (prompt + decode / 2)


def poisson_requests(
    rates: tuple[float, ...], prompts: tuple[int, ...], decodes: tuple[int, ...], until_s: float, seed: int
) -> Requests:
    rng = np.random.default_rng(seed)
    count = rng.poisson(sum(rates) * until_s)
    times = np.sort(rng.uniform(0, until_s, count))
    kind = rng.choice(len(rates), count, p=np.array(rates) / sum(rates))
    return requests_at(times, np.array(prompts)[kind], np.array(decodes)[kind] + 1, kind)


def decode_tokens_completed(run: ReferenceRun, until_s: float) -> int:
    """Effective throughput counts decode tokens of completed prompts."""
    return sum(job.output_tokens - 1 for job in run.requests if job.finish_s <= until_s)


class Watched(UserScheduler):
    """WAIT with its invariant checked before every batch."""

    def __init__(self, policy: Wait, most_tokens: float) -> None:
        self.policy, self.most_tokens, self.batches = policy, most_tokens, 0

    def plan(self, state: EngineState) -> Plan:
        counts = Counter((r.request_class, r.generated) for r in state.running)
        for (kind, _), count in counts.items():
            assert count <= self.policy.thresholds[kind]
        assert sum(r.known_tokens for r in state.running) <= self.most_tokens  # as the paper counts paused prompts
        plan = WaitPlanner(self.policy).plan(state)  # type: ignore[arg-type]
        self.batches += bool(plan.batch)
        return plan


@st.composite
def instances(draw: st.DrawFn) -> tuple[Wait, Requests, int]:
    kinds = draw(st.integers(1, 3))
    prompts = draw(st.lists(st.integers(1, 9), min_size=kinds, max_size=kinds))
    decodes = draw(st.lists(st.integers(0, 6), min_size=kinds, max_size=kinds))
    thresholds = draw(st.lists(st.integers(1, 4), min_size=kinds, max_size=kinds))
    count = draw(st.integers(1, 60))
    kind = np.array(draw(st.lists(st.integers(0, kinds - 1), min_size=count, max_size=count)))
    gaps = draw(st.lists(st.sampled_from((0.0, 0.3, 1.0, 4.0)), min_size=count, max_size=count))
    memory = sum(n * work(s, d) for n, s, d in zip(thresholds, prompts, decodes, strict=True))
    times = np.cumsum(gaps)
    return (
        Wait(tuple(thresholds)),
        requests_at(times, np.array(prompts)[kind], np.array(decodes)[kind] + 1, kind),
        math.ceil(memory),
    )


@given(instances())
def test_invariants(instance: tuple[Wait, Requests, int]) -> None:
    """At most n_j at every stage, KV within sum n_j W_j, no eviction; the capacity is exactly that sum."""
    policy, requests, memory = instance
    watched = Watched(policy, memory)
    run = run_slots(watched, requests, memory, law=paper_law(0.5, 0.01))
    assert sum(step.preempted for step in steps_of(run)) == 0
    assert max((step.used_blocks for step in steps_of(run)), default=0) <= memory
    left = [job for job in run.requests if math.isnan(job.finish_s)]
    waiting = Counter(job.request_class for job in left if math.isnan(job.admitted_s))
    assert all(waiting[kind] < n for kind, n in enumerate(policy.thresholds))  # else another batch would have begun


def mean_latency_and_gap(threshold: int, until_s: float, seeds: range) -> tuple[float, float]:
    """Mean latency of what arrived, and rate * l' less effective throughput, of l = l' = 1 at rate 4.

    d0 + 12 d1 = 1: the fluid equilibrium is n* = 4, M* = 12, one iteration a second.
    """
    latency, gap = [], []
    for seed in seeds:
        requests = poisson_requests((4.0,), (1,), (1,), until_s, seed)
        run = run_slots(Wait((threshold,)), requests, 3 * threshold, law=paper_law(0.76, 0.02), horizon_s=until_s)
        latency.append(np.mean([np.fmin(job.finish_s, until_s) - job.arrival_s for job in run.requests]))
        gap.append((len(requests) - decode_tokens_completed(run, until_s)) / until_s)
    return float(np.mean(latency)), float(np.mean(gap))


def test_scaling_at_the_equilibrium_threshold() -> None:
    """Theorem 1: at n = n* the latency grows like sqrt(T), the throughput gap falls like 1/sqrt(T).

    Time T stands for the paper's scale zeta T. Sixteenfold T: factors 4 and 1/4, between 2.2 and 7 for 12 seeds each
    (the sampling error of such a ratio of means is about 20 %).
    """
    short, long = (mean_latency_and_gap(4, t, range(12)) for t in (60.0, 960.0))
    assert 2.2 < long[0] / short[0] < 7
    assert 2.2 < short[1] / long[1] < 7


def test_scaling_with_slack() -> None:
    """With DT = 0.76 + 0.02 * 18 = 1.12 < 6/4, strictly: latency bounded, gap like 1/T."""
    short, long = (mean_latency_and_gap(6, t, range(6)) for t in (60.0, 960.0))
    assert long[0] < 1.3 * short[0]
    assert short[1] / long[1] > 8
    assert long[0] < mean_latency_and_gap(4, 960.0, range(6))[0]


def test_first_come_first_served_fails_on_the_instance_of_proposition_3() -> None:
    """Types (1, 1) and (1, 2) at rate 1, d1 = 1/18, d0 = 1 - 9 d1: n* = (1, 1), M* = 9 = C.

    The gap of FCFS stays, that of WAIT (thresholds n*) falls with T.
    """
    law = paper_law(0.5, 1 / 18)
    assert work(1, 1) + work(1, 2) == 9
    gap = {}
    for until_s in (150.0, 1350.0):
        requests = poisson_requests((1.0, 1.0), (1, 1), (1, 2), until_s, 21)
        offered = int((requests.output_tokens - 1).sum())
        for name, policy in (("wait", Wait((1, 1))), ("fcfs", GREEDY)):
            run = run_slots(policy, requests, 9, law=law, horizon_s=until_s)
            gap[name, until_s] = (offered - decode_tokens_completed(run, until_s)) / until_s
            evictions = sum(step.preempted for step in steps_of(run))
            assert (evictions > 0) == (name == "fcfs")
    assert gap["fcfs", 1350.0] > 0.15, gap
    assert gap["fcfs", 1350.0] > 0.6 * gap["fcfs", 150.0], gap
    assert gap["wait", 1350.0] < 0.6 * gap["wait", 150.0], gap
    assert gap["wait", 1350.0] < gap["fcfs", 1350.0] / 2, gap


def test_toy_cascade() -> None:
    """l = l' = 1, C = 12, 4 arrivals an iteration: one uneven start costs FCFS a quarter of its throughput for good.

    From 4 prefills and 4 decodes (12 tokens) it completes 4 an iteration. From 6 prefills and 3 decodes: 6 decodes fill the
    cache, 8 prompts pile up and are admitted together, 2 of them evicted as they grow, and so on: 6 completions in two
    iterations. WAIT with n = 4 completes 4 from either start.
    """
    even = requests_at(np.repeat(np.arange(60), 4), 1, 2)
    uneven = requests_at(np.concatenate([np.zeros(3), np.ones(6), np.repeat(np.arange(2, 60), 4)]), 1, 2)

    def completions(policy: object, requests: Requests) -> tuple[float, int]:
        run = run_slots(policy, requests, 12, horizon_s=60.0)  # type: ignore[arg-type]
        done = sum(20 < job.finish_s <= 60 for job in run.requests)
        return done / 40, sum(step.preempted for step in steps_of(run))

    assert completions(GREEDY, even) == (4.0, 0)
    rate, evictions = completions(GREEDY, uneven)
    assert rate == 3.0
    assert evictions > 0
    assert completions(Wait((4,)), even) == (4.0, 0)
    assert completions(Wait((4,)), uneven) == (4.0, 0)


THETA = 0.87106


def test_theta() -> None:
    """exp(-theta n_2) (1 - p + p e^theta)^n_1 = 1 at n_1 = 10, n_2 = 4, p = 0.3; above 8 (n_2 - n_1 p)/n_1 = 0.8."""
    assert math.exp(-4 * THETA) * (0.7 + 0.3 * math.exp(THETA)) ** 10 == pytest.approx(1, abs=2e-5)
    assert THETA > 0.8


class WatchedNested(UserScheduler):
    """Nested WAIT whose boundary queue is noted before every batch."""

    def __init__(self, policy: NestedWait) -> None:
        self.planner, self.longest, self.batches = NestedWaitPlanner(policy), 0, 0

    def plan(self, state: EngineState) -> Plan:
        self.longest = max(self.longest, sum(self.planner.at_boundary(r) for r in state.running))
        plan = self.planner.plan(state)  # type: ignore[arg-type]
        self.batches += bool(plan.batch)
        return plan


def nested_runs(capacity: int, runs: int, until_s: float) -> tuple[int, int, int]:
    """(runs with an eviction, longest boundary queue of all runs, batches of the longest run).

    l = 2, l' = (2, 4), hidden: 70 % end in the first segment. n = (10, 4) at total rate 6, d0 = 0.5, d1 = 0.0025:
    M_pi = 10 * 3 * (2 + 1) + 4 * 2 * (2 + 3.5) = 134, DT = 0.835 < 10/6.
    """
    policy = NestedWait((2, 4), (10, 4))
    overflowed = longest = batches = 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        count = rng.poisson(6.0 * until_s)
        output = np.where(rng.random(count) < 0.3, 5, 3)
        requests = requests_at(np.sort(rng.uniform(0, until_s, count)), 2, output)
        watched = WatchedNested(policy)
        run = run_slots(watched, requests, capacity, law=paper_law(0.5, 0.0025), horizon_s=until_s)
        overflowed += any(step.preempted for step in steps_of(run))
        longest, batches = max(longest, watched.longest), max(batches, watched.batches)
    return overflowed, longest, batches


def test_nested_overflow_is_rarer_than_stated() -> None:
    """Theorem 2 with delta = 0.1 and T = 60: overflow in 30 runs, each with probability <= 0.1, at most 13 times (1e-6).

    C = M_pi + (l + l'_1)(n_2 + ln(m (1 + T/d0)/delta)/theta).
    """
    until_s, delta = 60.0, 0.1
    buffer = 4 + math.log(2 * (1 + until_s / 0.5) / delta) / THETA
    overflowed, longest, batches = nested_runs(math.ceil(134 + (2 + 2) * buffer), 30, until_s)
    assert overflowed <= 13
    # P(queue above n_2 by x in B batches) <= B e^(-theta x), here with x for 1e-6 over all runs.
    assert longest - 4 - 10 <= math.log(30 * batches * 1e6) / THETA


def test_without_a_buffer_nested_wait_overflows() -> None:
    """Below M_pi, the repair must evict: the frequency above can fail."""
    overflowed, _, _ = nested_runs(110, 5, 60.0)
    assert overflowed == 5


def test_nested_survivors_pause_at_the_boundary() -> None:
    """l = 2, ends (1, 3), n = (3, 3): of three prompts every 10 s two survive, and go on once three have come together.

    At 10 s 3 prefills (2 tokens each) and 3 first decodes (3 each); at 20 s also two paused survivors (3 each); at 30 s
    three of four survivors take their next stage (4 each), the newest pauses.
    """
    requests = requests_at(np.repeat([0, 10, 20, 30], 3), 2, [2, 4, 4] * 4)
    run = run_slots(NestedWait((1, 3), (3, 3)), requests, 100)
    steps = steps_of(run)
    assert [step.start_s for step in steps] == [0.0, 10.0, 20.0, 30.0]
    assert [step.scheduled_requests for step in steps] == [3, 6, 6, 9]
    assert [step.used_blocks for step in steps] == [6, 6 + 9, 6 + 9 + 6, 6 + 9 + 12 + 3]
    assert [job.finish_s for job in run.requests[::3]][:3] == [11.0, 21.0, 31.0]
    assert math.isnan(run.requests[1].finish_s)


def test_classes_without_a_full_threshold_pause() -> None:
    """n = (2, 1): class 1 goes ahead whenever one waits; the pair of class 0 pauses with its KV until two more have come."""
    requests = requests_at([0, 0, 1, 2, 5, 5], 3, [2, 2, 1, 1, 2, 2], [0, 0, 1, 1, 0, 0])
    run = run_slots(Wait((2, 1)), requests, 60)
    steps = steps_of(run)
    assert [step.start_s for step in steps] == [0.0, 1.0, 2.0, 5.0]
    assert [step.scheduled_requests for step in steps] == [2, 1, 1, 4]
    assert [step.used_blocks for step in steps] == [6, 6 + 3, 6 + 3, 8 + 6]
    assert [job.finish_s for job in run.requests[:4]] == [6.0, 6.0, 2.0, 3.0]
