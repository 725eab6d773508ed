"""Batching disciplines (arXiv 2504.07347): how an iteration is shared between prompts and decodes.

With the memory gate, prompts are admitted first come first served while their known tokens fit the KV cache, and the newest
request is evicted when the cache overflows, as in vLLM. Without it the KV cache is unlimited, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..model.engine import Scheduler


@dataclass(frozen=True, slots=True)
class Sarathi(Scheduler):
    """Decodes first, then prompts in chunks, oldest first, up to the token budget: work-conserving.

    The same decisions as `Fcfs("prompt_gate")`.

    Parameters
    ----------
    gate : bool
        Whether the KV cache limits admission.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.Sarathi())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    gate: bool = True

    code = 10

    def parameters(self) -> FloatArray:
        return np.array([float(self.gate)])


@dataclass(frozen=True, slots=True)
class Orca(Scheduler):
    """Prompts first, in chunks up to the token budget; decodes in what is left, oldest first: work-conserving.

    Parameters
    ----------
    gate : bool
        Whether the KV cache limits admission.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.Orca())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.03, 0.04]
    """

    gate: bool = True

    code = 11

    def parameters(self) -> FloatArray:
        return np.array([float(self.gate)])


@dataclass(frozen=True, slots=True)
class PrefillFirst(Scheduler):
    """Whole prompts only while one can be admitted, decodes only otherwise: vLLM before chunked prefill. Not work-conserving.

    Parameters
    ----------
    gate : bool
        Whether the KV cache limits admission.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.PrefillFirst())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.06, 0.03, 0.04]
    """

    gate: bool = True

    code = 12

    def parameters(self) -> FloatArray:
        return np.array([float(self.gate)])


@dataclass(frozen=True, slots=True)
class DecodeFirst(Scheduler):
    """Decodes only while any request decodes, whole prompts only otherwise: FasterTransformer. Not work-conserving.

    A prompt beyond the token budget is computed alone, in chunks.

    Parameters
    ----------
    gate : bool
        Whether the KV cache limits admission.

    Examples
    --------
    Requests of 20, 10 and 10 prompt tokens and 4, 2 and 1 output tokens, two slots, 24 tokens an iteration of 10 ms:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=2, max_num_batched_tokens=24, block_size=1, scheduler=st.policies.DecodeFirst())
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100, engine=engine))
    >>> found = st.simulate(fleet, st.Workload.from_requests([0.0, 0.0, 0.0], [20, 10, 10], [4, 2, 1]))
    >>> found.requests.finish_s.round(2).tolist()
    [0.04, 0.06, 0.05]
    """

    gate: bool = True

    code = 13

    def parameters(self) -> FloatArray:
        return np.array([float(self.gate)])
