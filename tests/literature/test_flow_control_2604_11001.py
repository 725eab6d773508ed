"""Dong and Cao, flow control (arXiv 2604.11001): Algorithms 1 and 2 in their slotted model."""

from __future__ import annotations

import numpy as np
import pytest

from stability.model.requests import Requests
from stability.policies import ClassBudgets, RandomBudget
from stability.sim.reference import ReferenceRun
from tests.sim.slotted import requests_at, run_slots, steps_of

CLASSES = ((10, 20), (10, 40), (10, 60))
M = 16_492


def poisson_slots(rates: tuple[float, ...], slots: int, seed: int) -> tuple[Requests, np.ndarray]:
    """Poisson arrivals at the start of every slot, and their counts (slots, classes)."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rates, (slots, len(rates)))
    kinds = np.tile(np.arange(len(rates)), slots)
    kind = np.repeat(kinds, counts.ravel())
    slot = np.repeat(np.repeat(np.arange(slots), len(rates)), counts.ravel())
    sizes = np.array(CLASSES[: len(rates)])
    return requests_at(slot, sizes[kind, 0], sizes[kind, 1], kind), counts


def queues(run: ReferenceRun, slots: int, classes: int) -> np.ndarray:
    """Waiting requests of each class once the activations of each slot are made."""
    queue = np.zeros((slots, classes), dtype=int)
    for job in run.requests:
        end = slots if np.isnan(job.admitted_s) else int(job.admitted_s)
        queue[int(job.arrival_s) : end, job.request_class] += 1
    return queue


@pytest.mark.parametrize(("rate", "seed"), [(3.0, 1), (3.7, 2), (5.0, 3)])
def test_classes_decouple_slot_for_slot(rate: float, seed: int) -> None:
    """Q_t = max(Q_{t-1} + n_t - b, 0), exactly. Three classes of rate `rate` always have something active: no idle slot."""
    slots = 300
    requests, counts = poisson_slots((rate,) * 3, slots, seed)
    run = run_slots(ClassBudgets((4, 4, 4)), requests, M, horizon_s=slots)
    queue = queues(run, slots, 3)
    previous = np.zeros(3, dtype=int)
    for t in range(slots):
        previous = np.maximum(previous + counts[t] - 4, 0)
        np.testing.assert_array_equal(queue[t], previous)


def test_peak_is_16240_exactly() -> None:
    """sum_k b_k w_k = 4 * (410 + 1220 + 2430) once every class has four at each age; never more, nothing evicted."""
    requests, _ = poisson_slots((6.0, 6.0, 6.0), 150, 4)
    run = run_slots(ClassBudgets((4, 4, 4)), requests, M, horizon_s=150)
    used = [step.used_blocks for step in steps_of(run)]
    assert max(used) == 16_240
    assert used[100] == used[149] == 16_240
    assert sum(step.preempted for step in steps_of(run)) == 0
    assert sum(step.scheduled_requests for step in steps_of(run)[100:101]) == 4 * (20 + 40 + 60)


def test_stability_flips_at_the_budget() -> None:
    """Theorem 3.3: rates 5 > b = 4 grow by 1 a class and slot, rates 3 < 4 do not; memory is safe either way.

    Over 400 slots the growth per class has standard deviation sqrt(5 * 400) = 45 about 400; the bounds are 5 deviations.
    """
    slots = 400
    over = run_slots(ClassBudgets((4, 4, 4)), poisson_slots((5.0,) * 3, slots, 5)[0], M, horizon_s=slots)
    final = queues(over, slots, 3)[-1]
    assert (abs(final - slots) < 5 * 45).all()
    under = run_slots(ClassBudgets((4, 4, 4)), poisson_slots((3.0,) * 3, slots, 6)[0], M, horizon_s=slots)
    queue = queues(under, slots, 3)
    assert queue.max() < 60
    assert max(step.used_blocks for step in steps_of(over)) == 16_240
    assert max(step.used_blocks for step in steps_of(under)) <= 16_240
    tokens = [step.scheduled_requests for step in steps_of(under)[60:]]
    # Tokens per slot: each request gives o of them, so the mean is 3 * 120 = 360. Over 340 slots the sum of the outputs has
    # standard deviation sqrt(3 * 340 * (20**2 + 40**2 + 60**2)) / 340 = 7.0 a slot.
    assert abs(np.mean(tokens) - 360) < 5 * 7.0


def test_waiting_queue_has_the_stationary_mean_of_the_reflected_walk() -> None:
    """At rate 3 and b = 4 the mean queue per class is that of Q = (Q + n - 4)^+, solved from its balance equations."""
    levels = 200
    jump = np.exp(-3.0 + np.arange(levels + 5) * np.log(3.0) - np.cumsum(np.log(np.maximum(np.arange(levels + 5), 1))))
    walk = np.zeros((levels, levels))
    for q in range(levels):
        for n, p in enumerate(jump):
            walk[q, min(max(q + n - 4, 0), levels - 1)] += p
    stationary = np.linalg.matrix_power(walk, 4096)[0]
    mean = float(stationary @ np.arange(levels))
    slots = 4000
    counts = np.random.default_rng(8).poisson(3.0, (slots, 50))
    queue, path = np.zeros(50), []
    for t in range(slots):
        queue = np.maximum(queue + counts[t] - 4, 0)
        path.append(queue.mean())
    batches = np.array(path[400:]).reshape(18, -1).mean(axis=1)
    assert abs(batches.mean() - mean) < 6 * batches.std(ddof=1) / np.sqrt(18)
    # The simulator follows that recursion exactly (above), so its mean does too.
    requests, own = poisson_slots((3.0,), 1500, 9)
    run = run_slots(ClassBudgets((4,)), requests, M, horizon_s=1500)
    recursion, queue_one = [], 0
    for n in own[:, 0]:
        queue_one = max(queue_one + n - 4, 0)
        recursion.append(queue_one)
    assert queues(run, 1500, 1)[:, 0].mean() == np.mean(recursion)


def single_class(slots: int, seed: int) -> Requests:
    counts = np.random.default_rng(seed).poisson(1.0, slots)
    return requests_at(np.repeat(np.arange(slots), counts), 10, 15)


def test_algorithm_2_under_overload() -> None:
    """(10, 15), rate 1, M = 120, budgets U{0..6}: w = 270 > 120, so no policy is stable, and memory must hold by eviction."""
    slots = 600
    requests = single_class(slots, 11)
    controlled = run_slots(RandomBudget(0, 6), requests, 120, horizon_s=slots, seed=1)
    greedy = run_slots(RandomBudget(10**6, 10**6), requests, 120, horizon_s=slots, seed=1)
    figures = {}
    for name, run in (("controlled", controlled), ("greedy", greedy)):
        steps = steps_of(run)
        assert max(step.used_blocks for step in steps) <= 120
        done = [job for job in run.requests if not np.isnan(job.finish_s)]
        figures[name] = (len(done), sum(step.preempted for step in steps))
    assert figures["controlled"][1] > 0
    assert figures["controlled"][0] > figures["greedy"][0], figures
    assert figures["controlled"][1] < figures["greedy"][1], figures


def test_departures_generated_everything_after_their_last_activation() -> None:
    """15 tokens since then, and more than 15 in all if evicted."""
    from stability.sim.domain import limits_of
    from stability.sim.reference.fleet import build_servers
    from stability.sim.reference.replica import ReferenceRequest
    from tests.sim.slotted import slotted_replica

    replica = slotted_replica(RandomBudget(0, 6), 120)
    (server,) = build_servers([(limits_of(replica), replica.iteration)], np.random.SeedSequence(3))
    requests = single_class(500, 12)
    jobs = [
        ReferenceRequest(
            index=i, arrival_s=float(t), prompt_tokens=10, output_tokens=15, max_output_tokens=15, request_class=0
        )
        for i, t in enumerate(requests.arrival_s)
    ]
    since = np.zeros(len(jobs), dtype=int)
    total = np.zeros(len(jobs), dtype=int)
    evicted, position, departures = 0, 0, 0
    for slot in range(500):
        while position < len(jobs) and jobs[position].arrival_s <= slot:
            server.enqueue(jobs[position], float(slot))
            position += 1
        if server.next_start_s > slot:
            continue
        waiting_before = {job.index for job in server.waiting}
        step = server.begin_step()
        assert step is not None
        evicted += step.preempted
        for job, _ in server.scheduled:
            if job.index in waiting_before:
                since[job.index] = 0
            since[job.index] += 1
            total[job.index] += 1
        for job in server.finish_step():
            departures += 1
            assert since[job.index] == 15
            assert (total[job.index] > 15) == (job.preemptions > 0)
    assert evicted > 50
    assert departures > 50
