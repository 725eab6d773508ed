"""Mean engine steps between scrapes: what step-time laws are fitted to where no single step was recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..._extras import needs
from ..._types import FloatArray, IntArray, read_only
from ...errors import InputError, check_integer

if TYPE_CHECKING:
    import pandas as pd

    from .series import MetricsSeries


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class StepMeans:
    """The mean step of each interval between scrapes in which a replica was busy. Columns of shape (n,).

    Attributes
    ----------
    prefill_tokens : float
        Prompt tokens computed in a step.
    decode_tokens : float
        Requests that decoded a token in it.
    kv_tokens : float
        KV tokens in use: mean of both scrapes, those of prompts under way included.
    time_s : float
        Time of the step, s.
    weights : float
        Steps that the row stands for.
    counted : bool
        Whether the steps were counted (vLLM's `iteration_tokens_total`), or follow from the inter-token latency.
    notes : tuple of str
        What was joined or left out.

    Examples
    --------
    See :func:`stability.step_means`.
    """

    prefill_tokens: FloatArray
    decode_tokens: FloatArray
    kv_tokens: FloatArray
    time_s: FloatArray
    weights: FloatArray
    counted: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.time_s)

    def __repr__(self) -> str:
        how = "counted" if self.counted else "from the inter-token latency"
        return f"StepMeans({len(self)} intervals, {self.weights.sum():.0f} steps, {how})"

    def to_frame(self) -> pd.DataFrame:
        """One row an interval, units in column names."""
        needs("pandas")
        import pandas as pd

        names = ("prefill_tokens", "decode_tokens", "kv_tokens", "time_s", "weights")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def step_means(series: MetricsSeries, *, replicas: int | None = None) -> StepMeans:
    """What an engine computed in a mean step, and how long that took, for each interval between two scrapes.

    With R replicas, n steps of theirs in an interval of length T, and p and d the growth of the prompt tokens computed and of the
    tokens generated: P = p/n, D = d/n, time R*T/n. Steps are those of vLLM's histogram `iteration_tokens_total` where exposed;
    elsewhere n = R*T/ITL, ITL the mean inter-token latency of the interval, which is weighted by tokens. Scrapes at which
    the steps have not moved while requests ran are joined with the next: an answer to a range query repeats them where its step
    is finer than the scrape interval. Kept are intervals with requests running at both ends; one in which the engine idled in
    between makes its steps look long. Prompt tokens found in the prefix cache are not computed and left out, where told. SGLang's
    counters of tokens move when a request ends: d is the number of its inter-token latencies, p its `realtime_tokens_total`.

    Parameters
    ----------
    series : MetricsSeries
        What was recorded.
    replicas : int >= 1, optional
        Engines behind the metrics; those seen in the labels if omitted.

    Returns
    -------
    StepMeans

    Raises
    ------
    InputError
        If neither steps nor inter-token latencies are exposed, or the size of the KV cache is not, or SGLang's
        `realtime_tokens_total` is not.

    Examples
    --------
    100 steps in 2 s, 400 prompt and 800 generated tokens, half of 1600 KV tokens in use:

    >>> import tempfile, pathlib, stability as st
    >>> page = '''vllm:num_requests_running 8
    ... vllm:num_requests_waiting 0
    ... vllm:kv_cache_usage_perc 0.5
    ... vllm:cache_config_info{{block_size="16",num_gpu_blocks="100"}} 1
    ... vllm:prompt_tokens_total {}
    ... vllm:generation_tokens_total {}
    ... vllm:iteration_tokens_total_bucket{{le="+Inf"}} {}
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "two.prom")
    ...     _ = file.write_text(page.format(0, 0, 0) + page.format(400, 800, 100))
    ...     steps = st.step_means(st.read_metrics(file, interval_s=2.0))
    >>> steps
    StepMeans(1 intervals, 100 steps, counted)
    >>> [float(column[0]) for column in (steps.prefill_tokens, steps.decode_tokens, steps.kv_tokens, steps.time_s)]
    [4.0, 8.0, 800.0, 0.02]
    """
    engines = max(len(series.replicas), 1) if replicas is None else check_integer("replicas", replicas, at_least=1)
    if math.isnan(series.kv_capacity_tokens):
        raise InputError(
            f"{series.source} does not tell the size of the KV cache, must do so. Record vllm:cache_config_info, or "
            "sglang:max_total_num_tokens."
        )
    if series.server == "sglang" and np.isnan(series.prefill_tokens).all():
        raise InputError(
            f'{series.source} has no sglang:realtime_tokens_total{{mode="prefill_compute"}}, must have it: the other counters of '
            "tokens move when a request ends, not as they are computed. Record a release of SGLang that exposes it."
        )
    counted = "iteration_tokens" in series.histograms
    progress = _progress(series)
    at = _moved(progress, series)
    width = np.diff(series.time_s[at])
    steps = np.diff(progress[at]) if counted else _steps_by_latency(series, at, width * engines)
    running = series.running[at]
    busy = (running[:-1] > 0) & (running[1:] > 0) & ~series.restarted[at][1:]
    kv = (series.kv_occupancy * series.kv_capacity_tokens / engines)[at]
    generated = progress if series.server == "sglang" else series.generated_tokens
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "prefill_tokens": np.diff(series.prefill_tokens[at]) / steps,
            "decode_tokens": np.diff(generated[at]) / steps,
            "kv_tokens": (kv[1:] + kv[:-1]) / 2,
            "time_s": engines * width / steps,
            "weights": steps,
        }
    rows = busy & (steps > 0) & np.isfinite(np.array(list(columns.values()))).all(axis=0)
    return StepMeans(
        counted=counted,
        notes=_notes(series, len(at)),
        **{name: read_only(column[rows]) for name, column in columns.items()},
    )


def _progress(series: MetricsSeries) -> FloatArray:
    """What grows with every step: the steps themselves, else the inter-token latencies observed."""
    for name in ("iteration_tokens", "itl_s"):
        if name in series.histograms:
            found: FloatArray = series.histograms[name].counts.sum(axis=1)
            return found
    raise InputError(
        f"{series.source} has neither iteration_tokens_total nor inter_token_latency_seconds, must have one to tell steps. "
        "Record the whole /metrics page."
    )


def _moved(progress: FloatArray, series: MetricsSeries) -> IntArray:
    """Scrapes that tell something new: the first, those by which steps were made, idle ones, and restarts."""
    moved = np.diff(progress, prepend=-1.0) != 0
    return np.flatnonzero(moved | (series.running == 0) | series.restarted)


def _steps_by_latency(series: MetricsSeries, at: IntArray, engine_s: FloatArray) -> FloatArray:
    """Steps in each interval, from the mean inter-token latency."""
    itl = series.histograms["itl_s"]
    with np.errstate(divide="ignore", invalid="ignore"):
        found: FloatArray = engine_s * np.diff(itl.counts[at].sum(axis=1)) / np.diff(itl.sums[at])
    return np.nan_to_num(found, nan=0.0, posinf=0.0)


def _notes(series: MetricsSeries, kept: int) -> tuple[str, ...]:
    notes = []
    if kept < len(series):
        notes.append(f"{len(series) - kept} scrapes without a step since the one before joined with the next")
    hits = series.prefix_hits_tokens
    if series.server == "vllm" and len(hits) and hits[-1] > hits[0]:
        notes.append(f"{hits[-1] - hits[0]:.0f} prompt tokens found in the prefix cache left out of the steps")
    return tuple(notes)
