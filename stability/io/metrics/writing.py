"""Writing scrapes in vLLM's exposition format, from a time series of a server's state and its requests' times.

For recordings of simulated runs and for tests of the reader: the names, labels, bucket bounds and order of vLLM V1
(vllm/v1/metrics/loggers.py), old names on request.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..._types import ArrayLike, FloatArray
from ...errors import InputError

if TYPE_CHECKING:
    from ...sim.result import SimulationResult

LATENCY_BOUNDS = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0)  # fmt: skip
TTFT_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)  # fmt: skip
ITL_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
"""Buckets of vLLM's histograms, s."""

STEP_BOUNDS = (1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)
"""Buckets of its histogram of tokens a step."""


def token_bounds(longest: int) -> tuple[float, ...]:
    """Buckets of token counts as vLLM has them: 1, 2, 5, 10, ... up to the longest sequence.

    Examples
    --------
    >>> token_bounds(100)
    (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
    """
    found: list[float] = []
    scale = 1
    while True:
        for mantissa in (1, 2, 5):
            if mantissa * scale > longest:
                return tuple(found)
            found.append(float(mantissa * scale))
        scale *= 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServerRecord:
    """What a server would have counted.

    Attributes
    ----------
    time_s : (n,) array
        Instants of the scrapes, s, in order.
    running, waiting, kv_occupancy, preemptions : (n,) array
        State at those instants; preemptions since the start. NaN where unknown: left out of the page.
    generated_tokens : (n,) array
        Output tokens since the start.
    arrival_s, first_token_s, finish_s : (r,) array
        Times of the requests, s; NaN where it has not come so far.
    prompt_tokens, output_tokens : (r,) array
        Their lengths.
    kv_blocks, block_size : int
        The KV cache.
    model_name : str
    longest : int
        Longest sequence, tokens (for the buckets of lengths).
    step_end_s, step_tokens : (k,) array or None
        End of each step and the tokens it computed; left out of the pages if unknown.
    """

    time_s: FloatArray
    running: FloatArray
    waiting: FloatArray
    kv_occupancy: FloatArray
    preemptions: FloatArray
    generated_tokens: FloatArray
    arrival_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    prompt_tokens: FloatArray
    output_tokens: FloatArray
    kv_blocks: int
    block_size: int = 16
    model_name: str = "model"
    longest: int = 32_768
    step_end_s: FloatArray | None = None
    step_tokens: FloatArray | None = None


def record_of(result: SimulationResult, *, kv_capacity_tokens: int, model_name: str = "simulated") -> ServerRecord:
    """A simulated run as its server would have counted it.

    Parameters
    ----------
    result : SimulationResult
        Of `simulate(..., resolution_s=)`, with its requests kept; with `record_steps=True` steps are counted, too.
    kv_capacity_tokens : int
        KV cache of the whole fleet.
    model_name : str
        Label of the metrics.

    Raises
    ------
    InputError
        If the result has no series or no requests.
    """
    series, requests = result.series, result.requests
    if not series or requests is None:
        raise InputError(
            "the result has no series or no requests, must have both. Simulate with resolution_s=1.0 and keep='requests'."
        )
    time_s = np.asarray(series["time_s"], dtype=np.float64)
    output = np.asarray(requests.output_tokens, dtype=np.float64)
    first, last = requests.first_token_s, requests.finish_s
    return ServerRecord(
        time_s=time_s,
        running=np.asarray(series["running"], dtype=np.float64),
        waiting=np.asarray(series["waiting"], dtype=np.float64),
        kv_occupancy=np.asarray(series["kv_tokens"], dtype=np.float64) / kv_capacity_tokens,
        preemptions=np.full(len(time_s), math.nan),
        generated_tokens=_generated(time_s, first, last, output),
        arrival_s=requests.arrival_s,
        first_token_s=first,
        finish_s=last,
        prompt_tokens=np.asarray(requests.prompt_tokens, dtype=np.float64),
        output_tokens=output,
        kv_blocks=kv_capacity_tokens // 16,
        model_name=model_name,
        step_end_s=np.asarray(result.steps["end_s"]) if result.steps else None,
        step_tokens=np.asarray(result.steps["scheduled_tokens"], dtype=np.float64) if result.steps else None,
    )


