"""WAIT and Nested WAIT as the paper's events have them (arXiv 2504.11320, Algorithms 1 and 2)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ....policies.user import Plan, RequestView
from ....policies.wait import NestedWait, Wait
from .base import Batch, State, relieved, whole_prompts


@dataclass(frozen=True, slots=True)
class WaitPlanner:
    """One batch of all classes with a full threshold of waiting prompts."""

    policy: Wait

    def plan(self, state: State) -> Plan:
        """Of every class in J and every stage, the oldest min(n_j, present) requests."""
        thresholds = self.policy.thresholds
        present = Counter(request.request_class for request in state.waiting)
        chosen = [present[j] >= n for j, n in enumerate(thresholds)]
        if not any(chosen):
            return Plan()
        taken: Counter[tuple[int, int]] = Counter()

        def take(request: RequestView) -> bool:
            j, stage = request.request_class, request.generated
            taken[j, stage] += 1
            return chosen[j] and taken[j, stage] <= thresholds[j]

        batch: Batch = [(request, 1) for request in state.running if take(request)]
        whole_prompts(state, batch, [request for request in state.waiting if take(request)])
        return replace(relieved(state, batch), wait=True)


@dataclass(frozen=True, slots=True)
class NestedWaitPlanner:
    """Segments of stages, each entered through a boundary queue; later segments pause until theirs is full."""

    policy: NestedWait

    def segment(self, request: RequestView) -> int:
        """Segment of the stage that a request is to pass next."""
        ends = self.policy.ends
        return next((k for k, end in enumerate(ends) if request.generated <= end), len(ends) - 1)

    def at_boundary(self, request: RequestView) -> bool:
        """Whether that stage is the first of a segment k >= 2."""
        return request.generated in {end + 1 for end in self.policy.ends[:-1]}

    def plan(self, state: State) -> Plan:
        """The oldest min(n_k, present) requests of every stage of the segments 1..k."""
        thresholds = self.policy.thresholds
        entering = Counter(self.segment(request) for request in state.running if self.at_boundary(request))
        entering[0] = len(state.waiting)
        last = next((k for k, n in enumerate(thresholds) if entering[k] < n), len(thresholds))
        if last == 0:
            return Plan()
        taken: Counter[int] = Counter()

        def take(request: RequestView) -> bool:
            k = self.segment(request)
            taken[request.generated] += 1
            return k < last and taken[request.generated] <= thresholds[k]

        batch: Batch = [(request, 1) for request in state.running if take(request)]
        whole_prompts(state, batch, [request for request in state.waiting if take(request)])
        return self._repaired(state, batch)

    def _repaired(self, state: State, batch: Batch) -> Plan:
        """The plan that computes `batch` after evicting paused requests at boundaries, newest first, while KV overflows.

        Where none is left, batched ones at boundaries follow, then whatever is newest.
        """
        planned = {request.index: tokens for request, tokens in batch}
        admitted = sum(state.blocks(tokens) for request, tokens in batch if request.computed == 0)
        needed = admitted + sum(state.blocks(r.computed + planned.get(r.index, 0)) for r in state.running)
        evicted: list[RequestView] = []
        boundary = [request for request in reversed(state.running) if self.at_boundary(request)]
        order = [r for r in boundary if r.index not in planned] + [r for r in boundary if r.index in planned]
        for request in order:
            if needed <= state.capacity_blocks:
                break
            needed -= state.blocks(request.computed + planned.pop(request.index, 0))
            evicted.append(request)
        gone = {request.index for request in evicted}
        left = State(
            now_s=state.now_s,
            waiting=state.waiting,
            running=[request for request in state.running if request.index not in gone],
            block_size=state.block_size,
            capacity_blocks=state.capacity_blocks,
            max_num_seqs=state.max_num_seqs,
            max_num_batched_tokens=state.max_num_batched_tokens,
            watermark_blocks=state.watermark_blocks,
            extra_tokens=state.extra_tokens,
        )
        rest = relieved(left, [(r, t) for r, t in batch if r.index in planned])
        return Plan(batch=rest.batch, evict=[*evicted, *rest.evict])
