"""Numbers that kernels read and policies ask for: budgets drawn in advance, and keys of priority."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._types import FloatArray, IntArray
from ..model.streams import Stream, generator
from ..policies.flow_control import RandomBudget
from ..policies.priority import Priority
from .domain import Limits
from .kernels.policies import Draws, Heap
from .kernels.state import Arrivals
from .scheduling import predicted

MOST_DRAWS = 1 << 18
FEWEST_DRAWS = 1 << 10
"""Budgets held for all replicas together, and for one of them at least."""


class BudgetDraws:
    """The budgets of the replicas under `RandomBudget`: the same numbers in the same order as drawn one by one."""

    def __init__(self, servers: Sequence[Limits], root: np.random.SeedSequence) -> None:
        self.sources = [
            (r, limits.scheduler, generator(root, Stream.SCHEDULING, r))
            for r, limits in enumerate(servers)
            if isinstance(limits.scheduler, RandomBudget)
        ]
        self.columns = max(FEWEST_DRAWS, MOST_DRAWS // len(servers))

    def refilled(self, draws: Draws) -> Draws:
        """`draws` with at least half of its columns unused."""
        budgets, used = draws
        columns = budgets.shape[1]
        if not columns:
            budgets, columns = np.zeros((len(used), self.columns), dtype=np.int32), self.columns
            used[:] = columns
        for r, policy, rng in self.sources:
            if used[r] > columns // 2:
                left = columns - used[r]
                budgets[r, :left] = budgets[r, used[r] :]
                budgets[r, left:] = rng.integers(policy.low, policy.high + 1, size=used[r])
                used[r] = 0
        return Draws(budgets, used)

    def left(self, draws: Draws) -> int:
        """Steps for which the draws suffice on every replica."""
        columns: int = draws.budgets.shape[1]
        return min(columns - int(draws.used[r]) for r, _, _ in self.sources)


class Ranks:
    """What requests are ordered by under `Priority`, but for their arrival: a column a policy."""

    def __init__(self, servers: Sequence[Limits], root: np.random.SeedSequence) -> None:
        policies = [limits.scheduler for limits in servers]
        self.policies = list(dict.fromkeys(policy for policy in policies if isinstance(policy, Priority)))
        self.column: IntArray = np.array(
            [self.policies.index(policy) if isinstance(policy, Priority) else 0 for policy in policies], dtype=np.int64
        )
        self.rngs = [generator(root, Stream.PREDICTIONS) for _ in self.policies]

    def received(self, heap: Heap, arrivals: Arrivals) -> Heap:
        """`heap` with the ranks of a block of requests."""
        rank = [self._rank(policy, arrivals, rng) for policy, rng in zip(self.policies, self.rngs, strict=True)]
        by_arrival = np.array([policy.order == "deadline" for policy in self.policies])[self.column]
        return heap._replace(rank=np.stack(rank), column=self.column, by_arrival=by_arrival, first=arrivals.first)

    def _rank(self, policy: Priority, arrivals: Arrivals, rng: np.random.Generator) -> FloatArray:
        if policy.order == "shortest":
            lengths = predicted(policy, arrivals.prompt_tokens, arrivals.output_tokens, rng)
            return lengths.astype(np.float64)
        if policy.order == "deadline":
            return np.array(policy.deadlines_s)[arrivals.request_class]
        return arrivals.request_class.astype(np.float64)
