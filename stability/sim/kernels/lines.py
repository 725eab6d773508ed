"""A waiting set by class: a queue a class, served in the order that the requests would have in a common one.

Every request has a turn: new ones the next, evicted ones, which return to the head, one before all others.
"""

from __future__ import annotations

from typing import Any

from ._jit import kernel
from .policies import Lines
from .state import NONE, Machine


@kernel
def stand_last(machine: Machine, lines: Lines, s: Any, place: int, request_class: int) -> None:
    """A new request joins the queue of its class."""
    k = s.line_start + request_class
    line = lines.lines[k]
    lines.line[place] = k
    lines.turn[place] = s.last_turn
    s.last_turn += 1
    machine.pool[place].next = NONE
    if line.tail == NONE:
        line.head = place
    else:
        machine.pool[line.tail].next = place
    line.tail = place
    line.waiting += 1


@kernel
def stand_first(machine: Machine, lines: Lines, s: Any, place: int) -> None:
    """An evicted request returns to the head of its queue."""
    line = lines.lines[lines.line[place]]
    s.first_turn -= 1
    lines.turn[place] = s.first_turn
    machine.pool[place].next = line.head
    if line.tail == NONE:
        line.tail = place
    line.head = place
    line.waiting += 1


@kernel
def first_in_lines(lines: Lines, s: Any) -> int:
    """Of the classes with admissions left, the head whose turn is first; `NONE` if there is none."""
    first = NONE
    for k in range(s.line_start, s.line_start + s.lines):
        line = lines.lines[k]
        if line.left > 0 and line.head != NONE and (first == NONE or lines.turn[line.head] < lines.turn[first]):
            first = line.head
    return int(first)


@kernel
def leave_line(machine: Machine, lines: Lines, place: int) -> None:
    """The head of its queue leaves to be admitted."""
    line = lines.lines[lines.line[place]]
    line.head = machine.pool[place].next
    if line.head == NONE:
        line.tail = NONE
    line.waiting -= 1
    line.left -= 1
