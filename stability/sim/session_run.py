"""A run of sessions: a turn arrives a think time after the last one completed, so that events decide what comes next.

The reference replicas do it: what a turn finds depends on every block, shared or free, which the kernels' counts do not follow.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from .._types import AnyArray
from ..model.turns import DrawnSessions
from .domain import limits_of
from .interpreted import InterpretedRun
from .kernels.build import blank_outcome
from .reference.replica import ReferenceReplica, ReferenceRequest
from .reference.shared_prefix import SharedPrefixReplica
from .run import SAMPLES_PER_CHECKPOINT, _copy_rows

RECORDS = ("arrival_s", "prompt_tokens", "output_tokens", "request_class", "found_tokens")
"""Columns kept of every request, in the order of `RequestRecords`."""


@dataclass(slots=True, eq=False)
class Session:
    """A session under way: its rows in a block of drawn sessions, and the turn to come."""

    number: int
    drawn: DrawnSessions
    row: int
    turn: int = 0

    @property
    def place(self) -> int:
        """Row of the next turn."""
        return int(self.drawn.first[self.row]) + self.turn

    @property
    def over(self) -> bool:
        """Whether there is no next turn."""
        return bool(self.place >= self.drawn.first[self.row + 1])


@dataclass(slots=True, kw_only=True, eq=False)
class SessionRun(InterpretedRun):
    """An open loop of sessions, each of them a closed loop of turns."""

    pending: list[tuple[float, int, Session]] = field(default_factory=list)
    under_way: dict[int, Session] = field(default_factory=dict)
    records: list[ReferenceRequest] = field(default_factory=list)
    books: list[SimpleNamespace] = field(default_factory=list)

    def __post_init__(self) -> None:
        InterpretedRun.__post_init__(self)
        limits = [limits_of(item) for item in self.replicas]
        self.servers = [
            (SharedPrefixReplica if of.prefix_caching else ReferenceReplica)(limits=of, law=item.iteration)
            for of, item in zip(limits, self.replicas, strict=True)
        ]
        names = self.machine.replicas.dtype.names
        self.books = [SimpleNamespace(**dict(zip(names, row.item(), strict=True))) for row in self.machine.replicas]

    def checkpoint(self, time_s: float) -> None:
        """Note the totals now."""
        self._write_books()
        InterpretedRun.checkpoint(self, time_s)

    def _books(self, r: int) -> SimpleNamespace:
        """The record of replica `r` as a plain object, which Python reads ten times as fast."""
        return self.books[r]

    def _write_books(self) -> None:
        for r, book in enumerate(self.books):
            self.machine.replicas[r] = tuple(vars(book).values())

    def _prepare(self) -> None:
        if self.resolution_s:
            self._write_books()
        InterpretedRun._prepare(self)

    def play(self, blocks: Iterator[DrawnSessions]) -> None:
        """Let sessions start at their times and turns follow; after the last arrival serve what is left, or to the horizon."""
        coming = _sessions(blocks)
        order = itertools.count()
        ahead = next(coming, None)
        while self.arrived < self.expected:
            while ahead is not None and (not self.pending or ahead[0] <= self.pending[0][0]):
                heapq.heappush(self.pending, (ahead[0], next(order), ahead[1]))
                ahead = next(coming, None)
            arrival_s = self.pending[0][0] if self.pending else math.inf
            now_s = min(arrival_s, float(self.machine.due_s.min()))
            if not now_s < self.horizon_s:
                break
            self._end_steps(now_s, order)
            while self.pending and self.pending[0][0] <= now_s and self.arrived < self.expected:
                self._arrive_turn(heapq.heappop(self.pending)[2], now_s)
            for r, server in enumerate(self.servers):
                if server.step is None and server.next_start_s == now_s:
                    self._begin(r)
        self.pending.clear()
        self.last_arrival_s = min(self.last_arrival_s, self.horizon_s)
        self.checkpoint(self.last_arrival_s if math.isinf(self.horizon_s) else self.horizon_s)
        if math.isinf(self.horizon_s):
            self._serve_out(self.last_arrival_s)
        else:
            self._finish_all()
            self.checkpoint(float(self.machine.replicas.ended_s.max()))
        if self.keep_requests:
            self._keep_records()

    def _end_steps(self, now_s: float, order: Iterator[int]) -> None:
        """Finish the steps that end now; the next turns of what completes are to come."""
        for r, server in enumerate(self.servers):
            if server.step is None or server.step.end_s != now_s:
                continue
            done = [job for job, _ in server.scheduled if job.generated + 1 == job.output_tokens]
            self._finish(r)
            for job in done:
                if math.isnan(job.finish_s):
                    continue
                session = self.under_way.pop(job.index)
                think_s = float(session.drawn.think_s[session.place])
                session.turn += 1
                if not session.over:
                    heapq.heappush(self.pending, (now_s + think_s, next(order), session))

    def _arrive_turn(self, session: Session, now_s: float) -> None:
        drawn, row, place, index = session.drawn, session.row, session.place, self.arrived
        job = ReferenceRequest(
            index=index,
            arrival_s=now_s,
            prompt_tokens=int(drawn.prompt_tokens[place]),
            output_tokens=int(drawn.output_tokens[place]),
            max_output_tokens=int(drawn.max_output_tokens[place]),
            request_class=int(drawn.request_class[row]),
            cached_prefix_tokens=int(drawn.cached_prefix_tokens[place]),
            session=session.number,
            system_prompt=int(drawn.system_prompt[row]),
            shared_tokens=int(drawn.shared_tokens[row]),
        )
        if not index:
            self.first_arrival_s = now_s
            if math.isfinite(self.expected):
                self.backlog.spacing = max(1, int(self.expected) // 256)
        self._room(index)
        self._join(job, self.uniforms.random(self.router.draws), now_s)
        self.under_way[index] = session
        self.arrived += 1
        self.last_arrival_s = now_s
        if self.keep_requests:
            self.records.append(job)
        if self.backlog.until_next(self.arrived) == self.backlog.spacing:
            self._write_books()
        taken = self.backlog.take(self.arrived, self.machine.requests, self.machine.replicas.waiting)
        if taken and taken % SAMPLES_PER_CHECKPOINT == 0:
            self.checkpoint(now_s)

    def _room(self, index: int) -> None:
        """Room for the outcome of request `index`."""
        old = self.machine.outcome
        if self.keep_requests and index >= len(old.finish_s):
            new = blank_outcome(max(1024, 2 * len(old.finish_s)), arrivals=False)
            _copy_rows(old, new)
            self.machine = self.machine._replace(outcome=new)

    def _keep_records(self) -> None:
        columns: list[AnyArray] = [np.array([getattr(job, name) for job in self.records]) for name in RECORDS]
        self.kept.append((columns[0], *(column.astype(np.int32) for column in columns[1:])))
        self.records.clear()


def _sessions(blocks: Iterator[DrawnSessions]) -> Iterator[tuple[float, Session]]:
    """Start and session, one by one."""
    number = itertools.count()
    for drawn in blocks:
        for row, start_s in enumerate(drawn.start_s.tolist()):
            yield start_s, Session(next(number), drawn, row)
