"""Laws that bend in the number of batched tokens b = P + D: hinge, staircase and roofline.

Each is phi(b) + ck*K + ca*A; `of_batch_s` is phi.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np

from ..._types import ArrayLike, FloatArray, IntArray
from ...errors import InputError, check_integer, check_number
from .base import IterationLaw, LawKind, as_float
from .latex import formula, linear, number


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLaw(IterationLaw):
    """phi(P + D) + per_kv_token_s*K + per_prefill_context_s*A.

    Parameters
    ----------
    per_kv_token_s, per_prefill_context_s : float >= 0
        As in `IterationTime`, s.

    Examples
    --------
    >>> import stability as st
    >>> law = st.iteration.Hinge(base_s=0.01, per_token_s=1e-4, threshold_tokens=100)
    >>> isinstance(law, st.iteration.BatchLaw), float(law.of_batch_s(200))  # 10 ms + 100 tokens of 0.1 ms
    (True, 0.02)
    """

    per_kv_token_s: float = 0.0
    per_prefill_context_s: float = 0.0

    @abstractmethod
    def of_batch_s(self, batched_tokens: ArrayLike) -> FloatArray:
        """phi(b): the part of the iteration time that depends on `batched_tokens`, s, elementwise."""

    @abstractmethod
    def latex_batch(self) -> str:
        """phi(b) in LaTeX, b = P + D."""

    def _repr_latex_(self) -> str:
        rest = linear(((self.per_kv_token_s, "K"), (self.per_prefill_context_s, "A")))
        return formula(self.latex_batch(), rest) + r"$,\quad b = P + D$"

    @abstractmethod
    def breakpoints(self, most: int) -> IntArray:
        """Token counts from 1 to `most`, ends included, whose values determine the lower convex hull of phi there."""

    def scaled(self, factor: float) -> Self:
        seconds = {f.name: getattr(self, f.name) * factor for f in fields(self) if f.name.endswith("_s")}
        return replace(self, **seconds)

    def time_s(
        self,
        prefill_tokens: ArrayLike,
        decode_tokens: ArrayLike,
        kv_tokens: ArrayLike,
        prefill_context: ArrayLike = 0.0,
    ) -> FloatArray:
        return (
            self.of_batch_s(as_float(prefill_tokens) + as_float(decode_tokens))
            + self.per_kv_token_s * as_float(kv_tokens)
            + self.per_prefill_context_s * as_float(prefill_context)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge(BatchLaw):
    """`base + per_token*max(0, b - threshold) + per_kv*K + per_prefill_context*A`: flat, then linear.

    Parameters
    ----------
    base_s : float > 0
        Time up to the threshold, s.
    per_token_s : float >= 0
        Slope beyond it, s per batched token.
    threshold_tokens : float >= 0
        Where the batch starts to cost, tokens.
    per_kv_token_s, per_prefill_context_s : float >= 0
        As in `IterationTime`, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> law = st.iteration.Hinge(base_s=0.01, per_token_s=1e-4, threshold_tokens=100)
    >>> law.time_s(0, [50, 100, 200], 0).tolist()
    [0.01, 0.01, 0.02]
    """

    base_s: float
    per_token_s: float
    threshold_tokens: float

    def __post_init__(self) -> None:
        check_number("base_s", self.base_s, above=0)
        self._check_coefficients("per_token_s", "threshold_tokens", "per_kv_token_s", "per_prefill_context_s")

    def of_batch_s(self, batched_tokens: ArrayLike) -> FloatArray:
        return self.base_s + self.per_token_s * np.maximum(0.0, as_float(batched_tokens) - self.threshold_tokens)

    def latex_batch(self) -> str:
        return rf"{number(self.base_s)} + {number(self.per_token_s)} \max(0, b - {number(self.threshold_tokens)})"

    def breakpoints(self, most: int) -> IntArray:
        kink = math.floor(self.threshold_tokens)
        return _between(most, (kink, kink + 1))

    def encode(self) -> tuple[int, FloatArray]:
        return int(LawKind.HINGE), np.array(
            [
                self.base_s,
                self.per_token_s,
                self.threshold_tokens,
                self.per_kv_token_s,
                self.per_prefill_context_s,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Staircase(BatchLaw):
    """`base + per_step*ceil(b/step_tokens) + per_kv*K + per_prefill_context*A`: hardware tiles fill in steps.

    Parameters
    ----------
    base_s : float >= 0
        Time before the first tile, s.
    per_step_s : float > 0
        Time of each started tile, s.
    step_tokens : int >= 1
        Batched tokens a tile holds.
    per_kv_token_s, per_prefill_context_s : float >= 0
        As in `IterationTime`, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    The published fit of arXiv 2504.07347 (CodeLlama-34B on one A100) at its full batch:

    >>> law = Staircase(base_s=0.01128, per_step_s=0.03547, step_tokens=128)
    >>> round(float(law.time_s(512, 0, 0)), 5)
    0.15316
    """

    base_s: float
    per_step_s: float
    step_tokens: int

    def __post_init__(self) -> None:
        self._check_coefficients("base_s", "per_kv_token_s", "per_prefill_context_s")
        check_number("per_step_s", self.per_step_s, above=0)
        check_integer("step_tokens", self.step_tokens, at_least=1)

    def of_batch_s(self, batched_tokens: ArrayLike) -> FloatArray:
        return self.base_s + self.per_step_s * np.ceil(as_float(batched_tokens) / self.step_tokens)

    def latex_batch(self) -> str:
        return rf"{number(self.base_s)} + {number(self.per_step_s)} \lceil b / {number(self.step_tokens)} \rceil"

    def breakpoints(self, most: int) -> IntArray:
        last = self.step_tokens * (most // self.step_tokens)
        return _between(most, (self.step_tokens, last))

    def encode(self) -> tuple[int, FloatArray]:
        return int(LawKind.STAIRCASE), np.array(
            [
                self.base_s,
                self.per_step_s,
                float(self.step_tokens),
                self.per_kv_token_s,
                self.per_prefill_context_s,
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline(BatchLaw):
    """Per-operator roofline: linear layers wait for the weights or for arithmetic, attention for the KV cache.

    `overhead + per_token*b + max(weights(b), per_token_compute*b) + per_kv*K + per_prefill_context*A` with
    `weights(b) = weights_s + experts_s*(1 - (1 - expert_share)**b)`: a mixture-of-experts layer reads the experts
    that b tokens, routed independently and evenly, touch.

    Parameters
    ----------
    overhead_s : float >= 0
        Launch, host and communication latency, s.
    weights_s : float >= 0
        Time to read the weights that every batch reads, s.
    per_token_compute_s : float >= 0
        Arithmetic of the linear layers per batched token, s.
    per_token_s : float >= 0
        Costs that add to both roofs, per batched token (element-wise work, all-reduce), s.
    experts_s : float >= 0
        Time to read all routed experts, s.
    expert_share : float in [0, 1]
        Experts per token over experts.
    per_kv_token_s, per_prefill_context_s : float >= 0
        As in `IterationTime`, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Reading the weights takes 10 ms, a token 0.1 ms of arithmetic: beyond 100 tokens arithmetic decides.

    >>> import stability as st
    >>> law = st.iteration.Roofline(weights_s=0.01, per_token_compute_s=1e-4)
    >>> law.time_s(0, [1, 100, 200], 0).tolist()
    [0.01, 0.01, 0.02]
    """

    overhead_s: float = 0.0
    weights_s: float
    per_token_compute_s: float
    per_token_s: float = 0.0
    experts_s: float = 0.0
    expert_share: float = 0.0

    def __post_init__(self) -> None:
        self._check_coefficients(
            "overhead_s",
            "weights_s",
            "per_token_compute_s",
            "per_token_s",
            "experts_s",
            "per_kv_token_s",
            "per_prefill_context_s",
        )
        check_number("expert_share", self.expert_share, at_least=0, at_most=1)
        if not self.overhead_s + self.weights_s + self.per_token_compute_s > 0:
            raise InputError(
                "overhead_s, weights_s and per_token_compute_s are all 0, one must be > 0. "
                "Give the time to read the weights or to compute a token."
            )

    def of_batch_s(self, batched_tokens: ArrayLike) -> FloatArray:
        b = as_float(batched_tokens)
        weights = self.weights_s + self.experts_s * (1.0 - np.power(1.0 - self.expert_share, b))
        return self.overhead_s + self.per_token_s * b + np.maximum(weights, self.per_token_compute_s * b)

    def latex_batch(self) -> str:
        weights = number(self.weights_s)
        if self.experts_s:
            weights += rf" + {number(self.experts_s)} (1 - {number(1 - self.expert_share)}^b)"
        ahead = linear(((self.overhead_s, ""), (self.per_token_s, "b")))
        roof = rf"\max({weights},\ {number(self.per_token_compute_s)}\,b)"
        return roof if ahead == "0" else f"{ahead} + {roof}"

    def breakpoints(self, most: int) -> IntArray:
        if self.experts_s > 0:
            return np.arange(1, most + 1, dtype=np.int64)  # concave, then linear: the hull may start anywhere
        kink = math.floor(min(self.weights_s / self.per_token_compute_s, most)) if self.per_token_compute_s else most
        return _between(most, (kink, kink + 1))

    def encode(self) -> tuple[int, FloatArray]:
        return int(LawKind.ROOFLINE), np.array(
            [
                self.overhead_s,
                self.weights_s,
                self.per_token_compute_s,
                self.per_token_s,
                self.experts_s,
                self.expert_share,
                self.per_kv_token_s,
                self.per_prefill_context_s,
            ]
        )


def _between(most: int, inner: tuple[int, ...]) -> IntArray:
    points = {1, most, *(p for p in inner if 1 < p < most)}
    return np.array(sorted(points), dtype=np.int64)
