"""What a trace says about its traffic: rates, burstiness, lengths and their correlation."""

from __future__ import annotations

import html
import math
from dataclasses import asdict, dataclass

import numpy as np

from ..._types import FloatArray, IntArray
from .trace import Trace

WINDOWS_S = (1.0, 60.0, 600.0)
"""Windows in which arrivals are counted, s."""

PERCENTILES = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
"""Percentiles of the lengths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowCounts:
    """Arrivals in consecutive whole windows from the first arrival on.

    Attributes
    ----------
    window_s : float
        Width, s.
    windows : int
        How many whole ones fit in the trace.
    peak_per_s : float or None
        Highest rate of a window, 1/s; None without a whole one.
    dispersion : float or None
        Variance over mean of the counts (1 for Poisson arrivals); None with fewer than two windows.
    """

    window_s: float
    windows: int
    peak_per_s: float | None
    dispersion: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenCounts:
    """Lengths of one kind, tokens.

    Attributes
    ----------
    mean_tokens : float
        Mean.
    cv : float
        Standard deviation over mean.
    min_tokens, max_tokens : int
        Extremes.
    percentiles : tuple of (float, float)
        Pairs of percentage and tokens.
    """

    mean_tokens: float
    cv: float
    min_tokens: int
    max_tokens: int
    percentiles: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSummary:
    """Statistics of a trace.

    Attributes
    ----------
    source : str
        The file.
    rows : int
        Requests.
    span_s : float
        Time from the first to the last arrival, s.
    rate_per_s : float or None
        (rows - 1) / span_s, 1/s; None if all come at once.
    gap_cv : float or None
        Standard deviation over mean of the gaps between arrivals (1 for Poisson arrivals).
    windows : tuple of WindowCounts
        Peak rate and dispersion by window.
    prompt, output : TokenCounts
        Lengths.
    cached_share : float or None
        Share of the prompt tokens that an unbounded prefix cache would hold.
    pearson, spearman : float or None
        Linear and rank correlation of prompt and output lengths; None when one of them is constant.
    notes : tuple of str
        What was done to the rows on reading.
    """

    source: str
    rows: int
    span_s: float
    rate_per_s: float | None
    gap_cv: float | None
    windows: tuple[WindowCounts, ...]
    prompt: TokenCounts
    output: TokenCounts
    cached_share: float | None
    pearson: float | None
    spearman: float | None
    notes: tuple[str, ...]

    def __repr__(self) -> str:
        return (
            f"TraceSummary({self.rows} requests, {_show(self.rate_per_s)}/s, "
            f"prompt mean {self.prompt.mean_tokens:.0f}, output mean {self.output.mean_tokens:.0f})"
        )

    def to_dict(self) -> dict[str, object]:
        """JSON-safe form."""
        return {"schema": "stability/trace-summary/1", **asdict(self)}

    def summary(self) -> str:
        """A table."""
        lines = [
            f"{self.source or 'trace'}",
            f"  requests       {self.rows}",
            f"  span           {self.span_s:.6g} s",
            f"  mean rate      {_show(self.rate_per_s)} /s",
            f"  cv of gaps     {_show(self.gap_cv)}  (Poisson: 1)",
        ]
        if self.cached_share is not None:
            lines.append(f"  prefix hits    {self.cached_share:.1%} of the prompt tokens")
        lines += [
            f"  correlation    {_show(self.pearson)} (Pearson), {_show(self.spearman)} (Spearman) of prompt and output",
            "",
            "  window      peak rate /s   variance/mean of counts (Poisson: 1)",
        ]
        lines += [f"  {w.window_s:>5g} s  {_show(w.peak_per_s):>14}   {_show(w.dispersion)}" for w in self.windows]
        heads = ["mean", "cv", "min", *(f"p{level:g}" for level, _ in self.prompt.percentiles), "max"]
        lines += ["", "  tokens  " + "".join(f"{head:>9}" for head in heads)]
        for name, item in (("prompt", self.prompt), ("output", self.output)):
            cells = [
                f"{item.mean_tokens:.1f}",
                f"{item.cv:.3f}",
                f"{item.min_tokens}",
                *(f"{value:.0f}" for _, value in item.percentiles),
                f"{item.max_tokens}",
            ]
            lines.append(f"  {name:<8}" + "".join(f"{cell:>9}" for cell in cells))
        lines += ["", *(f"  note: {note}" for note in self.notes)] if self.notes else []
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.summary())}</pre>"


def summarise(trace: Trace) -> TraceSummary:
    """The statistics of `trace`."""
    arrival = trace.arrival_s
    span = trace.span_s
    prompt, output = _tokens(trace.prompt_tokens), _tokens(trace.output_tokens)
    cached = trace.cached_prefix_tokens
    return TraceSummary(
        source=trace.source,
        rows=len(trace),
        span_s=span,
        rate_per_s=trace.rate_per_s,
        gap_cv=_gap_cv(arrival) if span > 0 else None,
        windows=tuple(_counts(arrival - arrival[0], span, width) for width in WINDOWS_S),
        prompt=prompt,
        output=output,
        cached_share=None if cached is None else float(cached.sum() / trace.prompt_tokens.sum()),
        pearson=_correlation(trace.prompt_tokens.astype(np.float64), trace.output_tokens.astype(np.float64)),
        spearman=_correlation(_ranks(trace.prompt_tokens), _ranks(trace.output_tokens)),
        notes=trace.notes,
    )


def _gap_cv(arrival_s: FloatArray) -> float:
    gaps = np.diff(arrival_s)
    return float(gaps.std() / gaps.mean())


def _counts(since_s: FloatArray, span_s: float, window_s: float) -> WindowCounts:
    windows = math.floor(span_s / window_s)
    if windows == 0:
        return WindowCounts(window_s=window_s, windows=0, peak_per_s=None, dispersion=None)
    inside = since_s[: np.searchsorted(since_s, windows * window_s, side="left")]
    _, counts = np.unique(np.floor(inside / window_s), return_counts=True)  # windows of none need no memory
    mean = len(inside) / windows
    variance = float((counts.astype(np.float64) ** 2).sum()) / windows - mean * mean
    return WindowCounts(
        window_s=window_s,
        windows=windows,
        peak_per_s=float(counts.max()) / window_s,
        dispersion=variance / mean if windows > 1 else None,
    )


def _tokens(tokens: IntArray) -> TokenCounts:
    mean = float(tokens.mean())
    values = np.percentile(tokens, PERCENTILES)
    return TokenCounts(
        mean_tokens=mean,
        cv=float(tokens.std()) / mean,
        min_tokens=int(tokens.min()),
        max_tokens=int(tokens.max()),
        percentiles=tuple(zip(PERCENTILES, values.tolist(), strict=True)),
    )


def _ranks(tokens: IntArray) -> FloatArray:
    """Average ranks: equal lengths share theirs."""
    _, which, counts = np.unique(tokens, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[which], dtype=np.float64)


def _correlation(x: FloatArray, y: FloatArray) -> float | None:
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale > 0 else None


def _show(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
