"""KV blocks in use at each future iteration if every running request ends as predicted: the look-ahead, compiled.

A row of a ring holds, for one replica, the blocks at the iterations after the present one. A request admitted in iteration
k with a prompt of s tokens and p predicted ones holds s + (j - k) tokens in iteration j = k .. k + p - 1, hence adds
`blocks(s + j - k)` to those entries. This is the sum of `stability.sim.reference.planners.look_ahead` to the block, for any
block size, and looks at every iteration instead of the ends alone (between two ends usage only grows, so both decide alike).

Cost, whatever the number of running and waiting requests: an admission adds to the p - 1 entries of its predicted life,
O(1) for each token it is going to generate; a decision compares p/`CHUNK` upper bounds, one a chunk of the ring, and looks
into the chunks whose bound fails. A refusal says until when it stands (`blocked_until`), so that the head of the queue is not
tried again in every iteration.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._types import IntArray
from ._jit import called, kernel

CHUNK_SHIFT = 6
CHUNK = 1 << CHUNK_SHIFT


@kernel
def _blocks(s: Any, padded: int) -> int:
    """Blocks of tokens to which `round_up` is added."""
    return int(padded >> s.block_shift) if s.block_shift >= 0 else int(padded // s.block_size)


@called
def forget(usage: IntArray, peaks: IntArray, begin: int, end: int) -> None:
    """Empty the entries of past iterations from `begin` to before `end`, for those that come round to them.

    The ring is a chunk longer than any predicted life, so that a chunk whose last entry is past holds nothing of the future.
    """
    mask = len(usage) - 1
    for j in range(max(begin, end - len(usage)), end):
        usage[j & mask] = 0
        if j & (CHUNK - 1) == CHUNK - 1:
            peaks[(j & mask) >> CHUNK_SHIFT] = 0


@called
def change(usage: IntArray, peaks: IntArray, s: Any, sign: int, tokens: int, first: int, last: int) -> None:
    """Add (or with `sign` -1 take away) a request that holds `tokens` in iteration `first` and one more in each up to `last`."""
    mask = len(usage) - 1
    padded = tokens + s.round_up
    while first <= last:
        at = first & mask
        count = min(last - first + 1, CHUNK - (at & (CHUNK - 1)))
        part = usage[at : at + count]
        most = np.int64(0)
        for i in range(count):
            part[i] += sign * _blocks(s, padded + i)
            most = max(most, part[i])
        chunk = at >> CHUNK_SHIFT
        peaks[chunk] = most if count == CHUNK else max(peaks[chunk], most)
        first += count
        padded += count


@called
def blocked_until(usage: IntArray, peaks: IntArray, s: Any, tokens: int, first: int, last: int) -> int:
    """0 if a request that holds `tokens` in iteration `first` and one more in each up to `last` fits in all of them.

    Otherwise the first iteration before which it cannot be admitted unless some running request leaves before its predicted end:
    admitted later it holds less in the iteration in which it does not fit now.
    """
    mask = len(usage) - 1
    now = first - 1
    padded = tokens + s.round_up
    until = 0
    while first <= last and until == 0:
        at = first & mask
        count = min(last - first + 1, CHUNK - (at & (CHUNK - 1)))
        if peaks[at >> CHUNK_SHIFT] + _blocks(s, padded + count - 1) > s.capacity_blocks:
            part = usage[at : at + count]
            for i in range(count):
                room = s.capacity_blocks - part[i]
                if _blocks(s, padded + i) > room:
                    # Every iteration later it holds a token less then, until it fits, or until that iteration has come.
                    over = padded + i - (s.block_size - 1) - room * s.block_size
                    until = max(until, min(now + over, first + i))
        first += count
        padded += count
    return until
