"""A real overloaded server: vLLM 0.19, RTX 4090, Llama-3.1-8B, 41 408 KV tokens, 300 ShareGPT-like requests.

Saturated window: from the first second with the cache full to the last with requests waiting. There the rate at which
requests complete is the output token rate over E[o]; the memory row predicts M/(b E[g]) with the mean step time b.
"""

import csv
from pathlib import Path

import pytest

import stability as st
from stability.theory.moments import Demand, moments

M, STEP_S = 41_408, 0.03099


def table(path: Path) -> list[dict[str, float]]:
    with path.open() as lines:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(lines)]


def test_memory_row_against_the_rate_of_the_saturated_window(shared_data: Path) -> None:
    folder = shared_data / "llmservingsim"
    requests = table(folder / "vllm_run_RTX4090_Llama-3.1-8B.csv")
    seconds = table(folder / "vllm_timeseries_RTX4090_Llama-3.1-8B.csv")
    lengths = st.lengths.Empirical(
        [int(row["prompt_tokens"]) for row in requests], [int(row["output_tokens"]) for row in requests]
    )
    full = [row["t"] for row in seconds if row["kv_cache_pct"] >= 97 and row["waiting"] > 0]
    window = [row for row in seconds if full[0] <= row["t"] <= full[-1]]
    assert len(window) > 100
    output_rate = sum(row["gen_throughput"] for row in window) / len(window)
    measured = output_rate / lengths.output_mean_tokens
    assert measured == pytest.approx(1.71, abs=0.015)

    # The measured step holds whatever work eviction caused, so the row without it is the one to compare.
    row = M / (STEP_S * moments(lengths, 2048, 16).mean[Demand.VOLUME])
    assert 1.69 <= row <= 1.70

    engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=2048)
    fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=STEP_S), kv_capacity_tokens=M, engine=engine))
    report = st.analyze(fleet, st.Workload.poisson(10.0, lengths))
    assert report.bottleneck == "kv_memory"
    assert report.verdict is st.Verdict.UNSTABLE
