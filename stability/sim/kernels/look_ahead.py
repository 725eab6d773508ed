"""Shortest first with exact look-ahead: one iteration of one replica under MC-SF, SVF, H-SF, A_max, A_min.

The decisions of `stability.sim.reference.planners.look_ahead`. The requests wait in a heap in the policy's order. The residency
core is that of first come, first served: between two events an iteration costs O(1), and iterations in which the head of the
heap cannot be admitted are run as a span.

A request that outlives its prediction counts as ending with its next token: it is in no future entry of the forecast, and the
present iteration is judged by the blocks that are really in use. Under A_min the running requests are in two more heaps, by
pseudo-length, and those that have outlived theirs, whose pseudo-length is what they have generated, by recency; a request moves
from the first to the second when it comes to its top. What lies deeper in the first although it has outlived its
pseudo-length has generated at least what the top claims, hence never is the one to cancel before the top.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import called, kernel
from .books import book_queue, book_step, tick
from .cohorts import count_evictions, drop_newest
from .forecast import CHUNK, blocked_until, change, forget
from .laws import step_time
from .pairing_heap import insert, without, without_least
from .policies import Ahead, Heap
from .prefix_cache import take
from .residency import append, blocks, start_decoding
from .state import NONE, Machine
from .waiting import pop_first, wait_again

NEVER = 1 << 62
"""Not before a running request leaves."""


@called
def begin_look_ahead_step(machine: Machine, heap: Heap, ahead: Ahead, r: int) -> None:
    """Decide what the step that starts now computes; leave it under way."""
    s, desk = machine.replicas[r], ahead.desks[r]
    start_s = machine.due_s[r]

    preempted = 0
    opening = machine.phases[s.phase_start + s.residue]
    while opening > s.free_blocks:
        place = _least_pseudo_length(machine, heap, ahead, r) if desk.from_below else s.newest
        opening -= _cancel(machine, heap, ahead, r, place, start_s)
        preempted += 1
    take(machine, s, opening)
    count_evictions(machine, r, preempted)
    decodes = s.decoding

    newest = s.newest
    prompt, prompt_context = 0, 0.0
    if preempted == 0 or desk.from_below:
        prompt, prompt_context = _admit(machine, heap, ahead, r, start_s)
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
    _foresee_completions(machine, heap, ahead, r)
    book_step(machine, r, start_s, step_s, prompt, decodes, given, given, preempted)
    tick(s)


@kernel
def _admit(machine: Machine, heap: Heap, ahead: Ahead, r: int, start_s: float) -> tuple[int, float]:
    """Admit from the head while it fits to its predicted end; the prompt tokens admitted, and the sum of their contexts."""
    s, desk = machine.replicas[r], ahead.desks[r]
    now = s.iteration
    budget = s.max_tokens - s.decoding
    prompt, prompt_context = 0, 0.0
    while s.head != NONE and now >= s.retry:
        place = s.head
        request = machine.pool[place]
        tokens = int(request.prompt_tokens)
        end = now + ahead.predicted[place] - 1
        if s.running == 0:
            # Nothing else runs: it is admitted in any case.
            desk.alone = 1 if blocks(s, tokens + end - now) > s.capacity_blocks else 0
            if desk.alone:
                end = now
        else:
            s.retry = _refused_until(ahead, s, r, tokens, end, budget, prompt == 0)
            if s.retry > now:
                break
        pop_first(machine, s, start_s)
        append(machine, s, place)
        if np.isnan(request.admitted_s):
            request.admitted_s = start_s
        take(machine, s, blocks(s, tokens))
        prompt += tokens
        prompt_context += tokens * (tokens / 2)
        budget -= tokens
        ahead.end[place] = end
        if end > now:
            _forget_past(ahead, r, now)
            change(ahead.forecast, r, s, 1, tokens + 1, now + 1, end)
        if desk.from_below:
            desk.admissions += 1
            heap.nodes[place].tie = -desk.admissions  # the newest first; the key is the same
            desk.promising = insert(heap.nodes, desk.promising, place)
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
def _withdraw(machine: Machine, ahead: Ahead, r: int, place: int) -> None:
    """Take the rest of a request that leaves before its predicted end out of the forecast."""
    s = machine.replicas[r]
    now = s.iteration
    if ahead.end[place] > now:
        _forget_past(ahead, r, now)
        held = machine.pool[place].offset + now + 2
        change(ahead.forecast, r, s, -1, held, now + 1, ahead.end[place])
        s.retry = 0


@kernel
def _foresee_completions(machine: Machine, heap: Heap, ahead: Ahead, r: int) -> None:
    """What the requests that end with this step mean for the steps to come."""
    s, desk = machine.replicas[r], ahead.desks[r]
    place = machine.buckets[s.bucket_start + (s.iteration & (machine.ring - 1))]
    if place == NONE:
        return
    if s.retry == NEVER:
        s.retry = 0
    while place != NONE:
        _withdraw(machine, ahead, r, place)
        if desk.from_below:
            _leave_order(heap, desk, place)
        place = machine.pool[place].next


@kernel
def _leave_order(heap: Heap, desk: Any, place: int) -> None:
    if heap.nodes[place].key == NONE:
        desk.overdue = without(heap.nodes, desk.overdue, place)
    else:
        desk.promising = without(heap.nodes, desk.promising, place)


@kernel
def _generated(machine: Machine, s: Any, place: int) -> int:
    """Tokens of a decoding request before the present iteration."""
    request = machine.pool[place]
    return int(request.offset + s.iteration + 1 - request.prompt_tokens)


@called
def _least_pseudo_length(machine: Machine, heap: Heap, ahead: Ahead, r: int) -> int:
    """The running request of least pseudo-length, the newest of several."""
    s, desk, nodes = machine.replicas[r], ahead.desks[r], heap.nodes
    while desk.promising != NONE:
        place = desk.promising
        if nodes[place].key >= _generated(machine, s, place):
            break
        desk.promising = without_least(nodes, place)
        nodes[place].key = NONE
        desk.overdue = insert(nodes, desk.overdue, place)
    one, two = desk.promising, desk.overdue
    if two == NONE:
        return int(one)
    if one == NONE:
        return int(two)
    by_prediction, by_tokens = nodes[one].key, _generated(machine, s, two)
    if by_prediction < by_tokens or (by_prediction == by_tokens and nodes[one].tie < nodes[two].tie):
        return int(one)
    return int(two)


@kernel
def _cancel(machine: Machine, heap: Heap, ahead: Ahead, r: int, place: int, now_s: float) -> int:
    """A running request starts anew from the queue; 1 if it was to open a block in the present iteration."""
    s, desk, request = machine.replicas[r], ahead.desks[r], machine.pool[place]
    opens = 1 if request.phase == s.residue else 0
    _withdraw(machine, ahead, r, place)
    if desk.from_below:
        _leave_order(heap, desk, place)
        ahead.predicted[place] = max(ahead.predicted[place], _generated(machine, s, place))
        node = heap.nodes[place]
        node.key, node.tie = ahead.predicted[place], request.index
    _to_head(machine, s, place)
    drop_newest(machine, r, place, s)
    wait_again(machine, s, place, now_s)
    s.retry = 0
    return opens


@kernel
def _to_head(machine: Machine, s: Any, place: int) -> None:
    """Put a decoding request at the head of the list of its last iteration, where the newest is."""
    pool = machine.pool
    bucket = s.bucket_start + (pool[place].last_iteration & (machine.ring - 1))
    at = machine.buckets[bucket]
    if at == place:
        return
    while pool[at].next != place:
        at = pool[at].next
    pool[at].next = pool[place].next
    pool[place].next = machine.buckets[bucket]
    machine.buckets[bucket] = place
