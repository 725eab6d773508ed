"""Shortest first with exact look-ahead: KV of all admitted requests, each to its expected end, must fit at every iteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ...._types import IntArray
from ....policies.shortest_first import AMin, SortedF
from ....policies.user import Plan, RequestView
from .base import Batch, State, decodes, relieved, tokens_left, whole_prompts
from .sorted_f import exact_batch, prefix_batch


def output_first(request: RequestView) -> tuple[int, ...]:
    """Ascending predicted output."""
    return request.predicted_output_tokens, request.index


def volume_first(request: RequestView) -> tuple[int, ...]:
    """Ascending predicted KV volume s*o + o*(o + 1)/2."""
    s, o = request.prompt_tokens, request.predicted_output_tokens
    return s * o + o * (o + 1) // 2, request.index


class Forecast:
    """KV blocks at the future iterations in which some admitted request is expected to end.

    A request that holds b + h tokens in the h-th iteration from now until its end e adds blocks(b + h) for h <= e. Usage
    only falls after an end, so that it fits everywhere if it fits at every end. A new request changes the usage at the ends
    up to its own and adds one end: one pass over the ends per decision.
    """

    def __init__(self, state: State, held: Sequence[int], last: Sequence[int]) -> None:
        self.state = state
        self.held: IntArray = np.array(held, dtype=np.int64)
        self.last: IntArray = np.array(last, dtype=np.int64)
        self.ends: IntArray = np.unique(self.last)
        present = self.last >= self.ends[:, np.newaxis]
        self.usage: IntArray = (present * self._blocks(self.held + self.ends[:, np.newaxis])).sum(axis=1)

    def _blocks(self, tokens: IntArray) -> IntArray:
        return -(-(tokens + self.state.extra_tokens) // self.state.block_size)

    def with_request(self, held: int, end: int) -> tuple[IntArray, int]:
        """Usage at the known ends, and at `end`, if a request of `held` tokens before the next iteration joined."""
        usage = self.usage + np.where(self.ends <= end, self._blocks(held + self.ends), 0)
        own = int(self._blocks(self.held[self.last >= end] + end).sum() + self._blocks(np.array(held + end)))
        return usage, own

    def fits(self, held: int, end: int) -> bool:
        """Whether it would fit at every future iteration."""
        usage, own = self.with_request(held, end)
        return own <= self.state.capacity_blocks and bool((usage <= self.state.capacity_blocks).all())

    def add(self, held: int, end: int) -> None:
        """Let it join."""
        self.usage, own = self.with_request(held, end)
        self.held, self.last = np.append(self.held, held), np.append(self.last, end)
        self.ends, self.usage = np.append(self.ends, end), np.append(self.usage, own)


def admissible(
    state: State, running: Sequence[RequestView], waiting: Sequence[RequestView], length: Callable[[RequestView], int]
) -> list[RequestView]:
    """The longest prefix of `waiting` that fits; its first request in any case while nothing runs."""
    if not waiting:
        return []
    forecast = Forecast(
        state,
        [request.known_tokens - 1 for request in running],
        [max(length(request) - request.generated, 1) for request in running],
    )
    chosen: list[RequestView] = []
    for request in waiting:
        held, end = request.prompt_tokens - 1, length(request)
        full = len(running) + len(chosen) >= state.max_num_seqs
        if full or (not forecast.fits(held, end) and (running or chosen)):
            break
        forecast.add(held, end)
        chosen.append(request)
    return chosen


@dataclass(frozen=True, slots=True)
class LookAheadPlanner:
    """Waiting requests in ascending `key`, admitted while they fit to their predicted ends."""

    key: Callable[[RequestView], tuple[int, ...]]

    def plan(self, state: State) -> Plan:
        """Nothing is admitted in an iteration in which predictions prove too short."""
        return look_ahead(state, sorted(state.waiting, key=self.key))


def look_ahead(state: State, waiting: Sequence[RequestView]) -> Plan:
    """The plan that admits from `waiting` in order."""
    batch = decodes(state.running)
    kept = relieved(state, batch)
    if kept.evict:
        return kept
    chosen = admissible(state, state.running, waiting, lambda r: r.predicted_output_tokens)
    whole_prompts(state, batch, chosen)
    return Plan(batch=batch, wait=False)


@dataclass(frozen=True, slots=True)
class AMinPlanner:
    """Pseudo-lengths from below: raised by what requests generate, which decides who is cancelled and who is admitted."""

    policy: AMin
    pseudo: dict[int, int] = field(default_factory=dict)

    def length(self, request: RequestView) -> int:
        """Pseudo-length of a request."""
        return self.pseudo[request.index]

    def plan(self, state: State) -> Plan:
        """Cancel what does not fit the coming iteration, then admit what fits to its pseudo-length."""
        for request in (*state.running, *state.waiting):
            seen = self.pseudo.get(request.index, request.predicted_output_tokens)
            self.pseudo[request.index] = max(seen, request.generated)
        running = list(state.running)
        needed = sum(state.blocks(request.known_tokens) for request in running)
        cancelled: list[RequestView] = []
        while needed > state.capacity_blocks:
            least = min(reversed(running), key=self.length)  # the newest of several
            running.remove(least)
            cancelled.append(least)
            needed -= state.blocks(least.known_tokens)
        waiting = sorted([*state.waiting, *cancelled], key=lambda r: (self.length(r), r.index))
        batch: Batch = decodes(running)
        chosen = admissible(state, running, waiting, self.length)
        budget = state.max_num_batched_tokens - len(batch)
        for request in chosen:
            budget -= request.prompt_tokens
            if budget < 0:
                break
            batch.append((request, request.prompt_tokens))
        return Plan(batch=batch, evict=cancelled, wait=False)


@dataclass(slots=True)
class SortedFPlanner:
    """Requests in the order of batches of least F, made anew when requests have arrived since."""

    policy: SortedF
    rank: dict[int, int] = field(default_factory=dict)

    def plan(self, state: State) -> Plan:
        """Admit strictly in that order."""
        if any(request.index not in self.rank for request in state.waiting):
            self.rank = {index: k for k, index in enumerate(self._order(state))}
        return look_ahead(state, sorted(state.waiting, key=lambda r: self.rank[r.index]))

    def _order(self, state: State) -> list[int]:
        left = sorted(state.waiting, key=output_first)
        capacity = state.capacity_blocks * state.block_size
        order: list[int] = []
        while left:
            output = [request.predicted_output_tokens for request in left]
            peak = [tokens_left(r) + o - 1 + state.extra_tokens for r, o in zip(left, output, strict=True)]
            find = exact_batch if self.policy.search == "exact" else prefix_batch
            chosen = find(output, peak, capacity) or [0]
            order += [left[i].index for i in chosen]
            left = [request for i, request in enumerate(left) if i not in set(chosen)]
        return order
