"""The order of events: completions, then arrivals, then step starts at any instant; each replica as lazily as its router allows."""

from __future__ import annotations

import numpy as np

from ..._types import BoolArray, FloatArray
from ..domain import (
    CLASS_BUDGETS,
    DECODE_FIRST,
    LOOK_AHEAD,
    MIXED,
    NESTED_WAIT,
    ORCA,
    PREFILL_FIRST,
    PRIORITY,
    RANDOM_BUDGET,
    WAIT,
)
from ._jit import kernel
from .budgets import begin_budget_step
from .look_ahead import begin_look_ahead_step
from .nested import begin_nested_step, complete_nested_step
from .orca import begin_orca_step
from .policies import Ahead, Cohorts, Draws, Heap, Lines, Waits
from .residency import blocks, complete_due
from .routing import POWER_OF_TWO, SHORTEST_QUEUE, least, static_choice, two_candidates
from .separate import begin_separate_step
from .span import decode_span
from .state import FREE, NONE, OWED, STEPS_LEFT, Arrivals, Machine
from .step import begin_step, end_step
from .wait import begin_wait_step, complete_wait_step
from .waiting import join


@kernel
def advance(machine: Machine, r: int, until_s: float) -> bool:
    """Finish the steps that end by `until_s` and begin those that start before it; False if the caller must make room."""
    s = machine.replicas[r]
    logged = len(machine.log.start_s) > 0
    sampled = len(machine.log.samples) > 0
    while True:
        if s.in_step:
            if machine.due_s[r] > until_s:
                return True
            if sampled and machine.due_s[r] > len(machine.log.samples) * machine.log.resolution_s:
                return False
            finish_due_step(machine, r)
        else:
            if not machine.due_s[r] < until_s:
                return True
            if machine.registers[STEPS_LEFT] <= 0:
                return False
            if s.partial == NONE and s.decoding > 0 and not (logged or sampled):
                spanned = _span(machine, machine.policies.look_ahead, machine.policies.draws, r, until_s)
                if spanned and not (machine.due_s[r] < until_s and machine.registers[STEPS_LEFT] > 0):
                    continue
            machine.registers[STEPS_LEFT] -= 1
            begin_due_step(machine, r)


@kernel
def _span(machine: Machine, ahead: Ahead | None, draws: Draws | None, r: int, until_s: float) -> bool:
    """Run iterations up to `until_s` in which nothing can be admitted; False if something may be admitted now."""
    s = machine.replicas[r]
    beyond = 0
    quiet = s.waiting == 0 or s.blocked != 0
    if ahead is not None:  # noqa: SIM102 -- only a comparison with None alone is decided by the compiler
        if s.discipline == LOOK_AHEAD and s.waiting > 0:
            quiet = s.retry > s.iteration
            beyond = max(machine.registers[STEPS_LEFT] - (s.retry - s.iteration), 0)
    if not quiet:
        return False
    steps = s.steps
    machine.registers[STEPS_LEFT] -= beyond
    decode_span(machine, r, until_s)
    machine.registers[STEPS_LEFT] += beyond
    if draws is not None:
        draws.used[r] += s.steps - steps  # whether or not there is anybody to admit
    return True


@kernel
def begin_due_step(machine: Machine, r: int) -> None:
    """Begin the step that is due, as the replica's discipline has it."""
    discipline = machine.replicas[r].discipline
    p = machine.policies
    if discipline in (MIXED, PRIORITY):
        begin_step(machine, r)
    elif discipline in (PREFILL_FIRST, DECODE_FIRST):
        begin_separate_step(machine, r)
    else:
        _begin_policy_step(machine, p.orca, p.wait, p.nested_wait, p.class_budgets, p.draws, p.heap, p.look_ahead, r)


@kernel
def _begin_policy_step(
    machine: Machine,
    orca: BoolArray | None,
    wait: Waits | None,
    nested_wait: Cohorts | None,
    class_budgets: Lines | None,
    draws: Draws | None,
    heap: Heap | None,
    ahead: Ahead | None,
    r: int,
) -> None:
    """Disciplines that no replica runs are None here, and not compiled."""
    discipline = machine.replicas[r].discipline
    if orca is not None:  # noqa: SIM102
        if discipline == ORCA:
            begin_orca_step(machine, r)
    if wait is not None:  # noqa: SIM102
        if discipline == WAIT:
            begin_wait_step(machine, wait.lines, wait.cohorts, r)
    if nested_wait is not None:  # noqa: SIM102
        if discipline == NESTED_WAIT:
            begin_nested_step(machine, nested_wait, r)
    if class_budgets is not None:  # noqa: SIM102
        if discipline == CLASS_BUDGETS:
            begin_budget_step(machine, class_budgets, None, r)
    if draws is not None:  # noqa: SIM102
        if discipline == RANDOM_BUDGET:
            begin_budget_step(machine, None, draws, r)
    if heap is not None:  # noqa: SIM102
        if ahead is not None:  # noqa: SIM102
            if discipline == LOOK_AHEAD:
                begin_look_ahead_step(machine, heap, ahead, r)


@kernel
def finish_due_step(machine: Machine, r: int) -> int:
    """Finish the step under way; return how many requests it completed."""
    s = machine.replicas[r]
    end_step(machine, r)
    if s.cohorts == 0:
        completed = complete_due(machine, r, s, s.ended_s)
    else:
        completed = _complete_cohorts(machine, machine.policies.wait, machine.policies.nested_wait, r, s.ended_s)
    if completed > 0:
        s.in_vain = 0
    if machine.requests[r] == 0:
        machine.due_s[r] = np.inf
    return completed


