"""Is a server being overloaded now? Two tests that may be looked at after every scrape, for as long as one likes.

Both bet against "the load is at most 1". A bet's wealth is a supermartingale that starts at 1 if that is so, hence exceeds
1/alpha *ever* with probability at most alpha (Ville 1939): looking again and again costs nothing. Since overload may begin at
any time, wealth is spread over all starting times with weights `g_j = 1/log2(j + 1) - 1/log2(j + 2)`, which sum to 1, and
over stakes; a mixture of supermartingales is one (Shin, Ramdas and Rinaldo, "E-detectors", arXiv 2203.03532). A sum
over starting times is carried along in one number a stake, so an update takes constant time and memory.

*From the queue* (`QueueTest`). Suppose that, given the past, the next event at the waiting line is one that joins it with probability
at most 1/2 (as when arrivals and admissions are Poisson processes of rates lambda <= mu), and that the line may be empty
as often as it likes. Evicted requests join it again: an eviction is an event like an arrival, and the admission that follows another,
though the line ends where it began. For a line that steps up or down by one and is reflected at zero,

    M = cosh(eta*Q_t) / cosh(eta*Q_j) / cosh(eta)**(events between)

is a supermartingale for each stake eta > 0: away from zero E[cosh(eta*(Q+-1))] <= cosh(eta*Q)*cosh(eta), and at zero a step
up multiplies by cosh(eta) exactly. No rate and no variance is estimated. It says nothing of a line that grows more slowly than
chance (`stability_test` is for that) and it must not be confused with a threshold on the queue, which a line at load 1 passes
sooner or later.

Several lines seen only as their sum Q (R replicas) are no such line: each is reflected on its own, so that the sum drifts upwards at
load 1. The product of their cosh is a supermartingale still, and log cosh is convex with log cosh 0 = 0, so that

    R*log cosh(eta*Q_t/R) - log cosh(eta*Q_j) - events*log cosh(eta)

is never above the logarithm of that product: `queues` = R takes it. It costs about 0.7 R in the logarithm.

*From the arrivals* (`RateTest`), where a capacity mu is known: for Poisson arrivals of a rate lambda_t <= mu,
`exp(eta*A - mu*t*(e**eta - 1))` is a supermartingale, exactly; with eta < 0 likewise for lambda_t >= mu. This one needs
no queue to build up first.

Arrivals and admissions that come in clumps of d (bursts, batches) are told by `dispersion` = d: everything is then counted in
clumps. Against sustained correlation (one minute of burst, one of lull) neither test is proof.
"""

from __future__ import annotations

import math

import numpy as np

from .._types import FloatArray
from ..errors import check_integer, check_number

STAKES: FloatArray = np.exp2(np.arange(1.0, -8.0, -1.0))
"""Stakes eta of the mixture, 2 to 1/128: growth at 96 % down to 0.8 % of the events."""


class _Wealth:
    """Wealth over starting times and stakes, in logarithms; `steps` and `values` have one entry a stake."""

    def __init__(self, alpha: float, dispersion: float) -> None:
        self.alpha = check_number("alpha", alpha, above=0, below=1)
        self.dispersion = check_number("dispersion", dispersion, at_least=1)
        self._starts = 0
        self._log_sum = np.full(len(STAKES), -np.inf)
        self._log_wealth = -math.inf
        self._most = -math.inf

    @property
    def log_wealth(self) -> float:
        """Logarithm of the wealth at the last update; -inf before the second."""
        return self._log_wealth

    @property
    def rejected(self) -> bool:
        """Whether the wealth has ever reached 1/alpha."""
        return self._most >= -math.log(self.alpha)

    def _move(self, steps: FloatArray, values: FloatArray, prices: FloatArray) -> None:
        """Multiply what is at stake by exp(steps), value it at exp(values), and start anew at exp(prices) with the next weight."""
        self._log_sum = self._log_sum + steps
        if self._starts:
            self._log_wealth = float(np.logaddexp.reduce(self._log_sum + values)) - math.log(len(STAKES))
            self._most = max(self._most, self._log_wealth)
        self._starts += 1
        weight = 1 / math.log2(self._starts + 1) - 1 / math.log2(self._starts + 2)
        self._log_sum = np.logaddexp(self._log_sum, math.log(weight) - prices)


