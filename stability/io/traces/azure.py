"""Azure's public LLM inference traces (https://github.com/Azure/AzurePublicDataset): `TIMESTAMP,ContextTokens,GeneratedTokens`.

The clock shows date and time in UTC, with up to nine decimals of a second; arrivals count from the first row.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from ..._types import FloatArray
from .csv import Characters, CsvFormat, Fields, as_strings, parsed
from .source import TraceSource

_RULE = "a UTC time such as 2023-11-16 18:15:46.68059"
_UTC = np.frombuffer(b"+00:Z\0", dtype=np.uint8)
"""What may stand where the offset from UTC stands."""


class Azure(CsvFormat):
    """Time of day, context and generated tokens."""

    name = "azure"
    header = "TIMESTAMP,ContextTokens,GeneratedTokens (Azure, CSV)"
    fields = ("TIMESTAMP", "ContextTokens", "GeneratedTokens", "")
    required = ("timestamp", "contexttokens", "generatedtokens")
    counts_from_first_row = True

    def __init__(self) -> None:
        self._origin: np.datetime64 | None = None

    def arrival_s(self, source: TraceSource, fields: Fields, column: int) -> FloatArray:
        instants = parsed(source, fields, column, _instants, name=self.fields[0], rule=_RULE)
        if self._origin is None:
            self._origin = instants[0]
        return (instants - self._origin).astype(np.float64) / 1e9


def _instants(characters: Characters) -> npt.NDArray[np.datetime64]:
    """Times of day in nanoseconds; ValueError unless all are in UTC."""
    zone = np.maximum.accumulate((characters == ord("+")) | (characters == ord("Z")), axis=1)
    if zone.any():
        if not np.isin(characters[zone], _UTC).all():
            raise ValueError("not UTC")
        characters = np.where(zone, np.uint8(0), characters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy reads other offsets with a warning
        try:
            instants = as_strings(characters).astype("datetime64[ns]")
        except Warning:
            raise ValueError("not UTC") from None
    if np.isnat(instants).any():
        raise ValueError("not a time")
    return instants
