"""A replica that finds the KV blocks of evicted requests again: vLLM's free-block queue, block by block.

A freed block keeps what it holds until it is handed out again. Free blocks wait in a queue and leave at its head. When a
request gives its blocks up, full ones join the end, the last of the sequence first, and one that is not full joins the
head. So a sequence loses its end first, and what is left of it is a prefix. At admission a request takes back what is left
of its own.

Source: vLLM v1 (`BlockPool.get_new_blocks`, `free_blocks`, `touch`; `KVCacheManager.get_computed_blocks`, `allocate_slots`).
A block is known by its request and place: no two requests share a prefix.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from .replica import ReferenceReplica, ReferenceRequest


@dataclass(slots=True, kw_only=True, eq=False)
class FreeBlocks:
    """Free blocks in the order in which they are handed out.

    Attributes
    ----------
    queue : ordered mapping of int to None
        Block numbers, head first.
    content : mapping of int to (int, int)
        Request and place in its sequence of every full block, free or not.
    holder : mapping of (int, int) to int
        The inverse.
    """

    queue: OrderedDict[int, None]
    content: dict[int, tuple[int, int]] = field(default_factory=dict)
    holder: dict[tuple[int, int], int] = field(default_factory=dict)

    def take(self) -> int:
        """Hand out the head; what it held is lost."""
        block, _ = self.queue.popitem(last=False)
        if block in self.content:
            del self.holder[self.content.pop(block)]
        return block

    def take_back(self, content: tuple[int, int]) -> int | None:
        """The free block that holds `content`, out of the queue; None if it is lost."""
        block = self.holder.get(content)
        if block is not None:
            del self.queue[block]
        return block

    def fill(self, block: int, content: tuple[int, int]) -> None:
        """Note that `block` is full."""
        self.content[block] = content
        self.holder[content] = block

    def give(self, table: list[int]) -> None:
        """Queue the blocks of one request, given in the order of its sequence."""
        for block in reversed(table):
            self.queue[block] = None
            if block not in self.content:
                self.queue.move_to_end(block, last=False)


@dataclass(kw_only=True, eq=False)
class PrefixCacheReplica(ReferenceReplica):
    """A replica with prefix caching.

    Blocks that are free but still hold something count as free: a request that takes its own back needs as many free
    blocks as one that finds none. Only the tokens to compute differ.
    """

    tables: dict[int, list[int]] = field(default_factory=dict)
    free: FreeBlocks = field(init=False)
    _settled: int = 0

    def __post_init__(self) -> None:
        self.free = FreeBlocks(queue=OrderedDict.fromkeys(range(self.limits.capacity_blocks)))

    def finish_step(self) -> list[ReferenceRequest]:
        """Give out tokens; requests that are done free their blocks in admission order."""
        finished = super().finish_step()
        self._settled = 0
        for request in finished:
            self.free.give(self.tables.pop(request.index))
        return finished

    def _serve_running(self) -> int:
        preempted = super()._serve_running()
        self._settle()
        return preempted

    def _evict(self, victim: ReferenceRequest) -> None:
        self._settle()
        self.free.give(self.tables.pop(victim.index))
        super()._evict(victim)

    def _settle(self) -> None:
        """Hand out blocks for the requests scheduled since the last call, in order."""
        size = self.limits.block_size
        for request, tokens in self._scheduled[self._settled :]:
            table = self.tables[request.index]
            while len(table) < self._blocks(request.computed):
                table.append(self.free.take())
            for place in range((request.computed - tokens) // size, request.computed // size):
                self.free.fill(table[place], (request.index, place))
        self._settled = len(self._scheduled)

    def _admit(self, now_s: float) -> None:
        budget = self.limits.max_tokens - sum(tokens for _, tokens in self._scheduled)
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_seqs:
            request = self.waiting[0]
            found = max(self._found(request), self._known_hit(request))
            tokens = min(request.known_tokens - found, budget)
            if not self._fits(request, found + tokens):
                return
            self.waiting.popleft()
            self.running.append(request)
            table: list[int] = []
            for place in range(found // self.limits.block_size):
                block = self.free.take_back((request.index, place))
                if block is None:  # known to be cached, though not here: brought in
                    block = self.free.take()
                    self.free.fill(block, (request.index, place))
                table.append(block)
            self.tables[request.index] = table
            request.computed = found + tokens
            request.prefilling = True
            if math.isnan(request.admitted_s):
                request.admitted_s, request.found_tokens = now_s, found
            self._scheduled.append((request, tokens))
            self._settle()
            budget -= tokens

    def _found(self, request: ReferenceRequest) -> int:
        """Tokens at the beginning of `request` whose blocks are still there.

        Never all of them, as something must be computed: the last known token of an evicted request never was.
        """
        place = 0
        while (request.index, place) in self.free.holder:
            place += 1
        return place * self.limits.block_size
