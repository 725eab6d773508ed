"""Shortest first with exact look-ahead: one iteration of one replica under MC-SF, SVF, H-SF, A_max, A_min.

The decisions of `stability.sim.reference.planners.look_ahead`. The queue of arrivals is only a letter box, emptied into a heap
in the policy's order when an iteration begins. The residency core is that of first come, first served: between two events an
iteration costs O(1), and iterations in which the head of the heap cannot be admitted are run as a span.

A request that outlives its prediction counts as ending with its next token: it is in no future entry of the forecast, and the
present iteration is judged by the blocks that are really in use. Under A_min the running requests are in two more heaps, by
pseudo-length, and those that have outlived theirs, whose pseudo-length is what they have generated, by recency; a request moves
from the first to the second when it comes to its top. What lies deeper in the first although it has outlived its
pseudo-length has generated at least what the top claims, hence never is the one to cancel before the top.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..._types import IntArray
from ._jit import called, kernel
from .books import book_queue, book_step, tick
from .forecast import CHUNK, Forecast, blocked_until, change, forget
from .laws import step_time
from .pairing_heap import insert, without, without_least
from .residency import append, blocks, remove, start_decoding
from .state import GROUP_SHIFT, NONE, STEPS_LEFT, Machine
from .waiting import count_until

NEVER = 1 << 62
"""Not before a running request leaves."""

OUTPUT, VOLUME = 0, 1
"""Orders: ascending predicted output, ascending predicted KV volume."""

FIRST_ROW, IN_CIRCLES = 0, 1
"""Places in `Ahead.registers`: the number of the first request whose prediction is in `told`, and whether some replica has evicted in
vain for so long that the run must end."""

DESK = np.dtype(
    [
        ("order", "i8"),
        ("from_below", "i8"),  # A_min: pseudo-lengths rise, and decide who is cancelled
        ("column", "i8"),  # of `told`
        ("waiting", "i8"),  # heap of waiting requests
        ("retry", "i8"),  # iteration before which the first of them cannot be admitted
        ("known", "i8"),  # where the first chunk of the forecast begins that is not emptied
        ("alone", "i8"),  # the only request running is expected not to fit, and was admitted since nothing else ran
        ("promising", "i8"),  # heap of running requests by pseudo-length
        ("overdue", "i8"),  # heap of those that have outlived it
        ("admissions", "i8"),
        ("in_vain", "i8"),  # evictions since a request last completed
    ],
    align=True,
)
"""One replica's, beside its `REPLICA`."""

SEAT = np.dtype(
    [
        ("key", "i8"),
        ("tie", "i8"),
        ("end", "i8"),  # last iteration in the forecast
        ("predicted", "i4"),
        ("child", "i4"),
        ("sibling", "i4"),
        ("before", "i4"),
    ],
    align=True,
)
"""One request's, beside its `REQUEST`."""


class Ahead(NamedTuple):
    """What the machine holds for policies that look ahead.

    Attributes
    ----------
    desks, seats : record arrays of `DESK` and `SEAT`
    forecast : Forecast
        KV at future iterations.
    told : (n_policies, n) int
        Predicted lengths of the block of requests that arrives now.
    """

    desks: Any
    seats: Any
    forecast: Forecast
    told: IntArray
    registers: IntArray
    most_in_vain: int


@kernel
def quiet_steps(ahead: Ahead, s: Any, r: int) -> int:
    """Iterations from now on in which nothing can be admitted, if none completes or is evicted."""
    if s.head != NONE:
        return 0
    desk = ahead.desks[r]
    return int(NEVER if desk.waiting == NONE else max(desk.retry - s.iteration, 0))


@called
def collect(ahead: Ahead, machine: Machine, r: int) -> None:
    """Put the requests that have arrived in their order."""
    s, desk = machine.replicas[r], ahead.desks[r]
    place = s.head
    while place != NONE:
        request, seat = machine.pool[place], ahead.seats[place]
        seat.predicted = ahead.told[desk.column, request.index - ahead.registers[FIRST_ROW]]
        _join(ahead, machine, r, place)
        place = request.next
    s.head = s.tail = NONE


@kernel
def _join(ahead: Ahead, machine: Machine, r: int, place: int) -> None:
    """A request joins the waiting ones."""
    desk, seat, request = ahead.desks[r], ahead.seats[place], machine.pool[place]
    length = np.int64(seat.predicted)
    seat.key = length if desk.order == OUTPUT else request.prompt_tokens * length + length * (length + 1) // 2
    seat.tie = request.index
    desk.waiting = insert(ahead.seats, desk.waiting, place)
    if desk.waiting == place:
        desk.retry = 0


