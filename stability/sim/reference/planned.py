"""A replica whose iterations are planned by a policy: the plan is checked, then carried out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...errors import InputError
from ...policies.user import Plan
from .planners import Planner, State, tokens_left
from .replica import ReferenceReplica, ReferenceRequest, Step

MOST_IN_VAIN = 10_000


def circles(in_vain: int) -> InputError:
    """What to raise after so many evictions in vain."""
    return InputError(
        f"{in_vain} evictions since a request last completed, must be <= {MOST_IN_VAIN} and 100 a request present. "
        "The policy evicts in circles: give it more KV, or thresholds and budgets that need less."
    )


@dataclass(kw_only=True, eq=False)
class PlannedReplica(ReferenceReplica):
    """A replica that does what its planner says, iteration by iteration.

    Attributes
    ----------
    extra_tokens : int
        Tokens charged to every resident request beyond those whose KV is stored.
    """

    planner: Planner
    extra_tokens: int = 0
    _in_vain: int = 0

    def finish_step(self) -> list[ReferenceRequest]:
        """As any replica; completions show that evictions lead somewhere."""
        finished = super().finish_step()
        if finished:
            self._in_vain = 0
        return finished

    def begin_step(self) -> Step | None:
        """Plan and start the iteration due now; None if the planner waits for the next arrival."""
        start = self.next_start_s
        while True:
            plan = self.planner.plan(
                State(
                    now_s=start,
                    waiting=self.waiting,
                    running=self.running,
                    block_size=self.limits.block_size,
                    capacity_blocks=self.limits.capacity_blocks,
                    max_num_seqs=self.limits.max_seqs,
                    max_num_batched_tokens=self.limits.max_tokens,
                    watermark_blocks=self.limits.watermark_blocks,
                    extra_tokens=self.extra_tokens,
                )
            )
            self._carry_out(plan, start)
            if plan.batch:
                break
            if plan.wait or not (self.waiting or self.running):
                self.next_start_s = math.inf
                return None
            if float(self.law.time_s(0, 0, 0, 0.0)) > 0:
                break
        return self._begun(start, len(plan.evict))

    def _carry_out(self, plan: Plan, now_s: float) -> None:
        for victim in plan.evict:
            assert isinstance(victim, ReferenceRequest)
            self.running.remove(victim)
            if not plan.keep_progress:
                victim.generated = 0
            self._evict(victim)
        self._in_vain += len(plan.evict)
        if self._in_vain > MOST_IN_VAIN + 100 * self.requests():
            raise circles(self._in_vain)
        for request, tokens in plan.batch:
            assert isinstance(request, ReferenceRequest)
            if not 1 <= tokens <= tokens_left(request):
                raise InputError(
                    f"the plan computes {tokens} tokens of request {request.index}, must be 1 to {tokens_left(request)}. "
                    "Schedule tokens that are known and not yet computed."
                )
            if request.computed == 0:
                self.waiting.remove(request)
                self.running.append(request)
                request.prefilling = True
                if math.isnan(request.admitted_s):
                    request.admitted_s = now_s
            request.computed += tokens
            self._scheduled.append((request, tokens))
        self._check()

    def _check(self) -> None:
        """Raise unless the slots, the token budget and the KV cache hold what the plan asks of them."""
        tokens = sum(count for _, count in self._scheduled)
        for name, value, most in (
            ("requests", len(self.running), self.limits.max_seqs),
            ("tokens", tokens, self.limits.max_tokens),
            ("KV blocks", self._used_blocks(), self.limits.capacity_blocks),
        ):
            if value > most:
                raise InputError(
                    f"the plan needs {value} {name}, must need <= {most}. Plan within the engine's limits."
                )

    def _used_blocks(self) -> int:
        return sum(self._blocks(request.computed + self.extra_tokens) for request in self.running)
