"""A replica whose requests find the KV blocks of earlier turns, of system prompts and of their own: vLLM's prefix cache, block by block.

A full block is known by what it holds: its place in a system prompt, or in a conversation. Requests that run share a block; it is freed when the
last of them lets go, and then keeps what it holds until it is handed out again. Free blocks wait in a queue and leave at its head: a freed
sequence joins the end, its last block first, blocks that hold nothing whole join the head. Hence the least recently used goes first,
and what is left of a conversation is a prefix. An admission takes back, or shares, the longest run of blocks from the beginning that are
still there, but never the last known token, which has to be computed.

Source: vLLM v1 (`KVCacheManager.get_computed_blocks`, `allocate_slots`; `BlockPool.touch`, `get_new_blocks`, `free_blocks`). Two requests
that compute the same blocks at the same time each keep theirs; only the first is found by others, where vLLM could find either.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field

from ..domain import CHUNK_GATE, RESERVE
from .replica import ReferenceReplica, ReferenceRequest

Content = tuple[int, int]
"""Session, or -2 minus the system prompt, and place of a block in it."""


class SharedBlocks:
    """Blocks with users; those without any in the order in which they are handed out.

    Parameters
    ----------
    count : int
        Blocks in all.
    """

    def __init__(self, count: int) -> None:
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(count))
        self.users = [0] * count
        self.content: dict[int, Content] = {}
        self.holder: dict[Content, int] = {}

    def take(self) -> int:
        """Hand out the head; what it held is lost."""
        block, _ = self.free.popitem(last=False)
        if block in self.content:
            del self.holder[self.content.pop(block)]
        self.users[block] = 1
        return block

    def share(self, block: int) -> None:
        """One more user of a block that holds what is asked for."""
        if not self.users[block]:
            del self.free[block]
        self.users[block] += 1

    def fill(self, block: int, content: Content) -> None:
        """Note that `block` is full; a second block with the same content is not found."""
        if content not in self.holder:
            self.content[block] = content
            self.holder[content] = block

    def give(self, table: list[int]) -> None:
        """Let go of the blocks of one request, given in the order of its sequence."""
        for block in reversed(table):
            self.users[block] -= 1
            if not self.users[block]:
                self.free[block] = None
                if block not in self.content:
                    self.free.move_to_end(block, last=False)


@dataclass(kw_only=True, eq=False)
class SharedPrefixReplica(ReferenceReplica):
    """A replica whose requests share prefixes."""

    tables: dict[int, list[int]] = field(default_factory=dict)
    blocks: SharedBlocks = field(init=False)

    def __post_init__(self) -> None:
        self.blocks = SharedBlocks(self.limits.capacity_blocks)

    def finish_step(self) -> list[ReferenceRequest]:
        """Give out tokens; requests that are done let go of their blocks in admission order."""
        finished = super().finish_step()
        for request in finished:
            self.blocks.give(self.tables.pop(request.index))
        return finished

    def matched(self, request: ReferenceRequest) -> int:
        return len(self._found(request)) * self.limits.block_size

    def _serve_running(self) -> int:
        budget = self.limits.max_tokens
        preempted = position = 0
        while position < len(self.running) and budget > 0:
            request = self.running[position]
            tokens = min(request.known_tokens - request.computed, budget)
            while self._blocks(request.computed + tokens) - len(self.tables[request.index]) > len(self.blocks.free):
                victim = self.running.pop()
                self._evict(victim)
                preempted += 1
                if victim is request:
                    return preempted
            self._compute(request, tokens)
            budget -= tokens
            position += 1
        return preempted

    def _evict(self, victim: ReferenceRequest) -> None:
        self.blocks.give(self.tables.pop(victim.index))
        super()._evict(victim)

    def _compute(self, request: ReferenceRequest, tokens: int) -> None:
        """Schedule `tokens` of a request that has computed so many, in new blocks as far as it needs them."""
        size, table, before = self.limits.block_size, self.tables[request.index], request.computed
        request.computed += tokens
        for _ in range(self._blocks(request.computed) - len(table)):
            table.append(self.blocks.take())
        for place in range(before // size, request.computed // size):
            self.blocks.fill(table[place], self._content(request, place))
        self._scheduled.append((request, tokens))

    def _admit(self, now_s: float) -> None:
        budget = self.limits.max_tokens - sum(tokens for _, tokens in self._scheduled)
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_seqs:
            request = self.waiting[0]
            table = self._found(request)
            found = max(len(table) * self.limits.block_size, self._known_hit(request))
            tokens = min(request.known_tokens - found, budget)
            if not self._fits_beside(request, found + tokens, table):
                return
            self.waiting.popleft()
            self.running.append(request)
            for block in table:
                self.blocks.share(block)
            while len(table) * self.limits.block_size < found:  # known to be cached, though not here: brought in
                table.append(self.blocks.take())
            self.tables[request.index] = table
            request.computed = found
            request.prefilling = True
            if math.isnan(request.admitted_s):
                request.admitted_s, request.found_tokens = now_s, found
            self._compute(request, tokens)
            budget -= tokens

    def _fits_beside(self, request: ReferenceRequest, chunk: int, table: list[int]) -> bool:
        """The admission rule: blocks of the prefix that others use already cost nothing, free ones are taken like any."""
        if self.limits.admission == RESERVE:
            return self._fits(request, chunk)
        headroom = self.limits.watermark_blocks if self.running else 0
        needed = self._blocks(chunk if self.limits.admission == CHUNK_GATE else request.known_tokens)
        in_use = sum(self.blocks.users[block] > 0 for block in table)
        return needed - in_use + headroom <= len(self.blocks.free)

    def _found(self, request: ReferenceRequest) -> list[int]:
        """Blocks that hold the beginning of `request`, its last known token left out."""
        table = []
        for place in range((request.known_tokens - 1) // self.limits.block_size):
            block = self.blocks.holder.get(self._content(request, place))
            if block is None:
                break
            table.append(block)
        return table

    def _content(self, request: ReferenceRequest, place: int) -> Content:
        if (place + 1) * self.limits.block_size <= request.shared_tokens:
            return -2 - request.system_prompt, place
        return request.session, place

    def _used_blocks(self) -> int:
        return self.limits.capacity_blocks - len(self.blocks.free)

    def _free_blocks(self) -> int:
        return len(self.blocks.free)
