"""WAIT (arXiv 2504.11320, Algorithm 1): a class is a cohort, and a batch advances whole cohorts.

A class in J takes min(n_j, present) requests of every stage. No stage after the first ever holds more than n_j: what a batch
takes from a stage is all there is, and what it puts there came from one that held, or admitted, at most n_j. So all running
requests of a class advance together or pause together, and the class needs one clock, not a count per stage.
"""

from __future__ import annotations

import numpy as np

from ._jit import called
from .books import book_queue, book_step, tick
from .cohorts import count_evictions, drop_newest, idle
from .laws import step_time
from .lines import first_in_lines, leave_line
from .policies import Cohorts, Lines
from .prefix_cache import take
from .residency import append, blocks, complete_due, start_decoding
from .state import NONE, Machine
from .waiting import count_until, wait_again


@called
def begin_wait_step(machine: Machine, lines: Lines, cohorts: Cohorts, r: int) -> None:
    """Form the batch of the classes in J, or wait for an arrival if there is none."""
    s = machine.replicas[r]
    pool = machine.pool
    start_s = machine.due_s[r]

    # J, and the blocks that its decodes open. A batch reserves its slots and tokens before memory is looked at.
    some = 0
    opening = 0
    decodes = 0
    for j in range(s.cohorts):
        c = cohorts.cohorts[s.cohort_start + j]
        line = lines.lines[s.line_start + j]
        c.going = 1 if line.waiting >= c.threshold else 0
        line.left = c.threshold if c.going else 0
        if c.going:
            some = 1
            opening += machine.phases[c.phase_start + c.residue]
            decodes += c.decoding
    if some == 0:
        idle(machine, r)
        return
    budget = s.max_tokens - decodes

    # Memory: the newest running requests go, of whatever class, until the decodes fit; then nothing is admitted.
    preempted = 0
    while opening > s.free_blocks:
        place = s.newest
        c = cohorts.cohorts[cohorts.cohort[place]]
        if c.going and pool[place].phase == c.residue:
            opening -= 1
        drop_newest(machine, r, place, c)
        wait_again(machine, s, place, start_s)
        preempted += 1
    take(machine, s, opening)
    count_evictions(machine, r, preempted)

    decodes = 0
    kv_tokens = 0
    for j in range(s.cohorts):
        c = cohorts.cohorts[s.cohort_start + j]
        if c.going:
            c.context += c.decoding
            decodes += c.decoding
            kv_tokens += c.context
    prompt = 0
    prompt_context = 0.0
    scheduled = decodes
    admitted = NONE
    place = first_in_lines(lines, s) if preempted == 0 else NONE
    while place != NONE:
        request = pool[place]
        tokens = request.prompt_tokens
        if s.running >= s.max_seqs or tokens > budget or blocks(s, tokens) > s.free_blocks:
            break
        count_until(s, start_s)
        s.waiting -= 1
        leave_line(machine, lines, place)
        append(machine, s, place)
        cohorts.cohort[place] = s.cohort_start + (lines.line[place] - s.line_start)
        if np.isnan(request.admitted_s):
            request.admitted_s = start_s
        if admitted == NONE:
            admitted = place
        take(machine, s, blocks(s, tokens))
        prompt += tokens
        prompt_context += tokens * (tokens / 2)
        budget -= tokens
        scheduled += 1
        place = first_in_lines(lines, s)
    if scheduled == 0:
        idle(machine, r)
        return

    book_queue(s, start_s, s.max_tokens - prompt - decodes)
    step_s = step_time(machine.laws, s.law_kind, s.law_start, prompt, decodes, kv_tokens, prompt_context)
    end_s = start_s + step_s
    while admitted != NONE:
        start_decoding(machine, cohorts.cohorts[cohorts.cohort[admitted]], admitted, end_s)
        admitted = pool[admitted].newer
    book_step(machine, r, start_s, step_s, prompt, decodes, scheduled, scheduled, preempted)
    for j in range(s.cohorts):
        c = cohorts.cohorts[s.cohort_start + j]
        if c.going:
            tick(c)


@called
def complete_wait_step(machine: Machine, cohorts: Cohorts, r: int, now_s: float) -> int:
    """Of the classes that advanced, requests at their last stage are complete; return how many."""
    s = machine.replicas[r]
    completed = 0
    for j in range(s.cohorts):
        c = cohorts.cohorts[s.cohort_start + j]
        if c.going:
            completed += complete_due(machine, r, c, now_s)
    return completed
