r"""Demands of a request whose first c prompt tokens are found in the prefix cache.

Whole blocks are found, and the last prompt token is always computed: c is a multiple of the block size below s. What remains to compute is
a prompt of x = s - c tokens, but every iteration holds, and every decode reads, c tokens more:

.. math:: \text{PREFILL} = x,\quad n = \lceil x/B \rceil + o - 1,\quad g = g(x, o) + c\,n,\quad r = r(x, o) + c\,(o-1),\quad
          \text{CONTEXT} = x^2/2 + c\,x .

So the mean demand follows from that of (x, o) and two moments of c when c is independent of (x, o) (`behind`): exact for a constant c,
an **approximation** where both come from the conversation.

The request holds KV for its whole prompt, found or not. Memory that several requests share is counted once elsewhere
(`stability.theory.prefix`).
"""

from __future__ import annotations

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray


def found_tokens(prompt_tokens: IntArray, cached_prefix_tokens: ArrayLike, block_size: int) -> IntArray:
    """Whole blocks of the cached prefix, in tokens, that leave at least one prompt token to compute."""
    most = np.minimum(np.asarray(cached_prefix_tokens, dtype=np.int64), prompt_tokens - 1)
    return np.asarray(np.maximum(most, 0) // block_size * block_size)


def behind(demand: FloatArray, first: ArrayLike, second: ArrayLike) -> FloatArray:
    """Mean demand of requests that compute what `demand` says behind c cached tokens.

    Parameters
    ----------
    demand : (15, ...) ndarray
        Mean demand of (x, o), or of each such request.
    first, second : array_like
        E[c] and E[c**2], tokens and tokens**2; c independent of (x, o), or given for each request.

    Examples
    --------
    Ten tokens computed and three put out behind 100 found: two decodes read 111 and 112.

    >>> from stability.theory.moments import Demand, demands
    >>> import numpy as np
    >>> one = demands(np.array([10]), np.array([3]), 512, 1)
    >>> float(behind(one, 100, 100**2)[Demand.READ, 0])
    223.0
    """
    from .moments import Demand

    c, c2 = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    x, d, n = demand[Demand.PREFILL], demand[Demand.DECODE], demand[Demand.ITERATIONS]
    moved = np.array(demand, dtype=np.float64)
    moved[Demand.READ] += c * d
    moved[Demand.CONTEXT] += c * x
    for held in (Demand.VOLUME, Demand.LEAST_VOLUME, Demand.RESERVED):
        moved[held] += c * n
    moved[Demand.LIMIT] += c
    moved[Demand.PROMPT] += c
    moved[Demand.LIMIT_SQUARE] += 2 * c * demand[Demand.LIMIT] + c2
    moved[Demand.PREFILL_HELD] += c * x
    moved[Demand.CONTEXT_HELD] += c * (demand[Demand.PREFILL_HELD] + demand[Demand.CONTEXT]) + c2 * x
    moved[Demand.READ_HELD] += 2 * c * demand[Demand.READ] + c2 * d
    return moved
