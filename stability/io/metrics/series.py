"""What was read from a server's metrics: columns over time, one row a scrape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..._extras import needs
from ..._result import Tabular, percent, rate, seconds
from ..._types import BoolArray, FloatArray
from ...errors import InputError, check_number

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLUMNS = (
    "running",
    "waiting",
    "kv_occupancy",
    "generation_tokens_per_s",
    "finished",
    "preemptions",
    "prompt_tokens",
    "generated_tokens",
    "prefix_queries_tokens",
    "prefix_hits_tokens",
    "prefill_tokens",
)
"""Columns of a `MetricsSeries` besides time, in the order of its frame."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MetricsHistogram:
    """A histogram over time: what had been observed by each scrape, restarts mended.

    Attributes
    ----------
    name : str
        Prompt or output lengths (tokens), or times (s), as its unit tells.
    bounds : (b,) array
        Upper ends of the buckets, the last one inf.
    counts : (n, b) array
        Observations in each bucket alone, since the server started.
    sums : (n,) array
        Sum of the observed values, NaN if not exposed.

    Examples
    --------
    See :func:`stability.read_metrics`.
    """

    name: str
    bounds: FloatArray
    counts: FloatArray
    sums: FloatArray

    def __repr__(self) -> str:
        return f"MetricsHistogram({self.name!r}, {len(self.bounds)} buckets, {self.counts[-1].sum():.0f} observations)"

    def between(self, begin: int = 0, end: int = -1, *, from_start: bool = False) -> FloatArray:
        """Observations by bucket between scrapes `begin` and `end`; with `from_start` all up to `end`, shape (b,)."""
        found: FloatArray = self.counts[end] - (0 if from_start else self.counts[begin])
        return found

    def mean(self, begin: int = 0, end: int = -1, *, from_start: bool = False) -> float:
        """Mean of the values observed between scrapes `begin` and `end` (all up to `end` with `from_start`); NaN without any."""
        count = self.between(begin, end, from_start=from_start).sum()
        total = self.sums[end] - (0.0 if from_start else self.sums[begin])
        return float(total / count) if count > 0 else math.nan

    def quantile(self, probability: float, begin: int = 0, end: int = -1) -> float:
        """The value below which `probability` of those observed between scrapes `begin` and `end` lie.

        Linear within a bucket, as Prometheus' histogram_quantile; the last finite bound where it lies above; NaN without any.
        """
        counts = self.between(begin, end)
        if counts.sum() <= 0:
            return math.nan
        target = check_number("probability", probability, above=0, below=1) * counts.sum()
        k = int(np.searchsorted(np.cumsum(counts), target))
        low = self.bounds[k - 1] if k else 0.0
        if not math.isfinite(self.bounds[min(k, len(self.bounds) - 1)]):
            return float(low)
        before = counts[:k].sum()
        return float(low + (self.bounds[k] - low) * (target - before) / counts[k])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class MetricsSeries(Tabular):
    """Metrics of a serving engine over time, of all its replicas together. Columns of shape (n,), NaN where not exposed.

    Counters are those of the server since its start; where it restarted they go on from what they were.

    Attributes
    ----------
    source : str
        File or address.
    server : str
        "vllm" or "sglang".
    time_s : float
        When each scrape was taken, on the clock of the source, s.
    running, waiting : float
        Requests resident, and waiting (those swapped out count as waiting).
    kv_occupancy : float
        Share of the KV cache in use, mean over replicas.
    generation_tokens_per_s : float
        Gauge of tokens generated per second, where there is one; `rate_of("generated_tokens")` is the counter's.
    finished : float
        Requests ended, aborted ones included.
    preemptions : float
        Evictions.
    prompt_tokens, generated_tokens : float
        Tokens of prompts, those found in the prefix cache included, and of outputs. SGLang counts both when a request ends.
    prefix_queries_tokens, prefix_hits_tokens : float
        Prompt tokens looked up in the prefix cache, and found.
    prefill_tokens : float
        Prompt tokens computed: vLLM's prompt tokens less those found in the prefix cache, SGLang's realtime counter.
    restarted : bool
        Whether some counter fell since the scrape before: the server restarted.
    kv_capacity_tokens : float
        KV cache of all replicas, NaN if not exposed.
    histograms : mapping of str to MetricsHistogram
        prompt_lengths, output_lengths, iteration_tokens (tokens); ttft_s, itl_s, latency_s, queue_s (s), as far as exposed.
    replicas : tuple of str
        Label sets that tell the replicas apart.
    notes : tuple of str
        What was chosen or left out on reading.

    Examples
    --------
    See :func:`stability.read_metrics`.
    """

    schema = "stability/metrics/1"

    source: str
    server: str
    time_s: FloatArray
    running: FloatArray
    waiting: FloatArray
    kv_occupancy: FloatArray
    generation_tokens_per_s: FloatArray
    finished: FloatArray
    preemptions: FloatArray
    prompt_tokens: FloatArray
    generated_tokens: FloatArray
    prefix_queries_tokens: FloatArray
    prefix_hits_tokens: FloatArray
    prefill_tokens: FloatArray
    restarted: BoolArray
    kv_capacity_tokens: float
    histograms: Mapping[str, MetricsHistogram] = field(default_factory=dict)
    replicas: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time_s)

    def __repr__(self) -> str:
        return f"MetricsSeries({self.source}: {self.server}, {len(self)} scrapes over {self.span_s:.4g} s)"

    @property
    def span_s(self) -> float:
        """Time from the first scrape to the last, s."""
        return float(self.time_s[-1] - self.time_s[0]) if len(self) else 0.0

    @property
    def arrivals(self) -> FloatArray:
        """Requests that arrived since the scrape before: those that ended, and the growth of running and waiting, shape (n,).

        NaN at the first scrape, over a restart, and without a counter of ended requests. Never negative: where gauges lag behind
        the counter, what was counted too much in one interval is taken off the next.
        """
        known = np.nan_to_num(self.net_arrivals)
        ahead = np.maximum.accumulate(np.cumsum(known))
        found: FloatArray = np.where(np.isnan(self.net_arrivals), math.nan, np.diff(ahead, prepend=0.0))
        return found

    @property
    def net_arrivals(self) -> FloatArray:
        """The same as counted in each interval, negative where gauges lag behind the counter, shape (n,)."""
        grown = np.diff(self.finished + self.running + self.waiting, prepend=math.nan)
        found: FloatArray = np.where(self.restarted, math.nan, grown)
        return found

    def rate_of(self, counter: str, *, last: int | None = None) -> float:
        """Increase of a `counter` column (or of "arrivals") per second over all scrapes, or the `last` so many; NaN if unknown."""
        begin = 0 if last is None else max(len(self) - 1 - last, 0)
        span = float(self.time_s[-1] - self.time_s[begin])
        if not span > 0:
            return math.nan
        if counter == "arrivals":
            steps = self.arrivals[begin + 1 :]
            known = ~np.isnan(steps)
            widths = np.diff(self.time_s)[begin:]
            return float(steps[known].sum() / widths[known].sum()) if known.any() else math.nan
        if counter not in COLUMNS:
            raise InputError(f"counter = {counter!r}, must be one of arrivals, {', '.join(COLUMNS[4:])}. Correct it.")
        column = getattr(self, counter)
        return float((column[-1] - column[begin]) / span)

    def rows(self) -> list[tuple[str, str]]:
        """What was read, as (quantity, value) pairs for people."""
        histograms = self.histograms
        found = [
            ("source", self.source),
            ("server", self.server),
            ("replicas", str(max(len(self.replicas), 1))),
            ("scrapes", f"{len(self)} over {seconds(self.span_s)}"),
            ("arrivals", rate(self.rate_of("arrivals"))),
            ("completions", rate(self.rate_of("finished"))),
            ("generated", f"{_figure(self.rate_of('generated_tokens'))} tokens/s"),
            ("running, mean", _figure(_mean(self.running))),
            ("waiting, mean and last", f"{_figure(_mean(self.waiting))}, {_figure(float(self.waiting[-1]))}"),
            ("KV in use, mean", percent(_mean(self.kv_occupancy))),
            ("KV capacity", f"{_figure(self.kv_capacity_tokens)} tokens"),
            ("evictions", _figure(float(self.preemptions[-1] - self.preemptions[0]))),
        ]
        for name, label in (("ttft_s", "time to first token"), ("itl_s", "inter-token latency")):
            if name in histograms:
                found.append((f"{label}, mean", seconds(histograms[name].mean())))
        for name, label in (("prompt_lengths", "prompt"), ("output_lengths", "output")):
            if name in histograms:
                found.append((f"{label}, mean", f"{_figure(histograms[name].mean(from_start=True))} tokens"))
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row a scrape, units in column names."""
        needs("pandas")
        import pandas as pd

        columns = {"time_s": self.time_s} | {name: getattr(self, name) for name in COLUMNS}
        return pd.DataFrame(columns | {"arrivals": self.arrivals, "restarted": self.restarted})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Requests running and waiting over time on `ax`; without it also KV and rates in panels below."""
        from ...plots.metrics import plot_metrics

        width = np.diff(self.time_s)
        return plot_metrics(
            self.time_s,
            running=self.running,
            waiting=self.waiting,
            kv_occupancy=self.kv_occupancy,
            arrivals_per_s=self.arrivals[1:] / width,
            completions_per_s=np.diff(self.finished) / width,
            ax=ax,
        )


def _mean(values: FloatArray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else math.nan


def _figure(value: float) -> str:
    return f"{value:.5g}" if math.isfinite(value) else "-"