@kernel
def _complete_cohorts(machine: Machine, wait: Waits | None, nested_wait: Cohorts | None, r: int, now_s: float) -> int:
    completed = 0
    if wait is not None:  # noqa: SIM102
        if machine.replicas[r].discipline == WAIT:
            completed = complete_wait_step(machine, wait.cohorts, r, now_s)
    if nested_wait is not None:  # noqa: SIM102
        if machine.replicas[r].discipline == NESTED_WAIT:
            completed = complete_nested_step(machine, nested_wait, r, now_s)
    return completed


@kernel
def turn_away(machine: Machine, r: int, index: int) -> None:
    """Request `index` is not served; replica `r` counts it."""
    machine.replicas[r].rejected += 1
    if len(machine.outcome.replica):
        machine.outcome.replica[index] = NONE
        machine.outcome.preemptions[index] = 0
        machine.outcome.admitted_s[index] = np.nan
        machine.outcome.first_token_s[index] = np.nan
        machine.outcome.finish_s[index] = np.nan


@kernel
def enqueue(machine: Machine, r: int, arrivals: Arrivals, i: int, now_s: float) -> None:
    """Row `i` of `arrivals` joins replica `r`, or is turned away."""
    s = machine.replicas[r]
    if s.waiting >= s.most_waiting:
        turn_away(machine, r, arrivals.first + i)
        return
    place = machine.registers[FREE]
    request = machine.pool[place]
    machine.registers[FREE] = request.next
    request.index = arrivals.first + i
    request.arrival_s = now_s
    request.admitted_s = np.nan
    request.first_token_s = np.nan
    request.prompt_tokens = arrivals.prompt_tokens[i]
    request.output_tokens = arrivals.output_tokens[i]
    request.reserve_blocks = blocks(s, arrivals.prompt_tokens[i] + arrivals.max_output_tokens[i])
    request.generated = 0
    request.preemptions = 0
    request.kept_blocks = 0
    most = min(arrivals.cached_prefix_tokens[i], request.prompt_tokens - 1)
    request.found_tokens = most // s.block_size * s.block_size if most > 0 else 0
    join(machine, r, place, arrivals.request_class[i], now_s)
    machine.requests[r] += 1
    machine.tokens[r] += request.prompt_tokens
    if s.in_step == 0 and machine.due_s[r] == np.inf:
        machine.due_s[r] = now_s
    if len(machine.outcome.replica):
        machine.outcome.replica[request.index] = r
    if len(machine.outcome.arrival_s):
        machine.outcome.arrival_s[request.index] = now_s


@kernel
def run_open(machine: Machine, arrivals: Arrivals, router: int, shares: FloatArray, begin: int) -> int:
    """Let the rows of `arrivals` from `begin` arrive; return the first row that has not, for want of room in a log."""
    count = len(machine.due_s)
    for i in range(begin, len(arrivals.arrival_s)):
        now_s = arrivals.arrival_s[i]
        row = shares[arrivals.request_class[i]]
        r = static_choice(router, count, arrivals.first + i, arrivals.uniforms[i], row)
        if r == count:  # not admitted anywhere: counted at the first replica
            turn_away(machine, 0, arrivals.first + i)
            continue
        if r != NONE:
            if not advance(machine, r, now_s):
                return i
        elif router == POWER_OF_TWO:
            low, high = two_candidates(count, arrivals.uniforms[i])
            if not (advance(machine, low, now_s) and advance(machine, high, now_s)):
                return i
            r = high if machine.requests[high] < machine.requests[low] else low
        else:
            if not advance_all(machine, now_s):
                return i
            r = least(machine.requests if router == SHORTEST_QUEUE else machine.tokens)
        enqueue(machine, r, arrivals, i, now_s)
    return len(arrivals.arrival_s)


@kernel
def advance_all(machine: Machine, until_s: float) -> bool:
    """`advance` for every replica that has something due."""
    for r in range(len(machine.due_s)):
        if machine.due_s[r] <= until_s and machine.due_s[r] < np.inf and not advance(machine, r, until_s):
            return False
    return True


@kernel
def run_closed(
    machine: Machine, arrivals: Arrivals, router: int, shares: FloatArray, begin: int, horizon_s: float
) -> int:
    """Let the rows of `arrivals` from `begin` replace completed requests; return the first row that has not arrived."""
    count = len(machine.due_s)
    registers = machine.registers
    i = begin
    while True:
        while registers[OWED] > 0:
            if i == len(arrivals.arrival_s):
                return i
            row = shares[arrivals.request_class[i]]
            r = static_choice(router, count, arrivals.first + i, arrivals.uniforms[i], row)
            if r == NONE and router == POWER_OF_TWO:
                low, high = two_candidates(count, arrivals.uniforms[i])
                r = high if machine.requests[high] < machine.requests[low] else low
            elif r == NONE:
                r = least(machine.requests if router == SHORTEST_QUEUE else machine.tokens)
            enqueue(machine, r, arrivals, i, machine.now_s[0])
            registers[OWED] -= 1
            i += 1
        now_s = machine.due_s[least(machine.due_s)]
        sampled = len(machine.log.samples) > 0
        if not now_s < horizon_s or registers[STEPS_LEFT] < count:
            return i
        if sampled and now_s > len(machine.log.samples) * machine.log.resolution_s:
            return i
        machine.now_s[0] = now_s
        for r in range(count):
            if machine.due_s[r] == now_s and machine.replicas[r].in_step:
                registers[OWED] += finish_due_step(machine, r)
        if registers[OWED] == 0:
            for r in range(count):
                if machine.due_s[r] == now_s and machine.replicas[r].in_step == 0:
                    registers[STEPS_LEFT] -= 1
                    begin_due_step(machine, r)


@kernel
def finish_all(machine: Machine) -> None:
    """Finish every step under way."""
    for r in range(len(machine.due_s)):
        if machine.replicas[r].in_step:
            finish_due_step(machine, r)
