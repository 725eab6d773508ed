r"""`fit_length`: a length distribution from the counts of a histogram; `fit_lengths`: prompt and output from a trace.

Bucket-censored maximum likelihood: a request is known to lie in (b_{i-1}, b_i], the last bucket may be unbounded. With F the
distribution function of a family,

.. math:: \log L = \sum_i n_i \log\bigl(F(b_i + 1/2) - F(b_{i-1} + 1/2)\bigr) ,

the halves because lengths are the continuous variable rounded. Families of two parameters (lognormal, gamma, Weibull) are
set against the piecewise law, which meets every bucket (F between bounds by a monotone cubic in the logarithm of the length, and
tilted within the buckets to the measured mean where the sum of the lengths is known): the least BIC is taken. A family whose
likeliest law has a mean beyond `limit_tokens` before truncation is left out: the package has no such law. With many requests that is nearly always the piecewise law, rightly so; few call for a family.

The likelihood-ratio statistic `2 sum n log(n/expected)` tests a family: chi-squared, as many degrees of freedom as buckets less three.
What lies beyond the last finite bound nobody saw: a family extends to it by its own tail; the piecewise law puts it evenly in the
logarithm up to `limit_tokens`, or twice the last bound. Moments rest on that, and a warning says so.

References: Kulldorff, *Contributions to the Theory of Estimation from Grouped and Partially Grouped Samples* (1961). Fritsch and
Carlson, SIAM J. Numer. Anal. 17 (1980) 238, for the monotone cubic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from .._types import ArrayLike, FloatArray, read_only
from ..errors import InputError, check_choice, check_integer, check_number
from ..model.lengths import Gamma, Length, LogNormal, Quantiles, Weibull, token_array
from .length_fit import LengthFit, LengthsFit

FAMILIES = ("lognormal", "gamma", "weibull", "piecewise")

BEYOND = 1e-3
"""Share beyond the last bound from which a warning is due."""

REJECTED = 1e-3
"""p-value below which a family is called a poor fit."""

SUM_ERROR = 0.05
"""Deviation from a measured mean from which a warning is due."""

STEEPEST = 60.0
"""Exponent by which a bucket's mass may lean to one end to meet the measured mean."""

POINTS = 8
"""Points of the piecewise law in a bucket."""

RISE = 1e-7
"""Least rise of a piecewise distribution function between two of its points."""

TRACE_LEVELS = (*(level / 16 for level in range(1, 16)), 0.97, 0.985, 0.995, 0.999, 1.0)
"""Quantiles at which a trace's buckets end, closer in the tail, which the moments rest on."""


def fit_length(
    upper_bounds_tokens: ArrayLike,
    counts: ArrayLike,
    *,
    families: Sequence[str] = FAMILIES,
    limit_tokens: int | None = None,
    total_tokens: float | None = None,
) -> LengthFit:
    """The length distribution behind the bucket counts of a histogram, by censored maximum likelihood.

    Parameters
    ----------
    upper_bounds_tokens : (n,) array_like, > 0, increasing
        Upper bounds of the buckets, tokens; the last may be infinite.
    counts : (n,) array_like, >= 0
        Requests in each bucket (not cumulative).
    families : sequence of {"lognormal", "gamma", "weibull", "piecewise"}
        Families tried.
    limit_tokens : int, optional
        Longest length the engine accepts: the law is truncated there.
    total_tokens : float, optional
        Sum of all lengths, where the histogram counts it (Prometheus does): the piecewise law meets the mean, the others
        are held against it.

    Returns
    -------
    LengthFit
        The law of the family with the least BIC, with its goodness of fit.

    Raises
    ------
    InputError
        If bounds do not increase, or nothing was counted.

    Examples
    --------
    >>> bounds, counts = [500, 1000, 2000, float("inf")], [160, 340, 340, 160]  # symmetric in the logarithm about 1000
    >>> fit = fit_length(bounds, counts, families=["lognormal"])
    >>> round(fit.law.median_tokens, -1), round(fit.law.sigma, 2)
    (1000.0, 0.7)
    """
    bounds, number = _checked(upper_bounds_tokens, counts)
    for name in families:
        check_choice("families", name, FAMILIES)
    if limit_tokens is not None:
        check_integer("limit_tokens", limit_tokens, at_least=1)
        bounds, number = _up_to(limit_tokens, bounds, number)
    merged_bounds, merged = _without_empty_ends(bounds, number)
    measured = None if total_tokens is None else check_number("total_tokens", total_tokens, above=0) / number.sum()
    laws: dict[str, tuple[Length, float, int]] = {}
    for name in dict.fromkeys(families):
        found = _piecewise(bounds, number, limit_tokens, measured) if name == "piecewise" else None
        if name != "piecewise" and len(merged) >= 2:
            found = _family(name, merged_bounds, merged, limit_tokens)
        if found is not None:
            laws[name] = found
    if not laws and len(merged) >= 2:
        raise InputError(
            f"no law of {', '.join(families)} meets the counts with a mean below the limit, must be one. Add 'piecewise'."
        )
    if not laws:
        raise InputError(
            f"all {number.sum():.0f} requests are in one bucket, a family must have two at least. Add 'piecewise', or finer buckets."
        )
    bic = {name: -2 * likelihood + k * math.log(number.sum()) for name, (_, likelihood, k) in laws.items()}
    family = min(bic, key=bic.__getitem__)
    law = laws[family][0]
    least = bic[family]
    expected = _probabilities(law, bounds)
    share = number / number.sum()
    p_value = None if family == "piecewise" else _p_value(law, merged_bounds, merged)
    beyond = float(share[-1]) if math.isinf(bounds[-1]) else 0.0
    mean = float(law.mean)
    return LengthFit(
        law=law,
        family=family,
        requests=int(number.sum()),
        mean_tokens=mean,
        std_tokens=float(law.std),
        p_value=p_value,
        distance=float(np.abs(np.cumsum(expected) - np.cumsum(share)).max()),
        information={name: value - least for name, value in bic.items()},
        beyond=beyond,
        warnings=tuple(_warnings(bounds, mean, beyond, p_value, limit_tokens, measured)),
        upper_bounds_tokens=read_only(bounds),
        counts=read_only(number),
    )