@kernel
def begin_look_ahead_step(ahead: Ahead, machine: Machine, r: int) -> None:
    """Decide what the step that starts now computes; leave it under way."""
    s, desk = machine.replicas[r], ahead.desks[r]
    start_s = machine.due_s[r]
    collect(ahead, machine, r)

    preempted = 0
    opening = machine.phases[s.phase_start + s.residue]
    while opening > s.free_blocks:
        place = _least_pseudo_length(ahead, machine, r) if desk.from_below else s.newest
        opening -= _cancel(ahead, machine, r, place, start_s)
        preempted += 1
    s.free_blocks -= opening
    decodes = s.decoding

    newest = s.newest
    prompt, prompt_context = 0, 0.0
    if preempted == 0 or desk.from_below:
        prompt, prompt_context = _admit(ahead, machine, r, start_s)
    book_queue(s, start_s, s.max_tokens - prompt - decodes)

    kv_tokens = s.context + decodes
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    s.context = kv_tokens
    given = decodes
    place = s.oldest if newest == NONE else machine.pool[newest].newer
    while place != NONE:
        start_decoding(machine, s, place, end_s)
        given += 1
        place = machine.pool[place].newer
    _foresee_completions(ahead, machine, r)
    book_step(machine, r, start_s, step_s, prompt, decodes, given, given, preempted)
    tick(s)


@kernel
def _admit(ahead: Ahead, machine: Machine, r: int, start_s: float) -> tuple[int, float]:
    """Admit from the head while it fits to its predicted end; the prompt tokens admitted, and the sum of their contexts."""
    s, desk, seats = machine.replicas[r], ahead.desks[r], ahead.seats
    now = s.iteration
    budget = s.max_tokens - s.decoding
    prompt, prompt_context = 0, 0.0
    while desk.waiting != NONE and now >= desk.retry:
        place = desk.waiting
        request, seat = machine.pool[place], seats[place]
        tokens = int(request.prompt_tokens)
        end = now + seat.predicted - 1
        if s.running == 0:
            # Nothing else runs: it is admitted in any case.
            desk.alone = 1 if blocks(s, tokens + seat.predicted - 1) > s.capacity_blocks else 0
            if desk.alone:
                end = now
        else:
            desk.retry = _refused_until(ahead, s, r, tokens, end, budget, prompt == 0)
            if desk.retry > now:
                break
        desk.waiting = without_least(seats, place)
        count_until(s, start_s)
        s.waiting -= 1
        append(machine, s, place)
        if np.isnan(request.admitted_s):
            request.admitted_s = start_s
        s.free_blocks -= blocks(s, tokens)
        prompt += tokens
        prompt_context += tokens * (tokens / 2)
        budget -= tokens
        seat.end = end
        if end > now:
            _forget_past(ahead, r, now)
            change(ahead.forecast, r, s, 1, tokens + 1, now + 1, end)
        if desk.from_below:
            desk.admissions += 1
            seat.key, seat.tie = seat.predicted, -desk.admissions  # the newest first
            desk.promising = insert(seats, desk.promising, place)
    return prompt, prompt_context


@kernel
def _refused_until(ahead: Ahead, s: Any, r: int, tokens: int, end: int, budget: int, none_yet: bool) -> int:
    """0 if the head of the queue can be admitted now beside others; otherwise the iteration before which it cannot.

    What is refused for want of slots, of blocks now, or of the token budget of an iteration that admits nothing, is refused until a
    running request leaves: until then all three only get scarcer. So is what does not even fit alone.
    """
    desk, now = ahead.desks[r], s.iteration
    if s.running >= s.max_seqs or desk.alone or blocks(s, tokens) > s.free_blocks:
        return NEVER
    if blocks(s, tokens + end - now) > s.capacity_blocks:
        return NEVER
    if tokens > budget:
        return NEVER if none_yet else int(now + 1)
    if end == now:
        return 0
    _forget_past(ahead, r, now)
    return blocked_until(ahead.forecast, r, s, tokens + 1, now + 1, end)


@kernel
def _forget_past(ahead: Ahead, r: int, now: int) -> None:
    desk = ahead.desks[r]
    if desk.known + CHUNK <= now:
        desk.known = forget(ahead.forecast, r, desk.known, now)


