"""Mean engine steps between scrapes: what step-time laws are fitted to where no single step was recorded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..._types import FloatArray, read_only
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

    def __len__(self) -> int:
        return len(self.time_s)

    def __repr__(self) -> str:
        how = "counted" if self.counted else "from the inter-token latency"
        return f"StepMeans({len(self)} intervals, {self.weights.sum():.0f} steps, {how})"

    def to_frame(self) -> pd.DataFrame:
        """One row an interval, units in column names."""
        import pandas as pd

        names = ("prefill_tokens", "decode_tokens", "kv_tokens", "time_s", "weights")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def step_means(series: MetricsSeries, *, replicas: int | None = None) -> StepMeans:
    """What an engine computed in a mean step, and how long that took, for each interval between two scrapes.

    With R replicas, n steps of theirs in an interval of length T, and p and d the growth of the counters of prompt and generated
    tokens: P = p/n, D = d/n, time R*T/n. Steps are those of vLLM's histogram `iteration_tokens_total` where exposed; elsewhere
    n = R*T/ITL, ITL the mean inter-token latency of the interval, which is weighted by tokens. Kept are intervals with
    requests running at both ends; one in which the engine idled in between makes its steps look long. SGLang
    counts tokens when a request ends: there P and D lag behind by a request's time.

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
        If neither steps nor inter-token latencies are exposed, or the size of the KV cache is not.

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
    width = np.diff(series.time_s)
    counted = "iteration_tokens" in series.histograms
    steps = _steps(series, width * engines)
    busy = (series.running[:-1] > 0) & (series.running[1:] > 0) & ~series.restarted[1:]
    kv = series.kv_occupancy * series.kv_capacity_tokens / engines
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "prefill_tokens": np.diff(series.prompt_tokens) / steps,
            "decode_tokens": np.diff(series.generated_tokens) / steps,
            "kv_tokens": (kv[1:] + kv[:-1]) / 2,
            "time_s": engines * width / steps,
            "weights": steps,
        }
    rows = busy & (steps > 0) & np.isfinite(np.array(list(columns.values()))).all(axis=0)
    return StepMeans(counted=counted, **{name: read_only(column[rows]) for name, column in columns.items()})


def _steps(series: MetricsSeries, engine_s: FloatArray) -> FloatArray:
    """Steps in each interval."""
    if "iteration_tokens" in series.histograms:
        found: FloatArray = np.diff(series.histograms["iteration_tokens"].counts.sum(axis=1))
        return found
    if "itl_s" not in series.histograms:
        raise InputError(
            f"{series.source} has neither iteration_tokens_total nor inter_token_latency_seconds, must have one to tell steps. "
            "Record the whole /metrics page."
        )
    itl = series.histograms["itl_s"]
    with np.errstate(divide="ignore", invalid="ignore"):
        per_step: FloatArray = engine_s * np.diff(itl.counts.sum(axis=1)) / np.diff(itl.sums)
    return np.nan_to_num(per_step, nan=0.0, posinf=0.0)
