"""Many decode-only iterations at once: a tight loop over a few numbers, and a closed form over long stretches.

Between two events every iteration does the same: D tokens more KV, a step time linear in the KV, and blocks for the
requests whose turn it is. Over whole cycles of the block size all three sum in closed form. The loop adds step times one by
one, as the oracle does, to the same bits; the closed form differs from it by rounding.
"""

from __future__ import annotations

import math
from typing import Any

from ._jit import kernel
from .laws import TABLE, decode_base, decode_slope, step_time
from .prefix_cache import take
from .state import GROUP, GROUP_SHIFT, NONE, STEPS_LEFT, Machine

WORTHWHILE = 32
"""Iterations from which on the closed form is faster than the loop."""


@kernel
def decode_span(machine: Machine, r: int, until_s: float) -> None:
    """Run whole decode-only steps up to `until_s`, to the next completion or to the next shortage of blocks.

    Nothing may be admitted meanwhile: the queue is empty or its head was refused.
    """
    s = machine.replicas[r]
    if s.law_kind == TABLE:
        _walk_table(machine, r, s, until_s)
        return
    base_s = decode_base(machine.laws, s.law_kind, s.law_start, s.decoding)
    slope_s = decode_slope(machine.laws, s.law_kind, s.law_start)
    cycles = _whole_cycles(machine, r, s, base_s, slope_s, until_s)
    if cycles > 0:
        _jump(machine, r, s, base_s, slope_s, cycles)
    _walk(machine, r, s, base_s, slope_s, until_s)


@kernel
def _walk(machine: Machine, r: int, s: Any, base_s: float, slope_s: float, until_s: float) -> None:
    """Step by step."""
    decodes = s.decoding
    context, free, iteration, residue = s.context, s.free_blocks, s.iteration, s.residue
    steps_left = machine.registers[STEPS_LEFT]
    now_s = machine.due_s[r]
    busy_s, blocks_area = s.busy_s, s.blocks_area
    mask = machine.ring - 1
    first = iteration
    while steps_left > 0 and machine.buckets[s.bucket_start + (iteration & mask)] == NONE:
        opening = machine.phases[s.phase_start + residue]
        step_s = base_s + slope_s * (context + decodes)
        if opening > free or now_s + step_s > until_s:
            break
        now_s += step_s
        context += decodes
        free -= opening
        busy_s += step_s
        blocks_area += step_s * (s.capacity_blocks - free)
        iteration += 1
        residue = residue - 1 if residue > 0 else s.block_size - 1
        steps_left -= 1
    steps = iteration - first
    if steps > 0:
        take(machine, s, s.free_blocks - free)
        s.context, s.iteration, s.residue = context, iteration, residue
        s.blocks_area = blocks_area
        _account(machine, r, s, steps, busy_s - s.busy_s, now_s)


@kernel
def _walk_table(machine: Machine, r: int, s: Any, until_s: float) -> None:
    """Step by step under a law whose step times are not linear in the KV."""
    mask = machine.ring - 1
    while machine.registers[STEPS_LEFT] > 0 and machine.buckets[s.bucket_start + (s.iteration & mask)] == NONE:
        opening = machine.phases[s.phase_start + s.residue]
        kv_tokens = s.context + s.decoding
        step_s = step_time(machine.laws, s.law_kind, s.law_start, 0, s.decoding, kv_tokens, 0.0)
        now_s = machine.due_s[r] + step_s
        if opening > s.free_blocks or now_s > until_s:
            return
        s.context = kv_tokens
        take(machine, s, opening)
        s.blocks_area += step_s * (s.capacity_blocks - s.free_blocks)
        s.iteration += 1
        s.residue = s.residue - 1 if s.residue > 0 else s.block_size - 1
        _account(machine, r, s, 1, step_s, now_s)


@kernel
def _whole_cycles(machine: Machine, r: int, s: Any, base_s: float, slope_s: float, until_s: float) -> int:
    """Cycles of `block_size` iterations before the next event, or 0 if there are too few to be worth a jump."""
    decodes = s.decoding
    most = machine.registers[STEPS_LEFT]
    # The j-th step from here takes first_s + growth_s * j.
    first_s, growth_s = base_s + slope_s * s.context, slope_s * decodes
    left_s = until_s - machine.due_s[r]
    middle_s = first_s + growth_s / 2
    if left_s < math.inf and middle_s > 0:
        # Root of j * middle_s + growth_s * j**2 / 2 = left_s, in the form that is stable as growth_s -> 0; one step of slack.
        root = 2 * left_s / (middle_s + math.sqrt(middle_s * middle_s + 2 * growth_s * left_s))
        if root < most:
            most = int(root) - 1
    most = min(most, s.free_blocks // decodes * s.block_size)
    if most < WORTHWHILE:
        return 0
    # Groups of buckets without a completion, from the next group border on.
    mask = machine.ring - 1
    at = s.iteration & mask
    for bucket in range(at, (at | (GROUP - 1)) + 1):
        if machine.buckets[s.bucket_start + bucket] != NONE:
            return 0
    quiet = GROUP - (at & (GROUP - 1))
    while quiet < most and machine.groups[(s.bucket_start + ((at + quiet) & mask)) >> GROUP_SHIFT] == 0:
        quiet += GROUP
    most = min(most, quiet)
    return most // s.block_size if most >= WORTHWHILE else 0


@kernel
def _jump(machine: Machine, r: int, s: Any, base_s: float, slope_s: float, cycles: int) -> None:
    """`cycles` times `block_size` decode-only iterations."""
    b, c, decodes = s.block_size, cycles, s.decoding
    steps = b * c
    first_s, growth_s = base_s + slope_s * s.context, slope_s * decodes
    span_s = first_s * steps + growth_s * (0.5 * steps * (steps + 1))
    # Integral of the blocks in use: those at the end over the whole span, less each new block over the time before it.
    # Blocks opened in iteration y + k*b (y = 0, 1, ...; k < c) come after S(y + k*b) = first*j + growth*j*(j+1)/2 seconds.
    moment_1, moment_2 = 0.0, 0.0
    residue = s.residue
    for y in range(b):
        opening = machine.phases[s.phase_start + residue]
        moment_1 += opening * y
        moment_2 += opening * y * y
        residue = residue - 1 if residue > 0 else b - 1
    ones, squares = 0.5 * c * (c - 1), c * (c - 1) * (2 * c - 1) / 6
    before = (first_s + growth_s / 2) * (c * moment_1 + b * ones * decodes)
    before += growth_s / 2 * (c * moment_2 + 2 * b * ones * moment_1 + b * b * squares * decodes)
    take(machine, s, c * decodes)
    s.blocks_area += span_s * (s.capacity_blocks - s.free_blocks) - before
    s.context += steps * decodes
    s.iteration += steps
    _account(machine, r, s, steps, span_s, machine.due_s[r] + span_s)


@kernel
def _account(machine: Machine, r: int, s: Any, steps: int, span_s: float, now_s: float) -> None:
    """Add decode-only steps to the totals."""
    tokens = steps * s.decoding
    s.steps += steps
    s.generated_tokens += tokens
    s.busy_s += span_s
    s.running_area += span_s * s.running
    s.ended_s = now_s
    machine.tokens[r] += tokens
    machine.due_s[r] = now_s
    machine.registers[STEPS_LEFT] -= steps
