"""One replica's scheduler, as the engines run it.

A step serves the running requests in admission order, then admits from the head of the queue. Sources: vLLM v1
(`Scheduler.schedule`, `KVCacheManager.allocate_slots`) for the two gates; TensorRT-LLM `GUARANTEED_NO_EVICT` for `reserve`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from ...model.iteration import IterationLaw
from ..domain import CHUNK_GATE, RESERVE, Limits


@dataclass(slots=True, kw_only=True, eq=False)
class ReferenceRequest:
    """A request and how far it has come.

    Attributes
    ----------
    generated : int
        Output tokens so far.
    computed : int
        Tokens whose KV is resident or being computed in the step under way.
    prefilling : bool
        Whether tokens known at its admission are still to be computed.
    cached_prefix_tokens : int
        Leading prompt tokens known to be in the prefix cache.
    session, system_prompt, shared_tokens : int
        The session it is a turn of, and the system prompt that begins its prompt, with its length; -1, -1, 0 without one.
    found_tokens : int
        Prompt tokens that its first admission found.
    predicted_output_tokens : int
        What its scheduler is told of its output; 0 where nothing is.
    """

    index: int
    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    max_output_tokens: int
    request_class: int = 0
    cached_prefix_tokens: int = 0
    session: int = -1
    system_prompt: int = -1
    shared_tokens: int = 0
    found_tokens: int = 0
    predicted_output_tokens: int = 0
    generated: int = 0
    computed: int = 0
    prefilling: bool = False
    preemptions: int = 0
    admitted_s: float = math.nan
    first_token_s: float = math.nan
    finish_s: float = math.nan

    @property
    def known_tokens(self) -> int:
        """Prompt and generated tokens: what a (re)computation covers."""
        return self.prompt_tokens + self.generated


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one iteration did."""

    start_s: float
    end_s: float
    scheduled_tokens: int
    scheduled_requests: int
    running: int
    preempted: int
    waiting: int
    used_blocks: int


