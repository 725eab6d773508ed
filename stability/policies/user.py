"""Schedulers of one's own: a Python object that plans every iteration, run by the reference engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .._types import FloatArray
from ..model.engine import Scheduler


class RequestView(Protocol):
    """What a scheduler sees of a request; not to be changed.

    Attributes
    ----------
    index : int
        Its number in order of arrival.
    arrival_s : float
        Arrival, s.
    prompt_tokens, predicted_output_tokens, max_output_tokens, request_class : int
        Prompt, predicted output, output limit and class.
    generated : int
        Output tokens so far.
    computed : int
        Tokens whose KV is resident.
    known_tokens : int
        Prompt and generated tokens; those not yet computed are what an iteration can schedule.
    prefilling : bool
        Whether it is still short of its first token since its (last) admission.
    """

    index: int
    arrival_s: float
    prompt_tokens: int
    predicted_output_tokens: int
    max_output_tokens: int
    request_class: int
    generated: int
    computed: int
    prefilling: bool

    @property
    def known_tokens(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """What a scheduler sees when an iteration may start.

    Attributes
    ----------
    now_s : float
        The instant, s.
    waiting : sequence of RequestView
        Without KV: evicted requests at the head, then by arrival.
    running : sequence of RequestView
        With KV, in order of (last) admission.
    block_size, capacity_blocks, max_num_seqs, max_num_batched_tokens : int
        The engine's limits.

    Examples
    --------
    What a scheduler sees when one request waits and nothing runs:

    >>> import stability as st
    >>> class Look(st.policies.UserScheduler):
    ...     def plan(self, state):
    ...         print(len(state.waiting), len(state.running), state.capacity_blocks)
    ...         return st.policies.Plan(batch=[(r, r.known_tokens - r.computed) for r in (*state.running, *state.waiting)])
    >>> engine = st.Engine(scheduler=Look(), block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> _ = st.simulate(fleet, st.Workload.from_requests([0.0], [10], [1]))
    1 0 100
    """

    now_s: float
    waiting: Sequence[RequestView]
    running: Sequence[RequestView]
    block_size: int
    capacity_blocks: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What an iteration does: evictions first, then the batch.

    Parameters
    ----------
    batch : sequence of (RequestView, int)
        Requests and the tokens to compute of each: from 1 to its known tokens that are not computed. Waiting ones are admitted
        in this order; running ones that are not listed pause and keep their KV.
    evict : sequence of RequestView
        Running requests that lose their KV and return to the head of the queue, the last one first.
    keep_progress : bool
        Whether evicted requests keep the tokens they generated and compute their KV again, or start anew.
    wait : bool
        With an empty batch: whether to wait for the next arrival, or to let an empty iteration pass.

    Examples
    --------
    See `UserScheduler`; an empty plan waits for the next arrival:

    >>> from stability import policies
    >>> policies.Plan().wait
    True
    """

    batch: Sequence[tuple[RequestView, int]] = ()
    evict: Sequence[RequestView] = ()
    keep_progress: bool = False
    wait: bool = True


class UserScheduler(Scheduler):
    """Base of schedulers of one's own.

    Derive, implement `plan`, and give an instance to `Engine(scheduler=...)`. One object serves all replicas of a fleet, so
    whatever it remembers it should keep by request. The plan is checked: slots, token budget and KV capacity must hold.

    Examples
    --------
    Last come, first served, one request at a time:

    >>> import stability as st
    >>> class Last(st.policies.UserScheduler):
    ...     def plan(self, state):
    ...         chosen = list(state.running) or list(state.waiting)[-1:]
    ...         return st.policies.Plan(batch=[(r, r.known_tokens - r.computed) for r in chosen])
    >>> engine = st.Engine(scheduler=Last(), block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0], [10, 10], [1, 1]))
    >>> found.requests.finish_s.tolist()
    [0.02, 0.01]
    """

    code = -1

    @abstractmethod
    def plan(self, state: EngineState) -> Plan:
        """What the iteration that may start at `state.now_s` does."""

    def parameters(self) -> FloatArray:
        """None that a kernel could read."""
        return np.empty(0)
