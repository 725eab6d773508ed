"""BurstGPT (https://github.com/HPMLL/BurstGPT): `Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type`.

Later releases add `Session ID` and `Elapsed time`. Timestamps are seconds; a failed request has 0 response tokens.
"""

from __future__ import annotations

from ..._types import FloatArray
from .csv import CsvFormat, Fields, numbers
from .source import TraceSource


class BurstGpt(CsvFormat):
    """Timestamps in seconds, request and response tokens."""

    name = "burstgpt"
    header = "Timestamp,Model,Request tokens,Response tokens,... (BurstGPT, CSV)"
    fields = ("Timestamp", "Request tokens", "Response tokens", "")
    required = ("timestamp", "request tokens", "response tokens")

    def arrival_s(self, source: TraceSource, fields: Fields, column: int) -> FloatArray:
        return numbers(source, fields, column, self.fields[0])
