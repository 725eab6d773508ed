"""One planner per policy: what an iteration computes, admits, pauses and evicts, in plain Python."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....errors import NotModelledError
from ....model.engine import Scheduler
from ....policies.disciplines import DecodeFirst, Orca, PrefillFirst, Sarathi
from ....policies.flow_control import ClassBudgets, RandomBudget
from ....policies.priority import Priority
from ....policies.shortest_first import AMax, AMin, HindsightShortestFirst, ShortestFirst, SortedF
from ....policies.user import RequestView, UserScheduler
from ....policies.wait import NestedWait, Wait
from .base import Planner as Planner
from .base import State as State
from .base import tokens_left as tokens_left
from .disciplines import ChunkedPlanner, DecodeFirstPlanner, OrcaPlanner, PrefillFirstPlanner
from .flow_control import ClassBudgetsPlanner, RandomBudgetPlanner
from .look_ahead import AMinPlanner, LookAheadPlanner, SortedFPlanner, output_first, volume_first
from .wait import NestedWaitPlanner, WaitPlanner


def planner_of(policy: Scheduler, rng: np.random.Generator) -> Planner:
    """A fresh planner of `policy` for one replica; `rng` is the replica's own."""
    match policy:
        case UserScheduler():
            return policy
        case Wait():
            return WaitPlanner(policy)
        case NestedWait():
            return NestedWaitPlanner(policy)
        case ClassBudgets():
            return ClassBudgetsPlanner(policy)
        case RandomBudget():
            return RandomBudgetPlanner(policy, rng)
        case ShortestFirst():
            return LookAheadPlanner(volume_first if policy.by == "volume" else output_first)
        case HindsightShortestFirst() | AMax():
            return LookAheadPlanner(output_first)
        case AMin():
            return AMinPlanner(policy)
        case SortedF():
            return SortedFPlanner(policy)
        case Sarathi():
            return ChunkedPlanner()
        case Orca():
            return OrcaPlanner()
        case PrefillFirst():
            return PrefillFirstPlanner()
        case DecodeFirst():
            return DecodeFirstPlanner()
        case Priority():
            return ChunkedPlanner(priority_key(policy))
    raise NotModelledError(
        f"scheduler = {policy!r} has no simulation, must be a policy of stability.policies. Derive from UserScheduler."
    )


def priority_key(policy: Priority) -> Callable[[RequestView], tuple[float, ...]]:
    """Sort key of waiting requests, least first."""
    match policy.order:
        case "shortest":
            return output_first
        case "deadline":
            return lambda r: (r.arrival_s + policy.deadlines_s[r.request_class], r.index)
        case _:
            return lambda r: (r.request_class, r.index)
