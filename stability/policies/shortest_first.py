"""Schedulers that order the waiting requests by length and look ahead: MC-SF, SVF, H-SF, A_max, A_min, Sorted-F.

All admit in their order while the KV of the running and the newly admitted requests, each up to its predicted end, fits at
every future iteration; the first that does not fit ends the admission. KV grows between completions, so that only the
iterations in which a request ends need a look. Prompts are computed whole. The papers' slotted model is
`IterationTime(base_s=1)`, blocks of one token and a token budget and slots beyond reach.

A request that outlives its prediction counts as ending with its next token. Should the KV of the coming iteration not fit
(predictions were too short), the most recently admitted requests are evicted and start anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._types import FloatArray
from ..errors import check_choice, check_integer
from ..model.engine import Scheduler
from .predictors import Oracle, Predictor
from .residency import RESIDENCIES

ORDERS = ("output", "volume")
"""What `ShortestFirst` sorts by: the output length o, or the KV volume s*o + o(o + 1)/2."""

SEARCHES = ("exact", "prefix")
"""How `SortedF` finds its batches."""


@dataclass(frozen=True, slots=True)
class ShortestFirst(Scheduler):
    """MC-SF (`by="output"`, arXiv 2502.07115) and SVF (`by="volume"`, arXiv 2606.22327).

    Parameters
    ----------
    by : {"output", "volume"}
        Ascending predicted output length, or ascending KV volume s*o + o(o + 1)/2; ties by arrival.
    predictor : Predictor
        Gives every request's predicted output length at its arrival.
    residency : {"slots", "engine"}
        Whether the token under way counts as KV (the papers' model) or not.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.ShortestFirst())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.05, 0.02, 0.01]
    """

    by: str = "output"
    predictor: Predictor = field(default_factory=Oracle)
    residency: str = "slots"

    code = 5

    def __post_init__(self) -> None:
        check_choice("by", self.by, ORDERS)
        check_choice("residency", self.residency, RESIDENCIES)

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency)), float(ORDERS.index(self.by))])


@dataclass(frozen=True, slots=True)
class HindsightShortestFirst(Scheduler):
    """H-SF: shortest output first with the exact lengths, the benchmark of arXiv 2508.14544.

    Parameters
    ----------
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
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.HindsightShortestFirst())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.05, 0.02, 0.01]
    """

    residency: str = "slots"

    code = 6

    def __post_init__(self) -> None:
        check_choice("residency", self.residency, RESIDENCIES)

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency))])


@dataclass(frozen=True, slots=True)
class AMax(Scheduler):
    """A_max (arXiv 2508.14544): every request is taken to be as long as its upper bound, so that nothing ever overflows.

    Parameters
    ----------
    upper : int >= 1, or Predictor
        Upper bound of the output length, tokens: one for all, or each request's own.
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
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.AMax(4))
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    upper: int | Predictor
    residency: str = "slots"

    code = 7

    def __post_init__(self) -> None:
        _check_bound("upper", self.upper)
        check_choice("residency", self.residency, RESIDENCIES)

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency)), _number(self.upper)])


@dataclass(frozen=True, slots=True)
class AMin(Scheduler):
    """A_min (arXiv 2508.14544): pseudo-lengths that start at the lower bound and rise with what a request has generated.

    Each iteration: while the running requests do not fit, the one of least pseudo-length is cancelled (the newest of
    several) and starts anew; then requests are admitted in ascending pseudo-length. A pseudo-length is never below the
    tokens a request has once generated.

    Parameters
    ----------
    lower : int >= 1, or Predictor
        Lower bound of the output length, tokens: one for all, or each request's own.
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
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.AMin())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    lower: int | Predictor = 1
    residency: str = "slots"

    code = 8

    def __post_init__(self) -> None:
        _check_bound("lower", self.lower)
        check_choice("residency", self.residency, RESIDENCIES)

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency)), _number(self.lower)])


@dataclass(frozen=True, slots=True)
class SortedF(Scheduler):
    """Sorted-F (arXiv 2508.06133): batches of least (sum of outputs)/(size squared) among those with sum (s + o) <= M, in turn.

    The order is made for all waiting requests whenever new ones have arrived; within a batch, shorter outputs first.

    Parameters
    ----------
    search : {"exact", "prefix"}
        "exact": a knapsack over count and memory, time about n**2 M per batch. "prefix": only the shortest outputs, in order:
        as every batch then is a prefix, this is the order of `ShortestFirst`.
    predictor : Predictor
        Gives every request's predicted output length at its arrival.
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
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.SortedF())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.05, 0.02, 0.01]
    """

    search: str = "exact"
    predictor: Predictor = field(default_factory=Oracle)
    residency: str = "slots"

    code = 9

    def __post_init__(self) -> None:
        check_choice("search", self.search, SEARCHES)
        check_choice("residency", self.residency, RESIDENCIES)

    def parameters(self) -> FloatArray:
        return np.array([float(RESIDENCIES.index(self.residency)), float(SEARCHES.index(self.search))])


def _check_bound(name: str, value: int | Predictor) -> None:
    if not isinstance(value, Predictor):
        check_integer(name, value, at_least=1, hint="Or give a predictor.")


def _number(bound: int | Predictor) -> float:
    """The common bound, or 0 where every request has its own."""
    return 0.0 if isinstance(bound, Predictor) else float(bound)
