"""Small tables of numbers in CSV files, with the line of whatever is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import math
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..._types import FloatArray
from ...errors import InputError

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

GZIP = b"\x1f\x8b"
"""How a gzipped file begins."""


class CsvTable:
    """The rows of a CSV file with one header line, as text.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        reader = csv.reader(io.StringIO(read_text(path), newline=None))  # any line ends, CR alone too
        self.header: list[str] = []
        self.rows: list[list[str]] = []
        self.lines: list[int] = []
        for row in self._rows(reader):
            if not any(field.strip() for field in row) or row[0].lstrip().startswith("#"):
                continue
            fields = [field.strip() for field in row]
            if not self.header:
                self.header = [field.casefold() for field in fields]
                repeated = sorted({name for name in self.header if self.header.count(name) > 1})
                if repeated:
                    raise self.error(
                        reader.line_num, f"the column {repeated[0]!r} stands twice, must stand once. Rename one."
                    )
                continue
            if len(fields) != len(self.header):
                raise self.error(
                    reader.line_num,
                    f"{len(fields)} fields, must be {len(self.header)} as in the header. Correct the row.",
                )
            self.rows.append(fields)
            self.lines.append(reader.line_num)
        if not self.rows:
            raise InputError(f"{self.name} holds no rows, must hold a header and at least one row. Check the file.")

    def _rows(self, reader: CsvReader) -> Iterator[list[str]]:
        try:
            yield from reader
        except csv.Error as error:
            raise self.error(reader.line_num, f"no CSV ({error}), must be. Correct the file.") from None

    def error(self, line: int, text: str) -> InputError:
        """The error for what is wrong in one line."""
        return InputError(f"{self.name}:{line}: {text}")

    def text(self, column: str) -> list[str]:
        """One column as it stands."""
        place = self.header.index(column)
        return [row[place] for row in self.rows]

    def numbers(
        self, column: str, *, factor: float = 1.0, at_least: float = 0.0, above: float | None = None
    ) -> FloatArray:
        """One column as finite numbers times `factor`; the bounds are those of the file's unit."""
        rule = f"a finite number {f'> {above:g}' if above is not None else f'>= {at_least:g}'}"
        found = []
        for text, line in zip(self.text(column), self.lines, strict=True):
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value) or value < at_least or (above is not None and not value > above):
                raise self.error(line, f"{column} = {text!r}, must be {rule}. Correct or drop the row.")
            found.append(value)
        return np.array(found) * factor

    def find(self, what: str, names: Mapping[str, float], *, required: bool = True) -> tuple[str, float] | None:
        """The one of the columns `names` (with the factor to SI) that the header has, or an error that lists them."""
        present = [name for name in names if name in self.header]
        if len(present) > 1:
            raise self.error(1, f"the columns {' and '.join(present)} both give {what}, must be one. Drop one.")
        if present:
            return present[0], names[present[0]]
        if required:
            raise self.error(
                1,
                f"no column for {what}, must be one of {', '.join(names)}. The header is {','.join(self.header)[:200]}.",
            )
        return None

    def where(self, conditions: Sequence[tuple[str, str]]) -> None:
        """Keep the rows whose columns have the given texts."""
        for column, value in conditions:
            key = column.casefold()
            if key not in self.header:
                raise self.error(
                    1, f"no column {column!r} to select by, must be one of {', '.join(self.header)}. Correct --where."
                )
            texts = self.text(key)
            keep = [i for i, text in enumerate(texts) if text == value]
            if not keep:
                known = sorted(set(texts))
                raise InputError(
                    f"{self.name}: no row with {column} = {value!r}, must be one of {', '.join(known[:12])}"
                    f"{', ...' if len(known) > 12 else ''}. Correct --where."
                )
            self.rows, self.lines = [self.rows[i] for i in keep], [self.lines[i] for i in keep]


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file, plain or gzipped, or an `InputError` in one sentence."""
    name = os.fspath(path)
    try:
        data = Path(path).read_bytes()
        return (gzip.decompress(data) if data[:2] == GZIP else data).decode("utf-8-sig")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(
            f"{name} cannot be unpacked ({error}), must be text, plain or gzipped. Check the file."
        ) from None
    except FileNotFoundError:
        raise InputError(f"{name} does not exist, must be a file of measurements. Check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{name} is a folder, must be a file of measurements. Name the file in it.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{name}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8, the file must be. Save it as UTF-8."
        ) from None
    except OSError as error:
        raise InputError(
            f"{name} cannot be read ({error.strerror or error}), must be a file. Check the file."
        ) from None


def example(kind: str) -> Path:
    """The bundled measurements of a kind (steps, benchmark, lengths or metrics): synthetic, of a known law."""
    return Path(__file__).parent / "examples" / f"{kind}.{'prom.gz' if kind == 'metrics' else 'csv'}"
