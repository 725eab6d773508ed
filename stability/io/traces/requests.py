"""The plain format: `arrival_s,prompt_tokens,output_tokens`, with further columns in any order."""

from __future__ import annotations

from ..._types import FloatArray
from .csv import CsvFormat, Fields, numbers
from .source import TraceSource


class RequestsCsv(CsvFormat):
    """Arrival in seconds and two token counts a row; `prefix_hit_tokens` or `cached_prefix_tokens` is read, too."""

    name = "requests"
    header = "arrival_s,prompt_tokens,output_tokens (CSV)"
    fields = ("arrival_s", "prompt_tokens", "output_tokens", "prefix hits")
    required = ("arrival_s", "prompt_tokens", "output_tokens")
    cached = ("prefix_hit_tokens", "cached_prefix_tokens")

    def arrival_s(self, source: TraceSource, fields: Fields, column: int) -> FloatArray:
        return numbers(source, fields, column, self.fields[0])
