"""Ordered sets of requests: pairing heaps whose nodes are the seats of the requests themselves.

A heap is the place of its least request, or `NONE`; the links are in the seats, so that any number of heaps needs no more
memory than the pool. Adding costs O(1), taking the least or any other O(log n) amortised (Fredman, Sedgewick, Sleator and
Tarjan, 1986). A request is in one heap at a time. Order: ascending key, then ascending tie.
"""

from __future__ import annotations

from typing import Any

from ._jit import called, kernel
from .state import NONE


@kernel
def _meld(seats: Any, a: int, b: int) -> int:
    """One heap of two: the greater root becomes the first child of the other."""
    if a == NONE:
        return b
    if b == NONE:
        return a
    one, two = seats[a], seats[b]
    if two.key < one.key or (two.key == one.key and two.tie < one.tie):
        a, b = b, a
    first = seats[a].child
    seats[b].sibling = first
    seats[b].before = a
    if first != NONE:
        seats[first].before = b
    seats[a].child = b
    return a


@called
def insert(seats: Any, heap: int, place: int) -> int:
    """The heap with a request more."""
    seat = seats[place]
    seat.child = seat.sibling = seat.before = NONE
    return _meld(seats, heap, place)


@called
def without_least(seats: Any, heap: int) -> int:
    """The heap without its least request: the children meld in pairs from the left, then into one from the right."""
    place = seats[heap].child
    pairs = NONE
    while place != NONE:
        one, two = place, seats[place].sibling
        place = NONE
        if two != NONE:
            place = seats[two].sibling
        one = _meld(seats, one, two)
        seats[one].sibling = pairs
        pairs = one
    heap = NONE
    while pairs != NONE:
        one = pairs
        pairs = seats[one].sibling
        heap = _meld(seats, heap, one)
    return heap


@called
def without(seats: Any, heap: int, place: int) -> int:
    """The heap without a request that is in it."""
    if place == heap:
        return without_least(seats, heap)
    before, following = seats[place].before, seats[place].sibling
    if seats[before].child == place:
        seats[before].child = following
    else:
        seats[before].sibling = following
    if following != NONE:
        seats[following].before = before
    return _meld(seats, heap, without_least(seats, place))
