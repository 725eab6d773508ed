"""Orca: prompts first, in chunks; decodes in what is left of the token budget, oldest first.

In most iterations all decode, and in those whose budget a chunk uses up none does: the replica's clock goes on or stands
still. Only where whole prompts leave a few tokens, fewer than there are decodes, some of them pause; these, the newest, are
moved one iteration back. They number fewer than the slots, and the prompts of such an iteration nearly fill the budget.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import called, kernel
from .books import book_queue, book_step, tick
from .laws import step_time
from .prefix_cache import take
from .residency import append, blocks, evict_newest, go_on, start_decoding, stop_newest
from .state import NONE, Machine
from .waiting import pop_first


@called
def begin_orca_step(machine: Machine, r: int) -> None:
    """Decide what the step that starts now computes; leave it under way."""
    s = machine.replicas[r]
    pool = machine.pool
    start_s = machine.due_s[r]

    # Memory for the running requests: the chunk of the prompt under way, then decodes as far as the budget goes.
    preempted = 0
    while True:
        youngest = s.newest  # of the decodes
        chunk = 0
        if s.partial != NONE:
            request = pool[s.partial]
            youngest = request.older
            chunk = min(request.prompt_tokens + request.generated - request.computed, s.max_tokens)
        decodes = min(s.decoding, s.max_tokens - chunk)
        chunk_blocks = 0
        if s.partial != NONE:
            done = pool[s.partial].computed
            chunk_blocks = blocks(s, done + chunk) - blocks(s, done)
        opening = _opening(machine, s, youngest, decodes)
        if chunk_blocks + opening <= s.free_blocks:
            break
        evict_newest(machine, s, start_s)
        preempted += 1

    prompt = chunk
    prompt_context = 0.0
    scheduled = 0
    caught_up = NONE  # the first in admission order that may have all its tokens computed in this step
    if s.partial != NONE:
        request = pool[s.partial]
        done = request.computed
        take(machine, s, chunk_blocks)
        prompt_context += chunk * (done + chunk / 2)
        request.computed += chunk
        scheduled += 1
        if request.computed == request.prompt_tokens + request.generated:
            caught_up = s.partial
            s.partial = NONE

    # Admission counts with the decodes above, whether or not the prompts admitted displace them.
    s.blocked = 0
    budget = s.max_tokens - chunk
    if preempted == 0:
        while s.head != NONE and budget > 0 and s.running < s.max_seqs:
            request = pool[s.head]
            known = request.prompt_tokens + request.generated
            headroom = s.watermark_blocks if s.running > 0 else 0
            if opening + blocks(s, known) + headroom > s.free_blocks:
                break
            place = pop_first(machine, s, start_s)
            append(machine, s, place)
            if np.isnan(request.admitted_s):
                request.admitted_s = start_s
            if caught_up == NONE:
                caught_up = place
            tokens = min(known, budget)
            take(machine, s, blocks(s, tokens))
            prompt += tokens
            prompt_context += tokens * (tokens / 2)
            budget -= tokens
            scheduled += 1
            if tokens < known:
                s.partial = place
                request.computed = tokens
        s.blocked = 1 if s.head != NONE and prompt == 0 else 0
        if budget < decodes:
            decodes = budget
            opening = _opening(machine, s, youngest, decodes)
    take(machine, s, opening)
    scheduled += decodes

    # Decodes beyond the budget pause: none of them, all, or the newest.
    kv_tokens = 0
    if decodes > 0:
        held = s.context
        if decodes < s.decoding:
            held -= _postpone(machine, s, youngest, s.decoding - decodes)
        kv_tokens = held + decodes
        s.context += decodes
    book_queue(s, start_s, s.max_tokens - prompt - decodes)
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    given = decodes
    # While the clock stands still, prompts get their first token at the end of the iteration that it has just left.
    if decodes == 0:
        s.iteration -= 1
    while caught_up not in (NONE, s.partial):
        start_decoding(machine, s, caught_up, end_s)
        given += 1
        caught_up = pool[caught_up].newer
    if decodes == 0:
        s.iteration += 1
    book_step(machine, r, start_s, step_s, prompt, decodes, given, scheduled, preempted)
    if decodes > 0:
        tick(s)


@kernel
def _opening(machine: Machine, s: Any, youngest: int, decodes: int) -> int:
    """How many of the oldest `decodes` decoding requests open a block."""
    if decodes == 0:
        return 0
    opening = machine.phases[s.phase_start + s.residue]
    place = youngest
    for _ in range(s.decoding - decodes):
        if machine.pool[place].phase == s.residue:
            opening -= 1
        place = machine.pool[place].older
    return int(opening)


@kernel
def _postpone(machine: Machine, s: Any, youngest: int, paused: int) -> int:
    """The newest `paused` decoding requests stand still while the clock goes on; return the tokens they hold."""
    held = 0
    oldest = youngest
    place = youngest
    for _ in range(paused):
        held += stop_newest(machine, s, place)
        oldest = place
        place = machine.pool[place].older
    place = oldest
    for _ in range(paused):
        go_on(machine, s, place, machine.pool[place].last_iteration + 1)
        place = machine.pool[place].newer
    return held
