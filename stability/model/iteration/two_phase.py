"""Two affine laws: one for iterations that only decode, one for those that carry prompt tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..._types import ArrayLike, FloatArray
from .affine import IterationTime
from .base import IterationLaw, LawKind, as_float
from .latex import formula


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPhase(IterationLaw):
    """Decode-only iterations follow `decode`, iterations with prompt tokens follow `mixed`.

    Real kernels differ: attention over mixed batches reads KV 1.7 to 3 times as slowly.

    Parameters
    ----------
    decode, mixed : IterationTime
        The two laws.

    Examples
    --------
    >>> import stability as st
    >>> law = st.iteration.TwoPhase(decode=st.IterationTime(base_s=0.01), mixed=st.IterationTime(base_s=0.03))
    >>> law.time_s([0, 512], [8, 8], 0).tolist()  # without and with a prompt chunk
    [0.01, 0.03]
    """

    decode: IterationTime
    mixed: IterationTime

    def time_s(
        self,
        prefill_tokens: ArrayLike,
        decode_tokens: ArrayLike,
        kv_tokens: ArrayLike,
        prefill_context: ArrayLike = 0.0,
    ) -> FloatArray:
        return np.where(
            as_float(prefill_tokens) > 0,
            self.mixed.time_s(prefill_tokens, decode_tokens, kv_tokens, prefill_context),
            self.decode.time_s(prefill_tokens, decode_tokens, kv_tokens, prefill_context),
        )

    def _repr_latex_(self) -> str:
        cases = rf"{self.decode.latex_sum()} & P = 0 \\ {self.mixed.latex_sum()} & P > 0"
        return formula(rf"\begin{{cases}} {cases} \end{{cases}}")

    def encode(self) -> tuple[int, FloatArray]:
        return int(LawKind.TWO_PHASE), np.array([*self.decode.coefficients, *self.mixed.coefficients])

    def scaled(self, factor: float) -> TwoPhase:
        return TwoPhase(decode=self.decode.scaled(factor), mixed=self.mixed.scaled(factor))
