"""Ordered sets of requests: pairing heaps whose nodes are the nodes of the requests themselves.

A heap is the place of its least request, or `NONE`; the links are in the nodes, so that any number of heaps needs no more
memory than the pool. Adding costs O(1), taking the least or any other O(log n) amortised (Fredman, Sedgewick, Sleator and
Tarjan, 1986). A request is in one heap at a time. Order: ascending key, then ascending tie.
"""

from __future__ import annotations

from typing import Any

from ._jit import called, kernel
from .state import NONE


@kernel
def _meld(nodes: Any, a: int, b: int) -> int:
    """One heap of two: the greater root becomes the first child of the other."""
    if a == NONE:
        return b
    if b == NONE:
        return a
    one, two = nodes[a], nodes[b]
    if two.key < one.key or (two.key == one.key and two.tie < one.tie):
        a, b = b, a
    first = nodes[a].child
    nodes[b].sibling = first
    nodes[b].before = a
    if first != NONE:
        nodes[first].before = b
    nodes[a].child = b
    return a


@called
def insert(nodes: Any, heap: int, place: int) -> int:
    """The heap with a request more."""
    seat = nodes[place]
    seat.child = seat.sibling = seat.before = NONE
    return _meld(nodes, heap, place)


@called
def without_least(nodes: Any, heap: int) -> int:
    """The heap without its least request: the children meld in pairs from the left, then into one from the right."""
    place = nodes[heap].child
    pairs = NONE
    while place != NONE:
        one, two = place, nodes[place].sibling
        place = NONE
        if two != NONE:
            place = nodes[two].sibling
        one = _meld(nodes, one, two)
        nodes[one].sibling = pairs
        pairs = one
    heap = NONE
    while pairs != NONE:
        one = pairs
        pairs = nodes[one].sibling
        heap = _meld(nodes, heap, one)
    return heap


@called
def without(nodes: Any, heap: int, place: int) -> int:
    """The heap without a request that is in it."""
    if place == heap:
        return without_least(nodes, heap)
    before, following = nodes[place].before, nodes[place].sibling
    if nodes[before].child == place:
        nodes[before].child = following
    else:
        nodes[before].sibling = following
    if following != NONE:
        nodes[following].before = before
    return _meld(nodes, heap, without_least(nodes, place))