class QueueTest(_Wealth):
    """Does the waiting line grow as none does at load <= 1, but with probability `alpha` over a watch of any length?

    Assumes that events at the line (arrivals, evictions, admissions) come one by one or in clumps of `dispersion`, and that given the
    past the next joins the line with probability at most 1/2. Reference and derivation: the module.

    Parameters
    ----------
    alpha : float in (0, 1)
        Probability of ever rejecting if the load is at most 1.
    dispersion : float >= 1
        Requests that arrive or are admitted together; about the index of dispersion of the counts.
    queues : int >= 1
        Lines that are seen as their sum.

    Examples
    --------
    Six a second arrive, none is admitted:

    >>> test = QueueTest(alpha=0.01)
    >>> for second in range(4):
    ...     test.update(6 * second, arrivals=6)
    >>> test.rejected
    True

    Six arrive and five are admitted: no proof yet after a minute.

    >>> test = QueueTest(alpha=0.01)
    >>> for second in range(60):
    ...     test.update(second, arrivals=6)
    >>> test.rejected
    False
    """

    def __init__(self, *, alpha: float = 0.01, dispersion: float = 1.0, queues: int = 1) -> None:
        super().__init__(alpha, dispersion)
        self.queues = check_integer("queues", queues, at_least=1)
        self._waiting = math.nan

    def update(self, waiting: float, arrivals: float, evicted: float = 0.0) -> None:
        """Take the number `waiting` now, the `arrivals` and those `evicted` back into the line since the last update.

        Both are ignored in the first update. NaN arrivals are unknown: nothing is at stake over that interval.
        """
        waiting = check_number("waiting", waiting, at_least=0)
        evicted = check_number("evicted", evicted, at_least=0)
        unknown = math.isnan(arrivals)
        joined = 0.0 if unknown else check_number("arrivals", arrivals, at_least=0) + evicted
        price = _log_cosh(STAKES * waiting / self.dispersion)
        value = self._value(waiting)
        if self._starts and unknown:  # sold at the value before, bought again at the price now
            steps = self._value(self._waiting) - price
        elif self._starts:
            admitted = joined - (waiting - self._waiting)  # negative only where gauges lag behind counters
            steps = -(joined + abs(admitted)) / self.dispersion * _log_cosh(STAKES)
        else:
            steps = np.zeros_like(STAKES)
        self._waiting = waiting
        self._move(steps, value, price)

    def _value(self, waiting: float) -> FloatArray:
        return self.queues * _log_cosh(STAKES * waiting / self.dispersion / self.queues)


class RateTest(_Wealth):
    """Do requests arrive faster (or more slowly) than `rate_per_s`? Exact for Poisson arrivals whose rate may change.

    Parameters
    ----------
    rate_per_s : float > 0
        The rate of the null hypothesis, requests/s.
    alpha : float in (0, 1)
        Probability of ever rejecting if the rate never exceeds `rate_per_s` (never falls below it with `above=False`).
    above : bool
        Whether to look for a higher rate; else for a lower one.
    dispersion : float >= 1
        Requests that arrive together.

    Examples
    --------
    >>> test = RateTest(2.0, alpha=0.01)
    >>> for second in range(4):
    ...     test.update(10, elapsed_s=1.0)
    >>> test.rejected
    True
    """

    def __init__(self, rate_per_s: float, *, alpha: float = 0.01, above: bool = True, dispersion: float = 1.0) -> None:
        super().__init__(alpha, dispersion)
        self.rate_per_s = check_number("rate_per_s", rate_per_s, above=0)
        self._stakes = STAKES if above else -STAKES

    def update(self, arrivals: float, elapsed_s: float) -> None:
        """Take the `arrivals` of the last `elapsed_s` seconds."""
        none = np.zeros_like(STAKES)
        if not self._starts:
            self._move(none, none, none)
        arrivals = check_number("arrivals", arrivals, at_least=0) / self.dispersion
        expected = self.rate_per_s * check_number("elapsed_s", elapsed_s, at_least=0) / self.dispersion
        self._move(self._stakes * arrivals - expected * np.expm1(self._stakes), none, none)


def _log_cosh(values: FloatArray) -> FloatArray:
    size = np.abs(values)
    logs: FloatArray = size + np.log1p(np.exp(-2 * size)) - math.log(2)
    return logs
