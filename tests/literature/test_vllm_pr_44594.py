"""vLLM pull request 44594 (the KV watermark): preemptions and throughput of one GB200 at five watermarks.

Settings printed there: Qwen2.5-7B-Instruct, 299 584 KV tokens, `--max-num-seqs 256`, chunked prefill, no prefix caching;
random data set of 450 requests, 1000 + 5000 tokens, `--random-range-ratio 0.2`, `--ignore-eos`, `--max-concurrency 128`.
Not printed: the token budget. vLLM's default for a server on such a GPU is 8192; 2048 and 16 384 move no row's
preemptions by more than 4 %.

The requests themselves can be had: the benchmark draws lengths from numpy's default generator, seed 0 unless told otherwise,
first all prompts, then all outputs, and their mean output is the printed ratio of tokens/s to requests/s. What is left unknown
is the order in which the engine saw the first 128, which the client sends at once; preemptions scatter over it. In a closed
loop decisions do not depend on times, so preemptions test the scheduler alone. Means of 300 runs (standard errors 0.5 %):

    watermark                            0    .02    .05    .10    .15
    GPU, one run                      1065    400    187    168    168
    its requests, any first order     1105    372    209    165    159     +4  -7 +12  -2  -5 %; scatter 66 18 18 14 14
    other requests                    1087    375    214    168    159     +2  -6 +15  +0  -5 %
    its requests, in their order      1079    373    248    193    175     +1  -7 +33 +15  +4 %

Asynchronous scheduling and the time a client takes to replace a request are not modelled.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import stability as st
from stability.model.catalog import roofline
from stability.sim.engine import simulate

WATERMARKS = (0.0, 0.02, 0.05, 0.10, 0.15)
PREEMPTIONS = np.array([1065, 400, 187, 168, 168])
REQUESTS_PER_S = np.array([2.306, 2.416, 2.423, 2.356, 2.317])
OUTPUT_TOKENS_PER_S = np.array([11582, 12134, 12167, 11835, 11635])
IN_FLIGHT, REQUESTS = 128, 450

ORDERS, DRAWS = 64, 24
"""Runs averaged: 64 tell the two best watermarks apart, whose rates differ by 0.2 %."""

rows = pytest.mark.parametrize("row", range(5), ids=[f"watermark {h}" for h in WATERMARKS])


def benchmark_lengths() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(800, 1201, size=REQUESTS), rng.integers(4000, 6001, size=REQUESTS)


def run(workload: st.Workload, *, seed: int = 0, budget: int = 8192, host_s: float | None = None) -> np.ndarray:
    """Preemptions and requests/s at each watermark. Shape (5, 2)."""
    efficiency = None if host_s is None else st.catalog.Efficiency(host_s=host_s)
    law = roofline("GB200", "Qwen2.5-7B", efficiency=efficiency)
    results = []
    for watermark in WATERMARKS:
        engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=budget, watermark=watermark)
        fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=299_584, engine=engine))
        result = simulate(fleet, workload, requests=REQUESTS, concurrency=IN_FLIGHT, rng=seed)
        results.append((result.preemptions, result.makespan_throughput_per_s))
    return np.array(results)


def in_order(order: np.ndarray) -> st.Workload:
    prompts, outputs = benchmark_lengths()
    return st.Workload.from_requests(np.zeros(REQUESTS), prompts[order], outputs[order])


@cache
def orders(runs: int, host_s: float | None) -> np.ndarray:
    """The benchmark's requests, the first 128 in arbitrary order. Shape (runs, 5, 2)."""
    rng = np.random.default_rng(44594)
    table = []
    for _ in range(runs):
        order = np.concatenate((rng.permutation(IN_FLIGHT), np.arange(IN_FLIGHT, REQUESTS)))
        table.append(run(in_order(order), host_s=host_s))
    return np.array(table)


@cache
def draws() -> np.ndarray:
    """Other requests with the same distribution of lengths. Shape (DRAWS, 5, 2)."""
    lengths = st.lengths.Independent(prompt=st.lengths.Uniform(800, 1200), output=st.lengths.Uniform(4000, 6000))
    return np.array([run(st.Workload.poisson(1.0, lengths), seed=seed) for seed in range(DRAWS)])


