"""One step of the recursion: growth and eviction, admission, time, completions, arrivals.

A step is `width` iterations. Decodes come first, then prompts under way in the order of admission, then admissions of what
token budget, slots, memory and pacing leave; none in a step that evicts. Prompts under way never exceed the budget by more
than one iteration's growth of the decodes, and are not held back for that.
"""

from __future__ import annotations

import numpy as np

from ...._types import FloatArray
from . import state as s
from ._jit import kernel
from .columns import Column
from .law import law_time
from .state import Kinds, Limits, Rates, State

BOUNDARY_AT, RESIDENT_AT, HELD_AT, RESERVED_AT = (
    int(c) for c in (Column.BOUNDARY, Column.RESIDENT, Column.HELD, Column.RESERVED)
)
DECODE_AT, READ_AT, PREFILL_AT, CONTEXT_AT, REDO_AT, TOKENS_AT = (
    int(c) for c in (Column.DECODE, Column.READ, Column.PREFILL, Column.CONTEXT, Column.REDO, Column.TOKENS)
)
EXCESS = 1e-9
"""Share of the KV cache by which growth must exceed it to evict: less is round-off."""


@kernel
def add(sums: FloatArray, row: FloatArray, mass: float, redo: float, chunk: float, width: int) -> float:
    """Add a cohort's demand in this step to `sums` (take it out if `mass` < 0); return the KV it holds."""
    sums[s.RESERVED] += mass * row[RESERVED_AT]
    if redo == 0.0:
        held = float(mass * row[HELD_AT])
        sums[s.RUN] += mass * row[RESIDENT_AT]
        sums[s.HELD] += held
        sums[s.DECODE] += mass * row[DECODE_AT]
        sums[s.READ] += mass * row[READ_AT]
        sums[s.PREFILL] += mass * row[PREFILL_AT]
        sums[s.CONTEXT] += mass * row[CONTEXT_AT]
        return held
    alive = mass * row[BOUNDARY_AT]
    done = row[REDO_AT] / row[BOUNDARY_AT] - redo
    if redo + 1.0 <= chunk:  # the last chunk takes the last known token along, whose decode this would have been
        held = float(mass * row[HELD_AT])
        sums[s.RUN] += mass * row[RESIDENT_AT]
        sums[s.PREFILL] += alive * redo / width + mass * (row[PREFILL_AT] + row[DECODE_AT])
        sums[s.CONTEXT] += alive * redo * (done + redo / 2) / width + mass * row[CONTEXT_AT]
    else:
        held = float(alive * (done + chunk))
        sums[s.RUN] += alive
        sums[s.PREFILL] += alive * chunk / width
        sums[s.CONTEXT] += alive * chunk * (done + chunk / 2) / width
    sums[s.HELD] += held
    return held


@kernel
def serve(state: State, kinds: Kinds, limits: Limits) -> None:
    """What the residents take in this step."""
    cohorts, sums = state.cohorts, state.registers.sums
    chunk = limits.chunk_tokens * kinds.width
    sums[:] = 0.0
    for i in range(state.registers.counts[s.COHORTS]):
        row = kinds.columns[cohorts.kind[i], cohorts.age[i]]
        cohorts.held[i] = add(sums, row, cohorts.mass[i], cohorts.redo[i], chunk, kinds.width)


