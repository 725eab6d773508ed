"""What published disciplines keep beside the running sums of a replica: queues by class, cohorts that pause together, a heap.

Each part is None unless some replica needs it. Kernels are compiled for the types of their arguments, so that a part that is
None costs nothing: first come, first served is compiled as if there were no other discipline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..._types import BoolArray, FloatArray, IntArray
from ...policies.flow_control import ClassBudgets, RandomBudget
from ...policies.wait import NestedWait, Wait
from ..domain import ORCA, PRIORITY, Limits
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


class Lines(NamedTuple):
    """Queues by class, and for each request its queue and its turn among all of them."""

    lines: Any
    line: Int32Array
    turn: IntArray


class Cohorts(NamedTuple):
    """Cohorts, and the one each request is in."""

    cohorts: Any
    cohort: Int32Array


class Draws(NamedTuple):
    """Budgets drawn in advance, a row a replica, and how many each has used."""

    budgets: Int32Array
    used: IntArray


class Heap(NamedTuple):
    """A pairing heap a replica, whose root is the replica's head: keys and links by request.

    `rank` holds, for each replica's column and the block of requests from `first` on, what the key is but for the arrival.
    """

    key: FloatArray
    child: Int32Array
    sibling: Int32Array
    rank: FloatArray
    column: IntArray
    by_arrival: BoolArray
    first: int


class Policies(NamedTuple):
    """The parts, each None unless a replica needs it; `orca` says which replicas run it."""

    lines: Lines | None = None
    cohorts: Cohorts | None = None
    draws: Draws | None = None
    heap: Heap | None = None
    orca: BoolArray | None = None

    def with_room(self, size: int) -> Policies:
        """The same with places for `size` requests."""
        new = self
        if self.lines is not None:
            line, turn = longer(self.lines.line, size), longer(self.lines.turn, size)
            new = new._replace(lines=self.lines._replace(line=line, turn=turn))
        if self.cohorts is not None:
            new = new._replace(cohorts=self.cohorts._replace(cohort=longer(self.cohorts.cohort, size)))
        if self.heap is not None:
            key, child = longer(self.heap.key, size), longer(self.heap.child, size)
            sibling = longer(self.heap.sibling, size)
            new = new._replace(heap=self.heap._replace(key=key, child=child, sibling=sibling))
        return new

    def clock_of(self, s: Any, place: int) -> Any:
        """The clock by which a running request of replica `s` decodes."""
        if s.cohorts == 0:
            return s
        assert self.cohorts is not None
        return self.cohorts.cohorts[self.cohorts.cohort[place]]


def longer(array: Any, size: int) -> Any:
    """A copy with room for `size` entries."""
    new = np.zeros(size, dtype=array.dtype)
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
    policies = Policies()
    if most:
        lines = np.zeros(len(most), dtype=LINE).view(np.recarray)
        lines.head[:] = lines.tail[:] = NONE
        lines.most[:] = most
        policies = policies._replace(lines=Lines(lines, np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)))
    if thresholds:
        cohorts = np.zeros(len(thresholds), dtype=COHORT).view(np.recarray)
        for cohort, (s, threshold, end) in zip(cohorts, thresholds, strict=True):
            for name in ("block_size", "block_shift", "extra_tokens"):
                cohort[name] = s[name]
            cohort.threshold, cohort.end = threshold, end
        cohorts.oldest[:] = cohorts.newest[:] = NONE
        policies = policies._replace(cohorts=Cohorts(cohorts, np.zeros(0, dtype=np.int32)))
    if any(isinstance(limits.scheduler, RandomBudget) for limits in servers):
        count = len(servers)
        policies = policies._replace(draws=Draws(np.zeros((count, 0), dtype=np.int32), np.zeros(count, dtype=np.int64)))
    if any(limits.discipline == PRIORITY for limits in servers):
        links = np.zeros(0, dtype=np.int32)
        column, by_arrival = np.zeros(len(servers), dtype=np.int64), np.zeros(len(servers), dtype=np.bool_)
        policies = policies._replace(heap=Heap(np.zeros(0), links, links, np.zeros((0, 0)), column, by_arrival, 0))
    orca = np.array([limits.discipline == ORCA for limits in servers])
    return policies._replace(orca=orca) if orca.any() else policies
