"""One iteration of one replica: what it computes, how long it takes, who leaves at its end."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..domain import CHUNK_GATE, RESERVE
from ._jit import kernel
from .books import book_queue, book_step, sample, tick
from .laws import step_time
from .prefix_cache import take, take_back
from .residency import append, blocks, evict_newest, start_decoding
from .state import NONE, Machine
from .waiting import pop_first


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
            place = pop_first(machine, s, start_s)
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
        book_queue(s, start_s, budget)

    kv_tokens = s.context + decodes
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    s.context = kv_tokens
    given = decodes
    while caught_up not in (NONE, s.partial):
        start_decoding(machine, s, caught_up, end_s)
        given += 1
        caught_up = pool[caught_up].newer
    book_step(machine, r, start_s, step_s, prompt, decodes, given, scheduled, preempted)
    tick(s)


@kernel
def _fits(s: Any, request: Any, known: int, chunk: int) -> bool:
    """Whether the admission rule lets the head of the queue in."""
    headroom = s.watermark_blocks if s.running > 0 else 0
    if s.admission == RESERVE:
        return bool(s.reserved_blocks + request.reserve_blocks + headroom <= s.capacity_blocks)
    needed = chunk if s.admission == CHUNK_GATE else known
    return bool(blocks(s, needed) + headroom <= s.free_blocks)


@kernel
def end_step(machine: Machine, r: int) -> None:
    """Give out the tokens of the step under way."""
    s = machine.replicas[r]
    now_s = machine.due_s[r]
    if len(machine.log.samples):
        sample(machine, s, now_s)
    s.in_step = 0
    s.ended_s = now_s
    machine.tokens[r] += s.step_tokens