@kernel
def _withdraw(ahead: Ahead, machine: Machine, r: int, place: int) -> None:
    """Take the rest of a request that leaves before its predicted end out of the forecast."""
    s, seat = machine.replicas[r], ahead.seats[place]
    now = s.iteration
    if seat.end > now:
        _forget_past(ahead, r, now)
        held = machine.pool[place].offset + now + 2
        change(ahead.forecast, r, s, -1, held, now + 1, seat.end)
        ahead.desks[r].retry = 0


@kernel
def _foresee_completions(ahead: Ahead, machine: Machine, r: int) -> None:
    """What the requests that end with this step mean for the steps to come."""
    s, desk = machine.replicas[r], ahead.desks[r]
    place = machine.buckets[s.bucket_start + (s.iteration & (machine.ring - 1))]
    if place == NONE:
        return
    desk.in_vain = 0
    if desk.retry == NEVER:
        desk.retry = 0
    while place != NONE:
        _withdraw(ahead, machine, r, place)
        if desk.from_below:
            _leave_order(ahead, r, place)
        place = machine.pool[place].next


@kernel
def _leave_order(ahead: Ahead, r: int, place: int) -> None:
    desk = ahead.desks[r]
    if ahead.seats[place].key == NONE:
        desk.overdue = without(ahead.seats, desk.overdue, place)
    else:
        desk.promising = without(ahead.seats, desk.promising, place)


@kernel
def _generated(machine: Machine, s: Any, place: int) -> int:
    """Tokens of a decoding request before the present iteration."""
    request = machine.pool[place]
    return int(request.offset + s.iteration + 1 - request.prompt_tokens)


@called
def _least_pseudo_length(ahead: Ahead, machine: Machine, r: int) -> int:
    """The running request of least pseudo-length, the newest of several."""
    s, desk, seats = machine.replicas[r], ahead.desks[r], ahead.seats
    while desk.promising != NONE:
        place = desk.promising
        if seats[place].key >= _generated(machine, s, place):
            break
        desk.promising = without_least(seats, place)
        seats[place].key = NONE
        desk.overdue = insert(seats, desk.overdue, place)
    one, two = desk.promising, desk.overdue
    if two == NONE:
        return int(one)
    if one == NONE:
        return int(two)
    by_prediction, by_tokens = seats[one].key, _generated(machine, s, two)
    if by_prediction < by_tokens or (by_prediction == by_tokens and seats[one].tie < seats[two].tie):
        return int(one)
    return int(two)


@called
def _cancel(ahead: Ahead, machine: Machine, r: int, place: int, now_s: float) -> int:
    """A running request starts anew from the queue; 1 if it was to open a block in the present iteration."""
    s, desk, seat, request = machine.replicas[r], ahead.desks[r], ahead.seats[place], machine.pool[place]
    generated = _generated(machine, s, place)
    tokens = request.prompt_tokens + generated - 1
    _unlink(machine, s, place)
    machine.phases[s.phase_start + request.phase] -= 1
    s.decoding -= 1
    s.context -= tokens
    remove(machine, s, place)
    s.free_blocks += blocks(s, tokens)
    _withdraw(ahead, machine, r, place)
    if desk.from_below:
        _leave_order(ahead, r, place)
        seat.predicted = max(seat.predicted, generated)
    request.generated = 0
    request.preemptions += 1
    s.preemptions += 1
    machine.tokens[r] -= generated
    count_until(s, now_s)
    s.waiting += 1
    desk.retry = 0
    _join(ahead, machine, r, place)
    desk.in_vain += 1
    if desk.in_vain > ahead.most_in_vain + 100 * machine.requests[r]:
        ahead.registers[IN_CIRCLES] = desk.in_vain
        machine.registers[STEPS_LEFT] = 0
    return 1 if request.phase == s.residue else 0


@kernel
def _unlink(machine: Machine, s: Any, place: int) -> None:
    """Take a decoding request off the list of its last iteration, at whose head the newest is."""
    request = machine.pool[place]
    bucket = s.bucket_start + (request.last_iteration & (machine.ring - 1))
    machine.groups[bucket >> GROUP_SHIFT] -= 1
    at = machine.buckets[bucket]
    if at == place:
        machine.buckets[bucket] = request.next
        return
    while machine.pool[at].next != place:
        at = machine.pool[at].next
    machine.pool[at].next = request.next
