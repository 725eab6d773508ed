"""The `schedule` of a plan: a rate over time, in the plan or in a file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar

from pydantic import Field, StrictBool

from ... import units
from ...errors import InputError
from ...model.arrivals import RateSchedule
from ..traces.source import TraceSource
from .section import PositiveTime, Rate, Section, Text, Time
from .source import PlanSource

STARTS = ("start_s", "t_s")
"""What the first column of a schedule file may be called."""


class WindowSection(Section):
    """A time from which on a rate holds."""

    start: Time = Field(description="where the window begins, s or with a unit")
    rate_per_s: Rate = Field(description="the rate in it, 1/s")


class ScheduleSection(Section):
    """A rate that is constant in each of consecutive windows."""

    one_of: ClassVar[tuple[str, ...]] = ("file", "windows")
    file: Text | None = Field(
        default=None, description="a CSV file with the columns start_s and rate_per_s, relative to the plan"
    )
    where: dict[str, str] | None = Field(
        default=None, description="only rows of the file whose columns have these values: {workload: m-large}"
    )
    windows: list[WindowSection] | None = Field(default=None, min_length=1, description="windows in the order of time")
    end: PositiveTime | None = Field(
        default=None, description="where the last window ends; as long as the one before if omitted, s or with a unit"
    )
    repeat: StrictBool = Field(default=True, description="whether the schedule starts again at its end")

    def build(self, source: PlanSource) -> RateSchedule:
        """The schedule."""
        if self.file is not None:
            starts, rates = _read(source.folder / self.file, self.where or {})
        else:
            assert self.windows is not None
            if self.where is not None:
                raise InputError("where picks rows of a file, must come with file. Remove it.")
            starts, rates = [w.start for w in self.windows], [w.rate_per_s for w in self.windows]
        end = self.end
        if end is None:
            if len(starts) < 2:
                raise InputError("end is missing, must be given with a single window. Say where the window ends.")
            end = starts[-1] + (abs(starts[-1] - starts[-2]) or 1.0)  # windows out of order are refused below
        return RateSchedule(starts, rates, end_s=end, repeat=self.repeat)


def _read(path: Path, where: dict[str, str]) -> tuple[list[float], list[float]]:
    """Starts in seconds and rates per second of a schedule file, of the rows with the values of `where`."""
    source = TraceSource(path)
    lines = b"".join(block.data for block in source.blocks()).decode().splitlines()
    rows = csv.reader(lines)
    header = [name.strip() for name in next(rows, [])]
    start = next((name for name in STARTS if name in header), None)
    if start is None or "rate_per_s" not in header:
        raise source.error(1, f"columns {header}, must have start_s and rate_per_s. Name them in the first line.")
    unknown = sorted(set(where) - set(header))
    if unknown:
        raise source.error(1, f"columns {header} lack {unknown}, must have what where asks for. Correct where.")
    wanted = [(header.index(name), value) for name, value in where.items()]
    starts, rates = [], []
    for row in rows:
        if not row:
            continue
        if len(row) != len(header):
            raise source.error(
                rows.line_num, f"{len(row)} fields, must be {len(header)} as in the header. Correct the row."
            )
        if any(row[column].strip() != value for column, value in wanted):
            continue
        try:
            starts.append(units.number(start, row[header.index(start)]))
            rates.append(units.number("rate_per_s", row[header.index("rate_per_s")]))
        except InputError as error:
            raise source.error(rows.line_num, str(error)) from None
    if not starts:
        raise source.error(
            1, f"no rows{f' where {where}' if where else ''}, must be at least one. Correct the file or where."
        )
    return starts, rates
