"""What a comparison of schedulers returns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._extras import needs
from .._result import Described, html_table, json_safe, no_truth, text_table
from .._types import FloatArray
from ..errors import check_choice
from ..evidence.comparison import Comparison
from ..evidence.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

METRICS: dict[str, tuple[str, float, str]] = {
    "throughput_per_s": ("throughput", 1.0, "req/s"),
    "latency_mean_s": ("latency, mean", 1.0, "s"),
    "latency_p99_s": ("latency, 99 %", 1.0, "s"),
    "ttft_mean_s": ("TTFT, mean", 1.0, "s"),
    "ttft_p99_s": ("TTFT, 99 %", 1.0, "s"),
    "itl_mean_s": ("ITL, mean", 1e3, "ms"),
    "evictions_per_request": ("evictions", 1.0, "per request"),
    "kv_occupancy": ("KV occupancy", 100.0, "%"),
}
"""What is measured: title, scale for people, and its unit."""

ROUND_OFF = 1e-9
"""Half-widths below this share of the mean are of equal samples, and not shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOutcome(Described):
    """One scheduler over all replications.

    Attributes
    ----------
    name, scheduler : str
        Its name here, and the object with its parameters.
    samples : mapping of str to (n_replications,) ndarray
        One figure a replication, by the names of `METRICS`.
    intervals : mapping of str to Interval
        Of their means.
    overloaded : int
        Replications in which the queue grew: their latencies depend on the length of the run.
    unfinished : int
        Requests of the measured window without a last token when the run ended, over all replications; their latency
        counts up to there.
    capacity_per_s : float or None
        Capacity in theory, where it has one.
    capacity_note : str
        Why it has none, else the verdict at this rate.
    start_note : str
        That sessions had not lived out when a run was measured, so that its rate is below the workload's; empty otherwise.

    Examples
    --------
    See :func:`stability.compare_schedulers`.
    """

    name: str
    scheduler: str
    samples: Mapping[str, FloatArray]
    intervals: Mapping[str, Interval]
    overloaded: int
    unfinished: int
    capacity_per_s: float | None
    capacity_note: str
    start_note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SchedulerComparison:
    """Schedulers on the same fleet and the same requests.

    Attributes
    ----------
    outcomes : tuple of PolicyOutcome
        In the order asked for.
    baseline : str
        The first one: differences are against it.
    differences : mapping of str to Comparison
        Paired differences by metric, simultaneous over the schedulers; empty with one scheduler.
    skipped : mapping of str to str
        Schedulers that could not run here, with the reason.
    rate_per_s : float
    requests, replications : int
        Requests per replication.
    level : float
        Confidence level.
    latency_floor_s : float or None
        Mean latency of a request alone on an empty replica: no scheduler is below it. None where the fleet's pools differ or the
        law is not affine.
    hindsight_s : float or None
        Mean latency that no scheduler gets below on these requests, even knowing them all beforehand, mean over replications; for
        schedulers that finish them. See `stability.compare.hindsight`.
    hindsight_method : str
        The bound that gave it.
    hindsight_note : str
        Why there is none, or no better one; empty otherwise.
    seed : int

    Examples
    --------
    See :func:`stability.compare_schedulers`.
    """

    schema: ClassVar[str] = "stability/scheduler-comparison/1"

    outcomes: tuple[PolicyOutcome, ...]
    baseline: str
    differences: Mapping[str, Comparison]
    skipped: Mapping[str, str]
    rate_per_s: float
    requests: int
    replications: int
    level: float
    latency_floor_s: float | None
    hindsight_s: float | None
    hindsight_method: str
    hindsight_note: str
    seed: int

    def __bool__(self) -> bool:
        raise no_truth("SchedulerComparison")

    def __repr__(self) -> str:
        names = ", ".join(outcome.name for outcome in self.outcomes)
        return f"SchedulerComparison({names}; {self.replications} x {self.requests} requests)"

    def __getitem__(self, name: str) -> PolicyOutcome:
        """The outcome of the scheduler of that name."""
        return {outcome.name: outcome for outcome in self.outcomes}[check_choice("name", name, self.names)]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the schedulers that ran."""
        return tuple(outcome.name for outcome in self.outcomes)

    def rows(self) -> list[tuple[str, ...]]:
        """One row a scheduler: means with half-widths, and a mark where the queue grew."""
        found = []
        for outcome in self.outcomes:
            cells = [
                _figure(outcome.intervals[name], outcome.samples[name], scale)
                for name, (_, scale, _) in METRICS.items()
            ]
            growing = f"{outcome.overloaded} of {self.replications}" if outcome.overloaded else "no"
            theory = "-" if outcome.capacity_per_s is None else f"{outcome.capacity_per_s:.4g}"
            found.append((outcome.name, *cells, growing, theory, self._over_hindsight(outcome)))
        return found

    def _over_hindsight(self, outcome: PolicyOutcome) -> str:
        """Mean latency as a multiple of the hindsight bound; none where requests are unfinished and count too little."""
        if not self.hindsight_s or outcome.unfinished:
            return "-"
        return f"{float(np.mean(outcome.samples['latency_mean_s'])) / self.hindsight_s:.3g}"

    def difference_rows(self, metric: str = "latency_mean_s") -> list[tuple[str, ...]]:
        """One row a scheduler: its paired difference from the baseline in one metric.

        Parameters
        ----------
        metric : str
            Of `METRICS`.
        """
        check_choice("metric", metric, METRICS)
        return self.differences[metric].rows() if metric in self.differences else []

    def summary(self) -> str:
        """The table, the differences in mean latency, and what could not run."""
        parts = [text_table(self.rows(), self._header())]
        if self.differences:
            head = ("scheduler", "against", "latency, mean s", f"all at {100 * self.level:g} %", "differs")
            parts.append(text_table(self.difference_rows(), head))
        if self.latency_floor_s is not None:
            parts.append(f"no scheduler has a mean latency below {self.latency_floor_s:.4g} s: a request alone")
        if self.hindsight_s is not None:
            parts.append(
                f"no scheduler serves these requests with a mean latency below {self.hindsight_s:.4g} s, even knowing them "
                f"beforehand ({self.hindsight_method})"
            )
        if self.hindsight_note:
            parts.append(f"hindsight: {self.hindsight_note}")
        notes = [f"{outcome.name}: {outcome.scheduler}" for outcome in self.outcomes]
        notes += [f"{o.name}: {o.unfinished} requests unfinished at the end" for o in self.outcomes if o.unfinished]
        notes += [f"{o.name}: {o.start_note}" for o in self.outcomes if o.start_note]
        notes += [f"{name} did not run: {reason}" for name, reason in self.skipped.items()]
        parts.append("\n".join(notes))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        caption = f"{self.replications} x {self.requests} requests at {self.rate_per_s:.4g}/s"
        return html_table(self.rows(), self._header(), caption=caption)

    def _header(self) -> tuple[str, ...]:
        titles = [f"{title}, {unit}" for title, _, unit in METRICS.values()]
        return ("scheduler", *titles, "queue grows", "capacity in theory, req/s", "latency over hindsight")

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": self.schema, **json_safe(self)}

    def to_frame(self) -> pd.DataFrame:
        """One row a scheduler and replication, a column a metric."""
        needs("pandas")
        import pandas as pd

        tables = []
        for outcome in self.outcomes:
            table = pd.DataFrame({name: outcome.samples[name] for name in METRICS})
            table.insert(0, "replication", np.arange(self.replications))
            table.insert(0, "scheduler", outcome.name)
            tables.append(table)
        return pd.concat(tables, ignore_index=True)

    def plot(self, ax: Axes | None = None, *, metric: str = "latency_mean_s") -> Axes:
        """One metric on `ax`; without it a figure with a panel per metric. See `stability.plots.schedulers`."""
        from ..plots.schedulers import plot_metric, plot_schedulers

        return plot_schedulers(self) if ax is None else plot_metric(self, metric, ax)


def _figure(interval: Interval, samples: FloatArray, scale: float) -> str:
    """Mean and half-width for people."""
    mean = float(np.mean(samples)) * scale
    if not math.isfinite(mean):
        return "-"
    half = interval.half_width * scale
    return f"{mean:.4g}" + (f" +- {half:.2g}" if math.isfinite(half) and half > ROUND_OFF * abs(mean) else "")
