"""Drives the kernels: feeds blocks of requests, makes room, takes checkpoints, stops when interrupted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .._types import AnyArray, FloatArray
from ..errors import InputError
from ..model.replica import Replica
from ..model.requests import Requests
from ..policies.routers import Router
from .backlog import FEWEST_SAMPLES, BacklogSamples
from .domain import limits_of
from .draws import BudgetDraws, Ranks
from .kernels import loop
from .kernels.build import blank_outcome, build, empty_log, with_forecast, with_ring, with_room
from .kernels.state import IN_CIRCLES, LOGGED, OWED, STEPS_LEFT, Arrivals, Log, Machine
from .scheduling import evicts_in_circles

STEPS_PER_CALL = 20_000_000
"""Steps between two looks at the keyboard: about a second."""

TTFT_BINS = 80 * 128
"""2**-40 to 2**40 seconds at 128 bins an octave."""

MOST_CHECKPOINTS = 128
SAMPLES_PER_CHECKPOINT = 2 * FEWEST_SAMPLES // MOST_CHECKPOINTS

MOST_SAMPLES = 10_000_000

TOTALS = (
    "completed",
    "steps",
    "generated_tokens",
    "computed_prompt_tokens",
    "preemptions",
    "busy_s",
    "running_area",
    "blocks_area",
    "waiting_area",
    "itl_area",
    "itl_tokens",
    "ttft_area",
)
"""Running totals of a replica kept at each checkpoint."""


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Totals at one instant that every replica has reached.

    Attributes
    ----------
    time_s : float
    arrived, waiting : int
        Requests that have arrived, and that wait now.
    totals : (n_replicas, len(TOTALS)) array
    """

    time_s: float
    arrived: int
    waiting: int
    totals: FloatArray


