"""Flow control (arXiv 2604.11001): a limit on how many requests are activated per iteration.

The paper's slotted model is `IterationTime(base_s=1)`, blocks of one token and a token budget and slots beyond reach: one
iteration is one slot, in which every active request generates one token. Prompts are computed whole, in the iteration that
gives the first token.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..errors import InputError, check_choice, check_integer
from ..model.engine import Scheduler
from .residency import RESIDENCIES
from .wait import positive_integers


@dataclass(frozen=True, slots=True)
class ClassBudgets(Scheduler):
    """Algorithm 1, for known lengths: up to b_k requests of class k are activated per iteration, first come first served.

    Memory is not looked at: if sum_k b_k w_k <= M with w_k = s_k o_k + o_k (o_k + 1)/2, it suffices by construction. Where it
    does not, the most recently activated requests are evicted and start anew.

    Parameters
    ----------
    budgets : sequence of int >= 1, one a request class
        b_k, activations per iteration.
    residency : {"slots", "engine"}
        Whether the token under way counts as KV (the paper's model) or not.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.ClassBudgets((1,)))
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    budgets: tuple[int, ...]
    residency: str = "slots"

    code = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "budgets", positive_integers("budgets", self.budgets))
        check_choice("residency", self.residency, RESIDENCIES)

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency)), *self.budgets])


@dataclass(frozen=True, slots=True)
class RandomBudget(Scheduler):
    """Algorithm 2, for unknown lengths: a budget drawn anew each iteration, and last-in-first-out eviction on overflow.

    Each iteration draws B uniformly from the integers low..high and activates up to B waiting requests, first come first
    served; while the KV of the coming iteration exceeds the capacity, the most recently activated request is evicted. It
    loses its tokens and returns to the head of the queue. An iteration with nothing to compute (B = 0 and nothing active)
    passes empty. `high` beyond any queue gives greedy admission.

    Parameters
    ----------
    low : int >= 0
        Least budget, requests per iteration.
    high : int >= max(1, low)
        Largest budget.
    residency : {"slots", "engine"}
        Whether the token under way counts as KV (the paper's model) or not.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.RandomBudget(1, 2))
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    low: int
    high: int
    residency: str = "slots"

    code = 4

    def __post_init__(self) -> None:
        low = check_integer("low", self.low, at_least=0)
        high = check_integer("high", self.high, at_least=1)
        check_choice("residency", self.residency, RESIDENCIES)
        if high < low:
            raise InputError(f"high = {high}, must be >= low = {low}. Exchange them.")

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency)), float(self.low), float(self.high)])
