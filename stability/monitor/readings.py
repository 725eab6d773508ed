"""What one scrape tells, given the one before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..io.metrics.series import MetricsHistogram, MetricsSeries


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One scrape; NaN where not exposed.

    Attributes
    ----------
    time_s, elapsed_s : float
        When, and since the scrape before (NaN at the first), s.
    running, waiting, kv_occupancy : float
        State.
    arrivals, completions, generated_tokens, preemptions : float
        Since the scrape before; NaN at the first, and over a restart. Arrivals as counted, see `MetricsSeries.net_arrivals`.
    ttft_mean_s : float
        Of the first tokens since the scrape before, s.
    restarted : bool
        Whether the server restarted in between.
    demand_cv2 : float
        Squared coefficient of variation of a request's KV demand, from the lengths so far (`demand_cv2`).
    replicas : int
        Engines behind the metrics.
    """

    time_s: float
    elapsed_s: float
    running: float
    waiting: float
    kv_occupancy: float
    arrivals: float
    completions: float
    generated_tokens: float
    preemptions: float
    ttft_mean_s: float
    restarted: bool
    demand_cv2: float = math.nan
    replicas: int = 1


def readings(series: MetricsSeries) -> Iterator[Reading]:
    """The scrapes of a series one by one."""
    net_arrivals = series.net_arrivals
    for i in range(len(series)):
        yield reading(series, i, net_arrivals=float(net_arrivals[i]))


def reading(series: MetricsSeries, i: int, *, net_arrivals: float | None = None) -> Reading:
    """Scrape `i` of a series, seen from the one before; `net_arrivals` of it if known."""
    first = i == 0
    restarted = bool(series.restarted[i])

    def since(values: np.ndarray) -> float:
        return math.nan if first or restarted else float(values[i] - values[i - 1])

    ttft = series.histograms.get("ttft_s")
    return Reading(
        time_s=float(series.time_s[i]),
        elapsed_s=math.nan if first else float(series.time_s[i] - series.time_s[i - 1]),
        running=float(series.running[i]),
        waiting=float(series.waiting[i]),
        kv_occupancy=float(series.kv_occupancy[i]),
        arrivals=float(series.net_arrivals[i]) if net_arrivals is None else net_arrivals,
        completions=since(series.finished),
        generated_tokens=since(series.generated_tokens),
        preemptions=since(series.preemptions),
        ttft_mean_s=math.nan if ttft is None or first else ttft.mean(i - 1, i),
        restarted=restarted,
        replicas=max(len(series.replicas), 1),
        demand_cv2=demand_cv2(series.histograms.get("prompt_lengths"), series.histograms.get("output_lengths"), i),
    )


FEWEST_LENGTHS = 100
"""Requests whose lengths must be known before their spread is believed."""


def demand_cv2(prompts: MetricsHistogram | None, outputs: MetricsHistogram | None, i: int) -> float:
    """Squared coefficient of variation of g = o*s + o**2/2, the KV a request holds summed over its iterations.

    From histograms up to scrape `i`, each bucket at its middle, prompt and output lengths taken for independent; NaN from
    fewer than 100 requests.
    """
    if prompts is None or outputs is None:
        return math.nan
    s, o = _moments(prompts, i), _moments(outputs, i)
    if s is None or o is None:
        return math.nan
    mean = o[0] * s[0] + o[1] / 2
    square = o[1] * s[1] + o[2] * s[0] + o[3] / 4
    return square / mean**2 - 1


def _moments(histogram: MetricsHistogram, i: int) -> tuple[float, ...] | None:
    """E[x] to E[x**4] with each bucket at its middle (beyond the last bound, at that bound)."""
    counts = histogram.counts[i]
    if counts.sum() < FEWEST_LENGTHS:
        return None
    upper = histogram.bounds.copy()
    lower = np.concatenate(([0.0], upper[:-1]))
    upper[~np.isfinite(upper)] = lower[~np.isfinite(upper)]
    middle = (lower + upper) / 2
    return tuple(float((counts * middle**power).sum() / counts.sum()) for power in (1, 2, 3, 4))
