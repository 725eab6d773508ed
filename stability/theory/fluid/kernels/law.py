"""Step-time laws at real-valued compositions: those of `stability.model.iteration`, from their `encode()`."""

from __future__ import annotations

import numpy as np

from ...._types import FloatArray
from ....model.iteration import LawKind
from ._jit import kernel

HINGE = int(LawKind.HINGE)
STAIRCASE = int(LawKind.STAIRCASE)
TWO_PHASE = int(LawKind.TWO_PHASE)
ROOFLINE = int(LawKind.ROOFLINE)
TABLE = int(LawKind.TABLE)


@kernel
def law_time(kind: int, c: FloatArray, prefill: float, decode: float, read: float, context: float) -> float:
    """Seconds of an iteration of `prefill` prompt tokens, `decode` decodes, `read` KV tokens and `context` prefill work."""
    batch = prefill + decode
    if kind == HINGE:
        return float(c[0] + c[1] * max(0.0, batch - c[2]) + c[3] * read + c[4] * context)
    if kind == STAIRCASE:
        return float(c[0] + c[1] * np.ceil(batch / c[2]) + c[3] * read + c[4] * context)
    if kind == ROOFLINE:
        weights = c[1] + c[4] * (1.0 - np.power(1.0 - c[5], batch))
        return float(c[0] + c[3] * batch + max(weights, c[2] * batch) + c[6] * read + c[7] * context)
    if kind == TABLE:
        return _table(c, prefill, decode, read) + float(c[3] * context)
    start = 5 if kind == TWO_PHASE and prefill > 0 else 0
    return float(
        c[start] + c[start + 1] * prefill + c[start + 2] * decode + c[start + 3] * read + c[start + 4] * context
    )


@kernel
def _table(c: FloatArray, prefill: float, decode: float, read: float) -> float:
    """Trilinear interpolation on the grid of a `Table`; the outermost cell is continued, never below its smallest time."""
    sizes = (int(c[0]), int(c[1]), int(c[2]))
    starts = (5, 5 + sizes[0], 5 + sizes[0] + sizes[1])
    values = starts[2] + sizes[2]
    at = (prefill, decode, read)
    total = 0.0
    cells, weights = (0, 0, 0), (0.0, 0.0, 0.0)
    p, u = _place(c, starts[0], sizes[0], at[0])
    d, v = _place(c, starts[1], sizes[1], at[1])
    k, w = _place(c, starts[2], sizes[2], at[2])
    cells, weights = (p, d, k), (u, v, w)
    for corner in range(8):
        weight, place = 1.0, 0
        for axis in range(3):
            up = (corner >> axis) & 1
            weight *= weights[axis] if up else 1.0 - weights[axis]
            place = place * sizes[axis] + min(cells[axis] + up, sizes[axis] - 1)
        total += weight * c[values + place]
    return float(max(total, c[4]))


@kernel
def _place(c: FloatArray, start: int, size: int, x: float) -> tuple[int, float]:
    """Cell of an axis that holds `x`, and how far in it `x` lies."""
    if size == 1:
        return 0, 0.0
    axis = c[start : start + size]
    cell = min(max(int(np.searchsorted(axis, x, side="right")) - 1, 0), size - 2)
    return cell, float((x - axis[cell]) / (axis[cell + 1] - axis[cell]))
