"""Watching a server: a recorded series at once, or scrape by scrape."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace

from .._result import Verdict
from ..errors import InputError, check_number
from ..io.metrics.series import MetricsSeries
from .capacity import KnownCapacity, stated
from .forecast import KV_FULL, Drift, Overflow, kv_drift, overflow, queue_drift
from .judge import Judge
from .readings import Reading, readings
from .result import Overload, WatchPoint, WatchReport

MOST_POINTS = 100_000
FEWEST_IN_WINDOW = 8
"""Scrapes that the trailing window holds at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """What must not run full, and over how long rates are taken.

    Parameters
    ----------
    queue : float > 0, optional
        Most requests that may wait.
    ttft_s : float > 0, optional
        Longest time to first token, s; the plan's target if omitted.
    window_s : float > 0
        Trailing window of rates and drifts, s; eight scrapes at least.
    """

    queue: float | None = None
    ttft_s: float | None = None
    window_s: float = 60.0

    def __post_init__(self) -> None:
        check_number("window", self.window_s, above=0)
        for name, value in (("queue_limit", self.queue), ("ttft_s", self.ttft_s)):
            if value is not None:
                check_number(name, value, above=0)


class Watch:
    """A server under watch: give it readings, ask for points and a report.

    Parameters
    ----------
    source : str
        What is watched.
    alpha, beta : float
        Probability of ever calling overload at load <= 1, and of ever calling a load >= 1 stable.
    dispersion : float >= 1, optional
        Requests that come or go together; from plan or metrics if omitted.
    known : KnownCapacity, optional
        Capacity by theory.
    limits : WatchLimits
        What must not run full.
    """

    def __init__(
        self,
        source: str,
        *,
        alpha: float = 0.01,
        beta: float = 0.005,
        dispersion: float | None = None,
        known: KnownCapacity | None = None,
        limits: WatchLimits | None = None,
    ) -> None:
        self.source = source
        self.alpha = check_number("alpha", alpha, above=0, at_most=0.2)
        check_number("beta", beta, above=0, at_most=0.2)
        self.known, self.limits = known, limits or WatchLimits()
        self.judge = Judge(alpha=alpha, beta=beta, dispersion=dispersion, known=known)
        self.points: deque[WatchPoint] = deque(maxlen=MOST_POINTS)
        self.overloads: list[Overload] = []
        self.notes: tuple[str, ...] = ()
        self._window: deque[Reading] = deque()
        self._overflows: tuple[Overflow, ...] = ()
        self._scrapes = 0
        self._owed = 0.0
        self._begun_s = math.nan

    def update(self, now: Reading) -> WatchPoint:
        """Take a reading and return what it shows."""
        if self._window and now.time_s <= self._window[-1].time_s:
            raise InputError(
                f"{self.source}: a scrape at {now.time_s:.3f} s after one at {self._window[-1].time_s:.3f} s, must come later. Sort them."
            )
        if not self._scrapes:
            self._begun_s = now.time_s
        self._scrapes += 1
        now = self._settled(now)
        if now.restarted:
            self._window.clear()
        self._window.append(now)
        while len(self._window) > FEWEST_IN_WINDOW + 1 and now.time_s - self._window[1].time_s >= self.limits.window_s:
            self._window.popleft()
        arrivals, completions = self._rate("arrivals"), self._rate("completions")
        was = self.judge.overloaded
        self.judge.update(now, window_rate_per_s=arrivals)
        self._note_overload(now, was=was)
        standing = self._standing()
        drift = queue_drift(standing, self.judge.dispersion) if len(standing) > 1 else Drift()
        self._overflows = self._forecast(now, standing, drift)
        capacity = self._capacity(completions)
        growing = [item for item in self._overflows if math.isfinite(item.latest_s)]
        point = WatchPoint(
            time_s=now.time_s,
            running=now.running,
            waiting=now.waiting,
            kv_occupancy=now.kv_occupancy,
            arrivals_per_s=arrivals,
            completions_per_s=completions,
            capacity_per_s=capacity,
            load=arrivals / capacity if capacity > 0 else math.nan,
            headroom_per_s=capacity - arrivals,
            growth_per_s=drift.per_s,
            growth_low_per_s=drift.low_per_s,
            growth_high_per_s=drift.high_per_s,
            overflow=min(growing, key=lambda item: item.in_s, default=None),
            verdict=self.judge.verdict,
            reason=self.judge.reason,
        )
        self.points.append(point)
        return point

    def _settled(self, now: Reading) -> Reading:
        """The reading with arrivals that are not negative: what was counted too much before is taken off."""
        if math.isnan(now.arrivals):
            self._owed = 0.0
            return now
        net = now.arrivals + self._owed
        self._owed = min(net, 0.0)
        return replace(now, arrivals=max(net, 0.0))

    def report(self) -> WatchReport:
        """What has been seen so far.

        Raises
        ------
        InputError
            Before the first reading.
        """
        if not self.points:
            raise InputError(f"{self.source} has no scrape yet, must have one. Watch longer.")
        last = self.points[-1]
        return WatchReport(
            source=self.source,
            verdict=last.verdict,
            reason=last.reason,
            scrapes=self._scrapes,
            begun_s=self._begun_s,
            ended_s=last.time_s,
            alpha=self.alpha,
            dispersion=self.judge.dispersion,
            arrival_dispersion=self.judge.arrival_dispersion,
            capacity_source=self.known.source if self.known else "",
            overloads=tuple(self.overloads),
            overflows=self._overflows,
            points=tuple(self.points),
            notes=self.notes,
        )

    def _note_overload(self, now: Reading, *, was: bool) -> None:
        if self.judge.overloaded and not was:
            self.overloads.append(
                Overload(called_s=now.time_s, waiting=now.waiting, test=self.judge.test, reason=self.judge.reason)
            )
        elif was and not self.judge.overloaded:
            self.overloads[-1] = replace(self.overloads[-1], ended_s=now.time_s)

    def _rate(self, name: str) -> float:
        """Of "arrivals" or "completions", over the window, 1/s."""
        items = [item for item in list(self._window)[1:] if math.isfinite(getattr(item, name))]
        span = sum(item.elapsed_s for item in items)
        return sum(getattr(item, name) for item in items) / span if span > 0 else math.nan

    def _standing(self) -> list[Reading]:
        """The readings of the window since the queue was last empty."""
        items = list(self._window)
        empty = [k for k, item in enumerate(items) if item.waiting == 0]
        return items[empty[-1] + 1 :] if empty else items

    def _capacity(self, completions_per_s: float) -> float:
        if self.known is not None:
            return self.known.capacity_per_s
        full = len(self._window) > FEWEST_IN_WINDOW and all(item.waiting > 0 for item in self._window)
        return completions_per_s if full else math.nan

    def _forecast(self, now: Reading, standing: list[Reading], drift: Drift) -> tuple[Overflow, ...]:
        found: list[Overflow | None] = []
        if now.waiting == 0:
            full = now.kv_occupancy >= KV_FULL
            found.append(overflow("KV cache", 0.0 if full else 1 - now.kv_occupancy, kv_drift(list(self._window))))
        if self.limits.queue is not None:
            found.append(overflow("queue limit", self.limits.queue - now.waiting, drift))
        ttft_s = self.limits.ttft_s or (self.known.ttft_s if self.known else None)
        if ttft_s is not None and len(standing) > 1:
            admitted = sum(item.arrivals for item in standing[1:] if math.isfinite(item.arrivals))
            admitted -= standing[-1].waiting - standing[0].waiting
            admitted_per_s = max(admitted, 0.0) / (standing[-1].time_s - standing[0].time_s)
            found.append(overflow("TTFT target", ttft_s * admitted_per_s - now.waiting, drift))
        return tuple(item for item in found if item is not None)


