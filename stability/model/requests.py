"""Concrete requests: what a workload turns into when it is drawn or replayed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray, IntArray
from ..errors import InputError, NotModelledError, check_integer, check_number
from .arrivals import RateSchedule, Replay
from .lengths import Empirical
from .streams import RandomState, Stream, generator, seed_sequence
from .workload import Workload

BLOCK = 1 << 16
"""Requests drawn at a time. Part of the definition of a draw: the same seed gives the same requests."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Requests in arrival order, as columns of shape (n,).

    Attributes
    ----------
    arrival_s : float, non-decreasing
    prompt_tokens, output_tokens, max_output_tokens, cached_prefix_tokens, request_class : int
    """

    arrival_s: FloatArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    max_output_tokens: IntArray
    cached_prefix_tokens: IntArray
    request_class: IntArray

    def __len__(self) -> int:
        return len(self.arrival_s)


def draw(workload: Workload, *, requests: int, rng: RandomState = None) -> Requests:
    """The first `requests` requests of `workload`.

    A replay gives its own rows, other workloads draw; a replay or a schedule that ends before raises.
    """
    blocks = list(draw_blocks(workload, requests=requests, rng=rng))
    rows = sum(len(block) for block in blocks)
    if rows < requests:
        raise InputError(
            f"requests = {requests}, must be <= {rows}, all that come before the schedule ends. "
            "Ask for fewer, or let the schedule repeat."
        )
    return Requests(**{name: np.concatenate([getattr(block, name) for block in blocks]) for name in Requests.__slots__})


def draw_blocks(
    workload: Workload, *, requests: int | None = None, horizon_s: float | None = None, rng: RandomState = None
) -> Iterator[Requests]:
    """Requests in consecutive blocks, until `requests` of them or `horizon_s`, whichever comes first.

    Two calls with one seed yield the same requests, however many are asked for.
    """
    if requests is not None:
        check_integer("requests", requests, at_least=1)
    if horizon_s is not None:
        check_number("horizon_s", horizon_s, above=0)
    if workload.has_sessions:
        raise NotModelledError(
            "the workload has sessions, must have none to be drawn beforehand: a turn arrives a think time after the last one "
            "completed. simulate() plays sessions."
        )
    if isinstance(workload.arrivals, Replay):
        yield from _replayed(workload, requests, horizon_s)
        return
    limit = math.inf if requests is None else requests
    horizon = math.inf if horizon_s is None else horizon_s
    if math.isinf(limit) and math.isinf(horizon):
        raise InputError("give requests or horizon_s: a drawn workload has no end of its own.")
    root = seed_sequence(rng)
    gaps = generator(root, Stream.ARRIVALS)
    kinds = generator(root, Stream.CLASSES)
    sizes = [generator(root, Stream.LENGTHS, index) for index in range(len(workload.classes))]
    clock = Clock(workload)
    now, drawn = 0.0, 0
    while drawn < limit:
        units = now + np.cumsum(workload.arrivals.unit_gaps(BLOCK, gaps))
        now = float(units[-1])
        times = clock.time_s(units)
        which = clock.classes(times, kinds)
        block = _block(workload, times, which, sizes)
        keep = int(min(limit - drawn, np.searchsorted(times, horizon, side="left")))
        if keep < BLOCK:
            if keep:
                yield _head(block, keep)
            return
        yield block
        drawn += BLOCK


class Clock:
    """Turns a unit-rate process into one with the workload's rate, and says which class each arrival is."""

    def __init__(self, workload: Workload) -> None:
        self.starts = workload.window_starts_s()
        scheduled = [item.rate_per_s for item in workload.classes if isinstance(item.rate_per_s, RateSchedule)]
        self.end = scheduled[0].end_s if scheduled else math.inf
        self.repeat = not scheduled or scheduled[0].repeat
        self.rates: FloatArray = np.stack([item.rate_at(self.starts) for item in workload.classes], axis=1)
        self.total: FloatArray = self.rates.sum(axis=1)

    def time_s(self, units: FloatArray) -> FloatArray:
        """The instants at which the expected number of arrivals reaches `units`."""
        if math.isinf(self.end):
            return np.asarray(units / self.total[0])
        edges = np.append(self.starts, self.end)
        reached = np.concatenate(([0.0], np.cumsum(np.diff(edges) * self.total)))
        if not self.repeat:
            times = _invert(units, reached, edges)
            return np.asarray(np.where(units <= reached[-1], times, math.inf))
        passes = np.floor(units / reached[-1])
        return np.asarray(passes * self.end + _invert(units - passes * reached[-1], reached, edges))

    def classes(self, times: FloatArray, rng: np.random.Generator) -> IntArray:
        """Class index of each arrival, by the shares at its instant."""
        draws = rng.random(len(times))
        if self.rates.shape[1] == 1:
            return np.zeros(len(times), dtype=np.int64)
        finite = np.where(np.isfinite(times), times, 0.0)  # infinite past the end of a schedule that does not repeat
        phase = np.mod(finite, self.end) if math.isfinite(self.end) else np.zeros(len(times))
        window = np.clip(np.searchsorted(self.starts, phase, side="right") - 1, 0, len(self.starts) - 1)
        cumulative = np.cumsum(self.rates, axis=1) / np.maximum(self.total, 1e-300)[:, None]
        return np.asarray((draws[:, None] >= cumulative[window, :-1]).sum(axis=1), dtype=np.int64)


