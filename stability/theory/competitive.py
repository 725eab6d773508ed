r"""Competitive bounds of schedulers that admit by length, in total latency TEL = sum of (completion - arrival), in slots.

All for one worker with M tokens of KV and unit slots; `vol(s, o) = s o + o (o+1)/2` is what a request holds over its life.

- `volume_lower_bound` (arXiv 2606.22327): `TEL(OPT) >= (1/M) sum_j sum_{i <= j} vol_(i)`, volumes ascending. **Proved**, all at once.
- `svf_ratio`: peaks `s + o <= alpha M`, all at once: `TEL(SVF) <= (1 + 2/(1-alpha)) TEL(OPT)`. **Proved**.
- `svf_waiting_slack`: `(1-alpha) M sum_j W_j <= 2 sum_j sum_{i before j} vol_i` on every such run. **Proved**; testable on any run.
- `a_max_ratio` (arXiv 2508.14544): between `(1 + alpha^-1/2)/(2 alpha)` and `(1 + 1/alpha)/(2 alpha)`, alpha = lower/upper length, equal prompts,
  M large. A_min: O(log(1/alpha)), constant not known here.
- `mc_sf_bounds` (arXiv 2502.07115): equal prompts, all at once, `M >= 2 max (s + o)`: constants of its O(1) proof, ratio 9216. In
  general every deterministic online algorithm is Omega(sqrt n).
- Sorted-F (arXiv 2508.06133): ratio at most 48.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray
from ..errors import InputError, check_number
from . import footprint

SORTED_F_RATIO = 48.0
"""Competitive ratio of Sorted-F is at most this, all requests at once. **Proved** in its paper."""

MC_SF_RATIO = 9216.0
"""Ratio that the constants of MC-SF's proof give."""


def volume_lower_bound(prompt_tokens: ArrayLike, output_tokens: ArrayLike, capacity_tokens: float) -> float:
    """Least total latency of any schedule of requests that are all there at the start, slots.

    The larger of `(1/M) sum_j sum_{i<=j} vol_(i)` and `sum_j o_j`.

    Parameters
    ----------
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1
    capacity_tokens : float
        M.

    Examples
    --------
    >>> volume_lower_bound([1, 1], [1, 2], 10)  # volumes 2 and 5: (2 + 7)/10; two requests need 1 + 2 slots
    3.0
    """
    volume = np.sort(_volumes(prompt_tokens, output_tokens))
    by_memory = float(np.cumsum(volume).sum()) / check_number("capacity_tokens", capacity_tokens, above=0)
    return max(by_memory, float(np.sum(output_tokens)))


def svf_ratio(alpha: float) -> float:
    """1 + 2/(1 - alpha): how far total latency of SVF can be from the best; peaks are at most alpha M.

    Parameters
    ----------
    alpha : float in [0, 1)

    Examples
    --------
    >>> svf_ratio(0.5)
    5.0
    """
    return 1 + 2 / (1 - check_number("alpha", alpha, at_least=0, below=1))


def svf_waiting_slack(
    waits_slots: ArrayLike, prompt_tokens: ArrayLike, output_tokens: ArrayLike, capacity_tokens: float
) -> float:
    """`2 sum_j sum_{i before j} vol_i - (1-alpha) M sum_j W_j` of a run, requests in the order of admission: >= 0 for SVF.

    Parameters
    ----------
    waits_slots : (n,) array_like
        Slots each request waited before its start, from time 0.
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1
        In the order of admission.
    capacity_tokens : float
        M; alpha is the largest (s + o)/M.
    """
    s, o = np.asarray(prompt_tokens), np.asarray(output_tokens)
    alpha = float((s + o).max()) / capacity_tokens
    if not alpha < 1:
        raise InputError(
            f"the largest request peaks at {int((s + o).max())} tokens, must be below the {capacity_tokens:g} of the cache."
        )
    volume = _volumes(s, o)
    before = float((np.cumsum(volume) - volume).sum())
    return 2 * before - (1 - alpha) * capacity_tokens * float(np.sum(waits_slots))


def a_max_ratio(alpha: float) -> tuple[float, float]:
    """Lower and upper bound of A_max's competitive ratio against hindsight shortest-first, M large.

    Parameters
    ----------
    alpha : float in (0, 1]
        Shortest over longest possible output.

    Examples
    --------
    >>> a_max_ratio(1.0), a_max_ratio(0.25)
    ((1.0, 1.0), (6.0, 10.0))
    """
    a = check_number("alpha", alpha, above=0, at_most=1)
    return (1 + a**-0.5) / (2 * a), (1 + 1 / a) / (2 * a)


@dataclass(frozen=True, slots=True, kw_only=True)
class McSfBounds:
    """What the proof of MC-SF says of an instance, in slots of total latency.

    Attributes
    ----------
    least : float
        No schedule is below it.
    most : float
        MC-SF is not above it.
    applies : bool
        Whether prompts are equal and M is at least twice the largest peak.
    """

    least: float
    most: float
    applies: bool


def mc_sf_bounds(prompt_tokens: ArrayLike, output_tokens: ArrayLike, capacity_tokens: float) -> McSfBounds:
    """The bounds on MC-SF and on the best schedule of its proof, for requests that are all there at the start, lengths exact.

    With V = sum_o n_o sum_{o' <= o} n_o' vol_o': MC-SF <= 1536 V/M + 24 sum o, best >= V/(6 M) + sum o/6.

    Parameters
    ----------
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1
    capacity_tokens : float
        M.
    """
    s, o = np.asarray(prompt_tokens), np.asarray(output_tokens)
    lengths, counts = np.unique(o, return_counts=True)
    held = counts * _volumes(np.full(len(lengths), s.min()), lengths)
    pairs = float(counts @ np.cumsum(held))
    total = float(o.sum())
    applies = bool((s == s.flat[0]).all() and capacity_tokens >= 2 * float((s + o).max()))
    return McSfBounds(
        least=pairs / (6 * capacity_tokens) + total / 6,
        most=1536 * pairs / capacity_tokens + 24 * total,
        applies=applies,
    )


def _volumes(prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
    return footprint.volume(prompt_tokens, output_tokens, 1, residency="slots")
