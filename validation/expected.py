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
    "chunk gate": "prompts are admitted chunk by chunk and evict themselves half-way: how much they waste is an estimate, which "
    "latency below capacity does not take into account",
    "wait": "the diffusion leaves out evictions below capacity that chance alone causes, the queue for the token budget while "
    "others wait for admission, and the convergence of heavy tails; with so few requests the simulated mean is uncertain, too",
    "chance": "the queues of independent replicas spread by chance, and the last of them drains later than their mean, which is all "
    "that the limit knows",
    "long prompts": "prefill of many chunks correlates iteration time with what is resident; the theory takes them as "
    "independent but for a request's own work",
    "synchronised": "few distinct lengths: completions synchronise; the cycle is that of the limit of many requests, and what chance "
    "adds to it is a heuristic",
    "few running": "prompts are short against outputs: every completion is replaced by many young requests, and the number running "
    "swings, which the walk takes as constant",
    "seldom": "memory seldom binds: evictions come in storms, in the tail of the batch's KV, which is taken as normal",
    "steps": "a staircase law jumps where the batch fluctuates across a step's edge; it is averaged at the mean batch",
    "window": "the saturated window opens where slots or memory first refuse a request: where the token budget binds that is late, and "
    "the window short",
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
    if cell.claim.startswith("eviction"):
        return _eviction_reason(cell.case)
    if "chunk gate" in cell.case:
        return "chunk gate"
    if cell.claim == "fluid transient":
        return "chance"
    if cell.claim == "scheduler order":
        return "order"
    if cell.claim in ("ttft", "fluid ttft"):
        return "wait"
    if cell.claim in ("itl", "kv occupancy"):
        return "long prompts"
    if cell.claim == "capacity" and "staircase" in cell.case:
        return "steps"
    if cell.claim == "capacity" and any(name in cell.case for name in ("constant", "two lengths")):
        return "synchronised"
    return "other"


def _eviction_reason(case: str) -> str:
    if "reasoning" in case:
        return "few running"
    if "Azure code" in case:
        return "window"
    if any(name in case for name in ("constant", "+-20 %", "10/{")):
        return "synchronised"
    if "chunk gate" in case:
        return "chunk gate"
    return "seldom" if "slots" in case else "other"
