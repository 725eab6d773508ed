"""Cells that fail today, by name, each with its reason: strict, so that an improvement must shorten the list."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

REASONS = {
    "evictions": "the capacity of an evicting gate still lacks the eviction waste",
    "wait": "the wait for admission still lacks the diffusion of the fluid limit",
}


@cache
def expected(size: str) -> dict[str, str]:
    """Name of each cell that is expected to fail in a run of this size, and why."""
    text = (resources.files(__package__) / f"expected_{size}.json").read_text(encoding="utf-8")
    return {name: REASONS[reason] for reason, names in json.loads(text).items() for name in names}
