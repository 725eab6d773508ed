r"""What one request takes from a replica: residence, KV volume, reads and tokens.

An iteration computes one token of every decoding request and prompt tokens in chunks of at most B tokens, so a request
of s prompt and o output tokens is resident for `n = ceil(s/B) + o - 1` iterations (the first output token leaves with
the last chunk). Its KV volume g is the sum of its footprints over these iterations, in whole blocks,

.. math:: g = \sum_{j \le \lceil s/B \rceil} R(\min(jB, s)) + \sum_{j=1}^{o-1} R(s+j),
          \qquad R(x) = b\,\lceil x/b \rceil,

and its decodes read `r = (o-1)s + o(o-1)/2` KV tokens, never rounded. The KV of the last output token is never stored.

Conventions of papers, by `residency`:

- `"engine"`: as above.
- `"slots"` (arXiv 2604.11001): one slot per output token, footprint s+j after the j-th; prefill takes memory, no time.
- `"wait"` (arXiv 2504.11320): one prefill iteration and o-1 decodes; all resident KV is read in every iteration, the
  prefill's included. The paper's decode length is l' = o-1.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray
from ..errors import check_choice

Residency = Literal["engine", "slots", "wait"]
RESIDENCIES = ("engine", "slots", "wait")


def chunks(prompt_tokens: ArrayLike, budget: int) -> IntArray:
    """Iterations that prefill a prompt in whole-budget chunks: ceil(s/B)."""
    return np.asarray(-(-np.asarray(prompt_tokens, dtype=np.int64) // budget))


def blocks(tokens: ArrayLike, block_size: int) -> IntArray:
    """Tokens rounded up to whole KV blocks, in tokens."""
    return np.asarray(-(-np.asarray(tokens, dtype=np.int64) // block_size) * block_size)


def iterations(prompt_tokens: ArrayLike, output_tokens: ArrayLike, budget: int, residency: str = "engine") -> IntArray:
    """Iterations a request is resident: n.

    Parameters
    ----------
    prompt_tokens, output_tokens : array_like of int, >= 1
        Lengths s and o, tokens.
    budget : int >= 1
        Token budget B of an iteration.
    residency : {"engine", "slots", "wait"}
        Convention.

    Examples
    --------
    >>> int(iterations(1000, 200, 512))
    201
    """
    check_choice("residency", residency, RESIDENCIES)
    output = np.asarray(output_tokens, dtype=np.int64)
    return np.asarray(output if residency != "engine" else chunks(prompt_tokens, budget) + output - 1)


def reads(prompt_tokens: ArrayLike, output_tokens: ArrayLike, residency: str = "engine") -> FloatArray:
    """KV tokens a request's own decodes read over its life: r, token-iterations.

    Parameters
    ----------
    prompt_tokens, output_tokens : array_like of int, >= 1
        Lengths s and o, tokens.
    residency : {"engine", "slots", "wait"}
        Convention.

    Examples
    --------
    >>> float(reads(100, 3))
    203.0
    """
    check_choice("residency", residency, RESIDENCIES)
    s = np.asarray(prompt_tokens, dtype=np.float64)
    o = np.asarray(output_tokens, dtype=np.float64)
    if residency == "slots":
        return np.asarray(s * o + o * (o + 1) / 2)
    decodes = (o - 1) * s + o * (o - 1) / 2
    return np.asarray(decodes + s if residency == "wait" else decodes)


def volume(
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    budget: int,
    block_size: int = 1,
    *,
    residency: str = "engine",
    least: bool = False,
) -> FloatArray:
    """KV tokens held, summed over a request's iterations: g, token-iterations.

    Parameters
    ----------
    prompt_tokens, output_tokens : array_like of int, >= 1
        Lengths s and o, tokens.
    budget : int >= 1
        Token budget B of an iteration.
    block_size : int >= 1
        KV block; footprints are rounded up to blocks.
    residency : {"engine", "slots", "wait"}
        Convention.
    least : bool
        Prefill the ragged chunk first: the least volume any chunking can have, which a bound must use.

    Examples
    --------
    >>> float(volume(100, 3, 512))  # 100 + 101 + 102
    303.0
    >>> float(volume(10, 40, 2048, residency="slots"))
    1220.0
    """
    check_choice("residency", residency, RESIDENCIES)
    s = np.asarray(prompt_tokens, dtype=np.int64)
    o = np.asarray(output_tokens, dtype=np.int64)
    if residency == "slots":
        return growth_volume(s + o, block_size) - growth_volume(s, block_size)
    decode = growth_volume(s + o - 1, block_size) - growth_volume(s, block_size)
    if residency == "wait":
        return decode + blocks(s, block_size)
    return decode + prefill_volume(s, budget, block_size, least=least)


def prefill_volume(prompt_tokens: ArrayLike, budget: int, block_size: int, *, least: bool = False) -> FloatArray:
    """The part of g held during prefill, token-iterations: chunks of B with the ragged one last, or first if `least`."""
    s = np.asarray(prompt_tokens, dtype=np.int64)
    count = chunks(s, budget)
    if not least:
        whole = blocks(np.arange(1, int(count.max(initial=1))) * budget, block_size)
        sums = np.concatenate(([0], np.cumsum(whole)))
        return np.asarray(sums[count - 1] + blocks(s, block_size), dtype=np.float64)
    if budget % block_size == 0:
        total = count * blocks(s, block_size) - budget * (count * (count - 1) // 2)
        return np.asarray(total, dtype=np.float64)
    held = np.zeros(s.shape)
    for later in range(int(count.max(initial=1))):
        held += np.where(later < count, blocks(s - later * budget, block_size), 0)
    return held


def prefill_held(prompt_tokens: ArrayLike, budget: int) -> tuple[FloatArray, FloatArray]:
    """KV held during a prompt's own prefill, weighted by what its chunks cost.

    Returns
    -------
    by_token, by_context : ndarray
        Sums over chunks of chunk * held, tokens**2, and of chunk * (past + chunk/2) * held, tokens**3.
    """
    s = np.asarray(prompt_tokens, dtype=np.int64)
    whole = (chunks(s, budget) - 1).astype(np.float64)  # chunks of B tokens before the last
    past = whole * budget
    last = s - past
    by_token = budget * budget * whole * (whole + 1) / 2 + last * s
    # chunk j of B holds jB and works B (jB - B/2)
    cubes = (whole + 1) * whole * (2 * whole + 1) / 6 - whole * (whole + 1) / 4
    by_context = float(budget) ** 3 * cubes + last * (past + last / 2) * s
    return by_token, by_context


def growth_volume(tokens: ArrayLike, block_size: int) -> FloatArray:
    r"""Sum of R(j) over j = 1..x: x(x+b)/2 + q(b-q)/2 with q = x mod b, token-iterations."""
    x = np.asarray(tokens, dtype=np.int64)
    rest = x % block_size
    return np.asarray(x * (x + block_size) / 2 + rest * (block_size - rest) / 2, dtype=np.float64)


def reservation(
    prompt_tokens: ArrayLike, output_tokens: ArrayLike, max_output_tokens: ArrayLike, budget: int, block_size: int = 1
) -> FloatArray:
    """KV tokens set aside under reservation admission, summed over a request's iterations: R(s + o_max) * n.

    Parameters
    ----------
    prompt_tokens, output_tokens, max_output_tokens : array_like of int, >= 1
        Lengths s, o and the output limit o_max, tokens.
    budget : int >= 1
        Token budget B of an iteration.
    block_size : int >= 1
        KV block.
    """
    limit = np.asarray(prompt_tokens, dtype=np.int64) + np.asarray(max_output_tokens, dtype=np.int64)
    return np.asarray(blocks(limit, block_size) * iterations(prompt_tokens, output_tokens, budget), dtype=np.float64)


def continuous_volume(prompt_tokens: ArrayLike, output_tokens: ArrayLike, chunk_tokens: float) -> FloatArray:
    """The smoothed KV volume of arXiv 2605.04595: (1 + s/c)s/2 + s*o + (1 + o)o/2, token-iterations.

    It differs from `volume` by about one s (the paper keeps the last token's KV and averages over chunk phases).
    """
    s = np.asarray(prompt_tokens, dtype=np.float64)
    o = np.asarray(output_tokens, dtype=np.float64)
    return np.asarray((1 + s / chunk_tokens) * s / 2 + s * o + (1 + o) * o / 2)
