"""The `iteration` of a pool: an explicit step-time law."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ...model import iteration as laws
from .section import NonNegative, PositiveTime, Section, Share, Time, Tokens

KV = "the time per KV token read by decoding requests, s or with a unit"
CONTEXT = "the time per unit of prefill attention work, chunk * (past + chunk/2), s or with a unit"


class AffineSection(Section):
    """`base + per_prefill*P + per_decode*D + per_kv*K + per_prefill_context*A`."""

    base_s: Time = Field(default=0.0, description="the time of an empty iteration, s or with a unit")
    per_prefill_token_s: Time = Field(default=0.0, description="the time per prompt token, s or with a unit")
    per_decode_token_s: Time = Field(default=0.0, description="the time per decoding request, s or with a unit")
    per_kv_token_s: Time = Field(default=0.0, description=KV)
    per_prefill_context_s: Time = Field(default=0.0, description=CONTEXT)

    def build(self) -> laws.IterationTime:
        """The law."""
        return laws.IterationTime(**self.given())


class HingeSection(Section):
    """Flat up to a number of batched tokens, then linear."""

    base_s: PositiveTime = Field(description="the time up to the threshold, s or with a unit")
    per_token_s: Time = Field(description="the time per batched token beyond it, s or with a unit")
    threshold_tokens: NonNegative = Field(description="where the batch starts to cost, tokens")
    per_kv_token_s: Time = Field(default=0.0, description=KV)
    per_prefill_context_s: Time = Field(default=0.0, description=CONTEXT)

    def build(self) -> laws.IterationLaw:
        """The law."""
        return laws.Hinge(**self.given())


class StaircaseSection(Section):
    """Hardware tiles fill in steps: `base + per_step*ceil(b/step_tokens)`."""

    base_s: Time = Field(description="the time before the first tile, s or with a unit")
    per_step_s: PositiveTime = Field(description="the time of each started tile, s or with a unit")
    step_tokens: Tokens = Field(description="batched tokens a tile holds")
    per_kv_token_s: Time = Field(default=0.0, description=KV)
    per_prefill_context_s: Time = Field(default=0.0, description=CONTEXT)

    def build(self) -> laws.IterationLaw:
        """The law."""
        return laws.Staircase(**self.given())


class TwoPhaseSection(Section):
    """One affine law for iterations that only decode, one for those with prompt tokens."""

    decode: AffineSection = Field(description="the law of iterations that only decode")
    mixed: AffineSection = Field(description="the law of iterations with prompt tokens")

    def build(self) -> laws.IterationLaw:
        """The law."""
        return laws.TwoPhase(decode=self.decode.build(), mixed=self.mixed.build())


class RooflineSection(Section):
    """Weights or arithmetic, whichever takes longer, and the KV cache."""

    overhead_s: Time = Field(default=0.0, description="launch, host and communication latency, s or with a unit")
    weights_s: Time = Field(description="the time to read the weights, s or with a unit")
    per_token_compute_s: Time = Field(description="the arithmetic per batched token, s or with a unit")
    per_token_s: Time = Field(
        default=0.0, description="costs that add to both roofs, per batched token, s or with a unit"
    )
    experts_s: Time = Field(default=0.0, description="the time to read all routed experts, s or with a unit")
    expert_share: Share = Field(default=0.0, description="experts per token over experts")
    per_kv_token_s: Time = Field(default=0.0, description=KV)
    per_prefill_context_s: Time = Field(default=0.0, description=CONTEXT)

    def build(self) -> laws.IterationLaw:
        """The law."""
        return laws.Roofline(**self.given())


class TableSection(Section):
    """Times measured on a grid, linear in between."""

    prefill_tokens: list[NonNegative] = Field(description="the grid's prompt tokens")
    decode_tokens: list[NonNegative] = Field(description="the grid's decoding requests")
    kv_tokens: list[NonNegative] = Field(description="the grid's KV tokens")
    times_s: list[list[list[PositiveTime]]] = Field(
        description="the time at each grid point, by prompt, decode and KV tokens, s or with a unit"
    )
    per_prefill_context_s: Time = Field(default=0.0, description=CONTEXT)

    def build(self) -> laws.IterationLaw:
        """The law."""
        return laws.Table(**self.given())


class IterationSection(Section):
    """A step-time law."""

    one_of: ClassVar[tuple[str, ...]] = ("affine", "hinge", "staircase", "two_phase", "roofline", "table")
    affine: AffineSection | None = Field(default=None, description="linear in tokens")
    hinge: HingeSection | None = Field(default=None, description="flat, then linear in batched tokens")
    staircase: StaircaseSection | None = Field(default=None, description="steps of batched tokens")
    two_phase: TwoPhaseSection | None = Field(default=None, description="decode-only and mixed iterations")
    roofline: RooflineSection | None = Field(default=None, description="weights or arithmetic")
    table: TableSection | None = Field(default=None, description="measured times")

    def build(self) -> laws.IterationLaw:
        """The law."""
        (section,) = self.given().values()
        law = section.build()
        assert isinstance(law, laws.IterationLaw)
        return law
