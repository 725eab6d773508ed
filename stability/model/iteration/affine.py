"""The affine law: tau = c0 + cp*P + cd*D + ck*K + ca*A."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._types import ArrayLike, FloatArray
from ...errors import InputError
from .base import IterationLaw, LawKind, as_float
from .latex import formula, linear


@dataclass(frozen=True, slots=True, kw_only=True)
class IterationTime(IterationLaw):
    """Affine step-time law: `base + per_prefill*P + per_decode*D + per_kv*K + per_prefill_context*A`.

    Parameters
    ----------
    base_s : float >= 0
        Time of an empty iteration (c0), s.
    per_prefill_token_s : float >= 0
        Per prompt token (cp), s.
    per_decode_token_s : float >= 0
        Per decoding request (cd), s.
    per_kv_token_s : float >= 0
        Per KV token read by decoding requests (ck), s.
    per_prefill_context_s : float >= 0
        Per unit of prefill attention work, chunk * (past + chunk/2) (ca), s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> law = IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> float(law.time_s(100, 0, 0))
    0.02
    """

    base_s: float = 0.0
    per_prefill_token_s: float = 0.0
    per_decode_token_s: float = 0.0
    per_kv_token_s: float = 0.0
    per_prefill_context_s: float = 0.0

    def __post_init__(self) -> None:
        self._check_coefficients(
            "base_s",
            "per_prefill_token_s",
            "per_decode_token_s",
            "per_kv_token_s",
            "per_prefill_context_s",
        )
        if not self.base_s + self.per_prefill_token_s + self.per_decode_token_s > 0:
            raise InputError(
                "base_s, per_prefill_token_s and per_decode_token_s are all 0, one must be > 0. "
                "An iteration that takes no time has no throughput to speak of."
            )

    def time_s(
        self,
        prefill_tokens: ArrayLike,
        decode_tokens: ArrayLike,
        kv_tokens: ArrayLike,
        prefill_context: ArrayLike = 0.0,
    ) -> FloatArray:
        return (
            self.base_s
            + self.per_prefill_token_s * as_float(prefill_tokens)
            + self.per_decode_token_s * as_float(decode_tokens)
            + self.per_kv_token_s * as_float(kv_tokens)
            + self.per_prefill_context_s * as_float(prefill_context)
        )

    def encode(self) -> tuple[int, FloatArray]:
        return int(LawKind.AFFINE), np.array(self.coefficients)

    @property
    def coefficients(self) -> tuple[float, float, float, float, float]:
        """(c0, cp, cd, ck, ca), seconds per unit."""
        return (
            self.base_s,
            self.per_prefill_token_s,
            self.per_decode_token_s,
            self.per_kv_token_s,
            self.per_prefill_context_s,
        )

    def latex_sum(self) -> str:
        """The law as a sum in LaTeX, without the name of what it gives."""
        return linear(tuple(zip(self.coefficients, ("", "P", "D", "K", "A"), strict=True)))

    def _repr_latex_(self) -> str:
        return formula(self.latex_sum())

    def scaled(self, factor: float) -> IterationTime:
        return affine(*(c * factor for c in self.coefficients))


def affine(c0: float, cp: float, cd: float, ck: float, ca: float) -> IterationTime:
    """The affine law from its coefficients in the order of theory."""
    return IterationTime(
        base_s=c0,
        per_prefill_token_s=cp,
        per_decode_token_s=cd,
        per_kv_token_s=ck,
        per_prefill_context_s=ca,
    )
