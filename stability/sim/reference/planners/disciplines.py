"""Prompts against decodes within an iteration: Sarathi, Orca, vLLM before chunked prefill, FasterTransformer; priorities.

Memory is set aside for the running requests first: while their next tokens do not fit, the newest is evicted, and then
nothing is admitted in that iteration. Evicted requests keep the tokens they generated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ....policies.user import Plan, RequestView
from .base import Batch, State, decodes, tokens_left, whole_prompts

Shares = Callable[[Sequence[RequestView], int], Batch]


def decodes_first(running: Sequence[RequestView], budget: int) -> Batch:
    """Running requests in order of admission; a prompt under way is the newest, so the decodes come first."""
    batch: Batch = []
    for request in running:
        tokens = min(tokens_left(request), budget)
        if tokens:
            batch.append((request, tokens))
            budget -= tokens
    return batch


def prompts_first(running: Sequence[RequestView], budget: int) -> Batch:
    """Prompts under way, then decodes, each in order of admission."""
    prompts = [request for request in running if request.prefilling]
    return decodes_first([*prompts, *(request for request in running if not request.prefilling)], budget)


def chunked(state: State, waiting: Iterable[RequestView], shares: Shares, *, prompts_lead: bool) -> Plan:
    """Serve the running requests by `shares`, evicting the newest while KV is short; then admit in order, in chunks."""
    running = list(state.running)
    evicted: list[RequestView] = []
    while True:
        batch = shares(running, state.max_num_batched_tokens)
        planned = {request.index: tokens for request, tokens in batch}
        used = sum(state.blocks(r.computed + planned.get(r.index, 0)) for r in running)
        if used <= state.capacity_blocks:
            break
        evicted.append(running.pop())
    if evicted:
        return Plan(batch=batch, evict=evicted, keep_progress=True, wait=False)
    # A discipline that puts prompts first admits into the whole budget, and decodes get what is left.
    prompts: Batch = [(r, t) for r, t in batch if r.prefilling]
    budget = state.max_num_batched_tokens - sum(t for _, t in (prompts if prompts_lead else batch))
    admitted: Batch = []
    for request in waiting:
        tokens = min(tokens_left(request), budget)
        if not tokens or len(running) + len(admitted) >= state.max_num_seqs:
            break
        headroom = state.watermark_blocks if running or admitted else 0
        if used + state.blocks(request.known_tokens) + headroom > state.capacity_blocks:
            break
        admitted.append((request, tokens))
        used += state.blocks(tokens)
        budget -= tokens
    if prompts_lead:
        rest = decodes_first([r for r in running if not r.prefilling], budget)
        return Plan(batch=[*prompts, *admitted, *rest], wait=False)
    return Plan(batch=[*batch, *admitted], wait=False)


@dataclass(frozen=True, slots=True)
class ChunkedPlanner:
    """Sarathi, and priorities: decodes first; the waiting requests in ascending `key`, or as they came."""

    key: Callable[[RequestView], tuple[float, ...]] | None = None

    def plan(self, state: State) -> Plan:
        """Decodes, the prompt under way, then admissions."""
        waiting = state.waiting if self.key is None else sorted(state.waiting, key=self.key)
        return chunked(state, waiting, decodes_first, prompts_lead=False)


@dataclass(frozen=True, slots=True)
class OrcaPlanner:
    """Prompts first, in chunks."""

    def plan(self, state: State) -> Plan:
        """The prompt under way, admissions, then decodes in what is left."""
        return chunked(state, state.waiting, prompts_first, prompts_lead=True)


@dataclass(frozen=True, slots=True)
class PrefillFirstPlanner:
    """Prompts only while one can be admitted."""

    def plan(self, state: State) -> Plan:
        """Admissible prompts, whole; if there are none, decodes."""
        return _prompts_only(state) or _decodes_only(state)


@dataclass(frozen=True, slots=True)
class DecodeFirstPlanner:
    """Decodes only while any request runs; a prompt beyond the token budget is computed alone, in chunks."""

    def plan(self, state: State) -> Plan:
        """Decodes; if there are none, the prompt under way, or admissible prompts, whole, or the first chunk of a longer one."""
        budget = state.max_num_batched_tokens
        if state.running and state.running[0].prefilling:  # alone: nothing is admitted beside it
            return Plan(batch=[(state.running[0], min(tokens_left(state.running[0]), budget))], wait=False)
        if state.running:
            return _decodes_only(state)
        if state.waiting and tokens_left(state.waiting[0]) > budget:
            return Plan(batch=[(state.waiting[0], budget)], wait=False)
        return _prompts_only(state) or Plan()


def _prompts_only(state: State) -> Plan | None:
    free = state.capacity_blocks - state.used_blocks()
    fitting: list[RequestView] = []
    for request in state.waiting:
        free -= state.blocks(request.known_tokens)
        if free < 0 or len(state.running) + len(fitting) >= state.max_num_seqs:
            break
        fitting.append(request)
    batch: Batch = []
    whole_prompts(state, batch, fitting)
    return Plan(batch=batch, wait=False) if batch else None


def _decodes_only(state: State) -> Plan:
    running = list(state.running)
    evicted: list[RequestView] = []
    while True:
        batch = decodes(running)[: state.max_num_batched_tokens]
        if (
            sum(state.blocks(r.computed) for r in running[len(batch) :])
            + sum(state.blocks(r.known_tokens) for r, _ in batch)
            <= state.capacity_blocks
        ):
            return Plan(batch=batch, evict=evicted, keep_progress=True, wait=False)
        evicted.append(running.pop())
