"""Nested WAIT (arXiv 2504.11320, Algorithm 2): a segment is a cohort behind a boundary queue.

Within a segment, requests beyond its first stage advance together, as under WAIT: one clock. Before it, at its first stage,
requests that have passed the segment before pause with their KV until n_k of them are there; then the oldest n_k join.

An earlier request is never behind a later one. So the list of running requests in order of admission is the list of stages,
last ones first, and every boundary queue is a stretch of it, given by its two ends and its length.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import called, kernel
from .books import book_queue, book_step, tick
from .cohorts import count_evictions, drop, drop_newest, idle
from .laws import step_time
from .policies import Cohorts
from .prefix_cache import take
from .residency import append, blocks, complete, go_on
from .state import GROUP_SHIFT, NONE, Machine
from .waiting import pop_first, wait_again


@called
def begin_nested_step(machine: Machine, cohorts: Cohorts, r: int) -> None:
    """Form the batch of the longest prefix of segments whose first stages are full; repair memory by evictions."""
    s = machine.replicas[r]
    pool = machine.pool
    start_s = machine.due_s[r]
    first = s.cohort_start
    last = _segments_going(cohorts, s)
    if last == 0:
        idle(machine, r)
        return

    # What the batch needs: blocks that decodes open, and those of whole prompts as far as slots and tokens go.
    decodes = 0
    for k in range(last):
        c = cohorts.cohorts[first + k]
        decodes += c.decoding + min(c.paused, c.threshold)
    budget = s.max_tokens - decodes
    count = 0
    needed = _needed_by_decodes(machine, cohorts, s, last)
    place = s.head
    while count < cohorts.cohorts[first].threshold and place != NONE:
        tokens = pool[place].prompt_tokens
        if s.running + count >= s.max_seqs or tokens > budget:
            break
        budget -= tokens
        needed += blocks(s, tokens)
        count += 1
        place = pool[place].next

    # Repair: requests that pause at boundaries go, newest first, then those that were to leave them.
    evicted = NONE  # evicted requests, in that order, not yet returned to the queue
    end = NONE
    preempted = 0
    for planned in range(2):
        for k in range(1, s.cohorts):
            c = cohorts.cohorts[first + k]
            kept = min(c.paused, c.threshold) if k < last and planned == 0 else 0
            while needed > s.free_blocks and c.paused > kept:
                place = c.newest
                if planned == 1 and k < last:
                    needed -= _opens(machine, s, place)
                _shorten(machine, c)
                drop(machine, r, place, pool[place].prompt_tokens + pool[place].generated - 1)
                pool[place].next = NONE
                if end == NONE:
                    evicted = place
                else:
                    pool[end].next = place
                end = place
                preempted += 1

    # Where no boundary holds anybody, what would be admitted stays out, the last first.
    admitted = NONE
    prompt = 0
    prompt_context = 0.0
    scheduled = 0
    fits = s.free_blocks - needed
    if fits < 0:
        fits += _blocks_of_first(machine, s, count)
        count = 0
        place = s.head
        while place != NONE and fits >= blocks(s, pool[place].prompt_tokens):
            fits -= blocks(s, pool[place].prompt_tokens)
            count += 1
            place = pool[place].next
    opening = _needed_by_decodes(machine, cohorts, s, last)
    for _ in range(count):
        place = pop_first(machine, s, start_s)
        request = pool[place]
        tokens = request.prompt_tokens
        append(machine, s, place)
        cohorts.cohort[place] = first
        if np.isnan(request.admitted_s):
            request.admitted_s = start_s
        if admitted == NONE:
            admitted = place
        take(machine, s, blocks(s, tokens))
        prompt += tokens
        prompt_context += tokens * (tokens / 2)
        scheduled += 1
    while evicted != NONE:
        place = evicted
        evicted = pool[place].next
        wait_again(machine, s, place, start_s)

    # At last, the newest running requests go.
    while opening > s.free_blocks:
        place = s.newest
        k = cohorts.cohort[place]
        c = cohorts.cohorts[k]
        if k - first < last and pool[place].phase == c.residue:
            opening -= 1
        drop_newest(machine, r, place, c)
        wait_again(machine, s, place, start_s)
        preempted += 1
    take(machine, s, opening)
    count_evictions(machine, r, preempted)

    kv_tokens = 0
    for k in range(s.cohorts):
        c = cohorts.cohorts[first + k]
        c.going = 1 if k < last else 0
        if c.going:
            c.context += c.decoding
            scheduled += c.decoding
            kv_tokens += c.context
            entering = min(c.paused, c.threshold)
            scheduled += entering
            for _ in range(entering):
                kv_tokens += _enter(machine, cohorts, s, k)
    decodes = scheduled - count
    if scheduled == 0:
        idle(machine, r)
        return

    book_queue(s, start_s, s.max_tokens - prompt - decodes)
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    while admitted != NONE:
        if np.isnan(pool[admitted].first_token_s):
            pool[admitted].first_token_s = end_s
        _advance(machine, cohorts, s, 0, admitted)
        admitted = pool[admitted].newer
    book_step(machine, r, start_s, step_s, prompt, decodes, scheduled, scheduled, preempted)
    for k in range(last):
        tick(cohorts.cohorts[first + k])


@kernel
def _segments_going(cohorts: Cohorts, s: Any) -> int:
    """The largest k such that the first stage of each of the segments 1..k holds its threshold."""
    for k in range(s.cohorts):
        c = cohorts.cohorts[s.cohort_start + k]
        if (s.waiting if k == 0 else c.paused) < c.threshold:
            return k
    return int(s.cohorts)


@kernel
def _opens(machine: Machine, s: Any, place: int) -> int:
    """Whether the next token of a paused request opens a block."""
    tokens = machine.pool[place].prompt_tokens + machine.pool[place].generated
    return blocks(s, tokens) - blocks(s, tokens - 1)


@kernel
def _needed_by_decodes(machine: Machine, cohorts: Cohorts, s: Any, last: int) -> int:
    """Blocks that the decodes of the first `last` segments open."""
    opening = 0
    for k in range(last):
        c = cohorts.cohorts[s.cohort_start + k]
        opening += machine.phases[c.phase_start + c.residue]
        place = c.oldest
        for _ in range(min(c.paused, c.threshold)):
            opening += _opens(machine, s, place)
            place = machine.pool[place].newer
    return int(opening)


@kernel
def _blocks_of_first(machine: Machine, s: Any, count: int) -> int:
    """Blocks of the prompts of the first `count` waiting requests."""
    total = 0
    place = s.head
    for _ in range(count):
        total += blocks(s, machine.pool[place].prompt_tokens)
        place = machine.pool[place].next
    return total


@kernel
def _shorten(machine: Machine, c: Any) -> None:
    """The newest request at a boundary leaves it."""
    c.paused -= 1
    c.newest = machine.pool[c.newest].older if c.paused > 0 else NONE
    if c.paused == 0:
        c.oldest = NONE


@kernel
def _enter(machine: Machine, cohorts: Cohorts, s: Any, k: int) -> int:
    """The oldest request at the boundary before segment `k` joins it; return the tokens it holds with the one under way."""
    c = cohorts.cohorts[s.cohort_start + k]
    place = c.oldest
    c.paused -= 1
    c.oldest = machine.pool[place].newer if c.paused > 0 else NONE
    if c.paused == 0:
        c.newest = NONE
    cohorts.cohort[place] = s.cohort_start + k
    _advance(machine, cohorts, s, k, place)
    request = machine.pool[place]
    return int(request.prompt_tokens + request.generated - 1)


@kernel
def _advance(machine: Machine, cohorts: Cohorts, s: Any, k: int, place: int) -> None:
    """A request passes the first stage of segment `k` in the present iteration, and stays until it ends or the segment does."""
    c = cohorts.cohorts[s.cohort_start + k]
    request = machine.pool[place]
    request.generated += 1
    stages = request.output_tokens - request.generated
    if k < s.cohorts - 1:
        stages = min(stages, c.end + 1 - request.generated)
    go_on(machine, c, place, c.iteration + stages)


@called
def complete_nested_step(machine: Machine, cohorts: Cohorts, r: int, now_s: float) -> int:
    """Of the segments that advanced, requests at their last stage are complete or join the next boundary; return how many are."""
    s = machine.replicas[r]
    completed = 0
    for k in range(s.cohorts):
        c = cohorts.cohorts[s.cohort_start + k]
        bucket = c.bucket_start + ((c.iteration - 1) & (machine.ring - 1))
        place = machine.buckets[bucket]
        if not c.going or place == NONE:
            continue
        machine.buckets[bucket] = NONE
        newest = NONE  # of those that go on
        earlier = 0
        while place != NONE:  # newest first
            request = machine.pool[place]
            following = request.next
            machine.groups[bucket >> GROUP_SHIFT] -= 1
            tokens = request.offset + c.iteration
            if tokens + 1 == request.prompt_tokens + request.output_tokens:
                complete(machine, r, c, place, now_s)
                completed += 1
            else:
                request.generated = tokens + 1 - request.prompt_tokens
                request.last_iteration = NONE
                c.decoding -= 1
                c.context -= tokens
                machine.phases[c.phase_start + request.phase] -= 1
                boundary = cohorts.cohorts[s.cohort_start + k + 1]
                if newest == NONE:
                    newest = place
                    earlier = boundary.paused
                if earlier == 0:
                    boundary.oldest = place
                boundary.paused += 1
                cohorts.cohort[place] = s.cohort_start + k + 1
            place = following
        if newest != NONE:
            cohorts.cohorts[s.cohort_start + k + 1].newest = newest
    return completed
