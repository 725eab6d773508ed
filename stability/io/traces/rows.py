"""What a reader hands over, and the checks that every trace passes, whatever its format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..._types import BoolArray, FloatArray, IntArray
from ...errors import TraceError
from ...model.lengths.marginal import MAX_TOKENS
from .source import TraceSource
from .trace import Trace

COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "cached_prefix_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Consecutive rows of a trace as they stand in the file, shape (n,) each, unchecked.

    Attributes
    ----------
    lines : int
        Where each row stands in the file.
    arrival_s : float
        On the clock of the file, s.
    prompt_tokens, output_tokens : float
        Lengths, tokens.
    cached_prefix_tokens : float, or None
        Leading prompt tokens found in the prefix cache.
    """

    lines: IntArray
    arrival_s: FloatArray
    prompt_tokens: FloatArray
    output_tokens: FloatArray
    cached_prefix_tokens: FloatArray | None = None


class TraceFormat(ABC):
    """One file format."""

    name: str
    """What `format=` calls it."""
    header: str
    """What its first line looks like, for messages."""
    fields: tuple[str, str, str, str]
    """What the file calls arrival, prompt, output and prefix-hit columns, for messages."""
    counts_from_first_row: bool = False
    """Whether the file gives times of day, so that arrivals count from its first row."""

    @abstractmethod
    def recognises(self, first_line: str) -> bool:
        """Whether a file that begins with `first_line` is of this format."""

    @abstractmethod
    def read(self, source: TraceSource) -> Iterator[Rows]:
        """The rows in the order of the file."""


class RowChecks:
    """Checks rows block by block and gathers them into a `Trace`."""

    def __init__(self, source: TraceSource, form: TraceFormat, *, sort: bool) -> None:
        self.source, self.form, self.sort = source, form, sort
        self._columns: dict[str, list[FloatArray]] = {name: [] for name in COLUMNS}
        self._last_s = -np.inf
        self._rows = self._empty = self._first_empty = 0
        self._unsorted = False

    def add(self, rows: Rows) -> None:
        """Take over rows, without those that have no prompt or no output tokens."""
        if not len(rows.lines):
            return
        arrival, prompt, output, cached = self.form.fields
        self._refuse(rows, ~np.isfinite(rows.arrival_s), arrival, rows.arrival_s, "a finite time")
        if not self.form.counts_from_first_row:
            self._refuse(rows, rows.arrival_s < 0, arrival, rows.arrival_s, ">= 0")
        for name, values in ((prompt, rows.prompt_tokens), (output, rows.output_tokens)):
            self._check_tokens(rows, name, values)
        if rows.cached_prefix_tokens is not None:
            self._check_tokens(rows, cached, rows.cached_prefix_tokens)
            over = rows.cached_prefix_tokens > rows.prompt_tokens
            self._refuse(rows, over, cached, rows.cached_prefix_tokens, f"<= {prompt}")
        self._check_order(rows)
        self._rows += len(rows.lines)
        keep: BoolArray = (rows.prompt_tokens > 0) & (rows.output_tokens > 0)
        if not keep.all():
            self._first_empty = self._first_empty or int(rows.lines[np.argmin(keep)])
            self._empty += int(np.count_nonzero(~keep))
        for name, pieces in self._columns.items():
            column = getattr(rows, name)
            if column is not None:
                pieces.append(column[keep])

    def trace(self) -> Trace:
        """All rows taken so far."""
        name = self.source.name
        if self._rows == 0:
            raise TraceError(f"{name} holds no requests, must hold at least one after its header. Check the file.")
        if self._empty == self._rows:
            raise TraceError(
                f"{name} holds {self._rows} rows without prompt or output tokens, must hold one with both. Check the file."
            )
        columns = {column: _joined(pieces) for column, pieces in self._columns.items() if pieces}
        notes = []
        if self._empty:
            notes.append(
                f"dropped {self._empty} of {self._rows} rows without prompt or output tokens (first in line {self._first_empty})"
            )
        if self._unsorted:
            order = np.argsort(columns["arrival_s"], kind="stable")
            columns = {column: values[order] for column, values in columns.items()}
            if self.form.counts_from_first_row:
                columns["arrival_s"] = columns["arrival_s"] - columns["arrival_s"][0]
            notes.append("sorted the rows by arrival")
        arrival = columns.pop("arrival_s")
        tokens = {column: values.astype(np.int64) for column, values in columns.items()}
        hits = tokens.get("cached_prefix_tokens")
        if hits is not None and hits.any():
            share = hits.sum() / tokens["prompt_tokens"].sum()
            notes.append(
                f"{share:.1%} of the prompt tokens would hit an unbounded prefix cache; all of them are counted"
            )
        return Trace(
            arrival_s=arrival,
            prompt_tokens=tokens["prompt_tokens"],
            output_tokens=tokens["output_tokens"],
            cached_prefix_tokens=hits,
            notes=tuple(notes),
            source=name,
        )

    def _check_tokens(self, rows: Rows, name: str, values: FloatArray) -> None:
        bad = ~((values >= 0) & (values <= MAX_TOKENS))
        self._refuse(rows, bad, name, values, f"between 0 and {MAX_TOKENS} tokens")
        self._refuse(rows, values != np.floor(values), name, values, "a whole number of tokens")

    def _check_order(self, rows: Rows) -> None:
        before = np.concatenate(([self._last_s], rows.arrival_s[:-1]))
        down: BoolArray = rows.arrival_s < before
        self._last_s = float(rows.arrival_s[-1])
        if not down.any():
            return
        if not self.sort:
            at = int(np.argmax(down))
            raise self.source.error(
                int(rows.lines[at]),
                f"arrival at {rows.arrival_s[at]:.10g} s after one at {before[at]:.10g} s, must not decrease. "
                "Sort the file, or its rows on reading (--sort, sort=True).",
            )
        self._unsorted = True

    def _refuse(self, rows: Rows, bad: BoolArray, name: str, values: FloatArray, rule: str) -> None:
        if bad.any():
            at = int(np.argmax(bad))
            raise self.source.error(
                int(rows.lines[at]), f"{name} = {values[at]:.15g}, must be {rule}. Correct or drop the row."
            )


def _joined(pieces: list[FloatArray]) -> FloatArray:
    whole: FloatArray = np.concatenate(pieces)
    pieces.clear()  # a long trace need not be held twice
    return whole
