"""A barrier group, compiled: the decisions of `stability.sim.reference.barrier`.

Decoding requests all advance by one token a step, so a worker's KV grows by its decodes and only requests that are assigned,
finish their prompt or complete are touched. Workers list their requests in order of assignment.
"""

from __future__ import annotations

import numpy as np

from ...policies.balance import BalanceRoute
from ._jit import called, kernel
from .dispatch import Desk, dispatch
from .group_routing import PARTITION, choose, find_candidates, fits, generated, predicted
from .group_state import (
    COMPLETED,
    HEAD,
    LOGGED,
    MARKS,
    NEVER,
    NEXT,
    PEAK,
    PENDING,
    PRESENT,
    STEP,
    TAIL,
    WAITING,
    GroupJobs,
    GroupLimits,
    GroupState,
)
from .laws import step_time
from .state import NONE

BALANCE = BalanceRoute.code


@called
def start(limits: GroupLimits, jobs: GroupJobs, state: GroupState, i: int, g: int, now_s: float) -> None:
    """Request `i` takes a slot of worker `g`."""
    jobs.worker[i] = g
    jobs.assigned_s[i] = now_s
    state.running[g, state.occupied[g]] = i
    state.occupied[g] += 1
    state.reserved_blocks[g] += jobs.reserve_blocks[i]
    state.resident_kv[g] += jobs.prompt[i]
    if limits.decode_only:
        jobs.first_token_s[i] = now_s
        jobs.computed[i] = jobs.prompt[i]
        state.resident_kv[g] += 1
        begin_decoding(jobs, state, i, g, state.registers[STEP] - 1)
    else:
        state.prefilling[g] += 1


@kernel
def begin_decoding(jobs: GroupJobs, state: GroupState, i: int, g: int, base: int) -> None:
    """Request `i` has its first token and decodes from now on."""
    jobs.base[i] = base
    state.decodes[g] += 1
    state.decode_kv[g] += jobs.prompt[i] + 1
    state.next_finish[g] = min(state.next_finish[g], base + max(jobs.output[i], 2) - 1)


@kernel
def take_from_pool(state: GroupState, position: int) -> int:
    """Take the request at a position of the central queue out of it."""
    head = state.registers[HEAD]
    i = state.pool[head + position]
    for place in range(head + position, head, -1):
        state.pool[place] = state.pool[place - 1]
    state.registers[HEAD] += 1
    state.registers[WAITING] -= 1
    return int(i)


@kernel
def enqueue(limits: GroupLimits, jobs: GroupJobs, state: GroupState, i: int) -> None:
    """Request `i` arrives."""
    state.registers[WAITING] += 1
    if limits.central:
        state.pool[state.registers[TAIL]] = i
        state.registers[TAIL] += 1
        return
    g = choose(limits, jobs, state, i, find_candidates(limits, jobs, state, i, False))
    if state.queue_tail[g] == NONE:
        state.queue_head[g] = i
    else:
        jobs.following[state.queue_tail[g]] = i
    state.queue_tail[g] = i
    state.queued[g] += 1
    state.queued_tokens[g] += jobs.prompt[i]


@kernel
def fill_from_queues(limits: GroupLimits, jobs: GroupJobs, state: GroupState, now_s: float) -> None:
    """Each worker fills its free slots from its own queue."""
    for g in range(limits.workers):
        while state.queue_head[g] != NONE and state.occupied[g] < limits.slots:
            i = state.queue_head[g]
            if not fits(limits, jobs, state, i, g):
                break
            state.queue_head[g] = jobs.following[i]
            if state.queue_head[g] == NONE:
                state.queue_tail[g] = NONE
            state.queued[g] -= 1
            state.queued_tokens[g] -= jobs.prompt[i]
            state.registers[WAITING] -= 1
            start(limits, jobs, state, i, g, now_s)


@called
def fill_from_pool(limits: GroupLimits, jobs: GroupJobs, state: GroupState, now_s: float) -> None:
    """Requests of the central queue in order of arrival, each to a worker of the router's choice."""
    position = 0
    while state.registers[HEAD] + position < state.registers[TAIL]:
        if find_candidates(limits, jobs, state, NONE, True) == 0:
            return
        i = state.pool[state.registers[HEAD] + position]
        count = find_candidates(limits, jobs, state, i, True)
        if count == 0:
            if limits.router != PARTITION:  # the first in line waits for KV, and all others for it
                return
            position += 1
            continue
        g = choose(limits, jobs, state, i, count)
        take_from_pool(state, position)
        start(limits, jobs, state, i, g, now_s)


