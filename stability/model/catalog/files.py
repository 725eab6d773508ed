"""Reading the catalog's data files and finding names in them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from importlib.resources import files
from typing import Protocol, TypeVar

from ...errors import unknown_name


class Named(Protocol):
    """A record with a name and other spellings of it."""

    @property
    def name(self) -> str:
        """The name in the catalog."""

    @property
    def aliases(self) -> tuple[str, ...]:
        """Other spellings."""


Record = TypeVar("Record", bound=Named)


def read_text(file_name: str) -> str:
    """A data file's text."""
    return (files(__package__) / "data" / file_name).read_text(encoding="utf-8")


def read_rows(file_name: str) -> list[dict[str, str]]:
    """The rows of a CSV data file."""
    return list(csv.DictReader(read_text(file_name).splitlines()))


def number_or_none(text: str) -> float | None:
    """A number, or None for an empty cell."""
    return float(text) if text else None


def split_names(text: str) -> tuple[str, ...]:
    """The names in a cell, separated by semicolons."""
    return tuple(name for name in text.split(";") if name)


def find(kind: str, name: str, records: Iterable[Record]) -> Record:
    """The record of a name, alias or `organisation/name`, in any case.

    Raises
    ------
    UnknownNameError
        If there is none; the message gives the nearest names.
    """
    known = {spelling.casefold(): record for record in records for spelling in (record.name, *record.aliases)}
    found = known.get(name.casefold()) or known.get(name.casefold().rpartition("/")[2])
    if found is None:
        raise unknown_name(kind, name, {record.name for record in known.values()})
    return found