def fit_lengths(
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    *,
    families: Sequence[str] = FAMILIES,
    limit_tokens: int | None = None,
) -> LengthsFit:
    """Prompt and output distributions of requests, and their rank correlation.

    Parameters
    ----------
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1
        Lengths, tokens, one pair a request.
    families : sequence of str
        Families tried, as for `fit_length`.
    limit_tokens : int, optional
        Longest length that either may have.

    Returns
    -------
    LengthsFit
        Marginal laws of buckets at quantiles of the lengths, and Spearman's rank correlation.

    Raises
    ------
    InputError
        If an argument breaks the rule stated for it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> s, o = np.ceil(rng.gamma(2, 200, 500)), np.ceil(rng.gamma(2, 100, 500))
    >>> fit = fit_lengths(s, o, families=["gamma", "lognormal"])
    >>> fit.prompt.family, abs(fit.spearman) < 0.1
    ('gamma', True)
    """
    prompt, output = token_array("prompt_tokens", prompt_tokens), token_array("output_tokens", output_tokens)
    if len(prompt) != len(output):
        raise InputError(f"{len(prompt)} prompts and {len(output)} outputs, must be as many. Give a pair a request.")
    fits = []
    for values in (prompt, output):
        bounds = np.unique(np.quantile(values, TRACE_LEVELS, method="higher"))
        counts = np.histogram(values, bins=np.concatenate(([-np.inf], bounds)) + 0.5)[0]
        total = float(values.sum())
        fits.append(fit_length(bounds, counts, families=families, limit_tokens=limit_tokens, total_tokens=total))
    ranks = [_ranks(values.astype(np.float64)) for values in (prompt, output)]
    constant = any(np.ptp(rank) == 0 for rank in ranks)
    spearman = 0.0 if constant else float(np.corrcoef(ranks[0], ranks[1])[0, 1])
    return LengthsFit(prompt=fits[0], output=fits[1], spearman=float(np.clip(spearman, -0.999, 0.999)))


def _checked(upper_bounds_tokens: ArrayLike, counts: ArrayLike) -> tuple[FloatArray, FloatArray]:
    bounds, number = np.array(upper_bounds_tokens, dtype=np.float64), np.array(counts, dtype=np.float64)
    if bounds.ndim != 1 or bounds.shape != number.shape or not len(bounds):
        raise InputError(
            f"{bounds.size} bounds and {number.size} counts, must be as many and at least 1. Give a count a bucket."
        )
    if np.isnan(bounds).any() or not bounds[0] > 0 or (np.diff(bounds) <= 0).any() or not np.isfinite(bounds[0]):
        raise InputError(
            f"upper_bounds_tokens = {bounds.tolist()}, must be > 0, finite but for the last, and increase. Sort them."
        )
    if not (np.isfinite(number) & (number >= 0)).all() or not number.sum() > 0:
        raise InputError(
            f"counts = {number.tolist()}, must be finite, >= 0 and not all 0. Pass differences of cumulative counts."
        )
    number[number < 1e-12 * number.sum()] = 0.0  # rounding of rates, not requests
    return bounds, number


