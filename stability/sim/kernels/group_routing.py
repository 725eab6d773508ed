"""Which worker of a barrier group one request joins, and what is predicted of it."""

from __future__ import annotations

import numpy as np

from ..._types import FloatArray
from ...policies.balance import LeastPredictedWork, LengthPartition, PowerOfChoices
from ...policies.routers import WeightedSplit
from ._jit import called, kernel
from .group_state import STEP, TURN, GroupJobs, GroupLimits, GroupState
from .routing import POWER_OF_TWO, RANDOM, ROUND_ROBIN, SHORTEST_KV
from .state import NONE

WEIGHTED = WeightedSplit.code
CHOICES = PowerOfChoices.code
LEAST_WORK = LeastPredictedWork.code
PARTITION = LengthPartition.code


@kernel
def generated(jobs: GroupJobs, state: GroupState, i: int) -> int:
    """Tokens a running request has."""
    if jobs.computed[i] < jobs.prompt[i]:
        return 0
    return int(state.registers[STEP] - jobs.base[i])


@kernel
def predicted(limits: GroupLimits, jobs: GroupJobs, i: int, tokens: int) -> float:
    """Remaining steps of a request that has generated so many tokens."""
    length = limits.tables.shape[1]
    if length == 0:
        return float(jobs.output[i] - tokens)
    return float(limits.tables[jobs.request_class[i], min(tokens, length - 1)])


@called
def work(limits: GroupLimits, jobs: GroupJobs, state: GroupState, g: int) -> float:
    """KV reads a worker still has to do, by prediction."""
    total = 0.0
    for place in range(state.occupied[g]):
        i = state.running[g, place]
        tokens = generated(jobs, state, i)
        steps = predicted(limits, jobs, i, tokens)
        total += steps * (jobs.prompt[i] + tokens) + steps * (steps + 1) / 2
    i = state.queue_head[g]
    while i != NONE:
        steps = predicted(limits, jobs, i, 0)
        total += steps * jobs.prompt[i] + steps * (steps + 1) / 2
        i = jobs.following[i]
    return total


@kernel
def requests_at(state: GroupState, g: int) -> int:
    """Requests waiting and running on a worker."""
    return int(state.occupied[g] + state.queued[g])


@kernel
def draw_distinct(state: GroupState, count: int, draws: int, uniforms: FloatArray) -> int:
    """Distinct numbers below `count` in ascending order, into `drawn`; returns how many."""
    drawn = state.drawn
    taken = min(draws, count)
    for i in range(taken):
        number = int(uniforms[i] * (count - i))
        place = 0
        for j in range(i):
            if number >= drawn[j]:
                number += 1
                place = j + 1
        for j in range(i, place, -1):
            drawn[j] = drawn[j - 1]
        drawn[place] = number
    return taken


@called
def choose(limits: GroupLimits, jobs: GroupJobs, state: GroupState, i: int, count: int) -> int:
    """The worker that request `i` joins, among the first `count` of `candidates`."""
    candidates, router = state.candidates, limits.router
    if router == RANDOM:
        return int(candidates[int(jobs.uniforms[i, 0] * count)])
    if router in (ROUND_ROBIN, WEIGHTED):
        wanted = state.registers[TURN]
        if router == WEIGHTED:
            wanted = np.searchsorted(limits.shares[jobs.request_class[i]], jobs.uniforms[i, 0], side="right")
        best = candidates[0]
        for c in range(1, count):
            if (candidates[c] - wanted) % limits.workers < (best - wanted) % limits.workers:
                best = candidates[c]
        state.registers[TURN] = best + 1
        return int(best)
    if router in (POWER_OF_TWO, CHOICES):
        taken = draw_distinct(state, count, jobs.uniforms.shape[1], jobs.uniforms[i])
        best = candidates[state.drawn[0]]
        for c in range(1, taken):
            g = candidates[state.drawn[c]]
            if requests_at(state, g) < requests_at(state, best):
                best = g
        return int(best)
    best, least = NONE, 0.0
    for c in range(count):
        g = candidates[c]
        if router == SHORTEST_KV:
            value = float(state.resident_kv[g] + state.queued_tokens[g])
        elif router == LEAST_WORK:
            value = work(limits, jobs, state, g)
        else:
            value = float(requests_at(state, g))
        if best == NONE or value < least:
            best, least = g, value
    return int(best)


@kernel
def fits(limits: GroupLimits, jobs: GroupJobs, state: GroupState, i: int, g: int) -> bool:
    """Whether worker `g` can set aside the KV of request `i`."""
    if not limits.reserve:
        return True
    headroom = limits.watermark_blocks if state.occupied[g] > 0 else 0
    return bool(state.reserved_blocks[g] + jobs.reserve_blocks[i] + headroom <= limits.capacity_blocks)


@called
def find_candidates(limits: GroupLimits, jobs: GroupJobs, state: GroupState, i: int, only_open: bool) -> int:
    """Workers that request `i` may join, into `candidates`; returns how many."""
    begin, end = 0, limits.workers
    if limits.router == PARTITION and i != NONE:
        part = np.searchsorted(limits.cutoffs, jobs.prompt[i], side="left")
        begin, end = limits.part_start[part], limits.part_start[part + 1]
    count = 0
    for g in range(begin, end):
        if not only_open or (state.occupied[g] < limits.slots and (i == NONE or fits(limits, jobs, state, i, g))):
            state.candidates[count] = g
            count += 1
    return count
