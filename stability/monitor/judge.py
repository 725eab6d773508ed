"""The verdict while it is watched: three tests side by side, begun anew after each change.

`alpha` bounds the probability that overload is *ever* called while the load is at most 1, however long the watch and however
often it is looked at. It is shared equally among the tests that run: the queue test and, with a known capacity, the arrival
test (`evidence/overload.py`), both e-processes; and the drift test (`evidence/drift.py`), which spends its error over looks. After
a call has ended, or when lengths or arrivals tell another dispersion than assumed, tests begin anew; the k-th beginning gets 1/(k (k + 1))
of each share, which sums to the share.

Several replicas behind one set of metrics are told to the queue test; the drift test takes their queues for one.

STABLE comes from the drift test, or with a known capacity from arrivals below the rate that theory calls stable, each with
probability at most `beta` at load >= 1.
"""

from __future__ import annotations

import math

from .._result import Verdict
from ..evidence.drift import StabilityTest
from ..evidence.overload import QueueTest, RateTest
from .capacity import KnownCapacity
from .clumps import Clumps
from .readings import Reading

UNKNOWN_DEMAND_CV2 = 3.0
"""Squared variation of the KV demand until lengths are known."""

UNKNOWN_DISPERSION = (1.0 + UNKNOWN_DEMAND_CV2) / 2
"""Dispersion of the events at the queue until lengths and arrivals are known: Poisson arrivals, and that demand."""


class Judge:
    """Verdict on a server, scrape by scrape.

    Parameters
    ----------
    alpha, beta : float
        As in the module.
    dispersion : float >= 1, optional
        Of the events at the queue; if omitted from the plan, else from the counts of arrivals and the lengths.
    known : KnownCapacity, optional
        Capacity by theory.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.01,
        beta: float = 0.005,
        dispersion: float | None = None,
        known: KnownCapacity | None = None,
    ) -> None:
        self._alpha, self._beta, self._known = alpha, beta, known
        self._stated = dispersion
        self._fixed = dispersion if dispersion is not None else (known.dispersion if known else None)
        self.dispersion = self._fixed if self._fixed is not None else UNKNOWN_DISPERSION
        self._seen = 1.0
        self._clumps = Clumps()
        self._told = False
        self._queues = 1
        self.overloaded = False
        self.verdict = Verdict.UNDETERMINED
        self.reason = "first scrape."
        self.test = ""
        self._begun = 0
        self._drift_begun = 0
        self._stable = ""
        self._begin()

    def _begin(self) -> None:
        """Start every test anew with the next part of its share."""
        self._begun += 1
        part = 1 / (self._begun * (self._begun + 1))
        share = part * self._alpha / (3 if self._known else 2)
        self._queue = QueueTest(alpha=share, dispersion=self.dispersion, queues=self._queues)
        self._over = self._under = None
        if self._known:
            self._over = RateTest(self._known.unstable_above_per_s, alpha=share, dispersion=self._gaps)
            self._under = RateTest(
                max(self._known.stable_below_per_s, 1e-9),
                alpha=part * self._beta / 2,
                above=False,
                dispersion=self._gaps,
            )
        self._stable = ""
        self._begin_drift()

    def _begin_drift(self) -> None:
        self._drift_begun += 1
        part = 1 / (self._drift_begun * (self._drift_begun + 1))
        share = part * self._alpha / (3 if self._known else 2)
        self._drift = StabilityTest(alpha=share, beta=part * self._beta / 2)

    @property
    def _gaps(self) -> float:
        """Dispersion of the arrivals alone."""
        if self._fixed is None:
            return self._seen
        return self._stated or (self._known.arrival_dispersion if self._known else 1.0)

    @property
    def arrival_dispersion(self) -> float:
        """Index of dispersion of the arrivals as counted; NaN from too few scrapes, or where dispersion is given."""
        return math.nan if self._fixed is not None else self._clumps.dispersion

    def update(self, now: Reading, *, window_rate_per_s: float) -> None:
        """Take a scrape and the arrival rate over the last minute; then `verdict`, `reason` and `test` say what follows."""
        if math.isnan(now.elapsed_s):  # the first: nothing has been spent yet
            self._begun = self._drift_begun = 0
        if now.restarted or now.replicas != self._queues or math.isnan(now.elapsed_s):
            self.overloaded = False
            self._queues = now.replicas
            self._begin()
        self._respread(now)
        self._queue.update(now.waiting, now.arrivals, now.preemptions if math.isfinite(now.preemptions) else 0.0)
        self._drift.update([now.running + now.waiting], [now.waiting])
        if self._over is not None and self._under is not None and math.isfinite(now.arrivals):
            self._over.update(now.arrivals, now.elapsed_s)
            self._under.update(now.arrivals, now.elapsed_s)
        self._decide(now, window_rate_per_s)

    def _respread(self, now: Reading) -> None:
        """Begin anew once the lengths tell the dispersion, and whenever it turns out a quarter larger: a few times at most."""
        self._clumps.update(now.arrivals)
        if self._fixed is not None or self.overloaded:
            return
        known = not math.isnan(now.demand_cv2)
        counted = self._clumps.dispersion
        arrivals = max(1.0, self._seen if math.isnan(counted) else counted)
        wanted = max(1.0, (arrivals + (now.demand_cv2 if known else UNKNOWN_DEMAND_CV2)) / 2)
        rises = wanted > 1.25 * self.dispersion or (self._known is not None and arrivals > 1.25 * self._seen)
        if rises or (known and not self._told):
            self.dispersion, self._seen = wanted, max(arrivals, self._seen)
            self._told = self._told or known
            self._begin()

    def _decide(self, now: Reading, rate_per_s: float) -> None:
        called = self._called()
        if self.overloaded:
            limit = self._known.unstable_above_per_s if self._known else math.inf
            if now.waiting == 0 and not rate_per_s > limit:
                self.overloaded = False
                self._begin()
                self.verdict, self.reason = Verdict.UNDETERMINED, "the overload is over: the queue is empty."
            return
        if called:
            self.overloaded = True
            self.test, self.reason = called
            self.verdict = Verdict.UNSTABLE
            return
        if self._drift.verdict is not Verdict.UNDETERMINED:
            if self._drift.verdict is Verdict.STABLE:
                self._stable = self._drift.evidence.reason
            self._begin_drift()
        self.verdict, self.reason = self._quiet(rate_per_s)

    def _called(self) -> tuple[str, str] | None:
        if self._over is not None and self._known is not None and self._over.rejected:
            return "arrivals", (
                f"more requests arrive than {self._known.unstable_above_per_s:.4g}/s, the most the server can sustain "
                f"({self._known.source})."
            )
        if self._queue.rejected:
            return "queue", "the queue grows as none does at load 1: more requests join it than leave it."
        if self._drift.verdict is Verdict.UNSTABLE:
            return "drift", self._drift.evidence.reason
        return None

    def _quiet(self, rate_per_s: float) -> tuple[Verdict, str]:
        known = self._known
        if known is not None and self._under is not None and self._under.rejected:
            if not rate_per_s >= known.stable_below_per_s:
                return (
                    Verdict.STABLE,
                    f"fewer requests arrive than {known.stable_below_per_s:.4g}/s, which is stable ({known.source}).",
                )
            return Verdict.UNDETERMINED, "the last minute's arrivals are above what theory calls stable."
        if self._stable:
            return Verdict.STABLE, self._stable
        return Verdict.UNDETERMINED, "nothing so far tells growth from chance."
