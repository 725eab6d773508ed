"""The waiting set: a queue, to whose head evicted requests return, unless the discipline keeps queues by class or a heap."""

from __future__ import annotations

from typing import Any

from ..domain import PRIORITY
from ._jit import kernel
from .heap import pop, push
from .lines import stand_first, stand_last
from .policies import Heap, Lines
from .state import NONE, Machine


@kernel
def count_until(s: Any, now_s: float) -> None:
    """Bring the integral of the queue length up to date; call before the length changes."""
    s.waiting_area += s.waiting * (now_s - s.waiting_since)
    s.waiting_since = now_s


@kernel
def join(machine: Machine, r: int, place: int, request_class: int, now_s: float) -> None:
    """A new request begins to wait."""
    s = machine.replicas[r]
    count_until(s, now_s)
    s.waiting += 1
    if not _joined(machine, machine.policies.lines, machine.policies.heap, r, place, request_class):
        push_back(machine, s, place)


@kernel
def wait_again(machine: Machine, s: Any, place: int, now_s: float) -> None:
    """An evicted request waits again."""
    count_until(s, now_s)
    s.waiting += 1
    if not _rejoined(machine, machine.policies.lines, machine.policies.heap, s, place):
        push_front(machine, s, place)


@kernel
def pop_first(machine: Machine, s: Any, now_s: float) -> int:
    """The head leaves to be admitted."""
    count_until(s, now_s)
    s.waiting -= 1
    return _popped(machine, machine.policies.heap, s)


# What no replica needs is None, and not compiled.


@kernel
def _joined(machine: Machine, lines: Lines | None, heap: Heap | None, r: int, place: int, request_class: int) -> bool:
    """Whether a new request has joined a queue of its class or a heap."""
    s = machine.replicas[r]
    if lines is not None:  # noqa: SIM102 -- only a comparison with None alone is decided by the compiler
        if s.lines > 0:
            stand_last(machine, lines, s, place, request_class)
            return True
    if heap is not None:  # noqa: SIM102
        if s.discipline == PRIORITY:
            request = machine.pool[place]
            heap.key[place] = heap.rank[heap.column[r], request.index - heap.first]
            if heap.by_arrival[r]:
                heap.key[place] += request.arrival_s
            push(machine, heap, s, place)
            if s.head == place:
                s.blocked = 0
            return True
    return False


@kernel
def _rejoined(machine: Machine, lines: Lines | None, heap: Heap | None, s: Any, place: int) -> bool:
    """Whether an evicted request has joined a queue of its class or a heap."""
    if lines is not None:  # noqa: SIM102
        if s.lines > 0:
            stand_first(machine, lines, s, place)
            return True
    if heap is not None:  # noqa: SIM102
        if s.discipline == PRIORITY:
            push(machine, heap, s, place)
            return True
    return False


@kernel
def _popped(machine: Machine, heap: Heap | None, s: Any) -> int:
    if heap is not None:  # noqa: SIM102
        if s.discipline == PRIORITY:
            return pop(machine, heap, s)
    return pop_front(machine, s)


@kernel
def push_back(machine: Machine, s: Any, place: int) -> None:
    """Join the end of the queue."""
    machine.pool[place].next = NONE
    if s.tail == NONE:
        s.head = place
    else:
        machine.pool[s.tail].next = place
    s.tail = place


@kernel
def push_front(machine: Machine, s: Any, place: int) -> None:
    """Join the head of the queue."""
    machine.pool[place].next = s.head
    if s.tail == NONE:
        s.tail = place
    s.head = place


@kernel
def pop_front(machine: Machine, s: Any) -> int:
    """Leave the head of the queue."""
    place = int(s.head)
    s.head = machine.pool[place].next
    if s.head == NONE:
        s.tail = NONE
    return place
