"""Places in a plan, values put there, and names for points that never change."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from ..errors import InputError
from ..io.plan.source import Key, PlanSource

_KEY = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*|\[\d{1,6}\])*")
_PART = re.compile(r"([A-Za-z_]\w*)|(\d+)")

_FILE_KEYS = ("trace", "file")
"""Keys of a plan that name files."""


def parse_key(text: str) -> Key:
    """`fleet[0].replicas` as a key.

    Examples
    --------
    >>> parse_key("fleet[0].engine.watermark")
    ('fleet', 0, 'engine', 'watermark')
    """
    if not _KEY.fullmatch(text):
        raise InputError(
            f"{text!r} is no place in a plan, must look like workload.rate_per_s or fleet[0].replicas. Correct it."
        )
    return tuple(part[1] or int(part[2]) for part in _PART.finditer(text))


def with_value(data: object, key: Key, value: object) -> object:
    """A copy of `data` with `value` at `key`; mappings that are missing on the way are made."""
    if not key:
        return value
    head, rest = key[0], key[1:]
    if isinstance(head, int):
        if not isinstance(data, list) or head >= len(data):
            has = f"a list of {len(data)}" if isinstance(data, list) else "no list"
            raise InputError(f"[{head}] asks for an item of {has}, must be one that the base plan holds. Count from 0.")
        return [with_value(item, rest, value) if i == head else item for i, item in enumerate(data)]
    if data is not None and not isinstance(data, dict):
        raise InputError(
            f"{head} is a key inside {data!r}, must be inside a mapping. Write the base plan with keys there."
        )
    known = data or {}
    return {**known, head: with_value(known.get(head), rest, value)}


def substituted(base: PlanSource, values: Mapping[Key, object]) -> PlanSource:
    """The base plan with values in their places; lines of what they replace are forgotten."""
    data = base.data
    lines = dict(base.lines)
    for key, value in values.items():
        data = with_value(data, key, value)
        lines = {place: line for place, line in lines.items() if place[: len(key)] != key}
    return PlanSource(name=base.name, folder=base.folder, data=data, lines=lines)


def canonical(value: object) -> str:
    """JSON in which equal values are equal texts: sorted keys, whole numbers without a fraction.

    Examples
    --------
    >>> canonical({"b": 1.0, "a": [1000]})
    '{"a":[1000],"b":1}'
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """128 bits of the SHA-256 of the canonical text, in hexadecimal."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


@cache
def version() -> str:
    """The version of this package, whose rows alone are taken over; of a development version also a digest of its sources."""
    try:
        found = metadata.version("llm-stability")
    except metadata.PackageNotFoundError:
        found = "dev"
    if "dev" not in found:
        return found
    sources = hashlib.sha256()
    package = Path(__file__).parents[1]
    for path in sorted(path for kind in ("*.py", "*.csv", "*.json") for path in package.rglob(kind)):
        sources.update(path.relative_to(package).as_posix().encode())
        sources.update(path.read_bytes())
    return f"{found}+{sources.hexdigest()[:16]}"


def file_digests(data: object, folder: Path, known: dict[str, str]) -> dict[str, str]:
    """SHA-256 of every file a plan names, by the name; `known` keeps them, so that each is read once."""
    for name in _file_names(data):
        if name not in known:
            try:
                with (folder / name).open("rb") as file:
                    known[name] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                known[name] = "unreadable"  # its points become rows that say so
    return {name: known[name] for name in _file_names(data)}


def _file_names(data: object) -> Iterable[str]:
    if isinstance(data, dict):
        for key, value in data.items():
            if key in _FILE_KEYS and isinstance(value, str):
                yield value
            else:
                yield from _file_names(value)
    elif isinstance(data, list):
        for item in data:
            yield from _file_names(item)


def _plain(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
