"""Support and two-dimensional slices of a capacity region, by linear programs over its routings.

The region is the image of the routings x under `lambda_k = sum_i x_ik`; it is never written down by its facets, of which there may be
exponentially many. Its farthest point in a direction is one linear program; a slice is found by asking for the farthest point across each
known edge until none is farther (every answer is a new vertex or shows that an edge is one).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .._types import BoolArray, FloatArray
from ..errors import InputError
from .linear import InfeasibleError, LinearProgram, solve_linear
from .rows import FleetRows

SAME = 1e-7
"""Relative distance below which two points are one."""

MOST_VERTICES = 400


def support(system: FleetRows, direction: FloatArray) -> FloatArray:
    """Rates of the region that are farthest in `direction`, 1/s. Shape (K,)."""
    wanted = np.zeros(len(system.classes), dtype=np.bool_)
    return _farthest(system, direction, wanted, np.zeros(len(system.classes)))


def polygon(system: FleetRows, first: int, second: int, fixed: FloatArray) -> FloatArray:
    """Vertices, counter-clockwise from the origin, of the rates of two classes with those of the others given. Shape (m, 2)."""
    held = np.ones(len(system.classes), dtype=np.bool_)
    held[[first, second]] = False

    def farthest(normal: FloatArray) -> FloatArray:
        direction = np.zeros(len(held))
        direction[[first, second]] = normal
        return _farthest(system, direction, held, fixed)[[first, second]]

    try:
        right, top = farthest(np.array([1.0, 0.0])), farthest(np.array([0.0, 1.0]))
    except InfeasibleError:
        names = ", ".join(name for name, on in zip(system.classes, held.tolist(), strict=True) if on)
        raise InputError(
            f"the fleet cannot serve the rates of the other classes ({names}) even without these two, must be able to. "
            "Lower `others`."
        ) from None
    size = np.maximum(np.array([right[0], top[1]]), 1e-300)
    lowest, leftmost = np.array([right[0], 0.0]), np.array([0.0, top[1]])  # rates can be turned down
    found = [lowest, *_between(farthest, lowest, leftmost, size), leftmost]
    kept = [np.zeros(2)]
    for point in found:
        if np.abs((point - kept[-1]) / size).max() > SAME:
            kept.append(point)
    return np.array(kept)


def _between(
    farthest: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, size: FloatArray
) -> list[FloatArray]:
    """Vertices strictly between two boundary points, from `low` to `high`."""
    stack = [(low, high)]
    found: list[FloatArray] = []
    while stack:
        low, high = stack.pop()
        edge = (high - low) / size
        normal = np.array([edge[1], -edge[0]]) / size
        if np.abs(edge).max() <= SAME or len(found) > MOST_VERTICES:
            continue
        point = farthest(normal)
        if normal @ (point - low) <= SAME:
            continue
        found.append(point)
        stack += [(point, high), (low, point)]
    # Counter-clockwise around the origin.
    return sorted(found, key=lambda point: float(np.arctan2(point[1] / size[1], point[0] / size[0])))


def _farthest(system: FleetRows, direction: FloatArray, held: BoolArray, fixed: FloatArray) -> FloatArray:
    from scipy import sparse

    n, height, classes = system.seconds.shape
    type_, class_ = np.nonzero(system.fits)
    columns = np.arange(len(type_))
    row = (type_[:, None] * height + np.arange(height)).ravel()
    load = system.seconds[type_, :, class_] / system.replicas[type_][:, None]
    below = sparse.csr_array((load.ravel(), (row, np.repeat(columns, height))), shape=(n * height, len(columns)))
    sums = sparse.csr_array((np.ones(len(columns)), (class_, columns)), shape=(classes, len(columns)))
    found = solve_linear(
        LinearProgram(
            cost=-direction[class_] / max(float(np.abs(direction).max()), 1e-300),
            below=below,
            limits=np.ones(n * height),
            equal=sums[np.flatnonzero(held)] if held.any() else None,
            values=fixed[held] if held.any() else None,
        )
    )
    return np.asarray(sums @ found.point)
