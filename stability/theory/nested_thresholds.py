"""Segments and thresholds of Nested WAIT: which meet the conditions of its theorem, and good ones. See `nested_wait`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .._result import Tabular, no_truth, seconds
from .._types import FloatArray, IntArray, read_only
from ..errors import InputError, check_integer, check_number
from ..policies import NestedWait
from .nested_wait import NestedModel, decay_rate

ETA = 0.05
"""Margin of n_k/n_{k-1} over p_k that the authors use."""

LARGEST_RATIO = 0.99
"""And their cap on n_k/n_{k-1}."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class NestedDesign(Tabular):
    """Segments and thresholds of Nested WAIT, and what Theorem 2 says of them. Arrays over segments, shape (L,).

    Attributes
    ----------
    boundaries : ndarray of int
        r_k: decode tokens at which each segment ends.
    thresholds : ndarray of int
        n_k.
    shares : ndarray
        p_k of those that finish the segment before; 1 for the first.
    decay_rates : ndarray
        theta_k per request; infinite for the first.
    iteration_s : float
        DT: time of the full batch.
    gap_s : float
        n_1/Lambda: mean time between arrivals of n_1 requests.
    memory_tokens : float
        M^pi.
    buffers_tokens : ndarray
        Memory set aside for each boundary queue; 0 for the first.
    required_tokens : float
        M_req.
    holds : bool
        Whether the conditions of the theorem hold with this memory, and slots and token budget do for the full batch.
    proved : bool
        Whether the theorem covers the requests: equal prompts.
    latency_s : float
        Mean latency, **approximate** (Little's law over the queues' bounds).
    horizon_s, overflow : float
        T and delta.
    """

    schema: ClassVar[str] = "stability/nested-wait-design/1"

    boundaries: IntArray
    thresholds: IntArray
    shares: FloatArray
    decay_rates: FloatArray
    iteration_s: float
    gap_s: float
    memory_tokens: float
    buffers_tokens: FloatArray
    required_tokens: float
    holds: bool
    proved: bool
    latency_s: float
    horizon_s: float
    overflow: float

    def __bool__(self) -> bool:
        raise no_truth("NestedDesign")

    @property
    def policy(self) -> NestedWait:
        """The scheduler with these segments and thresholds."""
        return NestedWait(ends=tuple(self.boundaries.tolist()), thresholds=tuple(self.thresholds.tolist()))

    def __repr__(self) -> str:
        word = "holds" if self.holds else "does not hold"
        return f"NestedDesign(thresholds {self.thresholds.tolist()} to {self.boundaries.tolist()}, {word})"

    def rows(self) -> list[tuple[str, str]]:
        """The design as (quantity, value) pairs for people."""
        by = "" if self.proved else " (approximate: prompts differ)"
        odds = f"with probability {1 - self.overflow:.6g} over {seconds(self.horizon_s)}"
        return [
            ("segments end at", ", ".join(map(str, self.boundaries.tolist()))),
            ("thresholds", ", ".join(map(str, self.thresholds.tolist()))),
            ("guarantee", f"memory suffices {odds}{by}" if self.holds else "none: a condition of Theorem 2 is not met"),
            ("batch", f"{seconds(self.iteration_s)}, {seconds(self.gap_s)} between batches"),
            ("memory", f"{self.memory_tokens:.6g} + buffers {self.buffers_tokens.sum():.6g} tokens"),
            ("mean latency", f"about {seconds(self.latency_s)}"),
        ]


