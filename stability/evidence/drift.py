"""Does a backlog settle or grow? A sequential test with error rates that hold whatever the run length.

Why not a slope or a threshold: in a critical system (load exactly 1) the backlog wanders like sqrt(t). A regression finds a
slope in any such path, since it takes dependent samples for independent ones; a fixed threshold is passed by every
critical system and by a stable one near capacity, sooner or later, and missed by an unstable one early.

The test. Cut the run into equal stretches that lengthen with the run, so that they become long against any correlation
time; by the functional central limit theorem the path is then one of reflected Brownian motion. Three ratios of it, free of
scale, are compared with their quantiles in a critical system (`critical.py`):

- UNSTABLE if the growth ratio exceeds its upper quantile: in the limit no system of load <= 1 grows so steadily but with
  probability alpha.
- STABLE if the height ratio (mean over the floor) or the spread ratio (standard deviation) is below its lower quantile, beta/2
  each: no system of load >= 1 returns so often but with probability beta. Height is the sharper near load 1, where a queue
  empties again and again; spread in systems that stay away from empty, such as the number in a large batch.

Looks are taken at 256, 384, 512, 768, 1024 samples and so on for ever; look j spends alpha/(j (j + 1)) of the
error, which sums to alpha (Bonferroni over looks; group-sequential testing as in Jennison and Turnbull 2000, with
unbounded horizon). Hence a run may be extended until it is decided, and be of any length.

Power. Half of the runs are decided after 40 to 90 times (sigma/mu)**2 / 2, mu and sigma**2 the drift and variance of the net
input per unit time: 40 to 90 / (1 - load)**2 service times in M/M/1. |load - 1| < 3 % is the zone of indifference, where most
runs stay UNDETERMINED; at load 1 each verdict still comes with probability at most alpha, beta. Measured by
`python -m validation.calibration` over 2000 runs each of M/M/1 and simulated replicas.

Correlation. No test can know of a regime it has not seen: of a workload that alternates between bursts and lulls, a first
look after five of them errs in 5 % of the runs and more. Say over how many samples input stays correlated
(`correlation_samples`); the first look then comes after 256 times as many. Very unequal jobs act alike: with lognormal sizes
of coefficient of variation 3 at load 1.05, five mean interarrival times bring false STABLE from 4 % to 0.2 %.

What it does not cover: periodic or changing input (a rate schedule is judged window by window), and a system that has not
filled up yet. A replica that fills for a minute shows no queue in that minute however overloaded. Against that give both
series: STABLE is then decided on all that is in the system, which rises while it fills, and UNSTABLE on the waiting, which
does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._result import Tabular, Verdict, no_truth
from .._types import ArrayLike, FloatArray
from ..errors import InputError, check_integer, check_number
from .critical import (
    GROWTH_GROUPS,
    RETURN_GROUPS,
    growth_limit,
    growth_ratio,
    height_limit,
    height_ratio,
    spread_limit,
    spread_ratio,
)
from .series import checked_series

MOST_BLOCKS = 512
LOOKS_AT = (256, 384, MOST_BLOCKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class StabilityEvidence(Tabular):
    """What a time series says about stability.

    Attributes
    ----------
    verdict : Verdict
    reason : str
        Why, in one sentence.
    samples : int
        Samples the verdict rests on: up to the deciding look, else up to the last one.
    looks : int
        Looks taken.
    growth, growth_limit : float
        Growth ratio at the last look, and the limit above which it means UNSTABLE (NaN before the first look).
    height, height_limit, spread, spread_limit : float
        Height and spread ratio at the last look, and the limits below which either means STABLE.
    growth_per_sample : float
        Mean increment of the series UNSTABLE is decided on, at the last look.
    alpha, beta : float
        Probability of UNSTABLE at load <= 1, and of STABLE at load >= 1, over runs of any length.
    """

    schema = "stability/evidence/1"

    verdict: Verdict
    reason: str
    samples: int
    looks: int
    growth: float
    growth_limit: float
    height: float
    height_limit: float
    spread: float
    spread_limit: float
    growth_per_sample: float
    alpha: float
    beta: float

    def __bool__(self) -> bool:
        raise no_truth("StabilityEvidence")

    def __repr__(self) -> str:
        return f"StabilityEvidence({self.verdict} after {self.samples} samples)"

    def rows(self) -> list[tuple[str, str]]:
        """The result as (quantity, value) pairs for people."""
        return [
            ("verdict", str(self.verdict)),
            ("because", self.reason),
            ("samples", f"{self.samples} at {self.looks} looks"),
            ("growth ratio", f"{self.growth:.3g} (unstable above {self.growth_limit:.3g})"),
            ("height ratio", f"{self.height:.3g} (stable below {self.height_limit:.3g})"),
            ("spread ratio", f"{self.spread:.3g} (stable below {self.spread_limit:.3g})"),
            ("growth per sample", f"{self.growth_per_sample:.4g}"),
            ("false verdicts", f"unstable <= {100 * self.alpha:g} %, stable <= {100 * self.beta:g} %"),
        ]


class StabilityTest:
    """The test for samples that arrive piece by piece, in constant memory.

    Parameters
    ----------
    alpha : float in (0, 0.2]
        Probability of UNSTABLE for a system of load <= 1.
    beta : float in (0, 0.2]
        Probability of STABLE for a system of load >= 1.
    correlation_samples : int >= 1
        As in `stability_test`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> test = StabilityTest()
    >>> backlog = 0.0
    >>> while test.verdict is Verdict.UNDETERMINED:
    ...     steps = rng.poisson(1.1, 100) - rng.poisson(1.0, 100)
    ...     test.update(backlog + np.cumsum(steps))
    ...     backlog += steps.sum()
    >>> test.verdict
    <Verdict.UNSTABLE: 'unstable'>
    """

    def __init__(self, *, alpha: float = 0.005, beta: float = 0.005, correlation_samples: int = 1) -> None:
        self._alpha = check_number("alpha", alpha, above=0, at_most=0.2)
        self._beta = check_number("beta", beta, above=0, at_most=0.2)
        self._sums = np.zeros((2, MOST_BLOCKS))
        self._origin: FloatArray | None = None
        self._paired = False
        self._width = check_integer("correlation_samples", correlation_samples, at_least=1)
        self._samples = 0
        self._looks = 0
        self._evidence = self._nothing_yet(0)

    @property
    def verdict(self) -> Verdict:
        """STABLE, UNSTABLE, or UNDETERMINED so far."""
        return self._evidence.verdict

    @property
    def evidence(self) -> StabilityEvidence:
        """The verdict with its reason and figures."""
        return self._evidence

    def update(self, backlog: ArrayLike, waiting: ArrayLike | None = None) -> None:
        """Take the next samples; what comes after the decision is ignored.

        `backlog` and `waiting` as in `stability_test`: pieces of any length, `waiting` in every call or in none.
        """
        values = checked_series("backlog", backlog)
        queue = values if waiting is None else checked_series("waiting", waiting)
        if len(queue) != len(values):
            raise InputError(
                f"waiting has {len(queue)} samples, backlog {len(values)}, must be as many. Sample both at the same times."
            )
        if not len(values):
            return
        paired = waiting is not None
        if self._origin is None:
            self._origin, self._paired = np.array([values[0], queue[0]]), paired
        elif self._paired != paired:
            raise InputError("waiting is given in some updates only, must be in all or none. Start a new test.")
        pair = np.stack([values, queue]) - self._origin[:, None]
        begin = 0
        while begin < len(values) and self.verdict is Verdict.UNDETERMINED:
            look = next(count for count in LOOKS_AT if count * self._width > self._samples) * self._width
            piece = pair[:, begin : begin + look - self._samples]
            which = (self._samples + np.arange(piece.shape[1])) // self._width
            self._sums += [np.bincount(which, weights=row, minlength=MOST_BLOCKS) for row in piece]
            begin += piece.shape[1]
            self._samples += piece.shape[1]
            if self._samples == look:
                self._look(look // self._width)
            elif not self._looks:
                self._evidence = self._nothing_yet(self._samples)

    def _look(self, blocks: int) -> None:
        self._looks += 1
        backlog, waiting = self._sums[:, :blocks] / self._width
        share = 1 / (self._looks * (self._looks + 1))
        queue = waiting.reshape(GROWTH_GROUPS, -1).mean(axis=1)
        growth = float(growth_ratio(queue))
        late = backlog[blocks // 4 :].reshape(RETURN_GROUPS, -1).mean(axis=1)
        height, spread = float(height_ratio(late)), float(spread_ratio(late))
        most = growth_limit(share * self._alpha)
        low, narrow = height_limit(share * self._beta / 2), spread_limit(share * self._beta / 2)
        if growth > most:
            verdict = Verdict.UNSTABLE
            reason = f"the backlog grew more steadily than that of a system of load 1: ratio {growth:.3g} > {most:.3g}."
        elif height < low or spread < narrow:
            verdict = Verdict.STABLE
            what = f"height {height:.3g} < {low:.3g}" if height < low else f"spread {spread:.3g} < {narrow:.3g}"
            reason = f"the backlog kept returning as none does at load 1: {what}."
        else:
            verdict = Verdict.UNDETERMINED
            flat = np.isnan(growth) and np.isnan(spread)
            reason = (
                "the series never varied, so nothing shows whether it would settle. Give the number in the system."
                if flat
                else f"{self._samples} samples fit a system of load 1. Run longer."
            )
        self._evidence = StabilityEvidence(
            verdict=verdict,
            reason=reason,
            samples=self._samples,
            looks=self._looks,
            growth=growth,
            growth_limit=most,
            height=height,
            height_limit=low,
            spread=spread,
            spread_limit=narrow,
            growth_per_sample=float((queue[-1] - queue[0]) / (self._samples * (1 - 1 / GROWTH_GROUPS))),
            alpha=self._alpha,
            beta=self._beta,
        )
        if blocks == MOST_BLOCKS:
            half = self._sums.reshape(2, -1, 2).sum(axis=2)
            self._sums[:, : MOST_BLOCKS // 2] = half
            self._sums[:, MOST_BLOCKS // 2 :] = 0
            self._width *= 2

    def _nothing_yet(self, samples: int) -> StabilityEvidence:
        nan = float("nan")
        return StabilityEvidence(
            verdict=Verdict.UNDETERMINED,
            reason=f"{samples} samples are too few: the first look is at {LOOKS_AT[0] * self._width}. Run longer or sample more often.",
            samples=samples,
            looks=0,
            growth=nan,
            growth_limit=nan,
            height=nan,
            height_limit=nan,
            spread=nan,
            spread_limit=nan,
            growth_per_sample=nan,
            alpha=self._alpha,
            beta=self._beta,
        )


def stability_test(
    backlog: ArrayLike,
    waiting: ArrayLike | None = None,
    *,
    alpha: float = 0.005,
    beta: float = 0.005,
    correlation_samples: int = 1,
) -> StabilityEvidence:
    """Whether a series of backlogs shows a stable system, an unstable one, or neither yet.

    The method, its power and its limits are described in the module. Valid for stationary input, samples at equal steps,
    and, with one series, a system that shows overload from the start.

    Parameters
    ----------
    backlog : (n,) array_like
        Requests (or work) in the system at equal steps; with `waiting` the number waiting and running.
    waiting : (n,) array_like, optional
        Requests waiting at the same times. UNSTABLE is decided on these, STABLE on `backlog`; needed wherever the system
        takes long to fill up.
    alpha : float in (0, 0.2]
        Probability of UNSTABLE for a system of load <= 1, over runs of any length.
    beta : float in (0, 0.2]
        Probability of STABLE for a system of load >= 1.
    correlation_samples : int >= 1
        Samples over which arrivals or service stay correlated, the mean length of a burst say.

    Returns
    -------
    StabilityEvidence
        UNDETERMINED if the series is shorter than 256 samples (times `correlation_samples`), constant, or fits a system of load 1. Samples after the
        last look (at most a third) are not used.

    Raises
    ------
    InputError
        If a value is not finite, the series differ in length, or an argument breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> stability_test(np.tile([0, 2, 1, 0, 0], 100))
    StabilityEvidence(STABLE after 256 samples)
    >>> stability_test(np.arange(500) // 3)
    StabilityEvidence(UNSTABLE after 256 samples)
    >>> stability_test([0, 1, 2]).reason
    '3 samples are too few: the first look is at 256. Run longer or sample more often.'
    """
    test = StabilityTest(alpha=alpha, beta=beta, correlation_samples=correlation_samples)
    test.update(backlog, waiting)
    return test.evidence
