"""What vLLM and SGLang call their metrics, by version.

Every quantity has one name here and the spellings under which servers expose it, the current one first. Names are compared with
colons written as underscores, since some collectors rewrite `vllm:x` to `vllm_x`. A counter's `_total` belongs to its name.

Sources:

- vLLM V1: vllm/v1/metrics/loggers.py (`PrometheusStatLogger`) and docs/design/metrics.md, https://docs.vllm.ai/en/latest/usage/metrics.html.
  `gpu_cache_usage_perc` and `gpu_prefix_cache_*` are there the old names of `kv_cache_usage_perc` and `prefix_cache_*`, and
  `time_per_output_token_seconds` that of `inter_token_latency_seconds`; for some releases both are exposed.
- vLLM V0: vllm/engine/metrics.py of release 0.5 to 0.8, https://docs.vllm.ai/en/v0.8.5/serving/metrics.html.
- SGLang: python/sglang/srt/metrics/collector.py (`SchedulerMetricsCollector`, `TokenizerMetricsCollector`) and
  https://docs.sglang.io/references/production_metrics.html. It counts tokens when a request ends, not as they are generated
  (newer releases: also as they are, `realtime_tokens_total`), and exposes lengths with `--collect-tokens-histogram` only. `time_per_output_token_seconds` was dropped for
  `inter_token_latency_seconds`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quantity:
    """One column or histogram.

    Attributes
    ----------
    name : str
        What `MetricsSeries` calls it.
    kind : str
        "gauge" (summed over engines), "share" (averaged over engines), "counter" or "histogram".
    vllm, sglang : tuple of str
        Spellings without the engine's prefix, the current one first.
    label : tuple of (str, str), optional
        Label and value of the series that count, where one metric holds several quantities.
    """

    name: str
    kind: str
    vllm: tuple[str, ...] = ()
    sglang: tuple[str, ...] = ()
    label: tuple[str, str] | None = None


QUANTITIES: tuple[Quantity, ...] = (
    Quantity("running", "gauge", ("num_requests_running",), ("num_running_reqs",)),
    Quantity("waiting", "gauge", ("num_requests_waiting",), ("num_queue_reqs",)),
    Quantity("swapped", "gauge", ("num_requests_swapped",)),
    Quantity("kv_occupancy", "share", ("kv_cache_usage_perc", "gpu_cache_usage_perc"), ("token_usage",)),
    Quantity("generation_tokens_per_s", "gauge", ("avg_generation_throughput_toks_per_s",), ("gen_throughput",)),
    Quantity("kv_capacity_tokens", "gauge", (), ("max_total_num_tokens",)),
    Quantity("finished", "counter", ("request_success_total",), ("num_requests_total",)),
    Quantity("aborted", "counter", (), ("num_aborted_requests_total",)),
    Quantity("preemptions", "counter", ("num_preemptions_total",), ("num_retracted_requests_total",)),
    Quantity("prompt_tokens", "counter", ("prompt_tokens_total",), ("prompt_tokens_total",)),
    Quantity("generated_tokens", "counter", ("generation_tokens_total",), ("generation_tokens_total",)),
    Quantity("prefix_queries_tokens", "counter", ("prefix_cache_queries_total", "gpu_prefix_cache_queries_total")),
    Quantity(
        "prefix_hits_tokens",
        "counter",
        ("prefix_cache_hits_total", "gpu_prefix_cache_hits_total"),
        ("cached_tokens_total",),
    ),
    Quantity("prefill_tokens", "counter", (), ("realtime_tokens_total",), label=("mode", "prefill_compute")),
    Quantity("prompt_lengths", "histogram", ("request_prompt_tokens",), ("prompt_tokens_histogram",)),
    Quantity("output_lengths", "histogram", ("request_generation_tokens",), ("generation_tokens_histogram",)),
    Quantity("iteration_tokens", "histogram", ("iteration_tokens_total",)),
    Quantity("ttft_s", "histogram", ("time_to_first_token_seconds",), ("time_to_first_token_seconds",)),
    Quantity(
        "itl_s",
        "histogram",
        ("inter_token_latency_seconds", "time_per_output_token_seconds"),
        ("inter_token_latency_seconds", "time_per_output_token_seconds"),
    ),
    Quantity("latency_s", "histogram", ("e2e_request_latency_seconds",), ("e2e_request_latency_seconds",)),
    Quantity("queue_s", "histogram", ("request_queue_time_seconds",), ("queue_time_seconds",)),
)
"""Everything that is read."""

CACHE_CONFIG = "vllm_cache_config_info"
"""A gauge of 1 whose labels `block_size` and `num_gpu_blocks` tell the KV cache's size."""

REPLICA_LABELS = ("instance", "pod", "model_name", "engine", "engine_index", "dp_rank")
"""Labels that tell one engine from another."""

TARGET_LABELS = ("instance", "pod")
"""Labels that Prometheus gives to what it scrapes: all series of one share their stamps."""

RANK_LABELS = ("tp_rank", "pp_rank")
"""SGLang labels the ranks of one engine; where several report, the first speaks for all."""

PARTS = ("_bucket", "_sum", "_count")
"""Endings of a histogram's samples."""


def spellings(engine: str) -> dict[str, tuple[Quantity, int]]:
    """Quantity and rank of preference by full name, colons as underscores, for "vllm" or "sglang"."""
    found: dict[str, tuple[Quantity, int]] = {}
    for quantity in QUANTITIES:
        for rank, name in enumerate(getattr(quantity, engine)):
            found.setdefault(f"{engine}_{name}", (quantity, rank))
    return found


ENGINES = ("vllm", "sglang")
"""Servers whose names are known."""


def plain(name: str) -> str:
    """A metric's name with colons as underscores."""
    return name.replace(":", "_")


def base_of(name: str) -> str:
    """Name of the histogram that a sample belongs to; the name itself for others."""
    for part in PARTS:
        if name.endswith(part):
            return name[: -len(part)]
    return name