def check_nested(
    model: NestedModel,
    boundaries: Sequence[int],
    thresholds: Sequence[int],
    *,
    horizon_s: float = 3600.0,
    overflow: float = 1e-3,
) -> NestedDesign:
    """What the theory says of given segments and thresholds.

    Parameters
    ----------
    model : NestedModel
    boundaries : sequence of int, increasing
        r_k, decode tokens; the last is the longest output's.
    thresholds : sequence of int, >= 1
        n_k, one per segment.
    horizon_s : float > 0
        T: how long memory shall suffice, s.
    overflow : float in (0, 1)
        delta: accepted probability that it does not.
    """
    policy = NestedWait(ends=tuple(np.asarray(boundaries).tolist()), thresholds=tuple(np.asarray(thresholds).tolist()))
    r, n = np.array(policy.ends), np.array(policy.thresholds)
    if r[-1] != model.decode_tokens[-1]:
        raise InputError(
            f"the last boundary is {r[-1]}, must be the longest output's {model.decode_tokens[-1]} decode tokens. Move it."
        )
    horizon_s, overflow = (
        check_number("horizon_s", horizon_s, above=0),
        check_number("overflow", overflow, above=0, below=1),
    )
    s, starts = model.prompt_tokens, np.concatenate(([0], r[:-1]))
    alive = np.array([model.survival(start) if k else 1.0 for k, start in enumerate(starts.tolist())])
    shares = np.concatenate(([1.0], alive[1:] / alive[:-1]))
    held = _segment_volumes(model, starts, r)
    memory, first = float(n @ held), float(n[0])
    batch = float(
        model.law.time_s(
            first * model.prompt_tokens,
            float(n @ (r - starts)),
            memory - first * model.prompt_tokens,
            first * model.prompt_square / 2,
        )
    )
    ratios_hold = bool((shares[1:] * n[:-1] < n[1:]).all() and (n[1:] < n[:-1]).all())
    decays = np.full(len(n), math.inf)
    queued = n.astype(np.float64)  # bound on the mean of each boundary queue
    for k in range(1, len(n)):
        before, after, p = int(n[k - 1]), int(n[k]), float(shares[k])
        if not before * p < after:
            decays[k], queued[k] = 0.0, math.inf
            continue
        decays[k] = decay_rate(before, after, p) if p < 1 else math.inf
        spread = before * p * (1 - p) + (before * p - after) ** 2
        queued[k] = after + spread / (2 * (after - before * p))
    lengths = r - starts + (starts == 0)
    tokens = float(n[0]) * s + float(n @ (r - starts))
    fits = float(n @ lengths) <= model.slots and tokens <= model.budget
    odds = math.log(len(model.decode_tokens) * (1 + horizon_s / model.base_s) / overflow)
    with np.errstate(divide="ignore"):
        buffers = (s + starts) * (n + odds / decays)
    buffers[0] = 0.0
    gap = float(n[0]) / model.rate_per_s
    required = memory + float(buffers.sum())
    slack = 1 - batch / gap
    outside = 1 / (2 * model.rate_per_s * slack) if slack > 0 else math.inf
    # A request takes n_k/Lambda_k per stage, and only the stages it needs (and the prefill).
    ended = np.cumsum(np.bincount(model.decode_tokens, weights=model.probabilities))
    stages = np.add.reduceat(1 - ended[:-1], starts)
    stages[0] += 1.0
    inside = float((n * stages / alive).sum() + queued[1:].sum()) / model.rate_per_s
    return NestedDesign(
        boundaries=read_only(r),
        thresholds=read_only(n),
        shares=read_only(shares),
        decay_rates=read_only(decays),
        iteration_s=batch,
        gap_s=gap,
        memory_tokens=memory,
        buffers_tokens=read_only(buffers),
        required_tokens=required,
        holds=bool(batch < gap and ratios_hold and required <= model.kv_capacity_tokens and fits),
        proved=model.prompts_equal,
        latency_s=(float(n[0]) - 1) / (2 * model.rate_per_s) + outside + inside,
        horizon_s=horizon_s,
        overflow=overflow,
    )


