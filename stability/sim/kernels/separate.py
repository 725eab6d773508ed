"""Iterations of one kind: whole prompts only, or decodes only (vLLM before chunked prefill, FasterTransformer).

Under decodes first a prompt beyond the token budget is computed alone, in chunks; under prompts first there is none.

The clock of the residency core counts iterations that decode. While prompts are computed it stands still: all decoding
requests pause together, so that their KV is still a constant plus that clock.
"""

from __future__ import annotations

import numpy as np

from ..domain import DECODE_FIRST
from ._jit import kernel
from .books import book_queue, book_step, tick
from .laws import step_time
from .prefix_cache import take
from .residency import append, blocks, evict_newest, start_decoding
from .state import NONE, Machine
from .waiting import pop_first


@kernel
def begin_separate_step(machine: Machine, r: int) -> None:
    """Decide what the step that starts now computes; leave it under way."""
    s = machine.replicas[r]
    pool = machine.pool
    start_s = machine.due_s[r]
    preempted = prompt = decodes = kv_tokens = scheduled = 0
    prompt_context = 0.0
    admitted = NONE
    if s.partial != NONE:
        request = pool[s.partial]
        done = request.computed
        left = request.prompt_tokens + request.generated - done
        prompt = min(left, s.max_tokens)
        take(machine, s, blocks(s, done + prompt) - blocks(s, done))
        prompt_context = prompt * (done + prompt / 2)
        request.computed += prompt
        scheduled = 1
        if prompt == left:
            admitted = s.partial
            s.partial = NONE
    elif not (s.discipline == DECODE_FIRST and s.running > 0):
        budget = s.max_tokens
        while s.head != NONE and s.running < s.max_seqs:
            request = pool[s.head]
            known = request.prompt_tokens + request.generated
            chunk = known
            if s.discipline == DECODE_FIRST and s.running == 0:
                chunk = min(known, budget)
            if chunk > budget or blocks(s, known) > s.free_blocks:
                break
            place = pop_first(machine, s, start_s)
            append(machine, s, place)
            if np.isnan(request.admitted_s):
                request.admitted_s = start_s
            take(machine, s, blocks(s, chunk))
            prompt += chunk
            prompt_context += chunk * (chunk / 2)
            budget -= chunk
            scheduled += 1
            if chunk < known:
                s.partial = place
                request.computed = chunk
                break
            if admitted == NONE:
                admitted = place
    if scheduled == 0:
        opening = machine.phases[s.phase_start + s.residue]
        while opening > s.free_blocks:
            opening -= s.free_blocks
            take(machine, s, s.free_blocks)
            opening -= evict_newest(machine, s, start_s)
            preempted += 1
        take(machine, s, opening)
        decodes = scheduled = s.decoding
        kv_tokens = s.context + decodes
        s.context = kv_tokens

    # Without an eviction, what was refused now is refused until a completion frees blocks or a slot.
    s.blocked = 1 if s.head != NONE and prompt == 0 and preempted == 0 else 0
    book_queue(s, start_s, s.max_tokens - prompt - decodes)

    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    given = decodes
    # Prompts get their first token at the end of a step before which the clock last moved: their second comes with the
    # clock's next iteration, and a request of a single token ends with the iteration that the clock has just left.
    s.iteration -= 1
    while admitted != NONE:
        start_decoding(machine, s, admitted, end_s)
        given += 1
        admitted = pool[admitted].newer
    s.iteration += 1
    book_step(machine, r, start_s, step_s, prompt, decodes, given, scheduled, preempted)
    if decodes > 0:
        tick(s)
