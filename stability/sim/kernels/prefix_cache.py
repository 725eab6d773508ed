"""Free blocks that still hold something: vLLM's free-block queue, as counts.

The queue hands out its head. Blocks that hold nothing whole are at the head; the others follow in the order in which
requests gave them up, each sequence from its end. A waiting request can take back what is left of its own, so the queue is a
chain of evicted requests: the blocks each has kept, and before them the stale blocks of finished requests, which nobody will
ask for. The chain uses the links `older` and `newer`, which a request needs only while it runs.

The same decisions as `stability.sim.reference.prefix_cache`, where the sources are.
"""

from __future__ import annotations

from typing import Any

from ._jit import kernel
from .state import NONE, Machine


@kernel
def take(machine: Machine, s: Any, blocks: int) -> None:
    """Hand out `blocks` free blocks; what they held is lost."""
    s.free_blocks -= blocks
    if s.prefix_caching:
        _lose(machine, s, blocks)


@kernel
def _lose(machine: Machine, s: Any, blocks: int) -> None:
    taken = min(blocks, s.empty_blocks)
    s.empty_blocks -= taken
    left = blocks - taken
    while left > 0 and s.first_kept != NONE:
        request = machine.pool[s.first_kept]
        taken = min(left, request.stale_blocks)
        request.stale_blocks -= taken
        left -= taken
        taken = min(left, request.kept_blocks)
        request.kept_blocks -= taken
        left -= taken
        if request.kept_blocks == 0:
            _unlink(machine, s, s.first_kept)
    s.stale_blocks -= left


@kernel
def give_finished(s: Any, tokens: int, blocks: int) -> None:
    """A finished request gives up the `blocks` that held its `tokens`."""
    s.free_blocks += blocks
    if s.prefix_caching:
        full = tokens // s.block_size
        s.empty_blocks += blocks - full
        s.stale_blocks += full


@kernel
def give_evicted(machine: Machine, s: Any, place: int, tokens: int, blocks: int) -> None:
    """An evicted request gives up the `blocks` that held its `tokens`."""
    s.free_blocks += blocks
    if s.prefix_caching:
        full = tokens // s.block_size
        s.empty_blocks += blocks - full
        if full > 0:
            request = machine.pool[place]
            request.kept_blocks = full
            request.stale_blocks = s.stale_blocks
            s.stale_blocks = 0
            request.older = s.last_kept
            request.newer = NONE
            if s.last_kept == NONE:
                s.first_kept = place
            else:
                machine.pool[s.last_kept].newer = place
            s.last_kept = place


@kernel
def take_back(machine: Machine, s: Any, place: int) -> None:
    """The request about to be admitted takes back the blocks it finds."""
    request = machine.pool[place]
    if request.kept_blocks > 0:
        s.free_blocks -= request.kept_blocks
        request.kept_blocks = 0
        _unlink(machine, s, place)


@kernel
def _unlink(machine: Machine, s: Any, place: int) -> None:
    """Take a request out of the chain; the stale blocks before it are then before the next."""
    request = machine.pool[place]
    if request.newer == NONE:
        s.last_kept = request.older
        s.stale_blocks += request.stale_blocks
    else:
        machine.pool[request.newer].older = request.older
        machine.pool[request.newer].stale_blocks += request.stale_blocks
    if request.older == NONE:
        s.first_kept = request.newer
    else:
        machine.pool[request.older].newer = request.newer
