"""Where the warm-up of a run ends: MSER-5."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._result import json_safe, text_table
from .._types import ArrayLike
from .series import checked_series

SCHEMA = "stability/warmup/1"
BATCH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """End of the warm-up of a run.

    Attributes
    ----------
    samples : int
        Samples to drop from the front, a multiple of five.
    of : int
        Samples there were.
    mean : float
        Mean of the rest (without a last batch of fewer than five).
    reliable : bool
        False if the minimum lies at the end of the search (half the run): the run is too short, or drifts.
    """

    samples: int
    of: int
    mean: float
    reliable: bool

    def summary(self) -> str:
        """The result as a text table."""
        note = "" if self.reliable else " (at the end of the search: run longer)"
        return text_table(
            [("warm-up", f"{self.samples} of {self.of} samples{note}"), ("mean after", f"{self.mean:.6g}")]
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": SCHEMA, **json_safe(self)}


def mser5(values: ArrayLike) -> Warmup:
    """Truncation that minimises the standard error of the mean of the rest.

    With Y_1..Y_n the means of five samples each and Ybar_d the mean of those after the first d, it is the d in
    0..floor(n/2) that minimises `sum_{i > d} (Y_i - Ybar_d)**2 / (n - d)**2`. Valid for a run that ends in a stationary
    stretch longer than its warm-up; a series that keeps growing has none, see `stability_test`.

    Parameters
    ----------
    values : (n,) array_like, n >= 10
        Samples at equal steps from the start of the run.

    Returns
    -------
    Warmup

    Raises
    ------
    InputError
        If the series is shorter than 10 or holds values that are not finite.

    References
    ----------
    White, "An effective truncation heuristic for bias reduction in simulation output", Simulation 69 (1997) 323.
    White, Cobb and Spratt, "A comparison of five steady-state truncation heuristics for simulation", WSC 2000.

    Examples
    --------
    >>> mser5([9.0] * 10 + [1.0, 2.0] * 20).samples
    10
    """
    series = checked_series("values", values, at_least=2 * BATCH)
    count = len(series) // BATCH
    means = series[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    centred = means - means.mean()
    left = count - np.arange(count // 2 + 1)
    sums = np.cumsum(centred[::-1])[::-1][: len(left)]
    squares = np.cumsum(centred[::-1] ** 2)[::-1][: len(left)]
    best = int(np.argmin((squares - sums**2 / left) / left**2))
    return Warmup(
        samples=best * BATCH,
        of=len(series),
        mean=float(means[best:].mean()),
        reliable=best < len(left) - 1,
    )
