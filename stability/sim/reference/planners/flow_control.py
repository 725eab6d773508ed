"""Activation budgets (arXiv 2604.11001, Algorithms 1 and 2)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice

import numpy as np

from ....policies.flow_control import ClassBudgets, RandomBudget
from ....policies.user import Plan, RequestView
from .base import State, decodes, relieved, whole_prompts


@dataclass(frozen=True, slots=True)
class ClassBudgetsPlanner:
    """Every active request generates a token; of every class, its budget of waiting ones joins."""

    policy: ClassBudgets

    def plan(self, state: State) -> Plan:
        """First come, first served within each class; memory is not looked at unless it overflows."""
        taken: Counter[int] = Counter()
        chosen: list[RequestView] = []
        for request in state.waiting:
            k = request.request_class
            if taken[k] < self.policy.budgets[k]:
                taken[k] += 1
                chosen.append(request)
                if taken.total() == sum(self.policy.budgets):
                    break
        batch = decodes(state.running)
        whole_prompts(state, batch, chosen)
        return relieved(state, batch)


@dataclass(frozen=True, slots=True)
class RandomBudgetPlanner:
    """Every active request generates a token; a random number of waiting ones joins; overflow evicts the newest."""

    policy: RandomBudget
    rng: np.random.Generator

    def plan(self, state: State) -> Plan:
        """First come, first served up to the budget drawn for this iteration."""
        budget = int(self.rng.integers(self.policy.low, self.policy.high + 1))
        batch = decodes(state.running)
        whole_prompts(state, batch, islice(state.waiting, budget))
        return relieved(state, batch)
