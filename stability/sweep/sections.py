"""The keys of a grid file."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, StrictBool, model_validator

from ..errors import InputError, check_choice
from ..io.plan.section import Count, Number, PositiveTime, Section, Share, Text
from ..policies.routers import ROUTERS

SCHEMA = "stability/grid/1"

MOST_STEPS = 1_000_000


class AxisSection(Section):
    """Values of one key: a list of them, or a range of numbers."""

    bare: ClassVar[str] = "values"
    values: list[Any] | None = Field(default=None, min_length=1, description="a list of values")
    from_: Number | None = Field(default=None, alias="from", description="the first number of the range")
    to: Number | None = Field(default=None, description="the last number of the range")
    steps: Count | None = Field(default=None, le=MOST_STEPS, description="how many numbers, both ends included")
    log: StrictBool = Field(default=False, description="whether the numbers grow by a factor, not by a term")

    @model_validator(mode="after")
    def _check_range(self) -> AxisSection:
        given = [
            name for name, value in (("from", self.from_), ("to", self.to), ("steps", self.steps)) if value is not None
        ]
        if self.values is not None and (given or self.log):
            raise InputError("both a list of values and a range, must be one of them. Drop one.")
        if self.values is None and len(given) < 3:
            raise InputError(
                f"a range with {' and '.join(given) or 'nothing'}, must have from, to and steps. Add what is missing."
            )
        if self.log and not (self.from_ and self.to and self.from_ > 0 and self.to > 0):
            raise InputError(f"from = {self.from_}, to = {self.to}, must be > 0 where log is true. Move the ends.")
        return self

    def expand(self) -> tuple[object, ...]:
        """The values in order; numbers of a range are rounded to 12 digits, whole ones are integers."""
        if self.values is not None:
            return tuple(self.values)
        assert self.from_ is not None
        assert self.to is not None
        assert self.steps is not None
        return tuple(_whole(_between(self.from_, self.to, i, self.steps, log=self.log)) for i in range(self.steps))


class SimulateSection(Section):
    """Arguments of `stability.simulate`."""

    requests: Count | None = Field(default=None, description="how many requests arrive")
    horizon_s: PositiveTime | None = Field(default=None, description="when the run ends, s or with a unit")
    saturated: StrictBool = Field(default=False, description="whether all requests wait at time 0, to measure capacity")
    concurrency: Count | None = Field(default=None, description="requests in the system in a closed loop")
    router: Text = Field(default="join_shortest_kv", description=f"one of {', '.join(ROUTERS)}")
    warmup: Share = Field(default=0.1, description="the share of the requests left out of means")

    @model_validator(mode="after")
    def _check(self) -> SimulateSection:
        check_choice("router", self.router, ROUTERS)
        if self.requests is None and self.horizon_s is None:
            raise InputError("neither requests nor horizon_s, must have one of them. Say how long a run is.")
        return self


class GridSection(Section):
    """A base plan, the keys that vary, and what to compute at each point."""

    schema_: Literal["stability/grid/1"] = Field(alias="schema", description=f"the format of the grid, {SCHEMA}")
    plan: Text | None = Field(
        default=None, description="the base plan, relative to the grid; the bundled one if omitted"
    )
    axes: dict[str, AxisSection] = Field(min_length=1, description="keys of the plan with their values")
    seeds: AxisSection | None = Field(default=None, description="seeds of the simulation, a list or a range")
    analyze: StrictBool = Field(default=True, description="whether to predict verdict, capacity and load")
    latency: StrictBool = Field(default=False, description="whether to predict the time to first token")
    simulate: SimulateSection | None = Field(default=None, description="what to simulate")
    output: Text | None = Field(
        default=None, description="the file of the rows, .jsonl or .parquet, relative to the grid"
    )


def _between(first: float, last: float, index: int, steps: int, *, log: bool) -> float:
    if index in (0, steps - 1):
        return last if index else first
    share = index / (steps - 1)
    value = first * (last / first) ** share if log else first + (last - first) * share
    return float(f"{value:.12g}")


def _whole(value: float) -> int | float:
    return int(value) if math.isfinite(value) and value.is_integer() else value
