"""A run in which some replicas look ahead: the kernels with predictions, a forecast and an ordered queue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..policies.shortest_first import AMin, ShortestFirst
from .domain import LOOK_AHEAD, limits_of
from .kernels.forecast import CHUNK, Forecast, empty_forecast, forget, settle
from .kernels.look_ahead import DESK, FIRST_ROW, IN_CIRCLES, OUTPUT, SEAT, VOLUME, Ahead, collect
from .kernels.state import NONE, Arrivals
from .reference.planned import MOST_IN_VAIN, circles
from .run import Run
from .scheduling import Predictions


@dataclass(slots=True, kw_only=True, eq=False)
class LookAheadRun(Run):
    """A `Run` whose machine looks ahead.

    Parameters
    ----------
    root : SeedSequence
        Where the random numbers of predictors come from.
    """

    root: np.random.SeedSequence
    predictions: Predictions = field(init=False)

    def __post_init__(self) -> None:
        Run.__post_init__(self)
        limits = [limits_of(replica) for replica in self.replicas]
        policies = [item.scheduler if item.discipline == LOOK_AHEAD else None for item in limits]
        self.predictions = Predictions(policies, self.root)
        desks = np.zeros(len(limits), dtype=DESK).view(np.recarray)
        desks.waiting[:] = desks.promising[:] = desks.overdue[:] = NONE
        columns = list(self.predictions.rngs)
        for desk, policy in zip(desks, policies, strict=True):
            if policy is not None:
                desk.order = VOLUME if isinstance(policy, ShortestFirst) and policy.by == "volume" else OUTPUT
                desk.from_below = isinstance(policy, AMin)
                desk.column = columns.index(policy)
        self.machine = self.machine._replace(
            ahead=Ahead(
                desks=desks,
                seats=np.zeros(0, dtype=SEAT).view(np.recarray),
                forecast=empty_forecast(len(limits), 1, max(item.block_size for item in limits)),
                told=np.zeros((len(columns), 0), dtype=np.int64),
                registers=np.zeros(2, dtype=np.int64),
                most_in_vain=MOST_IN_VAIN,
            )
        )

    def _receive_lengths(self, arrivals: Arrivals) -> None:
        """Order what has arrived of the last block before its predictions go; room for the lives of the new one."""
        ahead = self.machine.ahead
        for r in np.flatnonzero(self.machine.replicas.discipline == LOOK_AHEAD):
            collect(ahead, self.machine, int(r))
        self.predictions.receive(arrivals.prompt_tokens, arrivals.output_tokens, arrivals.first)
        told = np.stack(list(self.predictions.columns.values()))
        # What is predicted to outgrow the KV cache is never in a forecast; a pseudo-length may rise to the output.
        holds = int((self.machine.replicas.capacity_blocks * self.machine.replicas.block_size).max())
        longest = max(min(int(told.max()), holds), int(arrivals.output_tokens.max()))
        ahead.registers[FIRST_ROW] = arrivals.first
        forecast = _with_window(ahead, self.machine.replicas, longest)
        self.machine = self.machine._replace(ahead=ahead._replace(told=told, forecast=forecast))

    def _prepare(self) -> None:
        Run._prepare(self)
        ahead, room = self.machine.ahead, len(self.machine.pool)
        if ahead.registers[IN_CIRCLES]:
            raise circles(int(ahead.registers[IN_CIRCLES]))
        if len(ahead.seats) < room:
            seats = np.zeros(room, dtype=SEAT).view(np.recarray)
            seats[: len(ahead.seats)] = ahead.seats
            self.machine = self.machine._replace(ahead=ahead._replace(seats=seats))


def _with_window(ahead: Ahead, replicas: Any, longest: int) -> Forecast:
    """The forecast with room for `longest` iterations beyond the present one."""
    old = ahead.forecast
    window = old.usage.shape[1]
    if window > longest + CHUNK:
        return old
    new = empty_forecast(len(replicas), longest, old.owed.shape[2] - 2)
    for r, s in enumerate(replicas):
        begin = ahead.desks[r].known = forget(old, r, int(ahead.desks[r].known), int(s.iteration))
        for start in range(begin, begin + window, CHUNK):
            settle(old, r, s, start)
            at, to = start & (window - 1), start & (new.usage.shape[1] - 1)
            new.usage[r, to : to + CHUNK] = old.usage[r, at : at + CHUNK]
            new.peaks[r, to // CHUNK] = old.peaks[r, at // CHUNK]
    return new
