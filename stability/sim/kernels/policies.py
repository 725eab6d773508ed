"""What published disciplines keep beside the running sums of a replica: queues by class, cohorts that pause together, heaps, forecasts.

Each part is None unless some replica needs it. Kernels are compiled for the types of their arguments, so that a part that is
None costs nothing: first come, first served is compiled as if there were no other discipline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._types import BoolArray, FloatArray, IntArray
from ...policies.disciplines import Orca
from ...policies.flow_control import ClassBudgets, RandomBudget
from ...policies.shortest_first import AMin
from ...policies.wait import NestedWait, Wait
from ..domain import LOOK_AHEAD, PRIORITY, Limits
from .forecast import Forecast, empty_forecast
from .state import NONE, Int32Array

LINE = np.dtype(
    [
        ("head", "i8"),
        ("tail", "i8"),
        ("waiting", "i8"),
        ("most", "i8"),  # admissions an iteration
        ("left", "i8"),  # of them, in the iteration under way
    ],
    align=True,
)
"""The waiting requests of one class, in order."""

COHORT = np.dtype(
    [
        # the fields of a clock, as a replica has them
        ("block_size", "i8"),
        ("block_shift", "i8"),
        ("extra_tokens", "i8"),
        ("phase_start", "i8"),
        ("bucket_start", "i8"),
        ("iteration", "i8"),
        ("residue", "i8"),
        ("decoding", "i8"),
        ("context", "i8"),
        # and what pauses and resumes it
        ("threshold", "i8"),  # requests that start it, and that join it in one iteration
        ("going", "i8"),  # whether the iteration under way advances it
        ("end", "i8"),  # of a segment: tokens generated beyond which the next one begins
        ("paused", "i8"),  # before a segment: requests that wait for it with their KV, from the oldest to the newest
        ("oldest", "i8"),
        ("newest", "i8"),
    ],
    align=True,
)
"""Requests that advance or pause together: a class under WAIT, a segment under Nested WAIT."""

NODE = np.dtype(
    [
        ("key", "f8"),
        ("tie", "i8"),
        ("child", "i4"),
        ("sibling", "i4"),
        ("before", "i4"),
    ],
    align=True,
)
"""A request in a pairing heap; whole numbers as keys are exact up to 2**53."""

DESK = np.dtype(
    [
        ("from_below", "i8"),  # A_min: pseudo-lengths rise, and decide who is cancelled
        ("known", "i8"),  # where the first chunk of the forecast begins that is not emptied
        ("alone", "i8"),  # the only request running is expected not to fit, and was admitted since nothing else ran
        ("promising", "i8"),  # heap of running requests by pseudo-length
        ("overdue", "i8"),  # heap of those that have outlived it
        ("admissions", "i8"),
    ],
    align=True,
)
"""One replica that looks ahead, beside its `REPLICA`."""


class Lines(NamedTuple):
    """Queues by class, and for each request its queue and its turn among all of them."""

    lines: Any
    line: Int32Array
    turn: IntArray


class Cohorts(NamedTuple):
    """Cohorts, and the one each request is in."""

    cohorts: Any
    cohort: Int32Array


class Waits(NamedTuple):
    """WAIT: a queue and a cohort a class."""

    lines: Lines
    cohorts: Cohorts


class Draws(NamedTuple):
    """Budgets drawn in advance, a row a replica, and how many each has used."""

    budgets: Int32Array
    used: IntArray


class Heap(NamedTuple):
    """A pairing heap a replica, whose root is the replica's head; `nodes` by request.

    `rank` holds, for each replica's column and the block of requests from `first` on, what the key is but for the arrival.
    """

    nodes: Any
    rank: FloatArray
    column: IntArray
    by_arrival: BoolArray
    first: int


class Ahead(NamedTuple):
    """Of policies that look ahead: a desk and a forecast a replica.

    `told` holds predicted lengths as `Heap.rank` holds keys; by request, `predicted` is what is left of them, and `end` the last
    iteration in the forecast. Running requests under A_min are in heaps, too: a request is in one at a time.
    """

    desks: Any
    forecast: Forecast
    told: IntArray
    predicted: IntArray
    end: IntArray


class Policies(NamedTuple):
    """The parts, each None unless a replica needs it.

    Attributes
    ----------
    lines, heap
        Of all disciplines that wait in them.
    orca, wait, nested_wait, class_budgets, draws, look_ahead
        What Orca (which replicas run it), WAIT, Nested WAIT, the two kinds of flow control and shortest first with its kin look at.
    """

    lines: Lines | None = None
    heap: Heap | None = None
    orca: BoolArray | None = None
    wait: Waits | None = None
    nested_wait: Cohorts | None = None
    class_budgets: Lines | None = None
    draws: Draws | None = None
    look_ahead: Ahead | None = None

    @property
    def cohorts(self) -> Cohorts | None:
        """The cohorts of WAIT and of Nested WAIT, in one array."""
        return self.nested_wait if self.wait is None else self.wait.cohorts

    def with_parts(self, lines: Lines | None, cohorts: Cohorts | None) -> Policies:
        """The same with other queues and cohorts, wherever they are looked at."""
        wait = None if self.wait is None or lines is None or cohorts is None else Waits(lines, cohorts)
        nested = None if self.nested_wait is None else cohorts
        budgets = None if self.class_budgets is None else lines
        return self._replace(lines=lines, wait=wait, nested_wait=nested, class_budgets=budgets)

    def with_room(self, size: int) -> Policies:
        """The same with places for `size` requests."""
        lines, cohorts, heap, ahead = self.lines, self.cohorts, self.heap, self.look_ahead
        if lines is not None:
            lines = lines._replace(line=longer(lines.line, size), turn=longer(lines.turn, size))
        if cohorts is not None:
            cohorts = cohorts._replace(cohort=longer(cohorts.cohort, size))
        if heap is not None:
            heap = heap._replace(nodes=longer(heap.nodes, size))
        if ahead is not None:
            ahead = ahead._replace(predicted=longer(ahead.predicted, size), end=longer(ahead.end, size))
        return self.with_parts(lines, cohorts)._replace(heap=heap, look_ahead=ahead)

    def clock_of(self, s: Any, place: int) -> Any:
        """The clock by which a running request of replica `s` decodes."""
        if s.cohorts == 0:
            return s
        assert self.cohorts is not None
        return self.cohorts.cohorts[self.cohorts.cohort[place]]


def longer(array: Any, size: int) -> Any:
    """A copy with room for `size` entries."""
    new = np.zeros(size, dtype=array.dtype).view(type(array))
    new[: len(array)] = array
    return new


def policies_of(servers: Sequence[Limits], replicas: Any) -> Policies:
    """The parts that the policies of `servers` need, and the places of their own in `replicas`."""
    most: list[int] = []
    thresholds: list[tuple[Any, int, int]] = []
    for limits, s in zip(servers, replicas, strict=True):
        policy = limits.scheduler
        if isinstance(policy, Wait | ClassBudgets):
            entries = policy.thresholds if isinstance(policy, Wait) else policy.budgets
            s.line_start, s.lines = len(most), len(entries)
            most += entries
        if isinstance(policy, Wait | NestedWait):
            ends = policy.ends if isinstance(policy, NestedWait) else (0,) * len(policy.thresholds)
            s.cohort_start, s.cohorts = len(thresholds), len(ends)
            thresholds += [(s, n, end) for n, end in zip(policy.thresholds, ends, strict=True)]
    kinds = {type(limits.scheduler) for limits in servers}
    count, none = len(servers), np.zeros(0, dtype=np.int32)
    lines = cohorts = heap = ahead = None
    if most:
        queues = np.zeros(len(most), dtype=LINE).view(np.recarray)
        queues.head[:] = queues.tail[:] = NONE
        queues.most[:] = most
        lines = Lines(queues, none, np.zeros(0, dtype=np.int64))
    if thresholds:
        clocks = np.zeros(len(thresholds), dtype=COHORT).view(np.recarray)
        for clock, (s, threshold, end) in zip(clocks, thresholds, strict=True):
            for name in ("block_size", "block_shift", "extra_tokens"):
                clock[name] = s[name]
            clock.threshold, clock.end = threshold, end
        clocks.oldest[:] = clocks.newest[:] = NONE
        cohorts = Cohorts(clocks, none)
    disciplines = {limits.discipline for limits in servers}
    if disciplines & {PRIORITY, LOOK_AHEAD}:
        nodes = np.zeros(0, dtype=NODE).view(np.recarray)
        column, by_arrival = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.bool_)
        heap = Heap(nodes, np.zeros((0, 0)), column, by_arrival, 0)
    if LOOK_AHEAD in disciplines:
        desks = np.zeros(count, dtype=DESK).view(np.recarray)
        desks.promising[:] = desks.overdue[:] = NONE
        desks.from_below[:] = [isinstance(limits.scheduler, AMin) for limits in servers]
        forecast = empty_forecast(count, 1, max(limits.block_size for limits in servers))
        whole = np.zeros(0, dtype=np.int64)
        ahead = Ahead(desks, forecast, np.zeros((0, 0), dtype=np.int64), whole, whole)
    return Policies(
        lines=lines,
        heap=heap,
        orca=np.array([isinstance(limits.scheduler, Orca) for limits in servers]) if Orca in kinds else None,
        wait=Waits(lines, cohorts) if Wait in kinds and lines and cohorts else None,
        nested_wait=cohorts if NestedWait in kinds else None,
        class_budgets=lines if ClassBudgets in kinds else None,
        draws=Draws(np.zeros((count, 0), dtype=np.int32), np.zeros(count, dtype=np.int64))
        if RandomBudget in kinds
        else None,
        look_ahead=ahead,
    )