@called
def balance(limits: GroupLimits, jobs: GroupJobs, state: GroupState, desk: Desk, now_s: float) -> None:
    """The balancing router places waiting requests."""
    total_free = 0
    for g in range(limits.workers):
        desk.free[g] = limits.slots - state.occupied[g]
        total_free += desk.free[g]
    head = state.registers[HEAD]
    count = min(state.registers[TAIL] - head, desk.window + total_free)
    if count == 0 or total_free == 0:
        return
    for i in range(count):
        desk.prompts[i] = jobs.prompt[state.pool[head + i]]
    horizon = len(desk.loads) - 1
    for g in range(limits.workers):
        desk.loads[0, g] = state.resident_kv[g]
        for h in range(1, horizon + 1):
            desk.loads[h, g] = 0
        if horizon > 0:
            for place in range(state.occupied[g]):
                i = state.running[g, place]
                tokens = generated(jobs, state, i)
                steps = predicted(limits, jobs, i, tokens)
                if steps < horizon:
                    desk.loads[max(1, int(np.ceil(steps))), g] -= jobs.prompt[i] + tokens
        for h in range(1, horizon + 1):
            desk.loads[h, g] += desk.loads[h - 1, g]
    done = dispatch(desk, count)
    for j in range(done):
        earlier = 0
        for other in range(j):
            earlier += desk.worker[other] != NONE and desk.placed[other] < desk.placed[j]
        position = desk.placed[j] - earlier
        g = desk.worker[j]
        if not fits(limits, jobs, state, state.pool[state.registers[HEAD] + position], g):
            desk.worker[j] = NONE  # it goes on waiting
            continue
        start(limits, jobs, state, take_from_pool(state, position), g, now_s)


@kernel
def leave(jobs: GroupJobs, state: GroupState, g: int, place: int, end_s: float) -> None:
    """The request at a place of worker `g` is done; the others keep their order."""
    jobs.finish_s[state.running[g, place]] = end_s
    state.reserved_blocks[g] -= jobs.reserve_blocks[state.running[g, place]]
    state.occupied[g] -= 1
    for later in range(place, state.occupied[g]):
        state.running[g, later] = state.running[g, later + 1]
    state.registers[COMPLETED] += 1


@called
def compute(limits: GroupLimits, jobs: GroupJobs, state: GroupState, now_s: float) -> float:
    """What each worker computes in the step that starts now; returns when it ends."""
    end_s = now_s
    for g in range(limits.workers):
        prompt, context = 0, 0.0
        if state.prefilling[g] > 0:
            left = limits.budget - state.decodes[g]
            for place in range(state.occupied[g]):
                i = state.running[g, place]
                missing = jobs.prompt[i] - jobs.computed[i]
                if missing > 0 and left > 0:
                    chunk = min(left, missing)
                    context += chunk * (jobs.computed[i] + chunk / 2)
                    jobs.computed[i] += chunk
                    prompt += chunk
                    left -= chunk
                    if chunk == missing:
                        jobs.base[i] = PENDING  # decodes from the next step on
        own = step_time(limits.law, limits.law_kind, 0, prompt, state.decodes[g], state.decode_kv[g], context)
        state.own_s[g] = limits.sync_s + own
        state.step_prefill[g] = prompt
        end_s = max(end_s, now_s + limits.sync_s + own)
    return end_s


@kernel
def account(limits: GroupLimits, state: GroupState, step_s: float) -> None:
    """Add the step to the totals."""
    largest, smallest, total, running = 0, NEVER, 0, 0
    t = state.totals
    for g in range(limits.workers):
        kv = state.decode_kv[g]
        largest, smallest, total = max(largest, kv), min(smallest, kv), total + kv
        running += state.occupied[g]
        t[2] += step_s - state.own_s[g]
        t[8] += state.decodes[g]
        t[12] += kv > limits.kv_capacity
    t[0] += 1
    t[1] += step_s
    t[3] += limits.workers * largest - total
    t[4] += largest - smallest
    t[5] += largest
    t[6] += total / limits.workers
    t[10] += running * step_s
    t[11] += state.registers[WAITING] * step_s
    for g in range(limits.workers):
        share = state.decode_kv[g] / largest if largest > 0 else 0.0
        t[7] += (limits.power[0] + limits.power[1] * share ** limits.power[2]) * step_s
    state.registers[PEAK] = max(state.registers[PEAK], largest)


