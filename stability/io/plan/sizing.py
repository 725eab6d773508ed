"""The `sizing` of a plan: what `stability size` may choose from, and what the choice has to withstand."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ...model.candidate import Candidate, Sizing
from .fleet import ReplicaSection
from .problems import Problems
from .section import CountOrNone, NonNegative, Section, Text
from .source import Key


class CandidateSection(ReplicaSection):
    """A kind of replica that the fleet may hold some of."""

    named: ClassVar[str] = "candidate"
    candidate: Text = Field(description="a name of its own")
    at_least: CountOrNone = Field(default=0, description="the fewest replicas, such as those bought already")
    at_most: CountOrNone | None = Field(default=None, description="the most replicas, such as a quota")

    def build(self, problems: Problems, key: Key) -> Candidate | None:
        """The candidate, or None after noting why there is none."""
        replica = self.replica(problems, key)
        if replica is None:
            return None
        return problems.attempt(
            key, lambda: Candidate(self.candidate, replica, at_least=self.at_least, at_most=self.at_most)
        )


class SizingSection(Section):
    """What the cheapest fleet may be built from."""

    candidates: list[CandidateSection] | None = Field(
        default=None, min_length=1, description="kinds of replica; those of the fleet if omitted"
    )
    spares: CountOrNone = Field(default=0, description="how many replicas may fail at a time")
    switching_cost: NonNegative | None = Field(
        default=None,
        description="the price of starting a replica, with which the fleet may follow the schedule; one fleet for all hours if omitted",
    )

    def build(self, problems: Problems, key: Key) -> Sizing | None:
        """The choice, or None after noting why there is none."""
        built = [item.build(problems, (*key, "candidates", i)) for i, item in enumerate(self.candidates or [])]
        kept = [item for item in built if item is not None]
        if len(kept) < len(built):
            return None
        return problems.attempt(
            key, lambda: Sizing(candidates=kept, spares=self.spares, switching_cost=self.switching_cost)
        )
