"""One pool of a fleet under way: groups of replicas in one state, split by losses and joined by returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..._types import FloatArray, IntArray
from ...model.fleet import Pool
from ...model.workload import RequestClass
from .replica import FluidReplica, kinds_of, limits_of, same_mix, tables_of
from .samples import AT, COUNTS, SAMPLE_COLUMNS, STATES

if TYPE_CHECKING:
    from .kernels.state import Kinds, Limits, Rates


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """`count` replicas in the same state."""

    count: int
    run: FluidReplica


@dataclass(frozen=True, slots=True, eq=False)
class PoolRun:
    """One pool under way; its lists and arrays change as it runs.

    Attributes
    ----------
    grid_s : (n,) ndarray
        Instants at which it is sampled, from the start of the run, s.
    totals : (n, columns) ndarray
        Sums over the replicas at those instants, in the columns of `SAMPLE_COLUMNS`.
    stranded : list of Group
        Lost replicas whose requests wait for the pool's return.
    counted : (2,) ndarray
        Requests arrived and completed so far.
    """

    grid_s: FloatArray
    limits: Limits
    kinds: Kinds
    rates: Rates
    groups: list[Group]
    totals: FloatArray
    stranded: list[Group] = field(default_factory=list)
    counted: FloatArray = field(default_factory=lambda: np.zeros(2))

    @classmethod
    def of(
        cls,
        pool: Pool,
        classes: list[RequestClass],
        starts_s: FloatArray,
        routed_per_s: FloatArray,
        alive: IntArray,
        grid_s: FloatArray,
        *,
        width: int,
        spare_mixes: int,
        grain: float | None,
        chunk_tokens: int | None,
        admissions: float,
        memory_tokens: float | None,
    ) -> PoolRun:
        """The pool, idle, under the rates of its windows.

        Parameters
        ----------
        routed_per_s : (windows, classes) ndarray
            Arrivals at the pool, 1/s.
        alive : (windows,) ndarray
            Its replicas that are up.
        spare_mixes : int
            Mixes that will be added later (`inject`); 0 lets kinds of requests be whole mixes.
        memory_tokens : float, optional
            KV that may be held, in place of the replica's.
        """
        from .kernels.state import Rates

        each = routed_per_s / np.maximum(alive, 1)[:, None]
        mixes, which = same_mix(each)
        chunk = chunk_tokens or pool.replica.engine.max_num_batched_tokens
        tables = tables_of(pool.replica, classes, width, chunk)
        if not spare_mixes and len(mixes) <= len(classes):  # a whole mix is one kind
            tables = [tables[0].mixed_with(tables[1:], row) for row in mixes]
            mixes = np.eye(len(mixes))
        mixes = np.concatenate((mixes, np.zeros((spare_mixes, mixes.shape[1]))))
        limits = limits_of(pool.replica, chunk_tokens=chunk, admissions=admissions, grain=grain)
        found = cls(
            grid_s=grid_s,
            limits=limits if memory_tokens is None else limits._replace(memory_tokens=memory_tokens),
            kinds=kinds_of(tables, mixes),
            rates=Rates(starts_s, each.sum(axis=1), which),
            groups=[],
            totals=np.zeros((len(grid_s), len(SAMPLE_COLUMNS))),
        )
        found.restore(int(alive[0]), 0.0)
        return found

    @property
    def alive(self) -> int:
        """Replicas that are up."""
        return sum(group.count for group in self.groups)

    @property
    def in_system(self) -> float:
        """Requests waiting, resident and stranded now."""
        everyone = [*self.groups, *self.stranded]
        return math.fsum(group.count * (group.run.waiting + group.run.resident) for group in everyone)

    def advance(self, from_s: float, until_s: float, spacing_s: float, *, last: bool = False) -> None:
        """Run every group to `until_s` and add what it did to the samples."""
        here = slice(*np.searchsorted(self.grid_s, [from_s, math.inf if last else until_s]))
        later = slice(here.stop, None)
        rows = int((until_s - from_s) / spacing_s * 2.5) + len(self.rates.start_s) + 16
        for group in self.groups:
            base = group.run.sample()
            found = group.run.advance(self.rates, until_s=until_s, spacing_s=spacing_s, rows=rows)
            found = np.concatenate((found, group.run.sample(like=found[-1] if len(found) else None)[None]))
            at = self.grid_s[here]
            for column in STATES:
                self.totals[here, column] += group.count * np.interp(at, found[:, 0], found[:, column])
            for column in COUNTS:
                steps = np.interp(at, found[:, 0], found[:, column]) - base[column]
                self.totals[here, column] += group.count * steps
                self.totals[later, column] += group.count * (found[-1, column] - base[column])
            both = [AT["arrived"], AT["completed"]]
            self.counted[:] += group.count * (found[-1, both] - base[both])
        for group in self.stranded:
            self.totals[here, AT["waiting"]] += group.count * (group.run.waiting + group.run.resident)

    def lose(self, lost: int) -> None:
        """Stop `lost` replicas; the others take over what they had."""
        gone: list[Group] = []
        kept: list[Group] = []
        for group in sorted(self.groups, key=lambda g: g.count, reverse=True):
            taken = min(group.count, lost - sum(g.count for g in gone))
            if taken:
                gone.append(Group(taken, group.run.copy()))
            if taken < group.count:
                kept.append(Group(group.count - taken, group.run))
        self.groups[:] = kept
        if not kept:
            self.stranded.extend(gone)
        for group in kept:
            for other in gone:
                group.run.absorb(other.run, other.count / self.alive)

    def restore(self, count: int, now_s: float) -> None:
        """Let `count` empty replicas join; they take over what was stranded."""
        if not count:
            return
        run = FluidReplica.empty(self.limits, self.kinds, len(self.rates.start_s), now_s)
        run.set_window(int(np.searchsorted(self.rates.start_s, now_s, side="right")) - 1)
        self.groups.append(Group(count, run))
        for group in self.stranded:
            run.absorb(group.run, group.count / count)
        self.stranded.clear()

    def queue(self, mass: float, window: int) -> None:
        """Requests of the mix of `window`, which begins now, join the queues, evenly."""
        self._queue(mass, int(self.rates.mix[window]), float(self.rates.start_s[window]))

    def inject(self, masses: FloatArray, window: int) -> None:
        """Requests of each kind that were held until `window`, which begins now, join the queues, evenly."""
        total = float(masses.sum())
        if total > 0:
            mix = len(self.kinds.mixes) - window  # a spare one
            self.kinds.mixes[mix] = masses / total
            self._queue(total, mix, float(self.rates.start_s[window]))

    def _queue(self, mass: float, mix: int, now_s: float) -> None:
        for group in self.groups:
            group.run.queue(mass / self.alive, mix)
        self.totals[np.searchsorted(self.grid_s, now_s) :, AT["arrived"]] += mass
        self.counted[0] += mass
