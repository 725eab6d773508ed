"""The books of a step, whatever its discipline: totals, step records, samples, and when the queue emptied or was refused."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import kernel
from .state import LOGGED, Machine


@kernel
def book_queue(s: Any, now_s: float, budget: int) -> None:
    """Note the first time that nothing waits, or that something does although `budget` tokens are left."""
    if s.waiting == 0:
        if np.isnan(s.emptied_s):
            s.emptied_s, s.emptied_completed = now_s, s.completed
    elif budget > 0 and np.isnan(s.blocked_s):
        s.blocked_s, s.blocked_completed = now_s, s.completed


@kernel
def book_step(
    machine: Machine,
    r: int,
    start_s: float,
    step_s: float,
    prompt: int,
    decodes: int,
    given: int,
    scheduled: int,
    preempted: int,
) -> None:
    """Put a step under way that computes `prompt` and `decodes` tokens of `scheduled` requests and will give `given` tokens."""
    s = machine.replicas[r]
    used = s.capacity_blocks - s.free_blocks
    end_s = start_s + step_s
    s.step_tokens = given
    s.step_s = step_s
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
    s.in_step = 1
    machine.due_s[r] = end_s


@kernel
def tick(clock: Any) -> None:
    """The iterations counted by `clock` go on by one."""
    clock.iteration += 1
    clock.residue = clock.residue - 1 if clock.residue > 0 else clock.block_size - 1


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
