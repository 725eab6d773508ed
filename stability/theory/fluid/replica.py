"""One replica of the fluid recursion: its limits, its kinds of requests, its state, and steps of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..._types import FloatArray, IntArray
from ...errors import InputError, NotModelledError
from ...model.iteration import IterationTime
from ...model.replica import Replica
from ...model.workload import RequestClass
from ...policies import Fcfs, scheduler_of
from .ages import AgeTable, age_table
from .kernels.columns import Column
from .samples import SAMPLE_COLUMNS

if TYPE_CHECKING:
    from .kernels.state import Kinds, Limits, Rates, State

SPARE = 1 << 14
"""Entries kept free for cohorts that eviction splits."""


def limits_of(
    replica: Replica, *, chunk_tokens: int | None = None, admissions: float = math.inf, grain: float | None = None
) -> Limits:
    """What a replica can hold.

    Parameters
    ----------
    replica : Replica
        First come, first served. In the limit a prompt is small against the cache, so both gates are one: admission
        stops where the KV held reaches the capacity less the headroom.
    chunk_tokens : int, optional
        Most prompt tokens of one request in an iteration; the token budget if omitted.
    admissions : float
        Most requests admitted in an iteration (pacing).
    grain : float, optional
        Requests in a unit of mass for laws that are not affine: the step time is averaged over whether an iteration
        carries prompts. 1, one replica, if omitted; infinite in the limit.
    """
    from .kernels.state import Limits

    engine = replica.engine
    policy = scheduler_of(engine)
    if not isinstance(policy, Fcfs):
        raise NotModelledError(f"scheduler = {policy!r} has no fluid limit yet, must be Fcfs.")
    kind, law = replica.iteration.encode()
    if not float(replica.iteration.time_s(0.0, 0.0, 0.0)) > 0:
        raise InputError(
            f"iteration = {replica.iteration!r} takes no time for an empty iteration, must take some: the fluid limit would "
            "iterate without end. Give it a base time, or simulate."
        )
    affine = isinstance(replica.iteration, IterationTime)
    return Limits(
        law_kind=kind,
        law=law,
        memory_tokens=float(replica.usable_kv_tokens),
        headroom_tokens=float(replica.watermark_tokens),
        max_seqs=float(engine.max_num_seqs),
        max_tokens=float(engine.max_num_batched_tokens),
        chunk_tokens=float(chunk_tokens or engine.max_num_batched_tokens),
        admissions=float(admissions),
        reserves=not policy.evicts,
        grain=math.inf if affine else 1.0 if grain is None else float(grain),
    )


def kinds_of(tables: Sequence[AgeTable], mixes: FloatArray) -> Kinds:
    """Tables of all kinds in one array.

    Parameters
    ----------
    tables : sequence of AgeTable
        One per kind, of one width.
    mixes : (n_mixes, n_kinds) ndarray
        Shares of the kinds in each mix, rows summing to 1.
    """
    from .kernels.state import Kinds

    ages = np.array([len(table) for table in tables], dtype=np.int64)
    columns = np.zeros((len(tables), int(ages.max()), tables[0].columns.shape[1]))
    for row, table in zip(columns, tables, strict=True):
        row[: len(table)] = table.columns
    return Kinds(columns=columns, ages=ages, width=tables[0].width, mixes=np.ascontiguousarray(mixes, dtype=np.float64))


def tables_of(replica: Replica, classes: Sequence[RequestClass], width: int, chunk: int) -> list[AgeTable]:
    """The age table of each class on `replica`."""
    size = replica.engine.block_size
    return [age_table(item.lengths, chunk, size, item.max_output_tokens, width) for item in classes]


@dataclass(frozen=True, slots=True, eq=False)
class FluidReplica:
    """State of one replica under way; masses are requests per replica."""

    limits: Limits
    kinds: Kinds
    state: State

    @classmethod
    def empty(cls, limits: Limits, kinds: Kinds, windows: int, now_s: float = 0.0) -> FluidReplica:
        """An idle replica, for rates of `windows` windows."""
        from .kernels import state as s

        cohorts = 2 * int(kinds.ages.sum()) + SPARE
        found = cls(limits, kinds, s.empty_state(cohorts, 2 * cohorts, 2 * windows + 16))
        found.totals[s.NOW] = now_s
        return found

    def copy(self) -> FluidReplica:
        """The same state, apart from this one."""
        return FluidReplica(self.limits, self.kinds, deepcopy(self.state))

    def set_window(self, window: int) -> None:
        """Say in which window of the rates now lies."""
        from .kernels import state as s

        self.state.registers.counts[s.WINDOW] = window

    def queue(self, mass: float, mix: int, *, arrives: bool = True) -> None:
        """Put `mass` requests, or endlessly many, at the end of the queue."""
        from .kernels import state as s

        waiting, counts = self.state.waiting, self.state.registers.counts
        if counts[s.QUEUED] >= len(waiting.queued) - 2:
            raise InputError(
                "the mix of arrivals changes too often to be queued, must change less. Average the schedule."
            )
        place = int((counts[s.FIRST] + counts[s.QUEUED]) % len(waiting.queued))
        waiting.mix[place], waiting.queued[place] = mix, mass
        counts[s.QUEUED] += 1
        if arrives and math.isfinite(mass):
            self.totals[s.ARRIVED] += mass

    def place(self, age: int, *, fill: float) -> None:
        """Let requests of the first kind and one age fill the share `fill` of what binds them first."""
        from .kernels import state as s

        row = self.kinds.columns[0, age]
        limits = self.limits
        held = row[Column.RESERVED if limits.reserves else Column.HELD]
        mass = fill * min(
            limits.memory_tokens / held,
            limits.max_seqs / row[Column.RESIDENT],
            limits.max_tokens / row[Column.RESIDENT],
        )
        cohorts, counts = self.state.cohorts, self.state.registers.counts
        i = int(counts[s.COHORTS])
        counts[s.COHORTS] = i + 1
        counts[s.BATCH] += 1
        cohorts.kind[i], cohorts.age[i], cohorts.batch[i] = 0, age, counts[s.BATCH]
        cohorts.mass[i], cohorts.redo[i] = mass, 0.0

    def absorb(self, other: FluidReplica, share: float) -> None:
        """Take over `share` of what a lost replica held: its residents ahead of the queue, its queue behind."""
        from .kernels import state as s

        waiting, counts = self.state.waiting, self.state.registers.counts
        theirs, their_counts = other.state, other.state.registers.counts
        stack = int(their_counts[s.EVICTED])
        newest_first = slice(int(their_counts[s.COHORTS]) - 1, None, -1) if their_counts[s.COHORTS] else slice(0, 0)
        cohorts = theirs.cohorts
        kind = np.concatenate((theirs.waiting.kind[:stack], cohorts.kind[newest_first]))
        age = np.concatenate((theirs.waiting.age[:stack], cohorts.age[newest_first]))
        mass = share * np.concatenate((theirs.waiting.mass[:stack], cohorts.mass[newest_first]))
        top = int(counts[s.EVICTED])
        here = slice(top, top + len(mass))
        if here.stop + counts[s.COHORTS] > len(waiting.mass):
            raise InputError("too many outages to follow what each replica takes over, must be fewer. Merge some.")
        waiting.kind[here], waiting.age[here], waiting.mass[here] = kind, age, mass
        counts[s.EVICTED] = here.stop
        for i in range(int(their_counts[s.QUEUED])):
            place = (int(their_counts[s.FIRST]) + i) % len(theirs.waiting.queued)
            self.queue(share * float(theirs.waiting.queued[place]), int(theirs.waiting.mix[place]), arrives=False)

    def sample(self, like: FloatArray | None = None) -> FloatArray:
        """A row of `SAMPLE_COLUMNS` for now: counts so far, and the state of the iteration `like` was taken in."""
        from .kernels import state as s

        row = np.zeros(len(SAMPLE_COLUMNS)) if like is None else like.copy()
        order = (s.ARRIVED, s.ADMITTED, s.COMPLETED, s.EVICTIONS, s.GENERATED, s.BUSY)
        row[0] = self.totals[s.NOW]
        row[7:] = [self.totals[i] for i in order]
        return row

    def advance(
        self,
        rates: Rates,
        *,
        until_s: float = math.inf,
        until_steps: int = 1 << 62,
        spacing_s: float = 0.0,
        rows: int = 0,
    ) -> FloatArray:
        """Steps up to the first that would start at `until_s`, or until `until_steps` were made; rows of samples.

        Parameters
        ----------
        rates : Rates
            Arrivals.
        spacing_s : float >= 0
            Time between samples, s; 0 samples every step.
        rows : int
            Most samples; 0 takes none.
        """
        from .kernels import run
        from .kernels import state as s

        registers = self.state.registers
        registers.counts[s.SAMPLES] = 0
        samples = np.empty((rows or 1, len(SAMPLE_COLUMNS)))
        if not rows:
            registers.totals[s.NEXT_SAMPLE] = math.inf
        status = run.advance(
            self.state, self.kinds, self.limits, rates, until_s, until_steps, spacing_s if rows else 0.0, samples
        )
        if status == s.NO_ROOM:
            raise InputError(
                "evictions split the resident requests into too many groups to follow, must be fewer. "
                "Take coarser ages or less load."
            )
        if status == s.NO_TIME:
            raise InputError("an iteration takes no time, must take some. Give the step-time law a base time.")
        return samples[: registers.counts[s.SAMPLES]]

    @property
    def totals(self) -> FloatArray:
        """Running totals, see `kernels.state`."""
        return self.state.registers.totals

    @property
    def resident(self) -> float:
        """Requests resident."""
        from .kernels import state as s

        c, n = self.state.cohorts, self.state.registers.counts[s.COHORTS]
        return float((c.mass[:n] * self.kinds.columns[c.kind[:n], c.age[:n], Column.BOUNDARY]).sum())

    @property
    def waiting(self) -> float:
        """Requests waiting."""
        from .kernels.run import waiting_now

        return float(waiting_now(self.state, self.kinds))


def steady_rates(rate_per_s: float, mix: int = 0) -> Rates:
    """A rate that never changes."""
    from .kernels.state import Rates

    return Rates(np.zeros(1), np.array([rate_per_s]), np.array([mix], dtype=np.int64))


def same_mix(rates: FloatArray) -> tuple[FloatArray, IntArray]:
    """Distinct mixes among rows of rates by class, and the mix of each row; rows without arrivals take the first."""
    total = rates.sum(axis=1)
    shares = np.divide(rates, total[:, None], out=np.zeros_like(rates), where=total[:, None] > 0)
    used = np.flatnonzero(total > 0)
    if not len(used):
        return np.full((1, rates.shape[1]), 1.0 / rates.shape[1]), np.zeros(len(rates), dtype=np.int64)
    distinct, which = np.unique(np.round(shares[used], 12), axis=0, return_inverse=True)
    mix = np.zeros(len(rates), dtype=np.int64)
    mix[used] = which.ravel()
    exact = np.array([shares[used[np.flatnonzero(which.ravel() == i)[0]]] for i in range(len(distinct))])
    return exact, mix