def scrapes(record: ServerRecord, *, old_names: bool = False, start_s: float = 0.0) -> Iterator[tuple[float, str]]:
    """Time (s, `start_s` added) and /metrics page of each scrape of a `record`; with `old_names` those of vLLM before V1."""
    labels = f'model_name="{record.model_name}"' if old_names else f'engine="0",model_name="{record.model_name}"'
    ended = np.sort(record.finish_s)
    order = np.argsort(record.finish_s)
    lengths = token_bounds(record.longest)
    decoded = np.maximum(record.output_tokens - 1, 1)
    itl_s = (record.finish_s - record.first_token_s) / decoded
    by_first = np.argsort(record.first_token_s)
    ttft = _Cumulative((record.first_token_s - record.arrival_s)[by_first], TTFT_BOUNDS)
    itl = _Cumulative(itl_s[order], ITL_BOUNDS, (record.output_tokens - 1)[order])
    latency = _Cumulative((record.finish_s - record.arrival_s)[order], LATENCY_BOUNDS)
    prompts = _Cumulative(record.prompt_tokens[order], lengths)
    outputs = _Cumulative(record.output_tokens[order], lengths)
    steps, step_s = None, np.empty(0)
    if record.step_end_s is not None and record.step_tokens is not None:
        by_end = np.argsort(record.step_end_s)
        step_s = record.step_end_s[by_end]
        steps = _Cumulative(record.step_tokens[by_end], STEP_BOUNDS)
    prompt_total = np.concatenate(([0.0], np.cumsum(record.prompt_tokens[by_first])))
    first_s = record.first_token_s[by_first]
    kv, itl_name = ("gpu_cache_usage_perc", "time_per_output_token_seconds") if old_names else ("kv_cache_usage_perc", "inter_token_latency_seconds")  # fmt: skip
    for i, time_s in enumerate(record.time_s):
        done = int(np.searchsorted(ended, time_s, side="right"))
        started = int(np.searchsorted(first_s, time_s, side="right"))
        page = _Page(labels)
        page.one("gauge", "num_requests_running", "Number of requests in model execution batches.", record.running[i])
        page.one("gauge", "num_requests_waiting", "Number of requests waiting to be processed.", record.waiting[i])
        page.one("gauge", kv, "KV-cache usage. 1 means 100 percent usage.", record.kv_occupancy[i])
        page.one(
            "counter",
            "num_preemptions_total",
            "Cumulative number of preemption from the engine.",
            record.preemptions[i],
        )
        page.one("counter", "prompt_tokens_total", "Number of prefill tokens processed.", prompt_total[started])
        page.one(
            "counter", "generation_tokens_total", "Number of generation tokens processed.", record.generated_tokens[i]
        )
        page.one(
            "counter",
            "request_success_total",
            "Count of successfully processed requests.",
            done,
            'finished_reason="length",',
        )
        if steps is not None:
            passed = int(np.searchsorted(step_s, time_s, side="right"))
            page.many("iteration_tokens_total", "Histogram of number of tokens per engine_step.", steps, passed)
        page.many("request_prompt_tokens", "Number of prefill tokens processed.", prompts, done)
        page.many("request_generation_tokens", "Number of generation tokens processed.", outputs, done)
        page.many("time_to_first_token_seconds", "Histogram of time to first token in seconds.", ttft, started)
        page.many(itl_name, "Histogram of inter-token latency in seconds.", itl, done)
        page.many("e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", latency, done)
        config = f'block_size="{record.block_size}",cache_dtype="auto",engine="0",num_gpu_blocks="{record.kv_blocks}"'
        page.line("gauge", "cache_config_info", "Information of the LLMEngine CacheConfig", f"{{{config}}} 1.0")
        yield start_s + float(time_s), page.text()


def recording(record: ServerRecord, *, old_names: bool = False, start_s: float = 0.0) -> str:
    """All scrapes of a `record` one after another, each below a line `# scrape TIME`; arguments as in `scrapes`."""
    pages = scrapes(record, old_names=old_names, start_s=start_s)
    return "".join(f"# scrape {time_s:.3f}\n{page}" for time_s, page in pages)


class _Cumulative:
    """Observations in order of time, counted into buckets up to any of them."""

    def __init__(self, values: FloatArray, bounds: tuple[float, ...], weights: ArrayLike | None = None) -> None:
        values = np.nan_to_num(values, nan=math.inf)
        each = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
        self.bounds = bounds
        inside = values[:, None] <= np.array(bounds)
        zero = np.zeros((1, len(bounds) + 1))
        table = np.cumsum(np.column_stack([inside, np.ones(len(values))]) * each[:, None], axis=0)
        self.counts = np.concatenate([zero, table])
        finite = np.where(np.isfinite(values), values, 0.0)
        self.sums = np.concatenate([[0.0], np.cumsum(finite * each)])


class _Page:
    """The text of one scrape."""

    def __init__(self, labels: str) -> None:
        self.labels, self.lines = labels, list[str]()

    def line(self, kind: str, name: str, text: str, sample: str) -> None:
        self.lines += [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}", f"vllm:{name}{sample}"]

    def one(self, kind: str, name: str, text: str, value: float, more: str = "") -> None:
        if not math.isnan(value):  # not known, not exposed
            self.line(kind, name, text, f"{{{more}{self.labels}}} {float(value)!r}")

    def many(self, name: str, text: str, found: _Cumulative, rows: int) -> None:
        self.lines += [f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} histogram"]
        for bound, count in zip((*map(repr, found.bounds), "+Inf"), found.counts[rows].tolist(), strict=True):
            self.lines.append(f'vllm:{name}_bucket{{le="{bound}",{self.labels}}} {count!r}')
        self.lines.append(f"vllm:{name}_count{{{self.labels}}} {found.counts[rows, -1].item()!r}")
        self.lines.append(f"vllm:{name}_sum{{{self.labels}}} {found.sums[rows].item()!r}")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


def _generated(time_s: FloatArray, first_s: FloatArray, last_s: FloatArray, output: FloatArray) -> FloatArray:
    """Tokens generated by each instant, evenly between a request's first and last token."""
    found = np.empty(len(time_s))
    span = np.where(last_s > first_s, last_s - first_s, 1.0)
    for i, now in enumerate(time_s):
        share = np.clip((now - first_s) / span, 0.0, 1.0)
        given = np.where(first_s <= now, 1 + (output - 1) * np.where(last_s <= now, 1.0, share), 0.0)
        found[i] = np.floor(np.nansum(given))
    return np.maximum.accumulate(found)
