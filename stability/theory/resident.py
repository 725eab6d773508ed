r"""KV of a request met at a random decode step: length-biased, as long outputs are met more often.

A request is met in each of its o - 1 decodes alike, the j-th reading s + j, hence with r and q the sums of these and of
their squares, :math:`E[K] = E[r]/E[o-1]`, :math:`E[K^2] = E[q]/E[o-1]`. Independent prompts and outputs make K the sum of a prompt and of
J with :math:`P(J = j) \propto P(o > j)`. Not to be confused with the KV of a request averaged over requests.
"""

from __future__ import annotations

import numpy as np

from .._types import ComplexArray, FloatArray, IntArray
from ..model.lengths import Lengths, ProductPart
from .moments import Demand


def resident_moments(demand: FloatArray) -> tuple[float, float]:
    """Mean and standard deviation of the KV of a decoding request at a random step, tokens.

    Parameters
    ----------
    demand : (15,) ndarray
        Mean demand of the mix.
    """
    decodes = float(demand[Demand.DECODE])
    mean = float(demand[Demand.READ]) / decodes
    return mean, float(np.sqrt(max(float(demand[Demand.READ_HELD]) / decodes - mean * mean, 0.0)))


def resident_transform(laws: tuple[Lengths, ...], shares: tuple[float, ...], cell: float, size: int) -> ComplexArray:
    """Fourier transform (`rfft`) of the law of that KV on a lattice of `size` cells of `cell` tokens.

    Mass between two points is shared so that the mean is kept; what lies beyond the lattice is put on its end.
    """
    total, weight = np.zeros(size // 2 + 1, dtype=np.complex128), 0.0
    for lengths, share in zip(laws, shares, strict=True):
        for part in lengths.parts():
            if isinstance(part, ProductPart):
                survival = np.zeros(int(part.output.values[-1]) + 1)
                survival[part.output.values] = part.output.probabilities
                survival = 1 - np.cumsum(survival)  # P(o > j)
                steps = np.arange(1, len(survival))
                decodes = float(survival[1:].sum())
                if decodes <= 0:
                    continue
                prompt = lattice(part.prompt.values, part.prompt.probabilities, cell, size)
                grown = lattice(steps, survival[1:] / decodes, cell, size)
                found = np.fft.rfft(prompt) * np.fft.rfft(grown)
            else:
                s, o = part.prompt_tokens, part.output_tokens
                each = np.full(len(s), 1 / len(s)) if part.probabilities is None else part.probabilities
                edges = np.bincount(s + 1, weights=each, minlength=int((s + o).max()) + 1).astype(np.float64)
                edges -= np.bincount(s + o, weights=each, minlength=len(edges))
                met = np.maximum(np.cumsum(edges), 0.0)
                decodes = float(met.sum())
                if decodes <= 0:
                    continue
                found = np.fft.rfft(lattice(np.arange(len(met)), met / decodes, cell, size))
            total += share * part.weight * decodes * found
            weight += share * part.weight * decodes
    return total / weight


def lattice(values: IntArray | FloatArray, weights: FloatArray, cell: float, size: int) -> FloatArray:
    """Masses at 0, `cell`, 2 `cell`, ... with the mean of the given law.

    Examples
    --------
    >>> lattice(np.array([5, 10]), np.array([0.5, 0.5]), 10.0, 3).tolist()
    [0.25, 0.75, 0.0]
    """
    place = np.minimum(values / cell, size - 1.0)
    low = np.minimum(place.astype(np.int64), size - 2)
    up = weights * (place - low)
    found = np.bincount(low, weights=weights - up, minlength=size) + np.bincount(low + 1, weights=up, minlength=size)
    return np.asarray(found, dtype=np.float64)
