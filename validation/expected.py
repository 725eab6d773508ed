"""Cells that fail today, by name, each with its reason: strict, so that an improvement must shorten the list.

`python -m validation --list` prints what fails now in the form of the lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from importlib import resources

from .cells import Cell, Status

REASONS = {
    "chunk gate": "prompts are admitted chunk by chunk: they evict each other half-way, and no theory predicts how much",
    "wait": "the wait for admission near capacity still lacks the diffusion of the fluid limit",
    "long prompts": "prefill of many chunks correlates iteration time with what is resident; the theory takes them as "
    "independent but for a request's own work",
    "synchronised": "few distinct lengths: completions synchronise and the capacity of the cycle is not computed yet",
    "steps": "a staircase law jumps where the batch fluctuates across a step's edge; it is averaged at the mean batch",
    "step law": "the catalog's step-time law, or the want of one, misses this measurement by more than the tolerance",
    "prefix caching": "theory charges evicted requests their recomputation, which prefix caching spares in part, and the "
    "step law is 4.5 % slow",
    "order": "WAIT advances a request only when the next prompts have come, engines at every iteration (docs/scheduler-theory.md)",
    "other": "not explained yet",
}


@cache
def expected(size: str) -> dict[str, str]:
    """Name of each cell that is expected to fail in a run of this size, and why."""
    text = (resources.files(__package__) / f"expected_{size}.json").read_text(encoding="utf-8")
    return {name: REASONS[reason] for reason, names in json.loads(text).items() for name in names}


def listed(cells: Iterable[Cell]) -> dict[str, list[str]]:
    """Names of the failing cells by reason, as the lists hold them."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell.status in (Status.FAIL, Status.EXPECTED_FAIL):
            found.setdefault(_reason(cell), []).append(cell.name)
    return {reason: sorted(found[reason]) for reason in REASONS if reason in found}


def _reason(cell: Cell) -> str:
    if cell.claim in ("deployments", "published"):
        return "step law"
    if cell.claim == "real runs":
        return "prefix caching"
    if "chunk gate" in cell.case:
        return "chunk gate"
    if cell.claim == "scheduler order":
        return "order"
    if cell.claim == "ttft":
        return "wait"
    if cell.claim in ("itl", "kv occupancy"):
        return "long prompts"
    if cell.claim == "capacity" and "staircase" in cell.case:
        return "steps"
    if cell.claim == "capacity" and any(name in cell.case for name in ("constant", "two lengths")):
        return "synchronised"
    return "other"
