r"""Whether completions synchronise: few distinct lengths make admissions, completions and evictions run in a cycle.

On the boundary K = M the eviction-free equilibrium of the large-system recursion is stable iff all roots of

.. math:: \sum_{a \ge 0} w_a z^{-a} = 0, \qquad w_a = E[(s + a)\,1\{o > a\}]

lie inside the unit circle. The number outside is minus the winding number of the sum along the circle: one FFT. Few
atoms, not a small coefficient of variation, make the cycle: outputs 100 or 500 give hundreds of roots, U(250, 750) none.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from .._types import FloatArray
from ..model.lengths import AtomPart, Lengths, ProductPart

LONGEST = 1 << 17
"""Output lengths beyond this are taken together."""


@lru_cache(maxsize=256)
def roots_outside(laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> int:
    """Roots outside the unit circle for requests drawn from `laws` with probabilities `shares`; 0: no cycle.

    Parameters
    ----------
    laws : tuple of Lengths
    shares : tuple of float
        Probabilities of the laws.

    Examples
    --------
    >>> from stability.model.lengths import Constant, Discrete, Independent, Uniform
    >>> roots_outside((Independent(Constant(10), Discrete([100, 500])),), (1.0,))
    499
    >>> roots_outside((Independent(Uniform(250, 750), Uniform(250, 750)),), (1.0,))
    0
    """
    weights = _weights(laws, shares)
    size = 1 << int(np.ceil(np.log2(16 * len(weights))))
    around = np.fft.fft(weights, size)
    turns = np.angle(around[np.r_[1:size, 0]] * np.conj(around)).sum() / (2 * np.pi)
    return max(0, round(float(turns)) * -1)


def _weights(laws: tuple[Lengths, ...], shares: tuple[float, ...]) -> FloatArray:
    """w_a for a = 0 .. longest output - 1."""
    longest = 0
    columns: list[tuple[float, FloatArray, FloatArray]] = []
    for lengths, share in zip(laws, shares, strict=True):
        for part in lengths.parts():
            mass, prompt = _by_output(part)
            longest = max(longest, len(mass))
            columns.append((share * part.weight, mass, prompt))
    total = np.zeros(longest)
    for weight, mass, prompt in columns:
        beyond = _tail(mass)  # P(o > a) at a = 0 ..
        ages = np.arange(len(beyond))
        total[: len(beyond)] += weight * (_tail(prompt) + ages * beyond)
    return total[total > 0]


def _tail(mass: FloatArray) -> FloatArray:
    """Sum of mass[a + 1:] at each a, from mass over output lengths 0, 1, ..."""
    return np.asarray(np.cumsum(mass[::-1])[::-1][1:])


def _by_output(part: ProductPart | AtomPart) -> tuple[FloatArray, FloatArray]:
    """P(o = k) and E[s; o = k], k = 0 .. longest; observed outputs are smoothed, since their gaps are chance."""
    if isinstance(part, ProductPart):
        outputs = np.minimum(part.output.values, LONGEST)
        mass = np.bincount(outputs, weights=part.output.probabilities).astype(np.float64)
        return mass, mass * part.prompt.mean
    outputs = np.minimum(part.output_tokens, LONGEST)
    weights = np.full(len(outputs), 1 / len(outputs)) if part.probabilities is None else part.probabilities
    mass = np.bincount(outputs, weights=weights).astype(np.float64)
    prompt = np.bincount(outputs, weights=weights * part.prompt_tokens).astype(np.float64)
    if part.probabilities is None and np.count_nonzero(mass) > 30:
        ages = np.arange(len(mass))
        spread = float(np.sqrt(mass @ (ages - mass @ ages) ** 2))
        width = max(1.0, 0.9 * spread * len(outputs) ** -0.2)  # Silverman's rule
        mass, prompt = _smooth(mass, width), _smooth(prompt, width)
    return mass, prompt


def _smooth(mass: FloatArray, width: float) -> FloatArray:
    """Convolution with a normal of standard deviation `width`, reflected at 1, total kept."""
    size = 1 << int(np.ceil(np.log2(2 * len(mass) + 12 * width)))
    lags = np.minimum(np.arange(size), size - np.arange(size))
    kernel = np.exp(-0.5 * (lags / width) ** 2)
    spread = np.fft.irfft(np.fft.rfft(mass, size) * np.fft.rfft(kernel / kernel.sum()), size)
    kept = spread[: len(mass)].copy()
    behind = spread[len(mass) :][::-1][: len(mass) - 1]
    kept[1 : 1 + len(behind)] += behind
    kept[0] = 0.0
    kept = np.maximum(kept, 0.0)
    return np.asarray(kept * mass.sum() / kept.sum())