@dataclass(slots=True, kw_only=True, eq=False)
class ReferenceReplica:
    """State of one replica.

    Attributes
    ----------
    next_start_s : float
        When the next step starts; infinite while there is nothing to do.
    step : Step or None
        The step under way.
    """

    limits: Limits
    law: IterationLaw
    waiting: deque[ReferenceRequest] = field(default_factory=deque)
    running: list[ReferenceRequest] = field(default_factory=list)
    next_start_s: float = math.inf
    step: Step | None = None
    _scheduled: list[tuple[ReferenceRequest, int]] = field(default_factory=list)

    @property
    def scheduled(self) -> list[tuple[ReferenceRequest, int]]:
        """Requests of the step under way and the tokens it computes of each."""
        return self._scheduled

    def enqueue(self, request: ReferenceRequest, now_s: float) -> None:
        """Put a new request at the end of the queue."""
        self.waiting.append(request)
        if self.step is None and math.isinf(self.next_start_s):
            self.next_start_s = now_s

    def requests(self) -> int:
        """Requests waiting and running."""
        return len(self.waiting) + len(self.running)

    def tokens(self) -> int:
        """Prompt and generated tokens of the requests waiting and running."""
        return sum(r.known_tokens for r in self.waiting) + sum(r.known_tokens for r in self.running)

    def begin_step(self) -> Step | None:
        """Decide what the step that starts now computes, and how long it takes; None if there is to be no step."""
        start = self.next_start_s
        preempted = self._serve_running()
        if preempted == 0:
            self._admit(start)
        return self._begun(start, preempted)

    def _begun(self, start: float, preempted: int) -> Step:
        """Start the step of the scheduled requests."""
        prompt = decodes = context = 0
        prompt_context = 0.0
        for request, tokens in self._scheduled:
            if request.prefilling:
                prompt += tokens
                prompt_context += tokens * (request.computed - tokens + tokens / 2)
            else:
                decodes += 1
                context += request.computed
        end = start + float(self.law.time_s(prompt, decodes, context, prompt_context))
        self.step = Step(
            start_s=start,
            end_s=end,
            scheduled_tokens=prompt + decodes,
            scheduled_requests=len(self._scheduled),
            running=len(self.running),
            preempted=preempted,
            waiting=len(self.waiting),
            used_blocks=self._used_blocks(),
        )
        return self.step

    def finish_step(self) -> list[ReferenceRequest]:
        """Give every request that has caught up its next token; return those that are done."""
        assert self.step is not None
        now = self.step.end_s
        finished = []
        for request, _ in self._scheduled:
            if request.computed < request.known_tokens:
                continue
            request.prefilling = False
            request.generated += 1
            if math.isnan(request.first_token_s):
                request.first_token_s = now
            if request.generated == request.output_tokens:
                request.finish_s = now
                request.computed = 0
                self.running.remove(request)
                finished.append(request)
        self._scheduled = []
        self.step = None
        self.next_start_s = now if self.running or self.waiting else math.inf
        return finished

    def _serve_running(self) -> int:
        """Schedule the running requests in admission order; return how many were evicted on the way."""
        budget = self.limits.max_tokens
        preempted = position = 0
        while position < len(self.running) and budget > 0:
            request = self.running[position]
            tokens = min(request.known_tokens - request.computed, budget)
            while self._blocks(request.computed + tokens) - self._blocks(request.computed) > self._free_blocks():
                victim = self.running.pop()
                self._evict(victim)
                preempted += 1
                if victim is request:
                    return preempted
            request.computed += tokens
            self._scheduled.append((request, tokens))
            budget -= tokens
            position += 1
        return preempted

    def _evict(self, victim: ReferenceRequest) -> None:
        victim.computed = 0
        victim.prefilling = False
        victim.preemptions += 1
        self.waiting.appendleft(victim)

    def _admit(self, now_s: float) -> None:
        budget = self.limits.max_tokens - sum(tokens for _, tokens in self._scheduled)
        while self.waiting and budget > 0 and len(self.running) < self.limits.max_seqs:
            request = self.waiting[0]
            found = self._known_hit(request)
            tokens = min(request.known_tokens - found, budget)
            if not self._fits(request, found + tokens):
                return
            self.waiting.popleft()
            self.running.append(request)
            request.computed = found + tokens
            request.prefilling = True
            if math.isnan(request.admitted_s):
                request.admitted_s, request.found_tokens = now_s, found
            self._scheduled.append((request, tokens))
            budget -= tokens

    def _fits(self, request: ReferenceRequest, chunk: int) -> bool:
        headroom = self.limits.watermark_blocks if self.running else 0
        if self.limits.admission == RESERVE:
            reserved = sum(self._reservation(other) for other in self.running)
            return reserved + self._reservation(request) + headroom <= self.limits.capacity_blocks
        needed = chunk if self.limits.admission == CHUNK_GATE else request.known_tokens
        return self._blocks(needed) + headroom <= self._free_blocks()

    def matched(self, request: ReferenceRequest) -> int:
        """Leading tokens of `request` that it would find here and perhaps not elsewhere: what a router by prefix looks at."""
        del request
        return 0

    def _known_hit(self, request: ReferenceRequest) -> int:
        """Whole blocks of the prefix known to be cached, in tokens; the last prompt token is computed in any case."""
        most = min(request.cached_prefix_tokens, request.prompt_tokens - 1)
        return max(most, 0) // self.limits.block_size * self.limits.block_size

    def _reservation(self, request: ReferenceRequest) -> int:
        return self._blocks(request.prompt_tokens + request.max_output_tokens)

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.limits.block_size)

    def _used_blocks(self) -> int:
        return sum(self._blocks(request.computed) for request in self.running)

    def _free_blocks(self) -> int:
        return self.limits.capacity_blocks - self._used_blocks()
