"""Files of rows: JSON lines that survive a kill, in a final order that does not depend on who finished first; Parquet."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from .._extras import needs
from ..errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SYNC_S = 1.0
"""Longest time between two calls that make rows safe from a power failure, s; a killed process loses none."""

_BEGIN = b'{"key"'
"""How every row begins."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands in its file."""

    offset: int
    length: int
    status: str


class Journal:
    """Rows on disk, by key. A context manager; one at a time may have a file open.

    Parameters
    ----------
    path : Path
        A file of JSON lines; made if absent. What an interrupted write left of a last line is cut off.

    Raises
    ------
    InputError
        If the file cannot be opened, holds anything else, or is being written by another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Place] = {}
        self._synced_at_s = time.monotonic()
        try:
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror or error}). Name another output.") from None

    def __enter__(self) -> Journal:
        try:
            _lock(self._file, self.path)
            self._end = 0
            self._file.seek(0)
            for line, row in _rows(self._file, self.path):
                self.rows[row["key"]] = Place(self._end, len(line), row["status"])
                self._end += len(line)
            self._file.truncate(self._end)
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ValueError):  # closed already
            self._sync()
        self._file.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row, or replace the one with its key."""
        line = (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode()
        self._file.write(line)
        self._file.flush()
        self.rows[row["key"]] = Place(self._end, len(line), row["status"])
        self._end += len(line)
        if time.monotonic() - self._synced_at_s > SYNC_S:
            self._sync()

    def sort(self, keys: Iterable[str]) -> None:
        """Rewrite the file with the rows of `keys`, in their order, and no others; all at once or not at all."""
        draft = self.path.with_name(self.path.name + ".sorting")
        with draft.open("wb") as out:
            for key in keys:
                place = self.rows[key]
                self._file.seek(place.offset)
                out.write(self._file.read(place.length))
            out.flush()
            os.fsync(out.fileno())
        self._file.close()
        draft.replace(self.path)

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced_at_s = time.monotonic()


def journal_path(output: Path) -> Path:
    """The JSON lines behind an output; beside a Parquet file, which is made of them at the end."""
    return output.with_suffix(".jsonl")


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of a sweep, finished or not.

    Parameters
    ----------
    path : str or os.PathLike
        A .jsonl or .parquet file of `run`.

    Returns
    -------
    pandas.DataFrame
        One row per point and seed; units in the names of the columns.

    Raises
    ------
    InputError
        If the file is absent or holds anything else.
    """
    needs("pandas")
    import pandas as pd

    file = Path(path)
    if not file.is_file():
        raise InputError(f"{file} is no file, must be the output of a sweep. Check the path.")
    if file.suffix == ".parquet":
        _need_pyarrow()
        return pd.read_parquet(file)
    with file.open("rb") as lines:
        rows = {row["key"]: row for _, row in _rows(lines, file)}
    return pd.DataFrame(list(rows.values()))


def write_parquet(journal: Path, output: Path) -> None:
    """Rows of JSON lines as a Parquet file; values that are lists or mappings, or of several types, as JSON text."""
    _need_pyarrow()
    frame = read(journal)
    for name in frame.columns:
        kinds = set(frame[name].dropna().map(type))
        if len(kinds) > 1 or kinds & {list, dict}:
            frame[name] = [json.dumps(value, ensure_ascii=False) for value in frame[name]]
    draft = output.with_name(output.name + ".writing")
    frame.to_parquet(draft, index=False)
    draft.replace(output)


def _need_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise InputError(
            "Parquet needs pyarrow, which is not installed. Run `pip install 'llm-stability[parquet]'`, or name a .jsonl file."
        ) from None


def _rows(file: BinaryIO, path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Lines with their rows; a last line that was cut short is left out."""
    for number, line in enumerate(file, 1):
        if not line.endswith(b"\n") and (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
            return
        try:
            row = json.loads(line)
            row["key"], row["status"]
        except (ValueError, TypeError, KeyError):
            raise InputError(
                f"{path}:{number} is no row of a sweep, the file must hold only such. Name another output."
            ) from None
        yield line, row


def _lock(file: BinaryIO, path: Path) -> None:
    """Keep other processes from the file while it is open; the system drops the lock when a process dies."""
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise InputError(
            f"{path} is being written by another sweep, must be by one at a time. Wait or name another output."
        ) from None