def watch(
    series: MetricsSeries,
    *,
    capacity: KnownCapacity | float | None = None,
    queue_limit: float | None = None,
    ttft_s: float | None = None,
    window_s: float = 60.0,
    alpha: float = 0.01,
    beta: float = 0.005,
    dispersion: float | None = None,
) -> WatchReport:
    r"""Load, headroom, verdict and time to overflow of a server, from its recorded metrics, as they would have been seen live.

    Overload is called by tests that may be looked at after every scrape: while the load is at most 1 they ever call it with
    probability at most `alpha` over the whole watch, if events at the queue come `dispersion` at a time (exact for Poisson arrivals
    and admissions at 1; an approximation for lengths of that spread). They need requests running, waiting and a
    counter of ended ones; evictions are allowed for where they are counted.

    Parameters
    ----------
    series : MetricsSeries
        What was recorded, see `read_metrics`.
    capacity : float > 0 or KnownCapacity, optional
        What the server can sustain, requests/s; without it load is known only while a queue stands.
    queue_limit : float > 0, optional
        Most requests that may wait; the time until then is forecast.
    ttft_s : float > 0, optional
        Longest time to first token, s; the time until a newcomer waits so long is forecast.
    window_s : float > 0
        Trailing window of rates and drifts, s (eight scrapes at least).
    alpha : float in (0, 0.2]
        Probability of ever calling overload at load <= 1.
    beta : float in (0, 0.2]
        Probability of calling a load >= 1 stable.
    dispersion : float >= 1, optional
        Requests that come or go together. If omitted: half the dispersion of the arrivals plus half the squared variation of
        a request's KV demand, by the plan; else as counted in the metrics (arrivals from 20 scrapes on, lengths from 100
        requests on; until then 1 and 3).

    Returns
    -------
    WatchReport
        With one point a scrape.

    Raises
    ------
    InputError
        If the series lacks a counter of ended requests, or an argument breaks its rule.

    Examples
    --------
    Ten a second arrive, one ends, the batch holds 20:

    >>> import tempfile, pathlib, stability as st
    >>> page = "vllm:num_requests_running {}\nvllm:num_requests_waiting {}\nvllm:request_success_total {}\n"
    >>> rows = [page.format(min(9 * t, 20), max(9 * t - 20, 0), t) for t in range(12)]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "recording.prom")
    ...     _ = file.write_text("".join(rows))
    ...     report = st.watch(st.read_metrics(file, interval_s=1.0), queue_limit=100)
    >>> report
    WatchReport(UNSTABLE, 12 scrapes, 1 overloads called)
    >>> report.overloads[0].called_s, report.overloads[0].waiting
    (8.0, 52.0)
    >>> str(report.overflows[0])
    'queue limit in 2 s (2 s .. 4 s)'
    """
    known = capacity if isinstance(capacity, KnownCapacity) or capacity is None else stated(capacity)
    if len(series) and math.isnan(series.finished[-1]):
        raise uncounted_error(series)
    seen = Watch(
        series.source,
        alpha=alpha,
        beta=beta,
        dispersion=dispersion,
        known=known,
        limits=WatchLimits(queue=queue_limit, ttft_s=ttft_s, window_s=window_s),
    )
    for now in readings(series):
        seen.update(now)
    seen.notes = series.notes
    return seen.report()


def uncounted_error(series: MetricsSeries) -> InputError:
    """Of metrics that do not count the requests that ended."""
    return InputError(
        f"{series.source} has no counter of ended requests, must have one to know what arrives. Record "
        f"{'vllm:request_success_total' if series.server == 'vllm' else 'sglang:num_requests_total'}, too."
    )


def exit_code(report: WatchReport, *, fail_on: str = "overload") -> int:
    """0 stable, 1 overloaded, 3 undetermined; with `fail_on` "overload" 1 if it was ever called, with "end" if it still is."""
    if (fail_on == "overload" and report.overloads) or report.verdict is Verdict.UNSTABLE:
        return 1
    return 0 if report.verdict is Verdict.STABLE else 3