def nested_thresholds(
    model: NestedModel,
    *,
    segments: int | None = None,
    eta: float = ETA,
    horizon_s: float = 3600.0,
    overflow: float = 1e-3,
) -> NestedDesign:
    """Segments of equal width and thresholds `n_k = (p_k + eta) n_{k-1}` with the least approximate mean latency.

    Parameters
    ----------
    model : NestedModel
    segments : int >= 1, optional
        L; without it 1, 2, 3, 4, 5, 10 and 20 are tried (those of the paper's grid).
    eta : float > 0
        Margin of n_k/n_{k-1} over p_k; at 0 the boundary queues have no drift.
    horizon_s, overflow : float
        As in `check_nested`.

    Raises
    ------
    InputError
        If nothing meets the conditions.
    """
    check_number("eta", eta, above=0, below=1)
    counts = (1, 2, 3, 4, 5, 10, 20) if segments is None else (check_integer("segments", segments, at_least=1),)
    best: NestedDesign | None = None
    for count in counts:
        boundaries = equal_segments(model, count)
        for first in _first_thresholds(model, boundaries):
            chosen = thresholds_from(model, boundaries, first, eta)
            if chosen is None:
                continue
            found = check_nested(model, boundaries, chosen, horizon_s=horizon_s, overflow=overflow)
            if found.holds and (best is None or found.latency_s < best.latency_s):
                best = found
    if best is None:
        raise InputError(
            f"no segments and thresholds meet the conditions at {model.rate_per_s:.4g} requests/s and "
            f"{model.kv_capacity_tokens:.6g} KV tokens. Lower the rate, or accept a larger overflow probability."
        )
    return best


def equal_segments(model: NestedModel, count: int) -> list[int]:
    """Boundaries of at most `count` segments: the last output lengths within steps of equal width, each once."""
    longest = int(model.decode_tokens[-1])
    places = np.searchsorted(model.decode_tokens, [longest * k / count for k in range(1, count + 1)], side="right") - 1
    ends = sorted({int(model.decode_tokens[place]) for place in places.tolist() if place >= 0})
    return [end for end in ends if end > 0]


def thresholds_from(model: NestedModel, boundaries: Sequence[int], first: int, eta: float = ETA) -> list[int] | None:
    """n_1 = `first` and integers near `(p_k + eta) n_{k-1}` strictly between `p_k n_{k-1}` and `n_{k-1}`; None without any."""
    found, last = [first], 1.0
    for boundary in boundaries[:-1]:
        alive = model.survival(boundary)
        p, before = alive / last, found[-1]
        last = alive
        least = math.floor(p * before * (1 + 1e-12)) + 1
        chosen = max(least, round(min(p + eta, LARGEST_RATIO) * before))
        if least >= before:
            return None
        found.append(min(chosen, before - 1))
    return found


def required_by_segments(
    model: NestedModel,
    counts: Sequence[int],
    *,
    first: int,
    eta: float = ETA,
    horizon_s: float = 3600.0,
    overflow: float = 1e-3,
) -> FloatArray:
    """M_req for each number of segments at one n_1, tokens: fewer segments hold more, more segments need more buffers.

    Parameters
    ----------
    model : NestedModel
    counts : sequence of int
        Numbers of segments L.
    first : int
        n_1.
    eta, horizon_s, overflow : float
        As in `nested_thresholds`.

    Returns
    -------
    (n,) ndarray
        NaN where no integers lie between p_k n_{k-1} and n_{k-1}.
    """
    found = np.full(len(counts), math.nan)
    for row, count in enumerate(counts):
        boundaries = equal_segments(model, count)
        chosen = thresholds_from(model, boundaries, first, eta)
        if chosen is not None and len(boundaries) == count:
            found[row] = check_nested(model, boundaries, chosen, horizon_s=horizon_s, overflow=overflow).required_tokens
    return found


def _segment_volumes(model: NestedModel, starts: IntArray, ends: IntArray) -> FloatArray:
    """KV held by one request over the stages of each segment (the first with its prefill)."""
    length = ends - starts
    held: FloatArray = length * model.prompt_tokens + (starts + 1 + ends) * length / 2
    held[0] += model.prompt_tokens
    return held


def _first_thresholds(model: NestedModel, boundaries: Sequence[int]) -> list[int]:
    """Values of n_1 worth a look: all small ones, then a ladder, as far as memory goes."""
    held = _segment_volumes(model, np.array([0]), np.array([boundaries[0]]))
    top = int(model.kv_capacity_tokens // held[0]) if np.isfinite(model.kv_capacity_tokens) else 10_000
    ladder = {round(64 * 2 ** (k / 8)) for k in range(200) if 64 * 2 ** (k / 8) <= top}
    return sorted({*range(1, min(top, 64) + 1), *ladder})
