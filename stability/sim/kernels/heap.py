"""A waiting set by priority: a pairing heap, whose root is the replica's head. Joining takes O(1), leaving O(log n) on average.

Fredman, Sedgewick, Sleator and Tarjan, "The pairing heap", Algorithmica 1 (1986).
"""

from __future__ import annotations

from typing import Any

from ._jit import kernel
from .policies import Heap
from .state import NONE, Machine


@kernel
def meld(machine: Machine, heap: Heap, a: int, b: int) -> int:
    """One heap of two: the root that comes later becomes a child of the other. Ties go to the earlier arrival."""
    if a == NONE:
        return b
    if b == NONE:
        return a
    later = heap.key[a] > heap.key[b] or (heap.key[a] == heap.key[b] and machine.pool[a].index > machine.pool[b].index)
    root = b if later else a
    other = a if later else b
    heap.sibling[other] = heap.child[root]
    heap.child[root] = other
    return root


@kernel
def push(machine: Machine, heap: Heap, s: Any, place: int) -> None:
    """A request with its key joins."""
    heap.child[place] = NONE
    heap.sibling[place] = NONE
    s.head = meld(machine, heap, s.head, place)


@kernel
def pop(machine: Machine, heap: Heap, s: Any) -> int:
    """The first request leaves: its children are melded in pairs, and the pairs from the last to the first."""
    root = int(s.head)
    place = heap.child[root]
    pairs = NONE
    while place != NONE:
        other = heap.sibling[place]
        following = NONE
        if other != NONE:
            following = heap.sibling[other]
            place = meld(machine, heap, place, other)
        heap.sibling[place] = pairs
        pairs = place
        place = following
    head = NONE
    while pairs != NONE:
        following = heap.sibling[pairs]
        head = meld(machine, heap, head, pairs)
        pairs = following
    s.head = head
    return root
