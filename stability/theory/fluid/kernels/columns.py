"""Columns of the tables by age: kernels are compiled for this order."""

from __future__ import annotations

from enum import IntEnum


class Column(IntEnum):
    """What a table holds at each age, per admitted request."""

    BOUNDARY = 0
    """Requests resident when the bin begins."""
    RESIDENT = 1
    """Requests resident in the last iteration of the bin."""
    HELD = 2
    """KV held then, in whole blocks, tokens."""
    RESERVED = 3
    """KV set aside then by reservation, tokens."""
    DECODE = 4
    """Decodes in an iteration of the bin."""
    READ = 5
    """KV read by them, their new token included, tokens."""
    PREFILL = 6
    """Prompt tokens computed in an iteration of the bin."""
    CONTEXT = 7
    """Prefill attention work in an iteration of the bin, tokens**2."""
    REDO = 8
    """KV held when the bin begins: what must be recomputed after an eviction, tokens."""
    TOKENS = 9
    """Tokens generated in an iteration of the bin."""


N_COLUMNS = len(Column)
