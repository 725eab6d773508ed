"""A fleet under way: its pools run from event to event, what no pool takes is held, and all is sampled on one grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._types import FloatArray, read_only
from ...model.fleet import Fleet
from ...model.workload import Workload
from .path import FluidPath
from .pools import PoolRun
from .samples import AT
from .timeline import Timeline


@dataclass(frozen=True, slots=True, eq=False)
class FleetRun:
    """All pools of a fleet under way.

    Attributes
    ----------
    held : (classes,) ndarray
        Requests that no pool could take so far.
    held_at : (n,) ndarray
        Their number on the grid.
    """

    fleet: Fleet
    line: Timeline
    grid_s: FloatArray
    pools: list[PoolRun]
    held: FloatArray
    held_at: FloatArray

    @classmethod
    def of(
        cls,
        fleet: Fleet,
        workload: Workload,
        line: Timeline,
        grid_s: FloatArray,
        *,
        width: int,
        grain: float | None,
        chunk_tokens: int | None,
        admissions: float,
        memory_tokens: Sequence[float | None],
    ) -> FleetRun:
        """The fleet, idle, at time 0."""
        classes = list(workload.classes)
        spare = len(line.start_s) if line.held_per_s.any() else 0
        routed = line.routed_per_s
        pools = [
            PoolRun.of(
                pool,
                classes,
                line.start_s,
                routed[:, :, i],
                line.alive[:, i],
                grid_s,
                width=width,
                spare_mixes=spare,
                grain=grain,
                chunk_tokens=chunk_tokens,
                admissions=admissions,
                memory_tokens=memory_tokens[i],
            )
            for i, pool in enumerate(fleet.pools)
        ]
        return cls(fleet, line, grid_s, pools, np.zeros(len(classes)), np.zeros(len(grid_s)))

    def to_the_end(self, backlog: float, backlog_s: float) -> None:
        """Run to the end of the grid; `backlog` requests join the queues at `backlog_s`."""
        line = self.line
        alive, held = line.alive, line.held_per_s
        changed = [
            window
            for window in range(1, len(line.start_s))
            if (alive[window] != alive[window - 1]).any() or held[window].any() or held[window - 1].any()
        ]
        events = sorted({0, *changed, int(np.searchsorted(line.start_s, backlog_s))})
        end_s = float(self.grid_s[-1])
        for window, following in zip(events, [*events[1:], None], strict=True):
            begin_s = float(line.start_s[window])
            until_s = end_s if following is None else float(line.start_s[following])
            if window:
                self._change(window)
            if backlog > 0 and begin_s == backlog_s:
                self._queue(backlog, window)
            last = following is None
            self._hold(window, begin_s, until_s, last=last)
            for pool in self.pools:
                pool.advance(begin_s, until_s, self._spacing_s, last=last)

    @property
    def _spacing_s(self) -> float:
        return float(self.grid_s[1] - self.grid_s[0])

    def _change(self, window: int) -> None:
        """Replicas stop and return as the window begins, and what was held goes to those that are up."""
        for i, pool in enumerate(self.pools):
            change = int(self.line.alive[window, i] - self.line.alive[window - 1, i])
            if change < 0:
                pool.lose(-change)
            pool.restore(max(change, 0), float(self.line.start_s[window]))
        split = self.line.split[window]
        for i, pool in enumerate(self.pools):
            if self.held.any():
                pool.inject(self.held * split[:, i], window)
        self.held[split.sum(axis=1) > 0] = 0.0

    def _queue(self, backlog: float, window: int) -> None:
        """Requests of the window's mix (of the whole run's where it has none) join the queues."""
        routed = self.line.routed_per_s
        here = routed[window] if routed[window].any() else routed.mean(axis=0)
        for i, pool in enumerate(self.pools):
            pool.queue(backlog * float(here[:, i].sum() / here.sum()), window)

    def _hold(self, window: int, begin_s: float, until_s: float, *, last: bool) -> None:
        """Hold what no pool takes from `begin_s` to `until_s`, over which nothing changes while something is held."""
        here = slice(*np.searchsorted(self.grid_s, [begin_s, until_s + (1.0 if last else 0.0)]))
        coming = self.line.held_per_s[window]
        self.held_at[here] = self.held.sum() + coming.sum() * (self.grid_s[here] - begin_s)
        self.held[:] += coming * (until_s - begin_s)

    def distance(self, other: FleetRun) -> float:
        """Largest difference of waiting and of running over the fleet, over the most requests in either run."""
        mine, theirs = (
            sum(pool.totals[:, [AT["waiting"], AT["running"]]] for pool in run.pools) for run in (self, other)
        )
        most = max(float(np.max(np.sum(mine, axis=1))), float(np.max(np.sum(theirs, axis=1))), 1e-9)
        return float(np.max(np.abs(mine - theirs))) / most

    def path(self, before_s: float, width: int, error: float, spreads: Sequence[float]) -> FluidPath:
        """What was sampled; `spreads` are the squared coefficients of variation of the demands on each pool."""
        table = np.stack([pool.totals for pool in self.pools], axis=1)  # (n, pools, columns)
        windows = np.clip(np.searchsorted(self.line.start_s, self.grid_s, side="right") - 1, 0, None)
        alive = self.line.alive[windows].astype(np.float64)
        each = np.maximum(alive, 1.0)

        def rate(name: str) -> FloatArray:
            steps = np.diff(table[:, :, AT[name]], axis=0) / self._spacing_s
            return np.concatenate((steps[:1], np.maximum(steps, 0.0)))

        time_s = self.grid_s - before_s
        columns = {
            "waiting": table[:, :, AT["waiting"]],
            "running": table[:, :, AT["running"]],
            "kv_tokens": table[:, :, AT["kv_tokens"]],
            "iteration_s": table[:, :, AT["iteration_s"]] / each,
            "alive": alive,
            "arrivals_per_s": rate("arrived"),
            "throughput_per_s": rate("completed"),
            "evictions_per_s": rate("evicted"),
            "tokens_per_s": rate("generated_tokens"),
            "wait_s": _waits(
                time_s, table[:, :, AT["arrived"]], table[:, :, AT["admitted"]], table[:, :, AT["waiting"]]
            ),
            "time_s": time_s,
            "held": self.held_at,
            "kv_capacity_tokens": np.array([float(pool.replica.usable_kv_tokens) for pool in self.fleet.pools]),
        }
        columns["backlog_std"] = _backlog_std(columns, np.array(spreads))
        return FluidPath(
            **{name: read_only(column) for name, column in columns.items()},
            pools=tuple(pool.name for pool in self.fleet.pools),
            width=width,
            error=error,
            imbalance=self._imbalance(),
        )

    def _imbalance(self) -> float:
        """Requests that arrived at a pool less those that left it or are in it, over those that arrived."""
        found = 0.0
        for pool in self.pools:
            arrived, completed = pool.counted.tolist()
            if arrived > 0:
                found = max(found, abs(arrived - completed - pool.in_system) / arrived)
        return found


def _waits(time_s: FloatArray, arrived: FloatArray, admitted: FloatArray, waiting: FloatArray) -> FloatArray:
    """Time until as many were admitted as have arrived, first come, first served; infinite beyond the end."""
    found = np.zeros_like(arrived)
    for i in range(arrived.shape[1]):
        at = np.interp(arrived[:, i] * (1 - 1e-9), admitted[:, i], time_s, right=math.inf)
        found[:, i] = np.where(waiting[:, i] > 1e-9, np.maximum(at - time_s, 0.0), 0.0)
    return found


def _backlog_std(columns: dict[str, FloatArray], spreads: FloatArray) -> FloatArray:
    """Standard deviation of the backlog: that of Poisson arrivals and of what is served since each queue last was empty."""
    steps = np.diff(columns["time_s"], prepend=columns["time_s"][0])[:, None]
    waits = columns["waiting"] > 1e-9
    growth = np.where(waits, columns["arrivals_per_s"] + spreads * columns["throughput_per_s"], 0.0) * steps
    total = np.cumsum(growth, axis=0)
    since = np.maximum.accumulate(np.where(waits, 0.0, total), axis=0)
    return np.asarray(np.sqrt((total - since).sum(axis=1)))