@kernel
def evict(state: State, kinds: Kinds, limits: Limits) -> bool:
    """Take out the youngest until the others fit; whether any was. False where the list of evicted entries is full, too."""
    cohorts, waiting, (counts, totals, sums, _) = state.cohorts, state.waiting, state.registers
    chunk = limits.chunk_tokens * kinds.width
    over = sums[s.HELD] - limits.memory_tokens
    if over <= EXCESS * limits.memory_tokens:
        return False
    while over > 0.0 and counts[s.COHORTS] > 0:
        last = counts[s.COHORTS] - 1
        first, held = last, 0.0
        while first >= 0 and cohorts.batch[first] == cohorts.batch[last]:
            held += cohorts.held[first]
            first -= 1
        share = min(1.0, over / held) if held > 0.0 else 1.0
        for i in range(last, first, -1):
            kind, age, mass = cohorts.kind[i], cohorts.age[i], share * cohorts.mass[i]
            row = kinds.columns[kind, age]
            add(sums, row, -mass, cohorts.redo[i], chunk, kinds.width)
            cohorts.mass[i] -= mass
            cohorts.held[i] *= 1.0 - share
            totals[s.EVICTIONS] += mass * row[BOUNDARY_AT]
            top = counts[s.EVICTED] - 1
            if top >= 0 and waiting.kind[top] == kind and waiting.age[top] == age:
                waiting.mass[top] += mass
            else:
                top += 1
                counts[s.EVICTED] = top + 1
                waiting.kind[top], waiting.age[top], waiting.mass[top] = kind, age, mass
        if share == 1.0:
            counts[s.COHORTS] = first + 1
            over -= held
        else:
            over = 0.0
    return True


@kernel
def admissible(state: State, limits: Limits, width: int, paced: float, alive: float) -> float:
    """How many times `unit` fits into what this step leaves; `alive` requests in it count against the pace left."""
    sums, unit = state.registers.sums, state.registers.unit
    by = s.RESERVED if limits.reserves else s.HELD
    most = (limits.max_tokens - sums[s.DECODE] - sums[s.PREFILL]) / (unit[s.DECODE] + unit[s.PREFILL])
    most = min(most, (limits.max_seqs - sums[s.RUN]) / unit[s.RUN])
    most = min(most, (limits.memory_tokens - limits.headroom_tokens - sums[by]) / unit[by])
    return float(max(0.0, min(most, (limits.admissions * width - paced) / alive)))


@kernel
def append(state: State, kind: int, age: int, mass: float, redo: float) -> None:
    """A new youngest cohort, of the batch under way."""
    cohorts, counts = state.cohorts, state.registers.counts
    i = counts[s.COHORTS]
    counts[s.COHORTS] = i + 1
    cohorts.kind[i], cohorts.age[i], cohorts.batch[i] = kind, age, counts[s.BATCH]
    cohorts.mass[i], cohorts.redo[i] = mass, redo


@kernel
def admit(state: State, kinds: Kinds, limits: Limits) -> None:
    """Admit evicted requests, then arrivals, as far as each limit allows."""
    waiting, (counts, totals, sums, unit) = state.waiting, state.registers
    chunk = limits.chunk_tokens * kinds.width
    paced = 0.0
    while counts[s.EVICTED] > 0:
        top = counts[s.EVICTED] - 1
        kind, age, mass = waiting.kind[top], waiting.age[top], waiting.mass[top]
        row = kinds.columns[kind, age]
        redo = row[REDO_AT] / row[BOUNDARY_AT]
        unit[:] = 0.0
        add(unit, row, 1.0, redo, chunk, kinds.width)
        most = admissible(state, limits, kinds.width, paced, row[BOUNDARY_AT])
        taken = min(most, mass)
        if taken < mass and taken * row[BOUNDARY_AT] < s.FLOOR:
            return
        counts[s.BATCH] += 1
        append(state, kind, age, taken, redo)
        for column in range(s.N_SUMS):
            sums[column] += taken * unit[column]
        paced += taken * row[BOUNDARY_AT]
        waiting.mass[top] -= taken
        if taken < mass:
            return
        counts[s.EVICTED] = top
    ring = len(waiting.queued)
    while counts[s.QUEUED] > 0:
        first = counts[s.FIRST]
        mix = waiting.mix[first]
        unit[:] = 0.0
        for kind in range(kinds.mixes.shape[1]):
            add(unit, kinds.columns[kind, 0], kinds.mixes[mix, kind], 0.0, chunk, kinds.width)
        taken = min(admissible(state, limits, kinds.width, paced, 1.0), waiting.queued[first])
        if taken < waiting.queued[first] and taken < s.FLOOR:
            return
        counts[s.BATCH] += 1
        for kind in range(kinds.mixes.shape[1]):
            if kinds.mixes[mix, kind] > 0.0:
                append(state, kind, 0, taken * kinds.mixes[mix, kind], 0.0)
        for column in range(s.N_SUMS):
            sums[column] += taken * unit[column]
        paced += taken
        totals[s.ADMITTED] += taken
        if taken < waiting.queued[first]:
            waiting.queued[first] -= taken
            return
        counts[s.FIRST] = (first + 1) % ring
        counts[s.QUEUED] -= 1


