"""What watching a server returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from .._extras import needs
from .._result import Tabular, Verdict, json_safe, no_truth, percent, rate, seconds, text_table
from .forecast import Overflow

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPoint:
    """A server at one scrape. Rates are over the trailing window; NaN where unknown.

    Attributes
    ----------
    time_s : float
        On the clock of the source, s.
    running, waiting : float
        Requests resident and waiting.
    kv_occupancy : float
        Share of the KV cache in use.
    arrivals_per_s, completions_per_s : float
        Requests per second.
    capacity_per_s : float
        From the plan; without one the completions per second while a queue stood throughout the window.
    load : float
        Arrivals over capacity.
    headroom_per_s : float
        Capacity less arrivals, requests/s.
    growth_per_s, growth_low_per_s, growth_high_per_s : float
        Drift of the queue since it was last empty, within the window, and its 95 % interval, requests/s.
    overflow : Overflow or None
        What runs full first at this drift, where the drift is more than chance (its interval above 0).
    verdict : Verdict
    reason : str

    Examples
    --------
    See :func:`stability.watch`.
    """

    time_s: float
    running: float
    waiting: float
    kv_occupancy: float
    arrivals_per_s: float
    completions_per_s: float
    capacity_per_s: float
    load: float
    headroom_per_s: float
    growth_per_s: float
    growth_low_per_s: float
    growth_high_per_s: float
    overflow: Overflow | None
    verdict: Verdict
    reason: str

    def cells(self, start_s: float) -> tuple[str, ...]:
        """The point as one line of the table, its time since `start_s`."""
        return (
            f"{self.time_s - start_s:.0f} s",
            _figure(self.running),
            _figure(self.waiting),
            percent(self.kv_occupancy),
            rate(self.arrivals_per_s),
            rate(self.completions_per_s),
            percent(self.load),
            f"{self.growth_per_s:+.3g}/s" if math.isfinite(self.growth_per_s) else "-",
            str(self.verdict),
            "" if self.overflow is None else str(self.overflow),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping."""
        found: dict[str, Any] = json_safe(self)
        return found


HEADER = ("time", "running", "waiting", "KV", "arrivals", "completed", "load", "growth", "verdict", "at this drift")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One overload that was called.

    Attributes
    ----------
    called_s : float
        When, on the clock of the source, s.
    waiting : float
        Requests that waited then.
    test : str
        Which test called it: "queue", "arrivals" or "drift".
    reason : str
    ended_s : float or None
        When the queue was empty again.

    Examples
    --------
    See :func:`stability.watch`.
    """

    called_s: float
    waiting: float
    test: str
    reason: str
    ended_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class WatchReport(Tabular):
    """A server over the time it was watched.

    Attributes
    ----------
    source : str
    verdict : Verdict
        At the last scrape.
    reason : str
    scrapes : int
    begun_s, ended_s : float
        First and last scrape, on the clock of the source, s.
    alpha : float
        Probability that overload is ever called at load <= 1.
    dispersion : float
        Dispersion of the events at the queue that was assumed.
    arrival_dispersion : float
        Index of dispersion of the arrivals as counted, which `dispersion` allows for; NaN from fewer than 20 scrapes, or where
        dispersion was stated or comes from a plan.
    capacity_source : str
        Where the capacity comes from; empty without a plan.
    overloads : tuple of Overload
        Every overload that was called, in order.
    overflows : tuple of Overflow
        What runs full and when, at the last scrape's drift.
    points : tuple of WatchPoint
        One a scrape (the last 100 000).
    notes : tuple of str

    Examples
    --------
    See :func:`stability.watch`.
    """

    schema = "stability/watch/1"

    source: str
    verdict: Verdict
    reason: str
    scrapes: int
    begun_s: float
    ended_s: float
    alpha: float
    dispersion: float
    capacity_source: str
    overloads: tuple[Overload, ...]
    overflows: tuple[Overflow, ...]
    points: tuple[WatchPoint, ...]
    notes: tuple[str, ...] = ()
    arrival_dispersion: float = math.nan

    def __bool__(self) -> bool:
        raise no_truth("WatchReport")

    def __repr__(self) -> str:
        return f"WatchReport({self.verdict}, {self.scrapes} scrapes, {len(self.overloads)} overloads called)"

    @property
    def last(self) -> WatchPoint:
        """The last scrape."""
        return self.points[-1]

    def rows(self) -> list[tuple[str, str]]:
        """The watch as (quantity, value) pairs for people."""
        last = self.last
        found = [
            ("verdict", str(self.verdict)),
            ("because", self.reason),
            ("watched", f"{self.scrapes} scrapes over {seconds(self.ended_s - self.begun_s)}"),
            ("arrivals", rate(last.arrivals_per_s)),
            ("completions", rate(last.completions_per_s)),
            ("capacity", f"{rate(last.capacity_per_s)}{f' ({self.capacity_source})' if self.capacity_source else ''}"),
            ("load", percent(last.load)),
            ("headroom", rate(last.headroom_per_s)),
            ("running, waiting", f"{_figure(last.running)}, {_figure(last.waiting)}"),
            ("KV in use", percent(last.kv_occupancy)),
            ("growth of the queue", self._growth()),
        ]
        found += [("at this drift", str(item)) for item in self.overflows]
        for item in self.overloads:
            ended = "goes on" if item.ended_s is None else f"over at {item.ended_s - self.begun_s:.0f} s"
            found.append(
                (
                    "overload called",
                    f"at {item.called_s - self.begun_s:.0f} s with {item.waiting:.0f} waiting, by the {item.test} test; {ended}",
                )
            )
        counted = f" (arrivals: {self.arrival_dispersion:.2g})" if math.isfinite(self.arrival_dispersion) else ""
        found.append(
            (
                "false alarm",
                f"<= {100 * self.alpha:g} % over the whole watch, if events come at most {self.dispersion:.3g} at a time{counted}",
            )
        )
        return found

    def table(self, most: int = 24) -> str:
        """The scrapes as a text table: at most about `most` of them, those where the verdict changed always among them."""
        every = max(1, math.ceil(len(self.points) / most))
        kept = [
            point
            for k, point in enumerate(self.points)
            if k % every == 0 or k == len(self.points) - 1 or point.verdict is not self.points[k - 1].verdict
        ]
        return text_table([point.cells(self.begun_s) for point in kept], HEADER)

    def _growth(self) -> str:
        last = self.last
        if not math.isfinite(last.growth_per_s):
            return "-"
        return f"{last.growth_per_s:+.3g}/s (95 %: {last.growth_low_per_s:+.3g} .. {last.growth_high_per_s:+.3g})"

    def to_frame(self) -> pd.DataFrame:
        """One row a scrape, units in column names."""
        needs("pandas")
        import pandas as pd

        names = [f.name for f in fields(WatchPoint) if f.name != "overflow"]
        table: dict[str, list[Any]] = {name: [getattr(point, name) for point in self.points] for name in names}
        table["verdict"] = [point.verdict.value for point in self.points]
        table["overflow"] = ["" if point.overflow is None else point.overflow.what for point in self.points]
        table["overflow_in_s"] = [math.nan if point.overflow is None else point.overflow.in_s for point in self.points]
        return pd.DataFrame(table)

    def plot(self, ax: Axes | None = None) -> Axes:
        """Requests running and waiting over time on `ax` (a new figure without it), with the overloads that were called."""
        from .picture import plot_watch

        return plot_watch(self, ax)


def _figure(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "-"