def _up_to(limit: int, bounds: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The buckets that begin below the longest length, the last of them ended there."""
    below = np.concatenate(([0.0], bounds[:-1])) < limit
    if counts[~below].sum() > 1e-9 * counts.sum():
        raise InputError(
            f"{counts[~below].sum():.0f} requests are in buckets beyond limit_tokens = {limit}, must be none. Raise the limit."
        )
    bounds, counts = bounds[below].copy(), counts[below]
    bounds[-1] = min(bounds[-1], float(limit)) if math.isfinite(bounds[-1]) else math.inf
    return bounds, counts


def _without_empty_ends(bounds: FloatArray, counts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Buckets merged so that none is empty: the likelihood of a family is that of the rest, and its test needs counts."""
    used = np.flatnonzero(counts)
    ends = bounds[used].copy()
    # An empty bucket belongs to the next one that holds something; what follows the last goes to the last.
    if used[-1] < len(bounds) - 1:
        ends[-1] = bounds[-1] if math.isfinite(bounds[-1]) else math.inf
    return ends, counts[used]


def _distribution(name: str, parameters: FloatArray) -> Callable[[FloatArray], FloatArray]:
    """F of a family with the logarithms of its scale and its shape."""
    from scipy import special

    scale, shape = math.exp(parameters[0]), math.exp(parameters[1])
    if name == "lognormal":
        return lambda x: np.asarray(special.ndtr(np.log(x / scale) / shape))
    if name == "gamma":
        return lambda x: np.asarray(special.gammainc(shape, x * shape / scale))
    return lambda x: np.asarray(-np.expm1(-((x / scale) ** shape)))


def _family(name: str, bounds: FloatArray, counts: FloatArray, limit: int | None) -> tuple[Length, float, int] | None:
    """The likeliest law of a family, its log likelihood and its parameters; None if the package has no such law."""
    from scipy.optimize import minimize

    edges = (bounds if limit is None else np.minimum(bounds, float(limit))) + 0.5
    middle = np.log(
        np.maximum(np.concatenate(([edges[0] / 2], np.sqrt(edges[:-1] * np.minimum(edges[1:], 2 * edges[:-1])))), 1)
    )
    share = counts / counts.sum()
    centre = float(share @ middle)
    spread = max(math.sqrt(float(share @ (middle - centre) ** 2)), 0.05)
    start = {
        "lognormal": (centre, math.log(spread)),
        "gamma": (centre, -2 * math.log(spread)),
        "weibull": (centre, -math.log(spread)),
    }[name]

    def loss(parameters: FloatArray) -> float:
        if abs(parameters[1]) > 5 or abs(parameters[0] - centre) > 15:
            return math.inf
        steps = np.concatenate(([0.0], _distribution(name, parameters)(edges)))
        mass = np.maximum(np.diff(steps), 1e-300)
        whole = steps[-1] if limit is not None and math.isfinite(edges[-1]) else 1.0
        return float(-(share @ np.log(mass / max(whole, 1e-300))))

    best = minimize(
        loss, np.array(start), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12, "maxiter": 2000}
    )
    scale, shape = (float(math.exp(value)) for value in best.x)
    law: Length
    try:
        if name == "lognormal":
            law = LogNormal.from_sigma(scale, min(shape, 10.0), limit=limit)
        elif name == "gamma":
            law = Gamma(scale, 1 / math.sqrt(shape), limit=limit)
        else:
            law = Weibull(scale * math.gamma(1 + 1 / shape), min(max(shape, 0.1), 100.0), limit=limit)
    except (InputError, OverflowError):  # a mean beyond the limit before truncation, or beyond any number
        return None
    return law, float(-best.fun * counts.sum()), 2