@called
def finish(limits: GroupLimits, jobs: GroupJobs, state: GroupState, end_s: float) -> None:
    """Give out the tokens of the step; requests that are done leave."""
    step = state.registers[STEP]
    for g in range(limits.workers):
        state.decode_kv[g] += state.decodes[g]
        state.resident_kv[g] += state.decodes[g]
        if state.next_finish[g] <= step:
            place, following = 0, NEVER
            while place < state.occupied[g]:
                i = state.running[g, place]
                if jobs.computed[i] < jobs.prompt[i] or jobs.base[i] == PENDING:
                    place += 1
                    continue
                last = jobs.base[i] + max(jobs.output[i], 2) - 1
                if last == step:
                    held = jobs.prompt[i] + step + 1 - jobs.base[i]
                    state.decodes[g] -= 1
                    state.decode_kv[g] -= held
                    state.resident_kv[g] -= held
                    leave(jobs, state, g, place, end_s)
                else:
                    following = min(following, last)
                    place += 1
            state.next_finish[g] = following
        if state.step_prefill[g] > 0:
            place = 0
            while place < state.occupied[g]:
                i = state.running[g, place]
                if jobs.computed[i] < jobs.prompt[i] or jobs.base[i] != PENDING:
                    place += 1
                    continue
                state.prefilling[g] -= 1
                jobs.first_token_s[i] = end_s
                state.totals[8] += 1
                if jobs.output[i] == 1:
                    state.resident_kv[g] -= jobs.prompt[i]
                    leave(jobs, state, g, place, end_s)
                else:
                    state.resident_kv[g] += 1
                    begin_decoding(jobs, state, i, g, step)
                    place += 1


@kernel
def record(limits: GroupLimits, state: GroupState, now_s: float, end_s: float) -> None:
    """Add the step that is about to end to the log."""
    row = state.registers[LOGGED]
    if row >= len(state.log_s):
        return
    state.registers[LOGGED] += 1
    state.log_s[row, 0], state.log_s[row, 1] = now_s, end_s
    for g in range(limits.workers):
        state.log[row, g] = state.step_prefill[g]
        state.log[row, limits.workers + g] = state.decodes[g]
        state.log[row, 2 * limits.workers + g] = state.decode_kv[g]
    state.log[row, 3 * limits.workers] = state.registers[WAITING]


@called
def mark(limits: GroupLimits, state: GroupState, left: int, now_s: float) -> None:
    """Note the totals, if there is room, and whether the group is fed: requests are yet to arrive, or wait at every worker."""
    row = state.registers[MARKS]
    if row < len(state.marks):
        state.marks[row, 0] = now_s
        state.totals[9] = state.registers[COMPLETED]
        for k in range(len(state.totals)):
            state.marks[row, 1 + k] = state.totals[k]
        fed = left > 0 or (limits.central and state.registers[WAITING] > 0)
        if not fed and not limits.central:
            fed = True
            for g in range(limits.workers):
                fed = fed and state.queued[g] > 0
        state.marks[row, 1 + len(state.totals)] = 1.0 if fed else 0.0
        state.registers[MARKS] += 1


@kernel
def run(limits: GroupLimits, jobs: GroupJobs, state: GroupState, desk: Desk, first_mark: int, every: int) -> float:
    """Serve all requests; mark the totals at `first_mark` completions and each `every` further ones. Returns the end."""
    registers = state.registers
    n = len(jobs.arrival_s)
    now_s, next_mark = 0.0, first_mark
    while True:
        while registers[NEXT] < n:
            i = registers[NEXT]
            if limits.concurrency > 0:
                if registers[PRESENT] >= limits.concurrency:
                    break
                jobs.arrival_s[i] = now_s
            elif jobs.arrival_s[i] > now_s:
                break
            enqueue(limits, jobs, state, i)
            registers[NEXT] += 1
            registers[PRESENT] += 1
        if not limits.central:
            fill_from_queues(limits, jobs, state, now_s)
        elif limits.router == BALANCE:
            balance(limits, jobs, state, desk, now_s)
        else:
            fill_from_pool(limits, jobs, state, now_s)
        running = 0
        for g in range(limits.workers):
            running += state.occupied[g]
        if running == 0:
            if registers[NEXT] == n:
                return now_s
            now_s = jobs.arrival_s[registers[NEXT]]
            continue
        if registers[COMPLETED] >= next_mark:
            mark(limits, state, n - registers[NEXT], now_s)
            next_mark = registers[COMPLETED] + every
        end_s = compute(limits, jobs, state, now_s)
        record(limits, state, now_s, end_s)
        account(limits, state, end_s - now_s)
        finish(limits, jobs, state, end_s)
        registers[STEP] += 1
        registers[PRESENT] = registers[WAITING]
        for g in range(limits.workers):
            registers[PRESENT] += state.occupied[g]
        now_s = end_s
