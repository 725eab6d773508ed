"""Workers in lock-step, request by request and step by step.

At a step boundary, in this order: requests that are done leave; arrivals up to now are routed (push) or join the central queue
(pull); free slots are filled; the step begins. It computes one token of every decoding request, and prompts in order of
assignment within what the decodes leave of each worker's token budget, and lasts as long as its slowest worker's
time by the law, plus the barrier. Requests never change workers.

In a decode pool requests arrive with their prompt computed and their first token given: they need o - 1 steps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..._types import FloatArray
from ...model.iteration import IterationLaw
from ...model.requests import Requests
from ...policies.balance import BalanceRouter, LeastPredictedWork, LengthPartition, PowerOfChoices
from ...policies.routers import (
    JoinShortestKv,
    JoinShortestQueue,
    PowerOfTwo,
    Random,
    RoundRobin,
    Router,
    WeightedSplit,
)
from .dispatch import dispatch, project


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A barrier group and how requests reach its workers.

    Attributes
    ----------
    workers, slots, budget : int
        Workers, and batch slots and token budget of each.
    law : IterationLaw
    sync_s : float
    decode_only : bool
        Whether prompts are computed elsewhere.
    central : bool
        Whether requests wait in one queue and are assigned when a slot is free, or are routed on arrival.
    router : Router
    tables : (n_classes, m) ndarray
        Predicted remaining steps by tokens generated; empty if they are known.
    capacity_blocks : int or None
        KV blocks of a worker in which prompt and output limit of its requests must fit together; None if nothing is set aside.
    watermark_blocks, block_size : int
        Blocks kept free at admission while something runs, and tokens per block.
    """

    workers: int
    slots: int
    budget: int
    law: IterationLaw
    sync_s: float
    decode_only: bool
    central: bool
    router: Router
    tables: FloatArray
    capacity_blocks: int | None = None
    watermark_blocks: int = 0
    block_size: int = 1


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A request and how far it has come."""

    index: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    max_output_tokens: int
    request_class: int
    generated: int = 0
    computed: int = 0
    worker: int = -1
    assigned_s: float = math.nan
    first_token_s: float = math.nan
    finish_s: float = math.nan

    @property
    def kv_tokens(self) -> int:
        """KV it will hold once its prompt is computed: what routers see."""
        return self.prompt_tokens + self.generated

    @property
    def prefilling(self) -> bool:
        """Whether some of its prompt is still to be computed."""
        return self.computed < self.prompt_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStep:
    """One step: composition by worker."""

    start_s: float
    end_s: float
    prefill: tuple[int, ...]
    decodes: tuple[int, ...]
    kv_tokens: tuple[int, ...]
    waiting: int


@dataclass(slots=True, kw_only=True, eq=False)
class ReferenceGroup:
    """The state of a group."""

    group: Group
    uniforms: FloatArray
    shares: FloatArray
    running: list[list[Job]] = field(init=False)
    queues: list[deque[Job]] = field(init=False)
    pool: list[Job] = field(default_factory=list)
    turn: int = 0

    def __post_init__(self) -> None:
        self.running = [[] for _ in range(self.group.workers)]
        self.queues = [deque() for _ in range(self.group.workers)]

    def enqueue(self, job: Job) -> None:
        """A request arrives."""
        if self.group.central:
            self.pool.append(job)
            return
        worker = self.choose(job, list(range(self.group.workers)))
        self.queues[worker].append(job)

    def fill(self, now_s: float) -> None:
        """Give free slots to waiting requests."""
        if not self.group.central:
            for worker, queue in enumerate(self.queues):
                while queue and len(self.running[worker]) < self.group.slots and self.fits(queue[0], worker):
                    self._start(queue.popleft(), worker, now_s)
        elif isinstance(self.group.router, BalanceRouter):
            self._balance(self.group.router, now_s)
        else:
            skipped: list[Job] = []
            while self.pool and self._open(None):
                job = self.pool.pop(0)
                candidates = self._open(job)
                if candidates:
                    self._start(job, self.choose(job, candidates), now_s)
                    continue
                skipped.append(job)
                if not isinstance(self.group.router, LengthPartition):
                    break  # the first in line waits for KV, and all others for it
            self.pool = skipped + self.pool

    def _open(self, job: Job | None) -> list[int]:
        """Workers with a free slot, of the request's part if there are parts."""
        found = [g for g in range(self.group.workers) if len(self.running[g]) < self.group.slots]
        router = self.group.router
        if job is not None and isinstance(router, LengthPartition):
            found = [g for g in found if g in part_of(router, job.prompt_tokens)]
        return found if job is None else [g for g in found if self.fits(job, g)]

    def reserved_blocks(self, job: Job) -> int:
        """Blocks of the prompt and the output limit of a request."""
        return -(-(job.prompt_tokens + job.max_output_tokens) // self.group.block_size)

    def fits(self, job: Job, worker: int) -> bool:
        """Whether a worker can set aside the KV of a request."""
        if self.group.capacity_blocks is None:
            return True
        running = self.running[worker]
        headroom = self.group.watermark_blocks if running else 0
        used = sum(self.reserved_blocks(other) for other in running)
        return used + self.reserved_blocks(job) + headroom <= self.group.capacity_blocks

    def _start(self, job: Job, worker: int, now_s: float) -> None:
        job.worker, job.assigned_s = worker, now_s
        if self.group.decode_only:
            job.computed, job.generated, job.first_token_s = job.prompt_tokens, 1, now_s
        self.running[worker].append(job)

    def _balance(self, policy: BalanceRouter, now_s: float) -> None:
        free = [self.group.slots - len(jobs) for jobs in self.running]
        if not self.pool or not any(free):
            return
        residents = [(g, job.kv_tokens, self.predicted(job)) for g, jobs in enumerate(self.running) for job in jobs]
        loads = [sum(job.kv_tokens for job in jobs) for jobs in self.running]
        ahead = project(loads, residents, policy.horizon)
        placed = dispatch(policy, ahead, free, [job.prompt_tokens for job in self.pool])
        waiting = self.pool
        gone: set[int] = set()
        for position, worker in placed:
            if self.fits(waiting[position], worker):  # else it goes on waiting
                self._start(waiting[position], worker, now_s)
                gone.add(position)
        self.pool = [job for position, job in enumerate(waiting) if position not in gone]

    def predicted(self, job: Job) -> float:
        """Remaining steps of a request by the router's predictor."""
        tables = self.group.tables
        if tables.shape[1] == 0:
            return float(job.output_tokens - job.generated)
        return float(tables[job.request_class, min(job.generated, tables.shape[1] - 1)])

    def choose(self, job: Job, candidates: Sequence[int]) -> int:
        """The worker that one request joins, among `candidates`."""
        row = self.uniforms[job.index]
        count = len(candidates)
        match self.group.router:
            case RoundRobin():
                worker = min(candidates, key=lambda g: (g - self.turn) % self.group.workers)
                self.turn = worker + 1
                return worker
            case Random():
                return candidates[int(row[0] * count)]
            case JoinShortestQueue():
                return min(candidates, key=self.requests)
            case JoinShortestKv():
                return min(candidates, key=self.tokens)
            case PowerOfTwo() | PowerOfChoices():
                return min((candidates[i] for i in drawn(count, row)), key=self.requests)
            case WeightedSplit():
                wanted = int(np.searchsorted(self.shares[job.request_class], row[0], side="right"))
                return min(candidates, key=lambda g: (g - wanted) % self.group.workers)
            case LeastPredictedWork():
                return min(candidates, key=self.work)
            case LengthPartition() as router:
                return min((g for g in part_of(router, job.prompt_tokens) if g in candidates), key=self.requests)
        raise TypeError(f"{self.group.router!r} has no reference")

    def requests(self, worker: int) -> int:
        """Requests waiting and running on a worker."""
        return len(self.queues[worker]) + len(self.running[worker])

    def tokens(self, worker: int) -> int:
        """Resident KV and queued prompts of a worker."""
        return sum(job.kv_tokens for job in self.running[worker]) + sum(job.kv_tokens for job in self.queues[worker])

    def work(self, worker: int) -> float:
        """KV reads a worker still has to do, by prediction."""
        total = 0.0
        for job in (*self.running[worker], *self.queues[worker]):
            steps = self.predicted(job)
            total += steps * job.kv_tokens + steps * (steps + 1) / 2
        return total

    def step(self, now_s: float) -> GroupStep:
        """Compute one step; requests that are done leave."""
        law, end_s = self.group.law, now_s
        composition: list[tuple[int, int, int]] = []
        advanced: list[Job] = []
        for jobs in self.running:
            decoding = [job for job in jobs if not job.prefilling]
            kv = sum(job.kv_tokens for job in decoding)
            left, prompt, context = self.group.budget - len(decoding), 0, 0.0
            for job in jobs:
                if job.prefilling and left > 0:
                    chunk = min(left, job.prompt_tokens - job.computed)
                    context += chunk * (job.computed + chunk / 2)
                    job.computed += chunk
                    prompt += chunk
                    left -= chunk
                    if job.computed == job.prompt_tokens:
                        advanced.append(job)
            advanced += decoding
            composition.append((prompt, len(decoding), kv))
            end_s = max(end_s, now_s + self.group.sync_s + float(law.time_s(prompt, len(decoding), kv, context)))
        for job in advanced:
            job.generated += 1
            if math.isnan(job.first_token_s):
                job.first_token_s = end_s
            if job.generated >= job.output_tokens:
                job.finish_s = end_s
                self.running[job.worker].remove(job)
        prefill, decodes, kv_tokens = zip(*composition, strict=True)
        waiting = len(self.pool) + sum(len(queue) for queue in self.queues)
        return GroupStep(
            start_s=now_s, end_s=end_s, prefill=prefill, decodes=decodes, kv_tokens=kv_tokens, waiting=waiting
        )


def part_of(router: LengthPartition, prompt_tokens: int) -> range:
    """Workers that serve prompts of this length."""
    part = sum(prompt_tokens > cutoff for cutoff in router.cutoffs)
    first = sum(router.workers[:part])
    return range(first, first + router.workers[part])


def drawn(count: int, uniforms: Sequence[float] | FloatArray) -> list[int]:
    """Distinct numbers below `count`, one per uniform (as many as there are), in ascending order."""
    found: list[int] = []
    for i in range(min(len(uniforms), count)):
        number = int(uniforms[i] * (count - i))
        for taken in sorted(found):
            number += number >= taken
        found.append(number)
    return sorted(found)


def run_group(
    group: Group, requests: Requests, *, uniforms: FloatArray, shares: FloatArray, concurrency: int = 0
) -> tuple[list[Job], list[GroupStep]]:
    """Serve all requests: at their arrival times, or (closed loop) with so many in the system as long as there are more."""
    jobs = [
        Job(
            index=i,
            arrival_s=float(requests.arrival_s[i]),
            prompt_tokens=int(requests.prompt_tokens[i]),
            output_tokens=int(requests.output_tokens[i]),
            max_output_tokens=int(requests.max_output_tokens[i]),
            request_class=int(requests.request_class[i]),
        )
        for i in range(len(requests))
    ]
    state = ReferenceGroup(group=group, uniforms=uniforms, shares=shares)
    steps: list[GroupStep] = []
    pending = deque(jobs)
    now_s, present = 0.0, 0
    while True:
        while pending and (present < concurrency if concurrency else pending[0].arrival_s <= now_s):
            job = pending.popleft()
            if concurrency:
                job.arrival_s = now_s
            state.enqueue(job)
            present += 1
        state.fill(now_s)
        if not any(state.running):
            if not pending:
                return jobs, steps
            now_s = pending[0].arrival_s
            continue
        step = state.step(now_s)
        steps.append(step)
        now_s = step.end_s
        present = sum(len(running) for running in state.running) + step.waiting
