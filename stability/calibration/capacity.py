"""What a fitted law leaves uncertain in the capacity of a fleet.

The logarithm of each rate is taken as linear in the coefficients, with slopes from one `analyze` a coefficient, a standard
deviation above the fit; coefficients are drawn as the data leave them (`LawFit.draws`), zeros included. **Approximation**: where
another resource comes to bind within the interval, the slope changes. The finite trace behind the lengths adds its own
uncertainty, a normal factor of the width that `analyze` reports. The verdict holds at the level of
the fit: STABLE if the rate is below the lower end of what the fleet is certain of, UNSTABLE above the upper end of what
it cannot serve.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from .._result import Tabular, Verdict, no_truth, rate
from .._types import FloatArray
from ..errors import InputError, unknown_name
from ..model.fleet import Fleet
from ..model.iteration import IterationLaw
from ..model.workload import Workload
from ..theory.analyze import analyze
from ..theory.report import StabilityReport
from .law_fit import LawFit

DRAWS = 4000
"""Coefficients drawn for an interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCapacity(Tabular):
    """Capacity and verdict of a fleet under a fitted law, with the fit's uncertainty.

    Attributes
    ----------
    verdict : Verdict
        At the level of the fit.
    reason : str
        Why, in one sentence.
    rate_per_s : float
        Arrival rate, 1/s.
    capacity_per_s : float
        Under the fitted law.
    capacity_interval : (float, float)
        From the fit and from the finite trace behind the lengths.
    stable_below_per_s, unstable_above_per_s : float
        Lower end of the rate below which `analyze` says STABLE, upper end of the one above which it says UNSTABLE.
    level : float
        Confidence level of the interval.
    pool : str
        The pool with the fitted law.
    warnings : tuple of str
        Those of the fit, and what the plan asks beyond the measurements.
    report : StabilityReport
        Of the fitted law as it stands.

    Examples
    --------
    See :func:`stability.fitted_capacity`.
    """

    schema: ClassVar[str] = "stability/fitted-capacity/1"

    verdict: Verdict
    reason: str
    rate_per_s: float
    capacity_per_s: float
    capacity_interval: tuple[float, float]
    stable_below_per_s: float
    unstable_above_per_s: float
    level: float
    pool: str
    warnings: tuple[str, ...]
    report: StabilityReport

    def __bool__(self) -> bool:
        raise no_truth("FittedCapacity")

    def __repr__(self) -> str:
        low, high = self.capacity_interval
        return f"FittedCapacity({self.verdict}, capacity {self.capacity_per_s:.4g}/s, {low:.4g} .. {high:.4g})"

    def rows(self) -> list[tuple[str, str]]:
        """The figures as (quantity, value) pairs for people."""
        low, high = self.capacity_interval
        return [
            ("verdict", str(self.verdict)),
            ("because", self.reason),
            ("pool with the fitted law", self.pool),
            ("rate", rate(self.rate_per_s)),
            ("capacity", f"{rate(self.capacity_per_s)} ({100 * self.level:g} %: {low:.4g} .. {high:.4g})"),
            ("  stable below", rate(self.stable_below_per_s)),
            ("  unstable above", rate(self.unstable_above_per_s)),
            ("bottleneck", self.report.bottleneck),
        ]


