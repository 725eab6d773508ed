"""Prefix caching: the order of the free-block queue by hand, and runs in which nothing can be found.

The recorded run is in `test_vllm_parity`, oracle against kernel in `test_kernel`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

import pytest

from stability.sim.domain import limits_of
from stability.sim.reference import run_reference
from stability.sim.reference.prefix_cache import FreeBlocks

from .recordings import load, names


@pytest.mark.parametrize("name", names())
def test_without_evictions_there_is_nothing_to_find(name: str) -> None:
    """Up to its first eviction, or to its end, a run is the one without a cache."""
    recording = load(name)
    limits, law = limits_of(recording.replica), recording.replica.iteration
    cached, plain = (
        [step for _, step in run_reference([(replace(limits, prefix_caching=c), law)], recording.requests).steps]
        for c in (True, False)
    )
    first = next((i for i, step in enumerate(plain) if step.preempted), len(plain))
    assert cached[: first + 1] == plain[: first + 1]


def queue(blocks: int) -> FreeBlocks:
    return FreeBlocks(queue=OrderedDict.fromkeys(range(blocks)))


def held(free: FreeBlocks, request: int, blocks: int, full: int) -> list[int]:
    table = [free.take() for _ in range(blocks)]
    for place in range(full):
        free.fill(table[place], (request, place))
    return table


def test_the_block_that_is_not_full_goes_first_then_the_end_of_the_sequence() -> None:
    free = queue(5)
    free.give(held(free, 0, 3, full=2))
    # 2 was partly filled; 3 and 4 were never used; then the second block and the first.
    assert list(free.queue) == [2, 3, 4, 1, 0]
    for _ in range(4):
        free.take()
    assert free.take_back((0, 1)) is None
    assert free.take_back((0, 0)) == 0
    assert not free.queue


def test_earlier_freed_blocks_go_first() -> None:
    free = queue(4)
    first, second = held(free, 0, 2, full=2), held(free, 1, 2, full=2)
    free.give(second)
    free.give(first)
    assert list(free.queue) == [3, 2, 1, 0]
    assert free.take_back((1, 0)) == 2
    assert [free.take() for _ in range(3)] == [3, 1, 0]
    assert free.holder == {(1, 0): 2}
