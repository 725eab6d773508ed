"""The batch of least F(X) = sum of outputs / |X|**2 among those whose peaks fit together (arXiv 2508.06133)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....errors import InputError

MOST_CELLS = 200_000_000
"""Of the knapsack's table of choices, a byte each."""


def exact_batch(output: Sequence[int], peak: Sequence[int], capacity: int) -> list[int]:
    """Indices, ascending, of the batch of least F with total peak <= capacity; of equal ones the largest.

    For every size k the least total output of k requests is a knapsack over count and memory.
    """
    count, room = len(output), min(capacity, sum(peak))
    if count * (count + 1) * (room + 1) > MOST_CELLS:
        raise InputError(
            f"search = 'exact' with {count} waiting requests and {room} tokens of KV needs {count * (count + 1) * (room + 1)} "
            f"cells, must need <= {MOST_CELLS}. Use search='prefix'."
        )
    least = np.full((count + 1, room + 1), np.inf)
    least[0] = 0.0
    taken = np.zeros((count, count + 1, room + 1), dtype=np.bool_)
    for i, (o, weight) in enumerate(zip(output, peak, strict=True)):
        if weight > room:
            continue
        better = least[:-1, : room + 1 - weight] + o
        taken[i, 1:, weight:] = better < least[1:, weight:]
        least[1:, weight:] = np.minimum(better, least[1:, weight:])
    score = least[1:, room] / np.arange(1, count + 1) ** 2
    if not np.isfinite(score).any():
        return []
    size = count - int(np.argmin(score[::-1]))
    chosen = []
    for i in range(count - 1, -1, -1):
        if taken[i, size, room]:
            chosen.append(i)
            room -= peak[i]
            size -= 1
    return chosen[::-1]


def prefix_batch(output: Sequence[int], peak: Sequence[int], capacity: int) -> list[int]:
    """The same among the first requests only, which are in ascending output."""
    totals = np.cumsum(peak)
    size = np.arange(1, len(output) + 1)
    score = np.where(totals <= capacity, np.cumsum(output) / size**2, np.inf)
    if not np.isfinite(score).any():
        return []
    return list(range(len(output) - int(np.argmin(score[::-1]))))
