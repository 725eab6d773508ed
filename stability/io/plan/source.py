"""The raw content of a plan file and where each of its values stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Key = tuple[str | int, ...]
"""The way to a value from the top of the file: keys of mappings and indices of lists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSource:
    """A parsed file.

    Attributes
    ----------
    name : str
        The file, for messages.
    folder : Path
        What relative paths in the plan start from.
    data : object
        Mappings, lists and scalars.
    lines : mapping of Key to int
        Line of each value; empty for TOML, whose parser does not tell.
    notes : list of str
        What was done on reading the files it names.
    """

    name: str
    folder: Path
    data: object
    lines: Mapping[Key, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def has(self, key: Key) -> bool:
        """Whether the file holds a value there."""
        try:
            self.at(key)
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def at(self, key: Key) -> object:
        """The value there."""
        value = self.data
        for part in key:
            value = value[part]  # type: ignore[index]
        return value

    def written(self, key: Key) -> Key:
        """The longest part of `key` that stands in the file."""
        while key and not self.has(key):
            key = key[:-1]
        return key

    def place(self, key: Key) -> str:
        """Where the value (or what should hold it) stands: `plan.yaml:14`."""
        line = self.lines.get(self.written(key))
        return self.name if line is None else f"{self.name}:{line}"


def dotted(key: Key) -> str:
    """A key as text: `fleet[2].replicas`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")
