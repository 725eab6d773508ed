"""Mooncake's traces (https://github.com/kvcache-ai/Mooncake): one JSON object a line.

`{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, ...]}` with the timestamp in
milliseconds and one hash per block of 512 prompt tokens, each standing for the whole prefix up to its block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np

from .rows import Rows, TraceFormat
from .source import TraceSource

BLOCK_TOKENS = 512
"""Prompt tokens behind one hash."""


class Mooncake(TraceFormat):
    """Prefix hits are those of an unbounded cache: the leading blocks that some earlier request has brought."""

    name = "mooncake"
    header = '{"timestamp": ..., "input_length": ..., "output_length": ..., "hash_ids": [...]} (Mooncake, JSON lines)'
    fields = ("timestamp", "input_length", "output_length", "hash_ids")

    def recognises(self, first_line: str) -> bool:
        try:
            entry = json.loads(first_line)
        except (ValueError, RecursionError):
            return False
        return isinstance(entry, dict) and set(self.fields[:3]) <= entry.keys()

    def read(self, source: TraceSource) -> Iterator[Rows]:
        seen: set[object] = set()
        for block in source.blocks():
            lines, values = [], []
            for line, text in enumerate(block.data.splitlines(), block.first_line):
                if text.strip():
                    lines.append(line)
                    values.append(_entry(source, line, text, seen))
            table = np.array(values, dtype=np.float64).reshape(-1, 4)
            yield Rows(
                lines=np.array(lines, dtype=np.int64),
                arrival_s=table[:, 0] / 1e3,
                prompt_tokens=table[:, 1],
                output_tokens=table[:, 2],
                cached_prefix_tokens=table[:, 3],
            )


def _entry(source: TraceSource, line: int, text: bytes, seen: set[object]) -> tuple[float, float, float, float]:
    """Timestamp, lengths and prefix hits of one request; its blocks join `seen`."""
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        raise source.error(line, "no JSON object, must be one a line. Correct or drop the line.") from None
    if not isinstance(entry, dict):
        raise source.error(line, f"a JSON {type(entry).__name__}, must be an object. Correct or drop the line.")
    numbers = [_number(source, line, entry, name) for name in Mooncake.fields[:3]]
    hashes = entry.get("hash_ids", [])
    if not isinstance(hashes, list) or not all(isinstance(item, int | str) for item in hashes):
        raise source.error(line, "hash_ids must be a list of integers or texts. Correct or drop the line.")
    known = next((index for index, item in enumerate(hashes) if item not in seen), len(hashes))
    seen.update(hashes[known:])
    return numbers[0], numbers[1], numbers[2], min(float(known * BLOCK_TOKENS), numbers[1])


def _number(source: TraceSource, line: int, entry: dict[str, object], name: str) -> float:
    value = entry.get(name)
    if value is None:
        raise source.error(line, f"{name} is missing, every request must have one. Correct or drop the line.")
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e300:
        raise source.error(line, f"{name} = {value!r:.40}, must be a number. Correct or drop the line.")
    return float(value)
