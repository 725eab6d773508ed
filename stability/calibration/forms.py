"""The forms a fitted law can have: what its coefficients multiply in a row of observations, and the law they make.

Every form is linear in its coefficients once its bend is given, so that a row x of the design and the coefficients c give
the mean time x.c. With pi the share of steps that carry prompt tokens, and P, D, K, A means over all steps of a row,

    affine      c0 + cp*P + cd*D + ck*K + ca*A
    two_phase   (1 - pi)*(d0 + dd*D + dk*K) + pi*(m0 + md*D + mk*K) + mp*P + ma*A
    hinge       c0 + c*max(0, P + D - b) + ck*K + ca*A
    staircase   c0 + c*ceil((P + D)/b) + ck*K + ca*A

"tied" means that prompt and decode tokens cost alike. Averages are taken as if D and K were alike in steps with and
without prompt tokens; hinge and staircase bend, so they take single steps only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..model.iteration import Hinge, IterationLaw, Staircase, TwoPhase
from ..model.iteration.affine import affine
from .observations import StepObservations

FORMS = ("affine_tied", "affine", "two_phase_tied", "two_phase", "hinge", "staircase")
"""Names, simplest first."""

STEPS = (8, 16, 32, 64, 128, 256)
"""Tokens of a tile that a staircase is tried with."""

BENDS = 24
"""Thresholds that a hinge is tried with, at quantiles of the batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A form with its bend, if it has one.

    Attributes
    ----------
    name : str
        One of `FORMS`.
    bend_tokens : float or None
        Threshold of a hinge, tile of a staircase.
    """

    name: str
    bend_tokens: float | None = None

    @property
    def terms(self) -> tuple[tuple[str, str], ...]:
        """Phase ("all", "decode" or "mixed") and coefficient of each column of the design."""
        tied = ("per_token_s",) if self.name.endswith("tied") else ("per_prefill_token_s", "per_decode_token_s")
        if self.name.startswith("two_phase"):
            decode = ("base_s", "per_decode_token_s", "per_kv_token_s")
            mixed = ("base_s", *tied, "per_kv_token_s", "per_prefill_context_s")
            return (*(("decode", name) for name in decode), *(("mixed", name) for name in mixed))
        slope = {"hinge": ("per_token_s",), "staircase": ("per_step_s",)}.get(self.name, tied)
        return tuple(("all", name) for name in ("base_s", *slope, "per_kv_token_s", "per_prefill_context_s"))

    @property
    def parameters(self) -> int:
        """Coefficients, the bend included."""
        return len(self.terms) + (self.bend_tokens is not None)

    def design(self, x: StepObservations) -> FloatArray:
        """What each coefficient multiplies in each row. Shape (n, p)."""
        one, p, d, k, a = np.ones(len(x)), x.prefill_tokens, x.decode_tokens, x.kv_tokens, x.prefill_context
        mixed, only = x.mixed_share, 1 - x.mixed_share
        match self.name:
            case "affine":
                columns = [one, p, d, k, a]
            case "affine_tied":
                columns = [one, p + d, k, a]
            case "two_phase":
                columns = [only, only * d, only * k, mixed, p, mixed * d, mixed * k, a]
            case "two_phase_tied":
                columns = [only, only * d, only * k, mixed, p + mixed * d, mixed * k, a]
            case "hinge":
                columns = [one, np.maximum(0.0, p + d - self._bend), k, a]
            case _:
                columns = [one, np.ceil((p + d) / self._bend), k, a]
        return np.column_stack(columns)

    def law(self, coefficients: Sequence[float]) -> IterationLaw:
        """The law of coefficients >= 0, in the order of `terms`."""
        c = [float(value) for value in coefficients]
        match self.name:
            case "affine":
                return affine(*c)
            case "affine_tied":
                return affine(c[0], c[1], c[1], c[2], c[3])
            case "two_phase":
                return TwoPhase(decode=affine(c[0], 0.0, c[1], c[2], 0.0), mixed=affine(*c[3:]))
            case "two_phase_tied":
                return TwoPhase(decode=affine(c[0], 0.0, c[1], c[2], 0.0), mixed=affine(c[3], c[4], c[4], c[5], c[6]))
            case "hinge":
                return Hinge(
                    base_s=c[0],
                    per_token_s=c[1],
                    threshold_tokens=self._bend,
                    per_kv_token_s=c[2],
                    per_prefill_context_s=c[3],
                )
            case _:
                return Staircase(
                    base_s=c[0],
                    per_step_s=c[1],
                    step_tokens=int(self._bend),
                    per_kv_token_s=c[2],
                    per_prefill_context_s=c[3],
                )

    @property
    def _bend(self) -> float:
        assert self.bend_tokens is not None
        return self.bend_tokens


def forms(name: str, steps: StepObservations) -> Iterator[Form]:
    """The forms of this name that can be fitted to `steps`: one for each bend, none where a phase was not seen.

    A tied form needs steps with prompt tokens and with decode tokens: of one kind only, it would price the other like it, unseen.
    """
    prompts, decodes = steps.prefill_tokens > 0, steps.decode_tokens > 0
    if name == "two_phase_tied":
        decodes &= steps.mixed_share > 0
    if name.endswith("tied") and not (prompts.any() and decodes.any()):
        return
    if name.startswith("affine"):
        yield Form(name=name)
    elif name.startswith("two_phase"):
        if (steps.mixed_share > 0).any() and (steps.mixed_share < 1).any():
            yield Form(name=name)
    elif steps.is_single_steps:
        batch = steps.prefill_tokens + steps.decode_tokens
        if name == "hinge":
            bends = np.unique(np.quantile(batch, np.linspace(0.05, 0.8, BENDS)).round()).tolist()
            yield from (Form(name=name, bend_tokens=bend) for bend in bends if (batch < bend).any())
        else:
            yield from (Form(name=name, bend_tokens=float(step)) for step in STEPS if batch.max() > 2 * step)
