"""Flow control (arXiv 2604.11001): a budget of activations per iteration, by class or drawn at random.

All running requests decode in every iteration, so the replica is their clock. Memory is not looked at beforehand: what is
activated first is kept, and the running requests before that. So the activations stop where memory does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import called, kernel
from .books import book_queue, book_step, tick
from .cohorts import count_evictions, drop_newest
from .laws import step_time
from .lines import first_in_lines, leave_line
from .policies import Draws, Lines
from .prefix_cache import take
from .residency import append, blocks, start_decoding
from .state import NONE, Machine
from .waiting import count_until, pop_front, wait_again


@called
def begin_budget_step(machine: Machine, lines: Lines | None, draws: Draws | None, r: int) -> None:
    """Decode, activate what the budgets of the classes (`lines`) or the one drawn (`draws`) allow, evict the newest on overflow."""
    s = machine.replicas[r]
    pool = machine.pool
    start_s = machine.due_s[r]
    most = _budget(draws, r)
    if lines is not None:
        for k in range(s.line_start, s.line_start + s.lines):
            lines.lines[k].left = lines.lines[k].most

    preempted = 0
    opening = machine.phases[s.phase_start + s.residue]
    while opening > s.free_blocks:
        place = s.newest
        if pool[place].phase == s.residue:
            opening -= 1
        drop_newest(machine, r, place, s)
        wait_again(machine, s, place, start_s)
        preempted += 1
    take(machine, s, opening)
    count_evictions(machine, r, preempted)

    decodes = s.decoding
    budget = s.max_tokens - decodes
    prompt = 0
    prompt_context = 0.0
    scheduled = decodes
    refused = 0
    admitted = NONE
    while preempted == 0 and most > 0:
        place = _first(lines, s)
        if place == NONE:
            break
        request = pool[place]
        tokens = request.prompt_tokens
        if s.running >= s.max_seqs or tokens > budget or blocks(s, tokens) > s.free_blocks:
            refused = 1
            break
        count_until(s, start_s)
        s.waiting -= 1
        _leave(machine, lines, s, place)
        append(machine, s, place)
        if np.isnan(request.admitted_s):
            request.admitted_s = start_s
        if admitted == NONE:
            admitted = place
        take(machine, s, blocks(s, tokens))
        prompt += tokens
        prompt_context += tokens * (tokens / 2)
        budget -= tokens
        most -= 1
        scheduled += 1
    # What was refused to the very first is refused until a completion frees blocks or a slot.
    s.blocked = 1 if refused and prompt == 0 else 0

    kv_tokens = s.context + decodes
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    if scheduled == 0 and not step_s > 0:
        return  # an iteration that computes nothing and takes no time: the next one is due at once
    book_queue(s, start_s, s.max_tokens - prompt - decodes)
    s.context = kv_tokens
    end_s = start_s + step_s
    while admitted != NONE:
        start_decoding(machine, s, admitted, end_s)
        admitted = pool[admitted].newer
    book_step(machine, r, start_s, step_s, prompt, decodes, scheduled, scheduled, preempted)
    tick(s)


@kernel
def _budget(draws: Draws | None, r: int) -> int:
    if draws is None:
        return np.iinfo(np.int64).max
    draws.used[r] += 1
    return int(draws.budgets[r, draws.used[r] - 1])


@kernel
def _first(lines: Lines | None, s: Any) -> int:
    if lines is None:
        return int(s.head)
    return first_in_lines(lines, s)


@kernel
def _leave(machine: Machine, lines: Lines | None, s: Any, place: int) -> None:
    if lines is None:
        pop_front(machine, s)
    else:
        leave_line(machine, lines, place)
