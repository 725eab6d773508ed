"""A run whose replicas are the reference's: for policies without a kernel. Same requests, same books, same result."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .._types import FloatArray
from ..policies.routers import PowerOfTwo
from .domain import limits_of
from .kernels.books import sample
from .kernels.loop import turn_away
from .kernels.state import LOG_COLUMNS, LOGGED, OWED, Arrivals
from .reference.fleet import build_servers, choose
from .reference.replica import ReferenceReplica, ReferenceRequest
from .run import TTFT_BINS, Run
from .scheduling import Predictions

_sample = getattr(sample, "py_func", sample)
_turn_away = getattr(turn_away, "py_func", turn_away)


@dataclass(slots=True, kw_only=True, eq=False)
class InterpretedRun(Run):
    """A `Run` in plain Python: the machine's arrays are its books, the reference replicas its state."""

    servers: list[ReferenceReplica] = field(init=False)
    live: dict[int, ReferenceRequest] = field(default_factory=dict)
    predictions: Predictions = field(init=False)

    def __post_init__(self) -> None:
        Run.__post_init__(self)
        replicas = [(limits_of(replica), replica.iteration) for replica in self.replicas]
        self.servers = build_servers(replicas, self.root)
        self.predictions = Predictions([limits.scheduler for limits, _ in replicas], self.root)

    def _receive_lengths(self, arrivals: Arrivals) -> None:
        self.predictions.receive(arrivals.prompt_tokens, arrivals.output_tokens, arrivals.request_class, arrivals.first)

    def _run_open(self, piece: Arrivals, begin: int) -> int:
        for i in range(begin, len(piece.arrival_s)):
            now_s = float(piece.arrival_s[i])
            if self.router.observes or isinstance(self.router, PowerOfTwo):
                self._advance_all(now_s)
            self._enqueue(piece, i, now_s)
        return len(piece.arrival_s)

    def _advance_all(self, until_s: float) -> bool:
        for r in range(len(self.servers)):
            self._advance_one(r, until_s)
        return True

    def _advance_one(self, r: int, until_s: float) -> None:
        """Finish the steps that end by `until_s` and begin those that start before it."""
        server = self.servers[r]
        while True:
            if server.step:
                if server.step.end_s > until_s:
                    return
                self._finish(r)
            elif server.next_start_s < until_s:
                self._begin(r)
            else:
                return

    def _run_closed(self, arrivals: Arrivals, begin: int, target_s: float) -> int:
        row, registers, due_s = begin, self.machine.registers, self.machine.due_s
        while True:
            while registers[OWED] > 0:
                if row == len(arrivals.arrival_s):
                    return row
                self._enqueue(arrivals, row, float(self.machine.now_s[0]))
                registers[OWED] -= 1
                row += 1
            now_s = float(due_s.min())
            if not now_s < target_s:
                return row
            self.machine.now_s[0] = now_s
            due = [r for r in range(len(self.servers)) if due_s[r] == now_s]
            registers[OWED] += sum(self._finish(r) for r in due if self.servers[r].step is not None)
            if registers[OWED] == 0:
                for r in due:
                    if self.servers[r].step is None and self.servers[r].next_start_s == now_s:
                        self._begin(r)

    def _finish_all(self) -> None:
        for r, server in enumerate(self.servers):
            if server.step:
                self._finish(r)

    def _enqueue(self, arrivals: Arrivals, i: int, now_s: float) -> None:
        job = ReferenceRequest(
            index=arrivals.first + i,
            arrival_s=now_s,
            prompt_tokens=int(arrivals.prompt_tokens[i]),
            output_tokens=int(arrivals.output_tokens[i]),
            max_output_tokens=int(arrivals.max_output_tokens[i]),
            request_class=int(arrivals.request_class[i]),
            cached_prefix_tokens=int(arrivals.cached_prefix_tokens[i]),
        )
        self._join(job, arrivals.uniforms[i], now_s)

    def _join(self, job: ReferenceRequest, uniforms: FloatArray, now_s: float) -> None:
        """Route `job` and put it into a queue."""
        r = choose(self.router, self.servers, job, uniforms, self.shares)
        if r == len(self.servers):
            _turn_away(self.machine, 0, job.index)
            return
        # Its replica may lag behind where the router looks at none: steps that start before now come first.
        if not self.concurrency:
            self._advance_one(r, now_s)
        if self.max_waiting is not None and len(self.servers[r].waiting) >= self.max_waiting:
            _turn_away(self.machine, r, job.index)
            return
        job.predicted_output_tokens = self.predictions.of(r, job.index)
        self._count_until(r, now_s)
        self.servers[r].enqueue(job, now_s)
        self.live[job.index] = job
        if len(self.machine.outcome.replica):
            self.machine.outcome.replica[job.index] = r
        if len(self.machine.outcome.arrival_s):
            self.machine.outcome.arrival_s[job.index] = now_s
        self._note(r)

    def _books(self, r: int) -> Any:
        """The record of replica `r`."""
        return self.machine.replicas[r]

    def _count_until(self, r: int, now_s: float) -> None:
        """Bring the integral of the queue length up to date; call before the length changes."""
        s = self._books(r)
        s.waiting_area += s.waiting * (now_s - s.waiting_since)
        s.waiting_since = now_s

    def _note(self, r: int) -> None:
        """Copy what others look at from the server to the books."""
        server, s = self.servers[r], self._books(r)
        s.waiting, s.running, s.in_step = len(server.waiting), len(server.running), int(server.step is not None)
        self.machine.requests[r] = s.waiting + s.running
        self.machine.due_s[r] = server.step.end_s if server.step else server.next_start_s

    def _begin(self, r: int) -> None:
        server, s = self.servers[r], self._books(r)
        start_s = server.next_start_s
        before = sum(request.preemptions for request in server.running)
        had = list(server.running)
        step = server.begin_step()
        self._count_until(r, start_s)
        s.preemptions += sum(request.preemptions for request in had) - before
        self._note(r)
        if step is None:
            return
        step_s = step.end_s - step.start_s
        s.steps += 1
        s.computed_prompt_tokens += sum(tokens for request, tokens in server.scheduled if request.prefilling)
        s.busy_s += step_s
        s.running_area += step_s * step.running
        s.blocks_area += step_s * step.used_blocks
        s.free_blocks = s.capacity_blocks - step.used_blocks
        s.step_s = step_s
        if step.waiting == 0:
            if math.isnan(s.emptied_s):
                s.emptied_s, s.emptied_completed = start_s, s.completed
        elif step.scheduled_tokens < s.max_tokens and math.isnan(s.blocked_s):
            s.blocked_s, s.blocked_completed = start_s, s.completed
        if self.record_steps:
            if self.machine.registers[LOGGED] == len(self.machine.log.start_s):
                self._prepare()
            log, row = self.machine.log, int(self.machine.registers[LOGGED])
            self.machine.registers[LOGGED] += 1
            log.start_s[row], log.end_s[row] = step.start_s, step.end_s
            log.integers[row] = [r if name == "replica" else getattr(step, name) for name in LOG_COLUMNS]

    def _finish(self, r: int) -> int:
        server, s = self.servers[r], self._books(r)
        assert server.step is not None
        now_s = server.step.end_s
        if self.resolution_s:
            self._prepare()
            _sample(self.machine, s, now_s)
        given = sum(request.computed == request.known_tokens for request, _ in server.scheduled)
        finished = server.finish_step()
        s.generated_tokens += given
        s.ended_s = now_s
        for job in finished:
            s.completed += 1
            s.itl_area += now_s - job.first_token_s
            s.itl_tokens += job.output_tokens - 1
            s.ttft_area += job.first_token_s - job.arrival_s
            if self.keep_requests:
                self._write(job)
            else:
                self._count_ttft(job.first_token_s - job.arrival_s)
            del self.live[job.index]
        self._note(r)
        return len(finished)

    def _count_ttft(self, ttft_s: float) -> None:
        mantissa, exponent = math.frexp(ttft_s)
        row = (exponent + 40) * 128 + int((mantissa - 0.5) * 256)
        self.machine.ttft_counts[min(max(row, 0), TTFT_BINS - 1)] += 1

    def _write(self, job: ReferenceRequest) -> None:
        outcome, i = self.machine.outcome, job.index
        outcome.admitted_s[i], outcome.first_token_s[i] = job.admitted_s, job.first_token_s
        outcome.finish_s[i], outcome.preemptions[i] = job.finish_s, job.preemptions

    def record_live(self) -> None:
        """Write what is known of requests that have not finished."""
        for job in self.live.values():
            self._write(job)
