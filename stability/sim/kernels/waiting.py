"""The waiting set: a queue, to whose head evicted requests return, unless the discipline keeps queues by class or a heap."""

from __future__ import annotations

from typing import Any

from ..domain import LOOK_AHEAD, PRIORITY
from ._jit import kernel
from .lines import stand_first, stand_last
from .pairing_heap import insert, without_least
from .policies import Ahead, Heap, Lines
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
    p = machine.policies
    if not _joined(machine, p.lines, p.heap, p.look_ahead, r, place, request_class):
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
def _joined(
    machine: Machine,
    lines: Lines | None,
    heap: Heap | None,
    ahead: Ahead | None,
    r: int,
    place: int,
    request_class: int,
) -> bool:
    """Whether a new request has joined a queue of its class or a heap."""
    s = machine.replicas[r]
    if lines is not None:  # noqa: SIM102 -- only a comparison with None alone is decided by the compiler
        if s.lines > 0:
            stand_last(machine, lines, s, place, request_class)
            return True
    if heap is not None:  # noqa: SIM102
        if s.discipline in (PRIORITY, LOOK_AHEAD):
            request, node = machine.pool[place], heap.nodes[place]
            column, row = heap.column[r], request.index - heap.first
            node.key = heap.rank[column, row]
            node.tie = request.index
            if heap.by_arrival[r]:
                node.key += request.arrival_s
            if ahead is not None:
                ahead.predicted[place] = ahead.told[column, row]
            _push(heap, s, place)
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
        if s.discipline in (PRIORITY, LOOK_AHEAD):
            _push(heap, s, place)
            return True
    return False


@kernel
def _push(heap: Heap, s: Any, place: int) -> None:
    """Join the heap; a new head has not been refused yet."""
    s.head = insert(heap.nodes, s.head, place)
    if s.head == place:
        s.blocked = 0
        s.retry = 0


@kernel
def _popped(machine: Machine, heap: Heap | None, s: Any) -> int:
    if heap is not None:  # noqa: SIM102
        if s.discipline in (PRIORITY, LOOK_AHEAD):
            place = int(s.head)
            s.head = without_least(heap.nodes, place)
            return place
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