def _piecewise(
    bounds: FloatArray, counts: FloatArray, limit: int | None, mean: float | None
) -> tuple[Length, float, int]:
    """The law that meets every bucket, and the measured mean if there is one; its log likelihood and its parameters."""
    from scipy.interpolate import PchipInterpolator

    ends = bounds.copy()
    if math.isinf(ends[-1]):
        last = ends[-2] if len(ends) > 1 else 1.0
        ends[-1] = float(limit) if limit is not None else 2 * last
    x = np.concatenate(([0.0], ends)) + 0.5
    f = np.concatenate(([0.0], np.cumsum(counts) / counts.sum()))
    pieces = [np.geomspace(a, b, POINTS + 1)[:-1] for a, b in itertools.pairwise(x.tolist())]
    grid = np.append(np.concatenate(pieces), x[-1])
    levels = np.interp(grid, x, f) if len(x) == 2 else PchipInterpolator(np.log(x), f)(np.log(grid))
    levels[::POINTS] = f
    if mean is not None:
        levels = _tilted(grid, levels, mean)
    levels = np.maximum.accumulate(np.clip(levels, 0.0, 1.0))
    grid[-1] = max(grid[-1] - 0.5, grid[-2])  # the longest length itself
    law = Quantiles(*_strictly_rising(levels.tolist(), grid.tolist()))
    share = counts[counts > 0] / counts.sum()
    return law, float(counts.sum() * (share @ np.log(share))), len(share) - 1


def _tilted(grid: FloatArray, levels: FloatArray, mean: float) -> FloatArray:
    """The levels with the mass of every bucket tilted towards one end, by one exponent for all, until the mean is `mean`."""
    from scipy.optimize import brentq

    mass = np.diff(levels).reshape(-1, POINTS)
    middle = ((grid[1:] + grid[:-1]) / 2).reshape(-1, POINTS)
    left, right = grid[:-1:POINTS, None], grid[POINTS::POINTS, None]
    place = (middle - left) / (right - left) - 0.5

    def moved(tilt: float) -> FloatArray:
        weighted = mass * np.exp(tilt * place)
        whole = np.maximum(weighted.sum(axis=1, keepdims=True), 1e-300)
        return np.asarray(weighted * mass.sum(axis=1, keepdims=True) / whole)

    def excess(tilt: float) -> float:
        return float((moved(tilt) * middle).sum() - mean)

    ends = (-STEEPEST, STEEPEST)
    tilt = brentq(excess, *ends) if excess(ends[0]) < 0 < excess(ends[1]) else min(ends, key=lambda t: abs(excess(t)))
    return np.concatenate(([0.0], np.cumsum(moved(tilt).ravel())))


def _strictly_rising(levels: list[float], tokens: list[float]) -> tuple[list[float], list[float]]:
    """Levels that rise by `RISE` at least; of a flat stretch the end stays, as where the next rise begins."""
    kept = [(levels[0], tokens[0])]
    for place in range(1, len(levels)):
        if levels[place] - kept[-1][0] > RISE:
            kept.append((levels[place], tokens[place]))
        elif place + 1 < len(levels) and levels[place + 1] - levels[place] > 2 * RISE:
            if len(kept) == 1:
                kept = [(levels[0], tokens[place])]
            else:
                kept.append((kept[-1][0] + RISE, tokens[place]))
    return [level for level, _ in kept], [token for _, token in kept]


def _probabilities(law: Length, bounds: FloatArray) -> FloatArray:
    """Probability of each bucket under a law."""
    cumulative = np.concatenate(([0.0], np.cumsum(law.probabilities)))
    below = cumulative[np.searchsorted(law.values, bounds, side="right")]
    below[-1] = 1.0
    return np.asarray(np.diff(below, prepend=0.0))


def _p_value(law: Length, bounds: FloatArray, counts: FloatArray) -> float | None:
    from scipy.special import chdtrc

    degrees = len(counts) - 3
    if degrees < 1:
        return None
    expected = np.maximum(_probabilities(law, bounds), 1e-300) * counts.sum()
    statistic = 2 * float(counts @ np.log(counts / expected))
    return float(chdtrc(degrees, max(statistic, 0.0)))


def _warnings(
    bounds: FloatArray,
    mean: float,
    beyond: float,
    p_value: float | None,
    limit: int | None,
    measured: float | None,
) -> list[str]:
    found = []
    if beyond > BEYOND:
        up_to = f"{limit} tokens" if limit is not None else "the tail of the law"
        found.append(
            f"{100 * beyond:.2g} % of the requests are beyond the last bound, {bounds[-2] if len(bounds) > 1 else 0:g} tokens: "
            f"their lengths are guessed up to {up_to}, and the moments with them"
        )
    if p_value is not None and p_value < REJECTED:
        found.append(f"the family is rejected by its test (p = {p_value:.2g}): a piecewise law meets the buckets")
    if measured is not None and abs(mean / measured - 1) > SUM_ERROR:
        found.append(
            f"the law's mean is {mean:.4g} tokens, the measured one {measured:.4g}: the family does not fit, or the sum counts others"
        )
    return found


def _ranks(values: FloatArray) -> FloatArray:
    """Mid-ranks."""
    _, place, number = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(number)
    return np.asarray((last - (number - 1) / 2.0)[place])
