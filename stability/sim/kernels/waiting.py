"""The waiting set of first come, first served: a queue, to whose head evicted requests return."""

from __future__ import annotations

from typing import Any

from ._jit import kernel
from .state import NONE, Machine


@kernel
def count_until(s: Any, now_s: float) -> None:
    """Bring the integral of the queue length up to date; call before the length changes."""
    s.waiting_area += s.waiting * (now_s - s.waiting_since)
    s.waiting_since = now_s


@kernel
def push_back(machine: Machine, s: Any, place: int, now_s: float) -> None:
    """A new request joins the end."""
    count_until(s, now_s)
    machine.pool[place].next = NONE
    if s.tail == NONE:
        s.head = place
    else:
        machine.pool[s.tail].next = place
    s.tail = place
    s.waiting += 1


@kernel
def push_front(machine: Machine, s: Any, place: int, now_s: float) -> None:
    """An evicted request joins the head."""
    count_until(s, now_s)
    machine.pool[place].next = s.head
    if s.tail == NONE:
        s.tail = place
    s.head = place
    s.waiting += 1


@kernel
def pop_front(machine: Machine, s: Any, now_s: float) -> int:
    """The head leaves to be admitted."""
    count_until(s, now_s)
    place = int(s.head)
    s.head = machine.pool[place].next
    if s.head == NONE:
        s.tail = NONE
    s.waiting -= 1
    return place
