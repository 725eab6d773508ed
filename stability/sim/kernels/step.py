"""One iteration of one replica: what it computes, how long it takes, who leaves at its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..domain import CHUNK_GATE, RESERVE
from ._jit import kernel
from .laws import step_time
from .prefix_cache import take, take_back
from .residency import append, blocks, complete, evict_newest, start_decoding
from .state import GROUP_SHIFT, LOGGED, NONE, Machine
from .waiting import pop_front


@kernel
def begin_step(machine: Machine, r: int) -> None:
    """Decide what the step that starts now computes; leave it under way."""
    s = machine.replicas[r]
    pool = machine.pool
    start_s = machine.due_s[r]

    # Decoding requests take their blocks in admission order. One that finds none evicts the newest, until the blocks
    # suffice for those that are left: hence the totals decide, and no order needs to be walked.
    preempted = 0
    opening = machine.phases[s.phase_start + s.residue]
    while opening > s.free_blocks:
        opening -= s.free_blocks
        take(machine, s, s.free_blocks)
        opening -= evict_newest(machine, s, start_s)
        preempted += 1
    take(machine, s, opening)
    decodes = s.decoding
    budget = s.max_tokens - decodes
    scheduled = decodes
    prompt = 0
    prompt_context = 0.0
    caught_up = NONE  # the first in admission order that may have all its tokens computed in this step

    if s.partial != NONE:
        request = pool[s.partial]
        done = request.computed
        left = request.prompt_tokens + request.generated - done
        chunk = min(left, budget)
        needed = blocks(s, done + chunk) - blocks(s, done)
        if needed > s.free_blocks:  # it is the newest, so it evicts itself
            evict_newest(machine, s, start_s)
            preempted += 1
        else:
            take(machine, s, needed)
            request.computed += chunk
            prompt += chunk
            prompt_context += chunk * (done + chunk / 2)
            budget -= chunk
            scheduled += 1
            if chunk == left:
                caught_up = s.partial
                s.partial = NONE

    s.blocked = 0
    if preempted == 0:
        while s.head != NONE and budget > 0 and s.running < s.max_seqs:
            request = pool[s.head]
            known = request.prompt_tokens + request.generated
            kept = request.kept_blocks
            found = max(kept * s.block_size, request.found_tokens)
            chunk = min(known - found, budget)
            if not _fits(s, request, known, found + chunk):
                break
            place = pop_front(machine, s, start_s)
            take_back(machine, s, place)
            append(machine, s, place)
            if np.isnan(request.admitted_s):
                request.admitted_s = start_s
            if caught_up == NONE:
                caught_up = place
            take(machine, s, blocks(s, found + chunk) - kept)
            prompt += chunk
            prompt_context += chunk * (found + chunk / 2)
            budget -= chunk
            scheduled += 1
            if found + chunk < known:
                s.partial = place
                request.computed = found + chunk
        s.blocked = 1 if s.head != NONE and prompt == 0 else 0
        if s.head == NONE:
            if np.isnan(s.emptied_s):
                s.emptied_s, s.emptied_completed = start_s, s.completed
        elif budget > 0 and np.isnan(s.blocked_s):
            s.blocked_s, s.blocked_completed = start_s, s.completed

    kv_tokens = s.context + decodes
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    s.context = kv_tokens
    given = decodes
    while caught_up not in (NONE, s.partial):
        start_decoding(machine, s, caught_up, end_s)
        given += 1
        caught_up = pool[caught_up].newer
    s.step_tokens = given
    s.step_s = step_s

    used = s.capacity_blocks - s.free_blocks
    s.steps += 1
    s.computed_prompt_tokens += prompt
    s.generated_tokens += given
    s.busy_s += step_s
    s.running_area += step_s * s.running
    s.blocks_area += step_s * used
    if len(machine.log.start_s):
        row = machine.registers[LOGGED]
        machine.registers[LOGGED] += 1
        machine.log.start_s[row] = start_s
        machine.log.end_s[row] = end_s
        machine.log.integers[row, 0] = prompt + decodes
        machine.log.integers[row, 1] = scheduled
        machine.log.integers[row, 2] = s.running
        machine.log.integers[row, 3] = preempted
        machine.log.integers[row, 4] = s.waiting
        machine.log.integers[row, 5] = used
        machine.log.integers[row, 6] = r
    s.iteration += 1
    s.residue = s.residue - 1 if s.residue > 0 else s.block_size - 1
    s.in_step = 1
    machine.due_s[r] = end_s


@kernel
def _fits(s: Any, request: Any, known: int, chunk: int) -> bool:
    """Whether the admission rule lets the head of the queue in."""
    headroom = s.watermark_blocks if s.running > 0 else 0
    if s.admission == RESERVE:
        return bool(s.reserved_blocks + request.reserve_blocks + headroom <= s.capacity_blocks)
    needed = chunk if s.admission == CHUNK_GATE else known
    return bool(blocks(s, needed) + headroom <= s.free_blocks)


@kernel
def finish_step(machine: Machine, r: int) -> int:
    """Give out the tokens of the step under way; return how many requests it completed."""
    s = machine.replicas[r]
    now_s = machine.due_s[r]
    if len(machine.log.samples):
        sample(machine, s, now_s)
    s.in_step = 0
    s.ended_s = now_s
    machine.tokens[r] += s.step_tokens
    bucket = s.bucket_start + ((s.iteration - 1) & (machine.ring - 1))
    place = machine.buckets[bucket]
    completed = 0
    if place != NONE:
        machine.buckets[bucket] = NONE
        s.blocked = 0
        while place != NONE:
            following = machine.pool[place].next
            complete(machine, r, place, now_s)
            place = following
            completed += 1
        machine.groups[bucket >> GROUP_SHIFT] -= completed
    if machine.requests[r] == 0:
        machine.due_s[r] = np.inf
    return completed


@kernel
def sample(machine: Machine, s: Any, end_s: float) -> None:
    """Add the state of the step under way to the samples that fall into it."""
    log = machine.log
    row = s.next_sample
    if row * log.resolution_s >= end_s:
        return
    start_s = end_s - s.step_s
    row = max(row, int(np.ceil(start_s / log.resolution_s)))
    while row * log.resolution_s < end_s:
        log.samples[row, 0] += s.running
        log.samples[row, 1] += s.waiting
        log.samples[row, 2] += (s.capacity_blocks - s.free_blocks) * s.block_size
        log.samples[row, 3] += 1
        log.samples[row, 4] += s.step_s
        row += 1
    s.next_sample = row