def fitted_capacity(
    fleet: Fleet,
    workload: Workload,
    *,
    fit: LawFit,
    pool: str | None = None,
    rng: int | np.random.SeedSequence | np.random.Generator | None = 0,
) -> FittedCapacity:
    """Capacity of `fleet` with a fitted law in one of its pools, and what the fit leaves uncertain of it.

    Parameters
    ----------
    fleet : Fleet
        What serves; the law of `pool` is replaced.
    workload : Workload
        What arrives, 1/s.
    fit : LawFit
        Of `fit_law`.
    pool : str, optional
        Name of the pool that was measured; needed with several.
    rng : int, SeedSequence, Generator or None
        Randomness of the draws.

    Returns
    -------
    FittedCapacity
        Capacity with its interval, and the verdict at the fit's level.

    Raises
    ------
    InputError
        If the pool is unknown or not named among several.

    Notes
    -----
    See `stability.calibration.capacity`: log-linear in the coefficients, which are drawn as the data leave them.

    Examples
    --------
    >>> import numpy as np, stability as st
    >>> d = np.arange(1, 65)
    >>> steps = st.StepObservations(
    ...     prefill_tokens=0 * d, decode_tokens=d, kv_tokens=d * (100 + 10 * (d % 5)), time_s=0.01 + 1e-9 * d
    ... )
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> idle = st.IterationTime(base_s=1.0)
    >>> fleet = st.Fleet.of(st.Replica(iteration=idle, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.fitted_capacity(fleet, st.Workload.poisson(5.0, lengths), fit=st.fit_law(steps, form="affine"))
    >>> round(found.capacity_per_s, 2), found.verdict  # 8 slots of 80 steps of 10 ms
    (10.0, <Verdict.STABLE: 'stable'>)
    """
    index = _index(fleet, pool)
    name, replica = fleet.pools[index].name, fleet.pools[index].replica
    generator = np.random.default_rng(rng)
    mean = analyze(_with(fleet, index, fit.law), workload, confidence=fit.level)
    value = np.array([item.value for item in fit.coefficients])
    slopes = _slopes(fit, value, mean, lambda law: analyze(_with(fleet, index, law), workload, confidence=fit.level))
    # Rows: capacity, stable below, unstable above; columns: draws.
    drawn = np.exp(slopes @ (fit.draws(DRAWS, rng=generator) - value).T) * _rates(mean)[:, None]
    low, high = mean.capacity_interval
    sd = math.log(high / low) / (2 * NormalDist().inv_cdf((1 + fit.level) / 2)) if high > low > 0 else 0.0
    interval = _ends(drawn[0] * np.exp(sd * generator.standard_normal(DRAWS)), fit.level)
    stable, unstable = _ends(drawn[1], fit.level)[0], _ends(drawn[2], fit.level)[1]
    verdict, reason = _judge(mean, stable, unstable)
    engine = replica.engine
    beyond = fit.beyond(
        decode_tokens=min(engine.max_num_seqs, mean.pools[index].running_mean),
        prefill_tokens=engine.max_num_batched_tokens,
        kv_tokens=mean.pools[index].kv_occupancy * replica.usable_kv_tokens,
    )
    return FittedCapacity(
        verdict=verdict,
        reason=reason,
        rate_per_s=mean.rate_per_s,
        capacity_per_s=mean.capacity_per_s,
        capacity_interval=interval,
        stable_below_per_s=stable,
        unstable_above_per_s=unstable,
        level=fit.level,
        pool=name,
        warnings=(*fit.warnings, *beyond),
        report=mean,
    )


def _slopes(
    fit: LawFit, value: FloatArray, mean: StabilityReport, judge: Callable[[IterationLaw], StabilityReport]
) -> FloatArray:
    """Slopes of the logarithms of the three rates in each coefficient, by differences of a standard deviation. Shape (3, p)."""
    slopes = np.zeros((3, len(value)))
    known = np.flatnonzero([item.identified for item in fit.coefficients])
    steps = np.maximum(np.sqrt(np.diag(fit.covariance)), 1e-6 * value[known])
    for place, step in zip(known.tolist(), steps.tolist(), strict=True):
        if step > 0:
            moved = value.copy()
            moved[place] += step
            slopes[:, place] = np.log(_rates(judge(fit.law_of(moved))) / _rates(mean)) / step
    return slopes


def _rates(report: StabilityReport) -> FloatArray:
    rates = np.array([report.capacity_per_s, report.stable_below_per_s, report.unstable_above_per_s])
    return np.asarray(np.maximum(rates, 1e-300))  # nothing is certain of some policies


def _index(fleet: Fleet, pool: str | None) -> int:
    names = [item.name for item in fleet.pools]
    if pool is None:
        if len(names) > 1:
            raise InputError(
                f"the fleet has the pools {', '.join(names)}, the fitted one must be named. Give pool=... (--pool)."
            )
        return 0
    if pool not in names:
        raise unknown_name("pool", pool, names)
    return names.index(pool)


def _with(fleet: Fleet, index: int, law: IterationLaw) -> Fleet:
    pools = list(fleet.pools)
    pools[index] = replace(pools[index], replica=replace(pools[index].replica, iteration=law))
    return Fleet(pools, links=fleet.links)


def _ends(values: FloatArray, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _judge(report: StabilityReport, stable: float, unstable: float) -> tuple[Verdict, str]:
    """The report's verdict where the fit's uncertainty cannot change it."""
    wide = f"the fit leaves stability certain below {stable:.4g}/s and ruled out above {unstable:.4g}/s"
    if report.peak is not None:  # rates over time are judged by the report alone
        return report.verdict, report.reason
    if report.rate_per_s < stable:
        return Verdict.STABLE, f"{report.rate_per_s:.4g}/s arrive; {wide}"
    if report.rate_per_s > unstable:
        return Verdict.UNSTABLE, f"{report.rate_per_s:.4g}/s arrive; {wide}"
    return Verdict.UNDETERMINED, f"{report.rate_per_s:.4g}/s arrive; {wide}"
