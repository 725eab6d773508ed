"""WAIT and Nested WAIT (arXiv 2504.11320): collect enough prompts, then advance every stage together.

A request passes through stages: prefill is stage 0, and each iteration takes it one stage further. The paper's decode length
l' counts the iterations after prefill. Engines take the first token from the prefill iteration, so l' = output_tokens - 1
here; a request at stage s then holds prompt + s tokens in its iteration, as in the paper. The paper's iteration time
d0 + d1 * (tokens held by the batch) is `IterationTime(base_s=d0, per_prefill_token_s=d1, per_kv_token_s=d1)`.

Both schedule whole prompts: a prompt longer than the token budget cannot be served. What does not fit into the token budget
or the slots waits for the next batch; thresholds that need more slots than there are may wait for ever. At the end of a run,
requests that still wait for others stay unserved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..errors import InputError, check_integer
from ..model.engine import Scheduler


@dataclass(frozen=True, slots=True)
class Wait(Scheduler):
    """WAIT: a class joins the batch once `thresholds[class]` of its prompts wait, with at most as many at every stage.

    When idle, J is the set of classes with n_j or more prompts waiting. If J is empty the engine waits for an arrival;
    else one batch takes, of every class in J and every stage, the oldest min(n_j, present) requests. Other classes pause
    and keep their KV. No stage ever holds more than n_j requests, so KV stays within sum_j n_j W_j and nothing is evicted.

    Parameters
    ----------
    thresholds : sequence of int >= 1, one a request class
        n_j, requests per stage.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.Wait((1,)))
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    thresholds: tuple[int, ...]

    code = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", positive_integers("thresholds", self.thresholds))

    def parameters(self) -> FloatArray:
        return np.array(self.thresholds, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class NestedWait(Scheduler):
    """Nested WAIT, for output lengths known only as they end: stages in segments, entered through boundary queues.

    Segment k holds the stages after l'_{k-1} up to l'_k (segment 1: stage 0 up to l'_1; the last one goes on for as long
    as a request does). When idle, the largest k counts such that the first stage of each of the segments 1..k holds its
    threshold or more; one batch takes the oldest min(n_k', present) of every stage of those segments, the others pause
    with their KV. While the batch would overflow the KV cache, the newest paused request at the first stage of a segment
    k >= 2 is evicted and starts anew. With a KV cache too small for the thresholds it can evict for ever; a simulation then
    raises.

    Parameters
    ----------
    ends : sequence of int >= 1, increasing
        l'_1 < ... < l'_m: iterations after prefill, that is `output_tokens - 1`, at which the segments end.
    thresholds : sequence of int >= 1, as many
        n_1, ..., n_m, requests per stage of each segment.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.NestedWait(ends=(2, 4), thresholds=(2, 1)))
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [nan, nan, nan]
    """

    ends: tuple[int, ...]
    thresholds: tuple[int, ...]

    code = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", positive_integers("ends", self.ends))
        object.__setattr__(self, "thresholds", positive_integers("thresholds", self.thresholds))
        if len(self.ends) != len(self.thresholds):
            raise InputError(
                f"ends has {len(self.ends)} entries and thresholds {len(self.thresholds)}, must have as many. "
                "Give every segment both."
            )
        if any(a >= b for a, b in zip(self.ends, self.ends[1:], strict=False)):
            raise InputError(f"ends = {self.ends}, must increase. Sort the segments and merge equal ones.")

    def parameters(self) -> FloatArray:
        return np.array([*self.ends, *self.thresholds], dtype=np.float64)


def positive_integers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    """`values` as a tuple of integers >= 1, at least one of them."""
    if not isinstance(values, Sequence) or not values:
        raise InputError(
            f"{name} = {values!r}, must be a sequence of integers >= 1. Give one entry a class or segment."
        )
    return tuple(check_integer(f"{name}[{k}]", value, at_least=1) for k, value in enumerate(values))