@dataclass(slots=True, kw_only=True, eq=False)
class Run:
    """One simulation under way.

    Parameters
    ----------
    concurrency : int
        Requests in the system of a closed loop; 0 in an open one.
    horizon_s : float
        No step starts at or after it.
    expected : float
        Requests the run will see, if known; else infinite.
    warmup : float in [0, 1)
        Share of the requests (or of the horizon) after which measurement starts.
    max_waiting : int or None
        Waiting requests at which a replica turns arrivals away.
    root : SeedSequence
        Where the random numbers of policies and predictors come from.
    """

    replicas: list[Replica]
    router: Router
    shares: FloatArray
    uniforms: np.random.Generator
    concurrency: int
    horizon_s: float
    expected: float
    warmup: float
    keep_requests: bool
    record_steps: bool
    resolution_s: float | None
    report: Callable[[int], None]
    max_waiting: int | None = None
    root: np.random.SeedSequence = field(default_factory=lambda: np.random.SeedSequence(0))
    draws: BudgetDraws = field(init=False)
    ranks: Ranks = field(init=False)
    machine: Machine = field(init=False)
    arrived: int = 0
    checkpoints: list[Checkpoint] = field(default_factory=list)
    backlog: BacklogSamples = field(default_factory=BacklogSamples)
    warm_s: float | None = None
    first_arrival_s: float = 0.0
    last_arrival_s: float = 0.0
    kept: list[tuple[AnyArray, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        log = empty_log(
            1 << 12 if self.record_steps else 0, 1 << 10 if self.resolution_s else 0, self.resolution_s or math.inf
        )
        servers = [limits_of(replica) for replica in self.replicas]
        self.draws, self.ranks = BudgetDraws(servers, self.root), Ranks(servers, self.root)
        self.machine = build(
            [(limits, replica.iteration) for limits, replica in zip(servers, self.replicas, strict=True)],
            log=log,
            outcome=blank_outcome(0, arrivals=False),
            ttft_bins=0 if self.keep_requests else TTFT_BINS,
            max_waiting=self.max_waiting,
        )
        self.checkpoint(0.0)

    def open_loop(self, blocks: Iterator[Requests]) -> None:
        """Let the blocks arrive at their times; then serve what is left."""
        for block in blocks:
            arrivals = self._receive(block)
            rows = len(block)
            if not arrivals.first:
                self.backlog.spacing = self._spacing(block)
            begin = 0
            while begin < rows:
                end = min(rows, begin + self.backlog.until_next(arrivals.first + begin))
                piece = _rows(arrivals, begin, end)
                self._arrive(piece)
                self._advance(float(piece.arrival_s[-1]))
                taken = self.backlog.take(self.arrived, self.machine.requests, self.machine.replicas.waiting)
                if taken and taken % SAMPLES_PER_CHECKPOINT == 0:
                    self.checkpoint(float(piece.arrival_s[-1]))
                begin = end
        self._reach(self.last_arrival_s)
        self._serve_out(self.last_arrival_s)

    def _spacing(self, first: Requests) -> int:
        """Arrivals between two samples of the backlog, from what the first block tells of the length of the run."""
        rows, last_s = len(first), float(first.arrival_s[-1])
        by_horizon = rows * self.horizon_s / last_s if last_s > 0 else math.inf
        expected = min(self.expected, by_horizon)
        if not math.isfinite(expected):
            expected = rows
        return int(min(rows, max(1, expected // FEWEST_SAMPLES)))

    def closed_loop(self, blocks: Iterator[Requests]) -> None:
        """Keep `concurrency` requests in the system until the blocks are used up; then serve what is left."""
        self.machine = with_room(self.machine, self.concurrency)
        self.machine.registers[OWED] = self.concurrency
        pace = _Pace()
        for block in blocks:
            arrivals = self._receive(block)
            row = 0
            while row < len(block):
                self._prepare()
                target = min(pace.next_s, self.horizon_s)
                row = self._run_closed(arrivals, row, target)
                self.arrived = arrivals.first + row
                if self.machine.due_s.min() >= target:
                    if target >= self.horizon_s:
                        break
                    self.checkpoint(target)
                    pace.advance(self)
            self.last_arrival_s = float(self.machine.now_s[0])
            if self.machine.due_s.min() >= self.horizon_s:
                break
        self.machine.registers[OWED] = 0
        self._reach(min(self.last_arrival_s, self.horizon_s))
        self._serve_out(self.last_arrival_s)

    def _serve_out(self, from_s: float) -> None:
        """Go on to the horizon, or until nothing is left."""
        pace = _Pace(from_s)
        while np.isfinite(self.machine.due_s).any() and self.machine.due_s.min() < self.horizon_s:
            target = min(pace.next_s, self.horizon_s)
            self._reach(target)
            pace.advance(self)
        self._prepare()
        self._finish_all()
        self.checkpoint(float(self.machine.replicas.ended_s.max()))

    def _receive(self, block: Requests) -> Arrivals:
        self.machine = with_ring(self.machine, int(block.output_tokens.max()))
        if self.keep_requests:
            self._keep(block)
        if not self.arrived:
            self.first_arrival_s = float(block.arrival_s[0])
        if self.first_arrival_s < 0:
            raise InputError(
                f"the first request arrives at {self.first_arrival_s} s, must be >= 0. Shift the arrivals."
            )
        self.last_arrival_s = float(block.arrival_s[-1])
        arrivals = Arrivals(
            block.arrival_s,
            block.prompt_tokens,
            block.output_tokens,
            block.max_output_tokens,
            block.request_class,
            block.cached_prefix_tokens,
            self.uniforms.random((len(block), self.router.draws)),
            self.arrived,
        )
        self._receive_lengths(arrivals)
        return arrivals

    # What kernels do; a run in plain Python does the same otherwise.

    def _receive_lengths(self, arrivals: Arrivals) -> None:
        """Tell policies of the lengths of a block."""
        if self.machine.policies.heap is not None:
            machine = self.machine._replace(policies=self.ranks.received(self.machine.policies, arrivals))
            self.machine = with_forecast(machine, int(arrivals.output_tokens.max()))

    def _run_open(self, piece: Arrivals, begin: int) -> int:
        return loop.run_open(self.machine, piece, self.router.code, self.shares, begin)

    def _run_closed(self, arrivals: Arrivals, begin: int, target_s: float) -> int:
        return loop.run_closed(self.machine, arrivals, self.router.code, self.shares, begin, target_s)

    def _advance_all(self, time_s: float) -> bool:
        return loop.advance_all(self.machine, time_s)

    def _finish_all(self) -> None:
        loop.finish_all(self.machine)

    def record_live(self) -> None:
        """Write what is known of requests that have not finished."""
        outcome, pool = self.machine.outcome, self.machine.pool
        live = pool[pool.index >= 0]
        outcome.finish_s[live.index] = math.nan
        outcome.admitted_s[live.index] = live.admitted_s
        outcome.first_token_s[live.index] = live.first_token_s
        outcome.preemptions[live.index] = live.preemptions

    def _keep(self, block: Requests) -> None:
        needed = self.arrived + len(block)
        old = self.machine.outcome
        if len(old.finish_s) < needed:
            rows = int(self.expected) if math.isfinite(self.expected) else 2 * needed
            new = blank_outcome(max(rows, needed), arrivals=self.concurrency > 0)
            _copy_rows(old, new)
            self.machine = self.machine._replace(outcome=new)
        self.kept.append(
            (
                block.arrival_s,
                block.prompt_tokens.astype(np.int32),
                block.output_tokens.astype(np.int32),
                block.request_class.astype(np.int32),
                np.minimum(block.cached_prefix_tokens, block.prompt_tokens - 1).astype(np.int32),
            )
        )

    def _arrive(self, piece: Arrivals) -> None:
        self.machine = with_room(self.machine, len(piece.arrival_s))
        row = 0
        while row < len(piece.arrival_s):
            self._prepare()
            row = self._run_open(piece, row)
            self.arrived = piece.first + row

    def count_arrived(self) -> None:
        """Count the arrivals anew: an interrupted call has not."""
        replicas = self.machine.replicas
        self.arrived = int(replicas.completed.sum() + replicas.rejected.sum() + self.machine.requests.sum())

    def _advance(self, time_s: float) -> None:
        self._prepare()
        while not self._advance_all(time_s):
            self._prepare()

    def _reach(self, time_s: float) -> None:
        self._advance(time_s)
        self.checkpoint(time_s)

    def _prepare(self) -> None:
        """Room in the logs, and steps to go."""
        log, registers, policies = self.machine.log, self.machine.registers, self.machine.policies
        if registers[IN_CIRCLES]:
            raise evicts_in_circles(int(registers[IN_CIRCLES]))
        registers[STEPS_LEFT] = STEPS_PER_CALL
        if self.record_steps:
            while len(log.start_s) - registers[LOGGED] < len(self.replicas):
                log = _longer(log, steps=2 * len(log.start_s), samples=len(log.samples))
            registers[STEPS_LEFT] = len(log.start_s) - registers[LOGGED]
        if self.resolution_s:
            under_way = self.machine.due_s[self.machine.replicas.in_step == 1]
            latest = float(under_way.max()) if len(under_way) else 0.0
            if latest / self.resolution_s > MOST_SAMPLES:
                raise InputError(
                    f"resolution_s = {self.resolution_s:g} gives more than {MOST_SAMPLES} samples by {latest:g} s, "
                    "must give fewer. Choose a coarser one."
                )
            while len(log.samples) * self.resolution_s < latest:
                log = _longer(log, steps=len(log.start_s), samples=2 * len(log.samples))
        if policies.draws is not None:
            draws = self.draws.refilled(policies.draws)
            policies = policies._replace(draws=draws)
            registers[STEPS_LEFT] = min(registers[STEPS_LEFT], self.draws.left(draws))
        self.machine = self.machine._replace(log=log, policies=policies)

    def checkpoint(self, time_s: float) -> None:
        """Note the totals now."""
        replicas = self.machine.replicas
        if not self.checkpoints or time_s > self.checkpoints[-1].time_s:
            totals = np.stack([replicas[name].astype(np.float64) for name in TOTALS], axis=1)
            totals[:, TOTALS.index("waiting_area")] += replicas.waiting * (time_s - replicas.waiting_since)
            # Steps count in full when they begin; what lies beyond this instant is not yet due.
            beyond_s = np.where(replicas.in_step == 1, np.maximum(self.machine.due_s - time_s, 0.0), 0.0)
            totals[:, TOTALS.index("busy_s")] -= beyond_s
            totals[:, TOTALS.index("running_area")] -= beyond_s * replicas.running
            totals[:, TOTALS.index("blocks_area")] -= beyond_s * (replicas.capacity_blocks - replicas.free_blocks)
            self.checkpoints.append(Checkpoint(time_s, self.arrived, int(replicas.waiting.sum()), totals))
        self.report(int(replicas.completed.sum()))
        started = self.arrived >= self.warmup * self.expected or time_s >= self.warmup * self.horizon_s
        if self.warm_s is None and started:
            self.warm_s = time_s
            self.machine.ttft_counts[:] = 0
        if len(self.checkpoints) > MOST_CHECKPOINTS:
            self.checkpoints = [c for k, c in enumerate(self.checkpoints) if k % 2 == 0 or c.time_s == self.warm_s]


@dataclass(slots=True)
class _Pace:
    """Instants of checkpoints when no arrivals set them: closely spaced at first, then by 1/64 of the time run."""

    next_s: float = 0.0

    def advance(self, run: Run) -> None:
        """Choose the next instant, past any time in which nothing is due."""
        self.next_s = max(self.next_s, float(run.machine.due_s.min()))
        self.next_s += max(1e-3, self.next_s / 64)


def _longer(log: Log, *, steps: int, samples: int) -> Log:
    longer = empty_log(steps, samples, log.resolution_s)
    _copy_rows(log[:4], longer[:4])
    return longer


def _copy_rows(old: tuple[AnyArray, ...], new: tuple[AnyArray, ...]) -> None:
    for short, long in zip(old, new, strict=True):
        long[: len(short)] = short


def _rows(arrivals: Arrivals, begin: int, end: int) -> Arrivals:
    return Arrivals(
        arrivals.arrival_s[begin:end],
        arrivals.prompt_tokens[begin:end],
        arrivals.output_tokens[begin:end],
        arrivals.max_output_tokens[begin:end],
        arrivals.request_class[begin:end],
        arrivals.cached_prefix_tokens[begin:end],
        arrivals.uniforms[begin:end],
        arrivals.first + begin,
    )
