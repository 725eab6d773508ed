"""Arrays of the recursion of one replica. Masses are requests per replica: everything is already divided by the scale R."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...._types import FloatArray, IntArray

FLOOR = 1e-12
"""Requests below which a mass is rounded away, into the completions, or not admitted on its own."""

NONE = -1

DONE, NO_ROOM, NO_TIME = range(3)
"""Outcome of a run: as asked; a list is full; an iteration took no time."""


class Limits(NamedTuple):
    """What one replica can hold, and its step-time law."""

    law_kind: int
    law: FloatArray
    memory_tokens: float
    headroom_tokens: float
    max_seqs: float
    max_tokens: float
    chunk_tokens: float
    admissions: float  # most per iteration
    reserves: bool
    grain: (
        float  # requests in a unit of mass, if the law is averaged over whether a step carries prompts; else infinite
    )


class Kinds(NamedTuple):
    """Tables by age (`stability.theory.fluid.ages`), and the mixes in which kinds arrive."""

    columns: FloatArray  # (kinds, ages, columns)
    ages: IntArray  # (kinds,)
    width: int
    mixes: FloatArray  # (mixes, kinds), rows sum to 1


class Rates(NamedTuple):
    """Arrivals at a rate that is constant in each of consecutive windows; the last one never ends."""

    start_s: FloatArray  # (windows,)
    rate_per_s: FloatArray  # (windows,)
    mix: IntArray  # (windows,)


class Cohorts(NamedTuple):
    """Requests resident, in the order of admission. `mass` is that at admission: survivors are in the tables."""

    kind: IntArray
    age: IntArray
    batch: IntArray  # admitted in one piece: evicted in proportion
    mass: FloatArray
    redo: FloatArray  # tokens of each still to be recomputed
    held: FloatArray  # KV in the step under way, tokens


class Waiting(NamedTuple):
    """Requests waiting: evicted ones first (a stack), then arrivals (a ring)."""

    kind: IntArray
    age: IntArray
    mass: FloatArray
    mix: IntArray
    queued: FloatArray


class Registers(NamedTuple):
    """Scalars of the state."""

    counts: IntArray
    totals: FloatArray
    sums: FloatArray  # over the cohorts, of this step
    unit: FloatArray  # the same of one request to be admitted


RUN, HELD, RESERVED, DECODE, READ, PREFILL, CONTEXT = range(7)
N_SUMS = 7
"""Requests resident; KV held and set aside, tokens; decodes, KV read, prompt tokens, prefill work of an iteration."""

COHORTS, EVICTED, FIRST, QUEUED, WINDOW, BATCH, STEPS, SAMPLES = range(8)
N_COUNTS = 8
"""Cohorts; evicted entries; first and number of queue entries; window of the rates; next batch; steps; samples taken."""

NOW, ARRIVED, ADMITTED, COMPLETED, EVICTIONS, GENERATED, BUSY, KV_AREA, RUN_AREA, NEXT_SAMPLE, BLOCKED = range(11)
N_TOTALS = 11
"""Time, s; requests arrived, admitted for the first time, completed, evicted; tokens generated; seconds of steps; time
integrals of KV and of the number resident; when to sample next, s; end of the last step that left requests waiting, s."""


class State(NamedTuple):
    """The whole state of one replica."""

    cohorts: Cohorts
    waiting: Waiting
    registers: Registers


def empty_state(cohorts: int, evicted: int, queued: int) -> State:
    """Nothing resident, nothing waiting, time 0."""
    totals = np.zeros(N_TOTALS)
    counts = np.zeros(N_COUNTS, dtype=np.int64)
    return State(
        Cohorts(
            np.zeros(cohorts, dtype=np.int64),
            np.zeros(cohorts, dtype=np.int64),
            np.zeros(cohorts, dtype=np.int64),
            np.zeros(cohorts),
            np.zeros(cohorts),
            np.zeros(cohorts),
        ),
        Waiting(
            np.zeros(evicted, dtype=np.int64),
            np.zeros(evicted, dtype=np.int64),
            np.zeros(evicted),
            np.zeros(queued, dtype=np.int64),
            np.zeros(queued),
        ),
        Registers(counts, totals, np.zeros(N_SUMS), np.zeros(N_SUMS)),
    )
