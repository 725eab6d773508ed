"""What planners share: the state they see, whole prompts, and room made by evicting the newest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ....policies.user import EngineState, Plan, RequestView

Batch = list[tuple[RequestView, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State(EngineState):
    """What a planner sees: an engine's state with the conventions it runs under.

    Attributes
    ----------
    watermark_blocks : int
        KV blocks kept free at admission while something runs.
    extra_tokens : int
        Tokens charged to every resident request beyond those whose KV is stored.
    """

    watermark_blocks: int
    extra_tokens: int

    def blocks(self, tokens: int) -> int:
        """Blocks charged to a request that holds `tokens`."""
        return -(-(tokens + self.extra_tokens) // self.block_size)

    def used_blocks(self) -> int:
        """Blocks in use before the iteration."""
        return sum(self.blocks(request.computed) for request in self.running)


class Planner(Protocol):
    """Decides iteration by iteration; one object per replica."""

    def plan(self, state: State, /) -> Plan:
        """What the iteration that may start now does."""


def tokens_left(request: RequestView) -> int:
    """Known tokens of a request that are not computed."""
    return request.known_tokens - request.computed


def whole_prompts(state: State, batch: Batch, candidates: Iterable[RequestView]) -> None:
    """Extend `batch` by waiting candidates in order, prompts whole, until the slots or the token budget are used up."""
    budget = state.max_num_batched_tokens - sum(tokens for _, tokens in batch)
    slots = state.max_num_seqs - len(state.running)
    for request in candidates:
        tokens = tokens_left(request)
        if slots == 0 or tokens > budget:
            return
        batch.append((request, tokens))
        budget -= tokens
        slots -= 1


def relieved(state: State, batch: Batch) -> Plan:
    """The plan that computes `batch`, less the most recently admitted requests for which the KV cache has no room.

    Those that would be admitted now are the most recent of all, and simply stay in the queue.
    """
    planned = {request.index: tokens for request, tokens in batch}
    resident = [*state.running, *(request for request, _ in batch if request.computed == 0)]
    needed = sum(state.blocks(r.computed + planned.get(r.index, 0)) for r in resident)
    evicted: list[RequestView] = []
    while needed > state.capacity_blocks:
        newest = resident.pop()
        needed -= state.blocks(newest.computed + planned.get(newest.index, 0))
        planned.pop(newest.index, None)
        if newest.computed > 0:
            evicted.append(newest)
    return Plan(batch=[(r, t) for r, t in batch if r.index in planned], evict=evicted, wait=False)


def decodes(running: Sequence[RequestView]) -> Batch:
    """One token of every running request."""
    return [(request, 1) for request in running]
