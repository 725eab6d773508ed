"""Laws of sums and of random walks on a lattice, by FFT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import FloatArray

SIZE = 1 << 13
"""Lattice points; tables longer than this fold their tail onto the last point."""


def lattice_law(sizes: FloatArray, weights: FloatArray, points: int = SIZE) -> FloatArray:
    """Law of a size on the points 0, 1, ..., `points` - 1; sizes are split between neighbours to keep their mean.

    Parameters
    ----------
    sizes, weights : (n,) ndarray
        Possible sizes, in lattice units, and their probabilities.
    points : int
        Length of the lattice; longer sizes fall on its last point.
    """
    floor = np.minimum(np.floor(sizes), points - 2).astype(np.int64)
    part = np.clip(sizes - floor, 0.0, 1.0)
    mass = np.bincount(floor, weights=weights * (1 - part), minlength=points)
    mass += np.bincount(floor + 1, weights=weights * part, minlength=points)
    return np.asarray(mass / mass.sum())


def compound_poisson(rate: float, mass: FloatArray) -> FloatArray:
    """Law of the sum of a Poisson number of sizes of law `mass`."""
    return np.maximum(np.fft.irfft(np.exp(rate * (np.fft.rfft(mass) - 1)), len(mass)), 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Walk:
    """A random walk whose steps are `up` minus a compound Poisson sum, in lattice units, drifting down.

    Wiener-Hopf by Spitzer (1956): with phi(z) = E z**step, the positive powers of log(1 - phi) belong to the ascending
    ladder heights, the others to the descending ones. On a circle of radius r > 1 with phi(r) < 1 the logarithm is the
    principal one, so one FFT gives its powers.

    Attributes
    ----------
    powers : (SIZE,) ndarray
        Coefficients of z**n in -log(1 - phi) times r**n; n < 0 at SIZE + n.
    tilt : float
        log r.
    """

    powers: FloatArray
    tilt: float

    @classmethod
    def of(cls, transform: FloatArray, tilt: float) -> Walk:
        """From E z**step at z = exp(tilt + 2 pi i k/SIZE), k = 0..SIZE-1."""
        return cls(-np.fft.fft(np.log1p(-transform)).real / SIZE, tilt)

    def ascending(self) -> FloatArray:
        """Coefficients of z**n, n = 0..SIZE/2 - 1, with 0 at n = 0."""
        found = self.powers[: SIZE // 2] * np.exp(-self.tilt * np.arange(SIZE // 2))
        found[0] = 0.0
        return np.asarray(found)

    def descending(self, decay: float) -> float:
        """Sum over n >= 0 of the coefficient of z**-n times exp(-decay n), for decay >= tilt."""
        behind = np.append(self.powers[0], self.powers[: SIZE // 2 : -1])
        return float(behind @ np.exp((self.tilt - decay) * np.arange(len(behind))))

    def maximum(self) -> FloatArray:
        """Law of the greatest height over all times, 0 included: also of the walk reflected at 0, when stationary."""
        law = np.fft.irfft(np.exp(np.fft.rfft(self.ascending(), SIZE)), SIZE)
        law = np.maximum(law, 0.0)
        return np.asarray(law / law.sum())
