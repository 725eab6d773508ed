"""Iterations of one kind: whole prompts only, or decodes only (vLLM before chunked prefill, FasterTransformer).

Under decodes first a prompt beyond the token budget is computed alone, in chunks; under prompts first there is none.

The clock of the residency core counts iterations that decode. While prompts are computed it stands still: all decoding
requests pause together, so that their KV is still a constant plus that clock.
"""

from __future__ import annotations

import numpy as np

from ..domain import DECODE_FIRST
from ._jit import kernel
from .laws import step_time
from .prefix_cache import take
from .residency import append, blocks, evict_newest, start_decoding
from .state import LOGGED, NONE, Machine
from .waiting import pop_front


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
            place = pop_front(machine, s, start_s)
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
    if s.head == NONE:
        if np.isnan(s.emptied_s):
            s.emptied_s, s.emptied_completed = start_s, s.completed
    elif prompt + decodes < s.max_tokens and np.isnan(s.blocked_s):
        s.blocked_s, s.blocked_completed = start_s, s.completed

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
    if decodes > 0:
        s.iteration += 1
        s.residue = s.residue - 1 if s.residue > 0 else s.block_size - 1
    s.in_step = 1
    machine.due_s[r] = end_s
