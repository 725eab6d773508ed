"""Numbers that kernels read and policies ask for: budgets drawn in advance, predicted lengths, keys of order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._types import FloatArray, IntArray
from ..model.engine import Scheduler
from ..model.streams import Stream, generator
from ..policies.flow_control import RandomBudget
from ..policies.priority import Priority
from ..policies.shortest_first import ShortestFirst
from .domain import LOOK_AHEAD, PRIORITY, Limits
from .kernels.policies import Draws, Policies
from .kernels.state import Arrivals
from .scheduling import Predictions

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
    """What ordered requests are told of, and ordered by but for their arrival: a column a policy."""

    def __init__(self, servers: Sequence[Limits], root: np.random.SeedSequence) -> None:
        own = [limits.scheduler if limits.discipline in (PRIORITY, LOOK_AHEAD) else None for limits in servers]
        self.predictions = Predictions(own, root)
        self.policies = list(self.predictions.rngs)
        self.column: IntArray = np.array(
            [0 if policy is None else self.policies.index(policy) for policy in own], dtype=np.int64
        )
        self.by_arrival = np.array([isinstance(policy, Priority) and policy.order == "deadline" for policy in own])

    def received(self, policies: Policies, arrivals: Arrivals) -> Policies:
        """`policies` told of a block of requests."""
        heap, ahead = policies.heap, policies.look_ahead
        self.predictions.receive(arrivals.prompt_tokens, arrivals.output_tokens, arrivals.request_class, arrivals.first)
        columns = self.predictions.columns
        if heap is not None:
            rank = np.stack([_rank(policy, arrivals, columns[policy]) for policy in self.policies])
            heap = heap._replace(rank=rank, column=self.column, by_arrival=self.by_arrival, first=arrivals.first)
        if ahead is not None:
            ahead = ahead._replace(told=np.stack([columns[policy] for policy in self.policies]))
        return policies._replace(heap=heap, look_ahead=ahead)


def _rank(policy: Scheduler, arrivals: Arrivals, lengths: IntArray) -> FloatArray:
    """Keys of a block of requests that `policy` expects to be so long."""
    if isinstance(policy, Priority) and policy.order == "deadline":
        return np.array(policy.deadlines_s)[arrivals.request_class]
    if isinstance(policy, Priority) and policy.order == "class":
        return arrivals.request_class.astype(np.float64)
    if isinstance(policy, ShortestFirst) and policy.by == "volume":
        return (arrivals.prompt_tokens * lengths + lengths * (lengths + 1) // 2).astype(np.float64)
    return lengths.astype(np.float64)
