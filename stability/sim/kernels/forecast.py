"""KV blocks in use at each future iteration if every running request ends as predicted: the look-ahead, compiled.

A ring holds the blocks of one replica at the iterations after the present one. A request admitted in iteration k with a prompt
of s tokens and p predicted ones holds s + (j - k) tokens in iteration j = k .. k + p - 1, hence adds `blocks(s + j - k)` there.
This is the sum of `stability.sim.reference.planners.look_ahead` to the block, for any block size, at every iteration instead of
at the ends alone (between two ends usage only grows, so both decide alike).

Entries lie in chunks. What is added to a whole chunk is owed to it: a ramp is m + floor((phase + j)/block size), so the
ramps owed are a sum of m and a count by phase. An upper bound of each chunk goes along, and becomes exact when the chunk is
settled, which a decision does only where the bound does not decide.

Cost, whatever the number of running and waiting requests: with p predicted tokens, p/`CHUNK` bounds to compare and chunks to charge,
and the entries of the two chunks at the ends; `CHUNK` + block size for a chunk that is settled. A refusal says until when it
stands (`blocked_until`), so that the head of the queue is not tried again in every iteration. A tree of chunks whose nodes hold the
maximum of usage and a ramp for every phase would decide in O(log p) nodes, each as wide as a block; below some ten
thousand tokens that is more work than this.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..._types import IntArray
from ._jit import called, kernel

CHUNK_SHIFT = 6
CHUNK = 1 << CHUNK_SHIFT


class Forecast(NamedTuple):
    """Arrays over (n_replicas, ...): a ring a chunk longer than any predicted life, so that past and future share no chunk.

    Attributes
    ----------
    usage : (n_replicas, window) int
        Blocks by iteration modulo the window, less what is owed to the chunk.
    peaks : (n_replicas, n_chunks) int
        Upper bounds of the blocks in each chunk.
    owed : (n_replicas, n_chunks, 2 + block size) int
        Ramps owed: how many, the sum of their m, and how many of each phase.
    """

    usage: IntArray
    peaks: IntArray
    owed: IntArray


def empty_forecast(replicas: int, longest: int, block_size: int) -> Forecast:
    """A forecast of nothing for at least `longest` iterations beyond the present one."""
    window = 1 << (longest + CHUNK).bit_length()
    chunks = window // CHUNK
    return Forecast(
        np.zeros((replicas, window), dtype=np.int64),
        np.zeros((replicas, chunks), dtype=np.int64),
        np.zeros((replicas, chunks, 2 + block_size), dtype=np.int64),
    )


@kernel
def _blocks(s: Any, padded: int) -> int:
    """Blocks of tokens to which those for `extra_tokens` and for rounding up have been added."""
    return int(padded >> s.block_shift) if s.block_shift >= 0 else int(padded // s.block_size)


@called
def forget(forecast: Forecast, r: int, begin: int, now: int) -> int:
    """Empty the chunks from `begin` on that lie before iteration `now`; return where the first one left begins."""
    window = forecast.usage.shape[1]
    end = now & ~(CHUNK - 1)
    for start in range(max(begin, end - window), end, CHUNK):
        at = start & (window - 1)
        forecast.usage[r, at : at + CHUNK] = 0
        forecast.peaks[r, at >> CHUNK_SHIFT] = 0
        forecast.owed[r, at >> CHUNK_SHIFT] = 0
    return max(begin, end)


@called
def settle(forecast: Forecast, r: int, s: Any, start: int) -> None:
    """Pay the chunk that begins in iteration `start` what is owed to it; its bound is then exact."""
    at = start & (forecast.usage.shape[1] - 1)
    owed = forecast.owed[r, at >> CHUNK_SHIFT]
    part = forecast.usage[r, at : at + CHUNK]
    size, count = s.block_size, owed[0]
    phase = start % size
    # Sum of floor((phase of a ramp + j)/size) over the ramps: as many whole blocks as j has, one more for phases that carry.
    level = owed[1] + count * (start // size)
    for k in range(size - phase, size):
        level += owed[2 + k]
    most = part[0] + level
    for i in range(CHUNK):
        part[i] += level
        most = max(most, part[i])
        phase += 1
        level += owed[2 + size - phase]
        if phase == size:
            phase = 0  # all carried by then
    owed[:] = 0
    forecast.peaks[r, at >> CHUNK_SHIFT] = most


@called
def change(forecast: Forecast, r: int, s: Any, sign: int, tokens: int, first: int, last: int) -> None:
    """Add (or with `sign` -1 take away) a request that holds `tokens` in iteration `first` and one more in each up to `last`."""
    mask = forecast.usage.shape[1] - 1
    peaks, owed = forecast.peaks[r], forecast.owed[r]
    origin = tokens + s.extra_tokens + s.block_size - 1 - first
    whole = _blocks(s, origin)
    phase = origin - whole * s.block_size
    while first <= last:
        at = first & mask
        chunk = at >> CHUNK_SHIFT
        count = min(last - first + 1, CHUNK - (at & (CHUNK - 1)))
        # A bound rises by the most that any entry gains, or falls by the least.
        if count == CHUNK:
            owed[chunk, 0] += sign
            owed[chunk, 1] += sign * whole
            owed[chunk, 2 + phase] += sign
            peaks[chunk] += sign * _blocks(s, origin + (first + count - 1 if sign > 0 else first))
        else:
            part = forecast.usage[r, at : at + count]
            for i in range(count):
                part[i] += sign * _blocks(s, origin + first + i)
            if sign > 0:
                peaks[chunk] += _blocks(s, origin + first + count - 1)
        first += count


@called
def blocked_until(forecast: Forecast, r: int, s: Any, tokens: int, first: int, last: int) -> int:
    """0 if a request that holds `tokens` in iteration `first` and one more in each up to `last` fits in all of them.

    Otherwise the iteration before which it cannot be admitted unless some running request leaves before its predicted end:
    admitted later it holds less in the iteration in which it does not fit now.
    """
    mask = forecast.usage.shape[1] - 1
    now = first - 1
    origin = tokens + s.extra_tokens + s.block_size - 1 - first
    until = 0
    while first <= last and until == 0:
        at = first & mask
        count = min(last - first + 1, CHUNK - (at & (CHUNK - 1)))
        most = _blocks(s, origin + first + count - 1)
        if forecast.peaks[r, at >> CHUNK_SHIFT] + most > s.capacity_blocks:
            settle(forecast, r, s, first & ~(CHUNK - 1))
            if forecast.peaks[r, at >> CHUNK_SHIFT] + most > s.capacity_blocks:
                part = forecast.usage[r, at : at + count]
                for i in range(count):
                    room = s.capacity_blocks - part[i]
                    if _blocks(s, origin + first + i) > room:
                        # Every iteration later it holds a token less then, until it fits, or that iteration has come.
                        over = origin + first + i - (s.block_size - 1) - room * s.block_size
                        until = max(until, min(now + over, first + i))
        first += count
    return until
