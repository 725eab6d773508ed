"""The `targets` of a plan: what the fleet is to achieve besides being stable."""

from __future__ import annotations

from pydantic import Field

from ...model.targets import Targets
from .section import PositiveMilliseconds, Section, Share


class TargetsSection(Section):
    """Limits besides stability."""

    itl_ms: PositiveMilliseconds | None = Field(
        default=None, description="the mean inter-token latency, ms or with a unit"
    )
    ttft_p99_ms: PositiveMilliseconds | None = Field(
        default=None, description="the 99th percentile of the time to first token, ms or with a unit"
    )
    ttft_ms: PositiveMilliseconds | None = Field(
        default=None, description="the mean time to first token, ms or with a unit"
    )
    headroom: Share | None = Field(
        default=None, description="the share of the capacity that is to stay free, as in 0.1 or '10%'"
    )

    def build(self) -> Targets:
        """The targets in SI units."""
        return Targets(itl_s=self.itl_ms, ttft_p99_s=self.ttft_p99_ms, ttft_mean_s=self.ttft_ms, headroom=self.headroom)
