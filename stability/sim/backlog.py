"""Samples of the backlog at equal numbers of arrivals, few enough to cost little."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .._types import FloatArray, IntArray

FEWEST_SAMPLES = 256
"""In a run of as many requests: what the first look of the stability test takes. Twice as many are thinned."""


@dataclass(slots=True)
class BacklogSamples:
    """Requests in the system and waiting, at every `spacing`-th arrival.

    With stationary arrivals these are equal steps of time but for chance that vanishes in long runs, which is what the
    stability test asks for.
    """

    spacing: int = 1
    _in_system: list[int] = field(default_factory=list)
    _waiting: list[int] = field(default_factory=list)

    def until_next(self, arrived: int) -> int:
        """Arrivals from `arrived` on until the next sample is due."""
        return self.spacing - arrived % self.spacing

    def take(self, arrived: int, in_system: IntArray, waiting: IntArray) -> int:
        """Take a sample if one is due: the number of samples then, otherwise 0.

        Parameters
        ----------
        arrived : int
            Requests so far.
        in_system, waiting : (n_replicas,) array
            Requests at each replica now.
        """
        if arrived % self.spacing:
            return 0
        self._in_system.append(int(in_system.sum()))
        self._waiting.append(int(waiting.sum()))
        taken = len(self._waiting)
        if taken == 2 * FEWEST_SAMPLES:
            self._in_system, self._waiting = self._in_system[1::2], self._waiting[1::2]
            self.spacing *= 2
        return taken

    def series(self) -> tuple[FloatArray, FloatArray]:
        """Requests in the system, and waiting."""
        return np.array(self._in_system, dtype=np.float64), np.array(self._waiting, dtype=np.float64)
