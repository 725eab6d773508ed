"""Comma-separated traces, cut into fields and numbers by numpy, a block of lines at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ..._types import FloatArray, IntArray
from .rows import Rows, TraceFormat
from .source import Block, TraceSource

LONGEST_FIELD = 64
"""Characters of a number or a time; a longer field is a mistake."""

Characters = npt.NDArray[np.uint8]
_T = TypeVar("_T", bound=np.generic)

_FEED, _RETURN, _COMMA, _QUOTE = (ord(c) for c in '\n\r,"')


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of some lines.

    Attributes
    ----------
    characters : (n_bytes,) uint8
        The text, and `LONGEST_FIELD` zeros.
    starts, ends : (n_rows, n_columns) int
        Where each field begins and where it has ended.
    lines : (n_rows,) int
        Line numbers in the file.
    """

    characters: Characters
    starts: IntArray
    ends: IntArray
    lines: IntArray

    def text(self, row: int, column: int) -> str:
        """One field."""
        return self.characters[self.starts[row, column] : self.ends[row, column]].tobytes().decode()

    def padded(self, column: int) -> Characters:
        """One column as a matrix of characters, one row a field, filled up with zeros; for fields of moderate length."""
        starts, widths = self.starts[:, column], self.ends[:, column] - self.starts[:, column]
        width = int(widths.max())
        # Overlapping strings, one from each character on: taking some of them copies whole fields at a time.
        every = np.ndarray((len(self.characters) - width,), f"S{width}", self.characters, strides=(1,))
        fields = every[starts].view(np.uint8).reshape(len(starts), width)
        fields *= np.arange(width) < widths[:, None]
        return fields


class CsvFormat(TraceFormat):
    """A format with one header line and one row a request."""

    required: tuple[str, str, str]
    """Names of the arrival, prompt and output columns, in lower case."""
    cached: tuple[str, ...] = ()
    """Names that a column of prefix hits may have, in lower case."""

    @abstractmethod
    def arrival_s(self, source: TraceSource, fields: Fields, column: int) -> FloatArray:
        """The arrival column in seconds."""

    def recognises(self, first_line: str) -> bool:
        return set(self.required) <= set(_names(first_line))

    def read(self, source: TraceSource) -> Iterator[Rows]:
        columns: list[str] = []
        for block in source.blocks():
            lines = block
            if not columns:
                head, _, rest = block.data.partition(b"\n")
                columns = _names(head.decode())
                repeated = [name for name in self.required if columns.count(name) > 1]
                if repeated:
                    raise source.error(1, f"the column {repeated[0]!r} stands twice, must stand once. Rename one.")
                lines = Block(rest, block.first_line + 1)
            fields = _cut(source, lines, len(columns))
            if not len(fields.lines):
                continue
            arrival, prompt, output = (columns.index(name) for name in self.required)
            hits = [columns.index(name) for name in self.cached if name in columns]
            yield Rows(
                lines=fields.lines,
                arrival_s=self.arrival_s(source, fields, arrival),
                prompt_tokens=numbers(source, fields, prompt, self.fields[1]),
                output_tokens=numbers(source, fields, output, self.fields[2]),
                cached_prefix_tokens=numbers(source, fields, hits[0], self.fields[3]) if hits else None,
            )


def numbers(source: TraceSource, fields: Fields, column: int, name: str) -> FloatArray:
    """A column of numbers, or a `TraceError` that names the first field that is none."""
    return parsed(source, fields, column, _floats, name=name, rule="a number")


def parsed(
    source: TraceSource,
    fields: Fields,
    column: int,
    read: Callable[[Characters], npt.NDArray[_T]],
    *,
    name: str,
    rule: str,
) -> npt.NDArray[_T]:
    """A column as `read` reads its characters, or a `TraceError` that names the first field it raises ValueError on."""
    widths = fields.ends[:, column] - fields.starts[:, column]
    bad = (widths < 1) | (widths > LONGEST_FIELD)
    if not bad.any():
        characters = fields.padded(column)
        try:
            return read(characters)
        except ValueError:
            bad = np.array([not _reads(read, characters[row : row + 1]) for row in range(len(characters))])
    row = int(np.argmax(bad))
    raise source.error(
        int(fields.lines[row]),
        f"{name} = {fields.text(row, column)[:LONGEST_FIELD]!r}, must be {rule}. Correct or drop the row.",
    )


def as_strings(characters: Characters) -> npt.NDArray[np.bytes_]:
    """A matrix of characters as one string a row."""
    return np.ascontiguousarray(characters).view(f"S{characters.shape[1]}")[:, 0]


def _floats(characters: Characters) -> FloatArray:
    return as_strings(characters).astype(np.float64)


def _reads(read: Callable[[Characters], npt.NDArray[_T]], characters: Characters) -> bool:
    try:
        read(characters)
    except ValueError:
        return False
    return True


def _names(header: str) -> list[str]:
    return [name.strip().strip('"').strip().casefold() for name in header.split(",")]


def _cut(source: TraceSource, block: Block, columns: int) -> Fields:
    """The fields of a block's lines; empty lines are passed over."""
    characters = np.frombuffer(block.data + bytes(LONGEST_FIELD), dtype=np.uint8)
    line_ends = np.flatnonzero(characters == _FEED)
    separators = np.flatnonzero((characters == _FEED) | (characters == _COMMA))
    line_starts = np.concatenate(([0], line_ends[:-1] + 1)) if len(line_ends) else line_ends
    widths = line_ends - line_starts
    empty = (widths == 0) | ((widths == 1) & (characters[line_starts] == _RETURN))
    lines = block.first_line + np.flatnonzero(~empty)
    if empty.any():
        separators = separators[~np.isin(separators, line_ends[empty])]
        line_starts, line_ends = line_starts[~empty], line_ends[~empty]
    _check_field_counts(source, separators, line_ends, lines, columns)
    ends = separators.reshape(-1, columns)
    starts = np.empty_like(ends)
    starts[:, 0], starts[:, 1:] = line_starts, ends[:, :-1] + 1
    ends = ends.copy()
    ends[:, -1] -= (characters[ends[:, -1] - 1] == _RETURN) & (ends[:, -1] > starts[:, -1])
    if len(lines) and _QUOTE in block.data:
        quoted = (ends - starts >= 2) & (characters[starts] == _QUOTE) & (characters[ends - 1] == _QUOTE)
        starts, ends = starts + quoted, ends - quoted
    return Fields(characters, starts, ends, lines)


def _check_field_counts(
    source: TraceSource, separators: IntArray, line_ends: IntArray, lines: IntArray, columns: int
) -> None:
    if len(separators) == columns * len(lines) and np.array_equal(separators[columns - 1 :: columns], line_ends):
        return
    counts = np.diff(np.searchsorted(separators, line_ends, side="right"), prepend=0)
    row = int(np.argmax(counts != columns))
    raise source.error(
        int(lines[row]),
        f"{counts[row]} fields, must be {columns} as in the header. Correct the row; commas inside fields are not supported.",
    )
