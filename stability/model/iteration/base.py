"""What a step-time law is: the time of one engine iteration from its composition.

A composition is (P, D, K, A) of theory: prompt tokens computed, decode tokens, KV tokens read by the decoding requests,
and prefill attention work (sum over prompt chunks of chunk * (past + chunk/2)).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum

import numpy as np

from ..._types import ArrayLike, FloatArray
from ...errors import check_number


class LawKind(IntEnum):
    """Codes under which kernels know the laws.

    Examples
    --------
    >>> import stability as st
    >>> kind, numbers = st.IterationTime(base_s=0.01).encode()
    >>> st.iteration.LawKind(kind).name, numbers.tolist()
    ('AFFINE', [0.01, 0.0, 0.0, 0.0, 0.0])
    """

    AFFINE = 0
    HINGE = 1
    STAIRCASE = 2
    TWO_PHASE = 3
    ROOFLINE = 4
    TABLE = 5


class IterationLaw(ABC):
    """The time of one iteration, in seconds, from its composition. Immutable and hashable.

    Examples
    --------
    A machine that is half as fast:

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> isinstance(law, st.iteration.IterationLaw), float(law.scaled(2.0).time_s(100, 0, 0))  # 2 * (10 + 10) ms
    (True, 0.04)
    """

    @abstractmethod
    def time_s(
        self,
        prefill_tokens: ArrayLike,
        decode_tokens: ArrayLike,
        kv_tokens: ArrayLike,
        prefill_context: ArrayLike = 0.0,
    ) -> FloatArray:
        """Iteration time of each composition, elementwise.

        Parameters
        ----------
        prefill_tokens : array_like, >= 0
            Prompt tokens computed in the iteration (P).
        decode_tokens : array_like, >= 0
            Requests that decode one token (D).
        kv_tokens : array_like, >= 0
            KV tokens read by the decoding requests, their new token included (K).
        prefill_context : array_like, >= 0
            Prefill attention work, tokens**2 (A).

        Returns
        -------
        ndarray
            Seconds, in the broadcast shape of the arguments.
        """

    @abstractmethod
    def encode(self) -> tuple[int, FloatArray]:
        """The law as (kind, coefficients) for compiled kernels. Kind is a `LawKind`."""

    @abstractmethod
    def scaled(self, factor: float) -> IterationLaw:
        """The law of a machine on which every iteration takes `factor` times as long."""

    def _check_coefficients(self, *names: str) -> None:
        for name in names:
            check_number(name, getattr(self, name), at_least=0)


def as_float(value: ArrayLike) -> FloatArray:
    """`value` as a float array (or scalar array) for the laws' arithmetic."""
    return np.asarray(value, dtype=np.float64)