def _invert(units: FloatArray, reached: FloatArray, edges: FloatArray) -> FloatArray:
    """Piecewise-linear inverse of the cumulative intensity; windows of rate 0 are skipped."""
    window = np.clip(np.searchsorted(reached, units, side="left") - 1, 0, len(edges) - 2)
    slope = np.diff(reached)[window]
    share = np.divide(units - reached[window], slope, out=np.zeros_like(units), where=slope > 0)
    return np.asarray(edges[window] + share * np.diff(edges)[window])


def _block(workload: Workload, times: FloatArray, which: IntArray, sizes: list[np.random.Generator]) -> Requests:
    prompt, output = np.empty(len(times), dtype=np.int64), np.empty(len(times), dtype=np.int64)
    limit, cached = np.empty_like(prompt), np.empty_like(prompt)
    for index, item in enumerate(workload.classes):
        rows = np.flatnonzero(which == index) if len(workload.classes) > 1 else slice(None)
        count = len(times) if isinstance(rows, slice) else len(rows)
        prompt[rows], output[rows], known = item.lengths.sample_cached(count, sizes[index])
        limit[rows] = output[rows] if item.max_output_tokens is None else item.max_output_tokens
        cached[rows] = np.maximum(known, item.cached_prefix_tokens)
    return Requests(
        arrival_s=times,
        prompt_tokens=prompt,
        output_tokens=output,
        max_output_tokens=limit,
        cached_prefix_tokens=cached,
        request_class=which,
    )


def _replayed(workload: Workload, requests: int | None, horizon_s: float | None) -> Iterator[Requests]:
    arrivals, item = workload.arrivals, workload.classes[0]
    lengths = item.lengths
    assert isinstance(arrivals, Replay)
    assert isinstance(lengths, Empirical)
    rows = len(lengths)
    if requests is not None and requests > rows:
        raise InputError(
            f"requests = {requests}, must be <= {rows}, the rows of the replayed trace. "
            "Ask for fewer, or use .resampled() to bootstrap from it."
        )
    keep = rows if requests is None else requests
    if horizon_s is not None:
        keep = min(keep, int(np.searchsorted(arrivals.arrival_s, horizon_s, side="left")))
    for start in range(0, keep, BLOCK):
        piece = slice(start, min(start + BLOCK, keep))
        output = lengths.output_tokens[piece]
        zeros = np.zeros(len(output), dtype=np.int64)
        limit = output if item.max_output_tokens is None else np.full(len(output), item.max_output_tokens)
        yield Requests(
            arrival_s=arrivals.arrival_s[piece],
            prompt_tokens=lengths.prompt_tokens[piece],
            output_tokens=output,
            max_output_tokens=limit,
            cached_prefix_tokens=zeros + item.cached_prefix_tokens
            if lengths.cached_prefix_tokens is None
            else np.maximum(lengths.cached_prefix_tokens[piece], item.cached_prefix_tokens),
            request_class=zeros,
        )


def _head(block: Requests, rows: int) -> Requests:
    return Requests(**{name: getattr(block, name)[:rows] for name in Requests.__slots__})
