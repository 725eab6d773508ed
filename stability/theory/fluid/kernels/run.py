"""Many steps of the recursion, sampled on a grid of time."""

from __future__ import annotations

import numpy as np

from ...._types import FloatArray
from . import state as s
from ._jit import kernel
from .state import Kinds, Limits, Rates, State
from .step import BOUNDARY_AT, admit, arrive, complete, evict, serve, step_time


@kernel
def waiting_now(state: State, kinds: Kinds) -> float:
    """Requests waiting."""
    waiting, counts = state.waiting, state.registers.counts
    total = 0.0
    for i in range(counts[s.EVICTED]):
        total += waiting.mass[i] * kinds.columns[waiting.kind[i], waiting.age[i], BOUNDARY_AT]
    for i in range(counts[s.QUEUED]):
        total += waiting.queued[(counts[s.FIRST] + i) % len(waiting.queued)]
    return total


@kernel
def record(state: State, kinds: Kinds, samples: FloatArray, iteration_s: float) -> None:
    """A row of `SAMPLE_COLUMNS`."""
    counts, totals, sums, _ = state.registers
    row = samples[counts[s.SAMPLES]]
    counts[s.SAMPLES] += 1
    row[0] = totals[s.NOW]
    row[1] = waiting_now(state, kinds)
    row[2], row[3] = sums[s.RUN], sums[s.HELD]
    row[4] = iteration_s
    row[5], row[6] = sums[s.DECODE], sums[s.PREFILL]
    row[7], row[8], row[9] = totals[s.ARRIVED], totals[s.ADMITTED], totals[s.COMPLETED]
    row[10], row[11], row[12] = totals[s.EVICTIONS], totals[s.GENERATED], totals[s.BUSY]


@kernel
def advance(
    state: State,
    kinds: Kinds,
    limits: Limits,
    rates: Rates,
    until_s: float,
    until_steps: int,
    spacing_s: float,
    samples: FloatArray,
) -> int:
    """Steps until one would start at `until_s` or later, or `until_steps` are done, or `samples` are full."""
    counts, totals, sums, _ = state.registers
    kind_count = kinds.mixes.shape[1]
    while totals[s.NOW] < until_s and counts[s.STEPS] < until_steps and counts[s.SAMPLES] < len(samples):
        if (
            counts[s.COHORTS] + 2 * kind_count + counts[s.EVICTED] > len(state.cohorts.mass)
            or counts[s.EVICTED] + counts[s.COHORTS] > len(state.waiting.mass)
            or counts[s.QUEUED] + 2 > len(state.waiting.queued)
        ):
            return s.NO_ROOM
        idle = counts[s.COHORTS] + counts[s.EVICTED] + counts[s.QUEUED] == 0
        if idle and rates.rate_per_s[counts[s.WINDOW]] == 0.0:
            sums[:] = 0.0
            if not np.isinf(
                totals[s.NEXT_SAMPLE]
            ):  # not before the next one is due, or a long idle time would look busy
                record(state, kinds, samples, 0.0)
                totals[s.NEXT_SAMPLE] = totals[s.NOW] + spacing_s
            window = counts[s.WINDOW] + 1
            while window < len(rates.start_s) and rates.rate_per_s[window] == 0.0:
                window += 1
            next_s = rates.start_s[window] if window < len(rates.start_s) else np.inf
            arrive(state, rates, min(next_s, until_s))
            continue
        serve(state, kinds, limits)
        if not evict(state, kinds, limits):
            admit(state, kinds, limits)
        iteration_s = step_time(state, limits)
        if not iteration_s > 0.0:
            return s.NO_TIME
        if totals[s.NOW] >= totals[s.NEXT_SAMPLE]:
            record(state, kinds, samples, iteration_s)
            totals[s.NEXT_SAMPLE] = max(totals[s.NEXT_SAMPLE] + spacing_s, totals[s.NOW] + 0.5 * spacing_s)
        took_s = iteration_s * kinds.width
        counts[s.STEPS] += 1
        totals[s.BUSY] += took_s
        totals[s.KV_AREA] += took_s * sums[s.HELD]
        totals[s.RUN_AREA] += took_s * sums[s.RUN]
        if counts[s.EVICTED] + counts[s.QUEUED] > 0:
            totals[s.BLOCKED] = totals[s.NOW] + took_s
        complete(state, kinds, limits)
        arrive(state, rates, totals[s.NOW] + took_s)
    return s.DONE
