"""Three ratios of a backlog path and their distribution in a critical system (load exactly 1).

Under heavy-traffic scaling the backlog of a critical system started empty is reflected Brownian motion without drift, |B|
(Whitt, Stochastic-Process Limits, 2002, ch. 5 and 9). The ratios are free of scale, so their quantiles under |B| need no
estimate of a variance. Among all systems of load <= 1 the critical one started empty grows most, and among those of load
>= 1 it stays lowest: its quantiles are the limits of the test.
"""

from __future__ import annotations

import math

import numpy as np

from .._types import FloatArray

GROWTH_GROUPS = 32
RETURN_GROUPS = 96

# Quantiles over 10 million paths of |B|, 8 and 2 samples to a group: `python -m validation.calibration --limits`.
PROBABILITIES = (0.1, 0.03, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6, 1e-6)
GROWTH_LIMITS = (2.062, 2.779, 3.362, 3.953, 4.465, 5.01, 5.517, 6.046, 6.489, 7.013, 7.435)
HEIGHT_LIMITS = (0.2747, 0.2206, 0.1929, 0.1727, 0.1597, 0.1486, 0.1404, 0.1331, 0.1276, 0.1224, 0.1193)
SPREAD_LIMITS = (0.1932, 0.158, 0.1388, 0.1247, 0.1154, 0.1074, 0.1018, 0.0968, 0.09305, 0.08946, 0.08615)


def growth_ratio(groups: FloatArray) -> FloatArray:
    """Student's ratio of the increments between group means: large where a backlog grows steadily.

    Parameters
    ----------
    groups : (..., 32) array
        Means of equal consecutive stretches of the whole run.

    Returns
    -------
    (...) array
        `mean(d) * sqrt(31) / sd(d)`, d the 31 increments; NaN where the series is constant.
    """
    steps = np.diff(groups, axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: FloatArray = steps.mean(axis=-1) * math.sqrt(steps.shape[-1]) / steps.std(axis=-1, ddof=1)
    return ratio


def height_ratio(groups: FloatArray) -> FloatArray:
    """Mean height over the lowest group, in units of the path's own roughness: small where a queue keeps emptying.

    Parameters
    ----------
    groups : (..., 96) array
        Means of equal consecutive stretches of the last three quarters of the run.

    Returns
    -------
    (...) array
        `mean(y - min y) / sqrt(sum(d**2))`, d the 95 increments; NaN where the series is constant.
    """
    return _over_roughness(groups.mean(axis=-1) - groups.min(axis=-1), groups)


def spread_ratio(groups: FloatArray) -> FloatArray:
    """Standard deviation in units of the path's own roughness: small where a backlog keeps returning to its mean.

    The unit-root statistic of Sargan and Bhargava (Econometrica 51 (1983) 153).

    Parameters
    ----------
    groups : (..., 96) array
        As in `height_ratio`.

    Returns
    -------
    (...) array
        `sd(y) / sqrt(sum(d**2))`; NaN where the series is constant.
    """
    return _over_roughness(groups.std(axis=-1), groups)


def _over_roughness(size: FloatArray, groups: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):
        ratio: FloatArray = size / np.sqrt((np.diff(groups, axis=-1) ** 2).sum(axis=-1))
    return ratio


def growth_limit(probability: float) -> float:
    """Value `growth_ratio` exceeds with `probability` in a critical system (power-law tail between and beyond the table)."""
    return math.exp(_interpolated(probability, np.log(GROWTH_LIMITS)))


def height_limit(probability: float) -> float:
    """Value `height_ratio` stays below with `probability` in a critical system.

    Between and beyond the table log(probability) is linear in 1/limit**2, as it is for the integral of |B| (Kac 1946:
    log P(integral < x) ~ -0.078/x**2) and for the root of that of its square.
    """
    return 1 / math.sqrt(_interpolated(probability, 1 / np.square(HEIGHT_LIMITS)))


def spread_limit(probability: float) -> float:
    """Value `spread_ratio` stays below with `probability` in a critical system; interpolated like `height_limit`."""
    return 1 / math.sqrt(_interpolated(probability, 1 / np.square(SPREAD_LIMITS)))


def _interpolated(probability: float, values: FloatArray) -> float:
    """Piecewise linear in log(probability); the last piece goes on."""
    logs = np.log(PROBABILITIES)
    k = int(np.clip(np.searchsorted(-logs, -math.log(probability)), 1, len(logs) - 1))
    slope = (values[k] - values[k - 1]) / (logs[k] - logs[k - 1])
    return float(values[k] + slope * (math.log(probability) - logs[k]))
