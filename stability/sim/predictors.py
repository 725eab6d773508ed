r"""Predicted remaining steps of a request that has generated a tokens, as tables over a.

With O the output length and H the horizon,

.. math:: c(a) = E[\min(O - a, H) \mid O > a] = (1 - p)\,H + p\,\mu = \sum_{k=0}^{H-1} P(O > a + k)/P(O > a),

p the chance that the request ends within H steps and mu its mean remaining steps when it does (arXiv 2605.06113). Survival
takes the output lengths of all requests, exact match those of the request's own class, the oracle knows O.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._types import FloatArray
from ..model.lengths import Lengths, ProductPart
from ..model.workload import Workload


def output_mass(lengths: Lengths) -> FloatArray:
    """P(O = o) for o = 0 .. longest tabulated output."""
    found = np.zeros(1)
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            mass = np.zeros(int(part.output.values[-1]) + 1)
            mass[part.output.values] = part.output.probabilities
        else:
            mass = np.bincount(part.output_tokens, weights=part.probabilities).astype(np.float64)
            mass /= mass.sum()
        found = np.pad(found, (0, max(0, len(mass) - len(found))))
        found[: len(mass)] += part.weight * mass
    return found


def remaining(mass: FloatArray, horizon: float) -> FloatArray:
    """E[min(O - a, horizon) | O > a] for a = 0 .. len(mass) - 1; the horizon where no O exceeds a (nothing is known).

    Parameters
    ----------
    mass : (m,) ndarray
        P(O = o), o = 0 .. m - 1.
    horizon : float
        Steps; infinite for the mean residual life, which is then 1 beyond all lengths.

    Examples
    --------
    Outputs 1 and 3 alike, horizon 2: at first (1 + 2)/2 steps; after one token surely 2.

    >>> remaining(np.array([0, 0.5, 0, 0.5]), 2).tolist()
    [1.5, 2.0, 1.0, 2.0]
    """
    survival = np.maximum(mass.sum() - np.cumsum(mass), 0.0)  # P(O > a)
    survival[np.flatnonzero(mass)[-1] :] = 0.0
    below = np.concatenate(([0.0], np.cumsum(survival)))  # sum of P(O > j) over j < a
    count = len(survival)
    end = count if np.isinf(horizon) else np.minimum(np.arange(count) + int(horizon), count)
    unknown = 1.0 if np.isinf(horizon) else float(horizon)
    found = np.full(count, unknown)
    np.divide(below[end] - below[:count], survival, out=found, where=survival > 0)
    return found


def prediction_tables(workload: Workload, predictor: str, horizon: float) -> FloatArray:
    """`remaining` of each request class, shape (n_classes, longest output + 1); empty for the oracle.

    Parameters
    ----------
    workload : Workload
        Whose output lengths the predictor has learnt.
    predictor : {"survival", "exact_match", "oracle"}
        What it learns from.
    horizon : float
        Steps, or infinite.
    """
    if predictor == "oracle":
        return np.empty((len(workload.classes), 0))
    laws = [output_mass(item.lengths) for item in workload.classes]
    if predictor == "survival":
        rates = np.array([item.mean_rate_per_s if len(laws) > 1 else 1.0 for item in workload.classes])
        laws = [_mixture(laws, rates / rates.sum())] * len(laws)
    longest = max(len(mass) for mass in laws)
    unknown = 1.0 if np.isinf(horizon) else float(horizon)
    table = np.full((len(laws), longest), unknown)
    for row, mass in enumerate(laws):
        table[row, : len(mass)] = remaining(mass, horizon)
    return table


def _mixture(laws: Sequence[FloatArray], shares: FloatArray) -> FloatArray:
    found = np.zeros(max(len(mass) for mass in laws))
    for mass, share in zip(laws, shares.tolist(), strict=True):
        found[: len(mass)] += share * mass
    return found
