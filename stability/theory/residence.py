r"""How long what nobody uses stays in the prefix cache, and whether it is still there when it is asked for.

LRU over many independent sessions acts as a cache that keeps everything for one time T after its last use (Che, Tung, Wang 2002; Fricker,
Robert, Roberts 2012: exact as the number of objects grows). With X the time until a prefix is used again,

.. math:: P(\text{found}) = P(X \le T), \qquad E[\text{time in the cache}] = E[\min(X, T)] .

Here X is the sum of j think times (gamma distributed) and of the residences between them. With T = 0 nothing is found, not even at once
(X = 0): a backlog takes every block as it is freed.
"""

from __future__ import annotations

import numpy as np

from .._types import ArrayLike, FloatArray


def reuse(
    residence_s: ArrayLike, think_s: float, think_cv: float, *, gaps: int = 1, between_s: ArrayLike = 0.0
) -> tuple[FloatArray, FloatArray]:
    """P(X <= T) and E[min(X, T)] for a prefix used again after some think times.

    Parameters
    ----------
    residence_s : array_like, >= 0
        T: how long an unused prefix stays, s.
    think_s, think_cv : float >= 0
        Mean and coefficient of variation of a think time.
    gaps : int >= 1
        Think times until it is used again: X is their sum, plus
    between_s : array_like, >= 0
        a constant, s.

    Returns
    -------
    found, kept_s : ndarray
        Probability, and mean time, s.

    Examples
    --------
    Exponential think times of 10 s, kept for 10 s: 1 - 1/e, and 10 s times as much.

    >>> found, kept_s = reuse(10.0, 10.0, 1.0)
    >>> round(float(found), 4), round(float(kept_s), 3)
    (0.6321, 6.321)
    """
    time, shift = np.broadcast_arrays(
        np.asarray(residence_s, dtype=np.float64), np.asarray(between_s, dtype=np.float64)
    )
    rest = np.maximum(time - shift, 0.0)
    mean = gaps * think_s
    if think_cv == 0 or think_s == 0:
        return np.asarray(((time >= shift + mean) & (time > 0)).astype(np.float64)), np.asarray(
            np.minimum(time, shift + mean)
        )
    from scipy.special import gammainc

    shape = gaps / think_cv**2
    scale = think_s * think_cv**2
    below, longer = gammainc(shape, rest / scale), gammainc(shape + 1, rest / scale)
    kept = np.minimum(time, shift) + mean * longer + rest * (1 - below)
    return np.asarray(below), np.asarray(kept)