def test_the_requests_are_those_of_the_benchmark() -> None:
    """Both rates are rounded, to 1 and 0.001; by chance a mean lies that near in about one case of a hundred."""
    least = (OUTPUT_TOKENS_PER_S - 0.5) / (REQUESTS_PER_S + 0.0005)
    most = (OUTPUT_TOKENS_PER_S + 0.5) / (REQUESTS_PER_S - 0.0005)
    assert least.max() < benchmark_lengths()[1].mean() < most.min()


@rows
def test_preemptions_of_the_benchmark_within_15_percent(row: int) -> None:
    assert orders(ORDERS, None)[:, row, 0].mean() == pytest.approx(PREEMPTIONS[row], rel=0.15)


@rows
def test_preemptions_of_other_draws_within_15_percent(row: int) -> None:
    assert draws()[:, row, 0].mean() == pytest.approx(PREEMPTIONS[row], rel=0.15)


@rows
def test_the_gpu_run_is_one_of_the_simulated_runs(row: int) -> None:
    """Within two standard deviations over orders."""
    preemptions = orders(ORDERS, None)[:, row, 0]
    assert abs(PREEMPTIONS[row] - preemptions.mean()) < 2 * preemptions.std(ddof=1)


def test_the_best_watermark_is_005() -> None:
    assert WATERMARKS[int(orders(ORDERS, None)[:, :, 1].mean(axis=0).argmax())] == 0.05


@pytest.mark.parametrize(("runs", "host_s"), [(ORDERS, None), (DRAWS, 0.0)])
def test_throughput_ratios_between_all_rows_within_3_percent(runs: int, host_s: float | None) -> None:
    """With the roofline of the catalog, and without its host time, which asynchronous scheduling hides."""
    error = orders(runs, host_s)[:, :, 1].mean(axis=0) / REQUESTS_PER_S
    assert error.max() / error.min() < 1.03


def test_throughput_lies_between_the_rooflines_with_and_without_host_time() -> None:
    """Rates themselves are 22 % low with 2.7 ms of host time a step, 18 % high with none."""
    slow, fast = (table[:, :, 1].mean(axis=0) for table in (orders(ORDERS, None), orders(DRAWS, 0.0)))
    assert slow / REQUESTS_PER_S == pytest.approx(0.78, abs=0.02)
    assert fast / REQUESTS_PER_S == pytest.approx(1.18, abs=0.03)


@pytest.mark.parametrize(
    "row",
    [
        0,
        1,
        pytest.param(
            2, marks=pytest.mark.xfail(reason="248 against 187; over orders of the first 128: 209, scatter 18")
        ),
        3,
        4,
    ],
)
def test_preemptions_in_the_order_of_the_data_set_within_15_percent(row: int) -> None:
    """As if the engine had seen the first 128 in the order in which the client numbers them."""
    assert run(in_order(np.arange(REQUESTS)))[row, 0] == pytest.approx(PREEMPTIONS[row], rel=0.15)


def test_the_token_budget_hardly_matters() -> None:
    """The one setting that is not printed."""
    workload = in_order(np.arange(REQUESTS))
    base = run(workload)[:, 0]
    for budget in (2048, 16_384):
        np.testing.assert_allclose(run(workload, budget=budget)[:, 0], base, rtol=0.05)


@cache
def tuned() -> st.TuningResult:
    """The benchmark's replica, "off" as printed, under its distribution of lengths."""
    engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=8192)
    fleet = st.Fleet.of(
        st.Replica(iteration=roofline("GB200", "Qwen2.5-7B"), kv_capacity_tokens=299_584, engine=engine)
    )
    lengths = st.lengths.Independent(prompt=st.lengths.Uniform(800, 1200), output=st.lengths.Uniform(4000, 6000))
    return st.tune(fleet, st.Workload.poisson(1.0, lengths), latencies=False)


def test_tuning_recommends_a_watermark_about_the_best_measured() -> None:
    """0.05 was best of the five; nothing but the watermark is worth changing."""
    pool = tuned().pools[0]
    assert 0.02 <= pool.then.engine.watermark <= 0.10
    assert pool.change.startswith("watermark 0 -> ")
    assert "," not in pool.change


def test_tuning_predicts_the_measured_gain_within_3_points() -> None:
    assert tuned().gain == pytest.approx(REQUESTS_PER_S.max() / REQUESTS_PER_S[0] - 1, abs=0.03)


def test_the_gain_is_called_approximate() -> None:
    pool = tuned().pools[0]
    assert tuned().standing == "approximate"
    assert any("approximate" in note for note in pool.notes)
    assert pool.surest.stable_below_per_s > pool.then.stable_below_per_s