@kernel
def step_time(state: State, limits: Limits) -> float:
    """Seconds of one iteration of this step; averaged over whether it carries prompts where requests come in grains."""
    sums = state.registers.sums
    prompts, decodes, read, work = sums[s.PREFILL], sums[s.DECODE], sums[s.READ], sums[s.CONTEXT]
    if np.isinf(limits.grain):
        return law_time(limits.law_kind, limits.law, prompts, decodes, read, work)
    carries = -np.expm1(-limits.grain * max(sums[s.RUN] - decodes, 0.0))
    plain = law_time(limits.law_kind, limits.law, 0.0, decodes, read, 0.0)
    if carries <= 0.0:
        return plain
    mixed = law_time(limits.law_kind, limits.law, prompts / carries, decodes, read, work / carries)
    return float(plain + carries * (mixed - plain))


@kernel
def complete(state: State, kinds: Kinds, limits: Limits) -> None:
    """Every cohort grows older by a step; those that end leave."""
    cohorts, counts, totals = state.cohorts, state.registers.counts, state.registers.totals
    chunk = limits.chunk_tokens * kinds.width
    kept = 0
    left = generated = 0.0  # summed here: a total grows so large that small terms would be rounded away
    for i in range(counts[s.COHORTS]):
        kind, age, mass, redo = cohorts.kind[i], cohorts.age[i], cohorts.mass[i], cohorts.redo[i]
        row = kinds.columns[kind, age]
        if redo > 0.0 and redo + 1.0 > chunk:
            redo -= chunk
            after = row[BOUNDARY_AT]
        else:
            redo = 0.0
            generated += mass * row[TOKENS_AT] * kinds.width
            age += 1
            after = kinds.columns[kind, age, BOUNDARY_AT] if age < kinds.ages[kind] else 0.0
        if mass * after < s.FLOOR:
            left += mass * row[BOUNDARY_AT]
            continue
        left += mass * (row[BOUNDARY_AT] - after)
        cohorts.kind[kept], cohorts.age[kept], cohorts.batch[kept] = kind, age, cohorts.batch[i]
        cohorts.mass[kept], cohorts.redo[kept] = mass, redo
        kept += 1
    counts[s.COHORTS] = kept
    totals[s.COMPLETED] += left
    totals[s.GENERATED] += generated


@kernel
def arrive(state: State, rates: Rates, until_s: float) -> None:
    """What comes from now to `until_s` joins the queue; time moves there."""
    waiting, counts, totals = state.waiting, state.registers.counts, state.registers.totals
    windows, ring = len(rates.start_s), len(waiting.queued)
    now_s = totals[s.NOW]
    while True:
        window = counts[s.WINDOW]
        end_s = rates.start_s[window + 1] if window + 1 < windows else np.inf
        mass = rates.rate_per_s[window] * (min(end_s, until_s) - now_s)
        if mass > 0.0:
            totals[s.ARRIVED] += mass
            last = (counts[s.FIRST] + counts[s.QUEUED] - 1) % ring
            if counts[s.QUEUED] > 0 and waiting.mix[last] == rates.mix[window]:
                waiting.queued[last] += mass
            else:
                last = (counts[s.FIRST] + counts[s.QUEUED]) % ring
                waiting.mix[last], waiting.queued[last] = rates.mix[window], mass
                counts[s.QUEUED] += 1
        if end_s > until_s:
            totals[s.NOW] = until_s
            return
        now_s = end_s
        counts[s.WINDOW] += 1
