"""The serving engine's settings: what one replica's scheduler may do in an iteration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from .._result import Described
from .._types import FloatArray
from ..errors import InputError, check_choice, check_integer, check_number

ADMISSIONS = ("reserve", "prompt_gate", "chunk_gate")
"""Admission rules of first-come-first-served engines (see `stability.policies.Fcfs`)."""


class Scheduler(ABC):
    """A scheduling policy as a parameter object: what it decides is in theory and simulation, not here."""

    code: int
    """Under which number kernels know the policy."""

    @abstractmethod
    def parameters(self) -> FloatArray:
        """The policy's numbers, in the order its kernel expects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(Described):
    """Settings of a continuous-batching engine; the defaults are vLLM's.

    Parameters
    ----------
    max_num_seqs : int >= 1
        Most requests resident at a time (batch slots, N).
    max_num_batched_tokens : int >= max_num_seqs
        Most tokens computed in one iteration (token budget, B); longer prompts are prefilled in chunks.
    admission : {"reserve", "prompt_gate", "chunk_gate"}
        When the head of the queue is admitted: its prompt and longest output must be reservable; its whole prompt must
        fit; its next chunk must fit. Shorthand for `scheduler=policies.Fcfs(...)`.
    watermark : float in [0, 1)
        Share of the KV blocks kept free at admission.
    block_size : int >= 1
        Tokens per KV block.
    prefix_caching : bool
        Whether KV blocks are found again: by evicted requests, and by later turns of sessions and sessions with the same
        system prompt. Other requests share no prefix.
    scheduler : Scheduler, optional
        A published or user-written scheduling policy in place of first-come-first-served.

    Raises
    ------
    InputError
        If a setting breaks its rule.

    Examples
    --------
    1000 tokens are 62 whole blocks of 16; a tenth of 62 + 1 blocks is kept free, rounded down:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=64, watermark=0.1)
    >>> engine.capacity_blocks(1000), engine.watermark_blocks(1000)
    (62, 6)
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    admission: str = "prompt_gate"
    watermark: float = 0.0
    block_size: int = 16
    prefix_caching: bool = False
    scheduler: Scheduler | None = None

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "block_size"):  # 256.0 becomes 256
            object.__setattr__(self, name, check_integer(name, getattr(self, name), at_least=1))
        check_choice("admission", self.admission, ADMISSIONS)
        check_number("watermark", self.watermark, at_least=0, below=1)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens}, must be >= max_num_seqs = {self.max_num_seqs}. "
                "Raise the token budget or lower the number of slots: a full batch decodes one token a request."
            )
        if self.scheduler is not None and not isinstance(self.scheduler, Scheduler):
            raise InputError(
                f"scheduler = {self.scheduler!r}, must be a policy object. Build one from stability.policies."
            )

    def capacity_blocks(self, kv_capacity_tokens: int) -> int:
        """Whole KV blocks that fit in `kv_capacity_tokens`."""
        return kv_capacity_tokens // self.block_size

    def watermark_blocks(self, kv_capacity_tokens: int) -> int:
        """Blocks of `kv_capacity_tokens` kept free at admission: floor(watermark*(blocks + 1)); vLLM counts one null block."""
        share = self.watermark if self.scheduler is None else float(getattr(self.scheduler, "watermark", 0.0))
        return math.floor(share * (self.capacity_blocks(kv_capacity_tokens) + 1))
