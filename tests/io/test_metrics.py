"""Recorded metrics: names old and new, formats, restarts, several engines, and a real server's log through the text and back."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stability as st
from stability.errors import InputError
from stability.io.metrics.assemble import mended_counter
from stability.io.metrics.writing import ServerRecord, record_of, recording, scrapes
from validation.real_runs import RUNS
from validation.watch import real_record, through_file

NEW = {
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
    "kv": "vllm:kv_cache_usage_perc",
    "done": "vllm:request_success_total",
    "queries": "vllm:prefix_cache_queries_total",
    "itl": "vllm:inter_token_latency_seconds",
}
OLD = NEW | {
    "kv": "vllm:gpu_cache_usage_perc",
    "queries": "vllm:gpu_prefix_cache_queries_total",
    "itl": "vllm:time_per_output_token_seconds",
}
SGLANG = {
    "running": "sglang:num_running_reqs",
    "waiting": "sglang:num_queue_reqs",
    "kv": "sglang:token_usage",
    "done": "sglang:num_requests_total",
    "queries": "sglang:unused_total",
    "itl": "sglang:inter_token_latency_seconds",
}


def page(
    names: dict[str, str],
    running: float,
    waiting: float,
    done: float,
    *,
    labels: str = 'model_name="m"',
    stamp: str = "",
) -> str:
    lines = [
        f"# HELP {names['running']} Number of running requests.",
        f"# TYPE {names['running']} gauge",
        f"{names['running']}{{{labels}}} {running}{stamp}",
        f"{names['waiting']}{{{labels}}} {waiting}{stamp}",
        f"{names['kv']}{{{labels}}} 0.5{stamp}",
        f'{names["done"]}{{{labels},finished_reason="stop"}} {done}{stamp}',
        f"{names['queries']}{{{labels}}} {10 * done}{stamp}",
        f'{names["itl"]}_bucket{{{labels},le="0.01"}} {done}{stamp}',
        f'{names["itl"]}_bucket{{{labels},le="+Inf"}} {2 * done}{stamp}',
        f"{names['itl']}_sum{{{labels}}} {0.02 * done}{stamp}",
        f"{names['itl']}_count{{{labels}}} {2 * done}{stamp}",
        f"go_gc_duration_seconds 3.5{stamp}",
    ]
    return "\n".join(lines) + "\n"


def saved(folder: Path, text: str, name: str = "recording.prom") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("names", [NEW, OLD, SGLANG], ids=["vllm", "vllm-old", "sglang"])
@pytest.mark.parametrize("colon", [":", "_"])
def test_names_of_every_server(tmp_path: Path, names: dict[str, str], colon: str) -> None:
    text = page(names, 4, 0, 10) + page(names, 6, 3, 14)
    series = st.read_metrics(
        saved(tmp_path, text.replace("vllm:", f"vllm{colon}").replace("sglang:", f"sglang{colon}")), interval_s=2
    )
    assert series.server == names["running"].split(":")[0]
    assert series.running.tolist() == [4, 6]
    assert series.waiting.tolist() == [0, 3]
    assert series.kv_occupancy.tolist() == [0.5, 0.5]
    assert series.finished.tolist() == [10, 14]
    assert series.arrivals[1] == 4 + 2 + 3
    assert series.rate_of("arrivals") == 4.5
    assert series.histograms["itl_s"].between().tolist() == [4, 4]
    assert series.histograms["itl_s"].mean() == pytest.approx(0.01)
    if names is not SGLANG:
        assert series.prefix_queries_tokens.tolist() == [100, 140]


def test_the_current_spelling_counts_where_both_are_exposed(tmp_path: Path) -> None:
    text = page(NEW, 1, 0, 1) + 'vllm:gpu_cache_usage_perc{model_name="m"} 0.9\n'
    assert st.read_metrics(saved(tmp_path, text), interval_s=1).kv_occupancy.tolist() == [0.5]


def test_time_stamps_are_milliseconds_in_the_text_format_and_seconds_in_openmetrics(tmp_path: Path) -> None:
    plain = page(NEW, 1, 0, 1, stamp=" 1700000000000") + page(NEW, 2, 0, 3, stamp=" 1700000005500")
    assert st.read_metrics(saved(tmp_path, plain)).time_s.tolist() == [1_700_000_000.0, 1_700_000_005.5]
    openmetrics = page(NEW, 1, 0, 1, stamp=" 1700000000") + page(NEW, 2, 0, 3, stamp=" 1700000005.5") + "# EOF\n"
    assert st.read_metrics(saved(tmp_path, openmetrics)).time_s.tolist() == [1_700_000_000.0, 1_700_000_005.5]


def test_a_dump_of_the_database_is_read_series_by_series(tmp_path: Path) -> None:
    lines = [
        f'{{__name__="{NEW[name]}",engine="0"}} {value} {1_700_000_000_000 + 5000 * k}'
        for name, values in (("running", (1, 2)), ("waiting", (0, 1)), ("done", (5, 6)))
        for k, value in enumerate(values)
    ]
    series = st.read_metrics(saved(tmp_path, "\n".join(lines) + "\n"))
    assert series.waiting.tolist() == [0, 1]
    assert series.time_s.tolist() == [1_700_000_000.0, 1_700_000_005.0]


def test_scrapes_below_marks_in_folders_and_compressed_are_the_same(tmp_path: Path) -> None:
    pages = [page(NEW, k, k, 3 * k) for k in range(3)]
    stamps = [1_700_000_000 + 5 * k for k in range(3)]
    marked = "".join(f"# scrape {time}\n{text}" for time, text in zip(stamps, pages, strict=True))
    one = st.read_metrics(saved(tmp_path, marked))
    packed = tmp_path / "recording.prom.gz"
    packed.write_bytes(gzip.compress(marked.encode()))
    folder = tmp_path / "scrapes"
    folder.mkdir()
    for time, text in zip(stamps, pages, strict=True):
        saved(folder, text, f"metrics-{time}.prom")
    for other in (st.read_metrics(packed), st.read_metrics(folder)):
        assert other.to_frame().equals(one.to_frame())


def matrix(entries: list[dict[str, object]]) -> dict[str, object]:
    return {"status": "success", "data": {"resultType": "matrix", "result": entries}}


def test_answer_to_a_range_query(tmp_path: Path) -> None:
    entries = [
        {"metric": {"__name__": NEW[name], "engine": engine}, "values": [[1.7e9, "1"], [1.7e9 + 15, str(value)]]}
        for name, value in (("running", 7), ("waiting", 2), ("done", 5))
        for engine in "01"
    ]
    answers = [matrix(entries[:4]), matrix(entries[4:])]
    series = st.read_metrics(saved(tmp_path, json.dumps(answers), "query.json"))
    assert series.running.tolist() == [2, 14]
    assert series.arrivals[1] == 2 * (6 + 1 + 4)
    assert series.replicas == ("engine=0", "engine=1")
    alone = st.read_metrics(tmp_path / "query.json", labels={"engine": "1"})
    assert alone.running.tolist() == [1, 7]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is no JSON"),
        (json.dumps({"status": "error", "error": "no such"}), "holds an error (no such), must be"),
        (
            json.dumps({"status": "success", "data": {"resultType": "vector", "result": []}}),
            "resultType 'vector', must be 'matrix'",
        ),
        (json.dumps(matrix([{"metric": {}, "values": []}])), "without __name__"),
        (json.dumps(matrix([{"metric": {"__name__": NEW["running"]}, "values": [[1, "x"]]}])), "must be"),
        (json.dumps(matrix([{"metric": {"__name__": NEW["running"]}, "values": None}])), "values = None of vllm:"),
        (json.dumps(matrix([])), "no metric of vLLM"),
    ],
)
def test_answers_that_are_none(tmp_path: Path, document: str, message: str) -> None:
    with pytest.raises(InputError, match="must") as error:
        st.read_metrics(saved(tmp_path, document, "query.json"))
    assert message in str(error.value)


def test_restart_of_one_of_two_engines(tmp_path: Path) -> None:
    """Engine 1 restarts with 3 requests done since: 20 + 3 in all, and no arrivals are made up for that scrape."""
    both = [
        "".join(page(NEW, 1, 0, done, labels=f'engine="{k}"') for k, done in enumerate(row))
        for row in ((100, 10), (110, 20), (120, 3), (125, 5))
    ]
    text = "".join(f"# scrape {k}\n{part}" for k, part in enumerate(both))
    series = st.read_metrics(saved(tmp_path, text))
    assert series.finished.tolist() == [110, 130, 143, 150]
    assert series.restarted.tolist() == [False, False, True, False]
    assert series.arrivals.tolist()[1::2] == [20, 7]
    assert math.isnan(series.arrivals[2])
    assert series.kv_occupancy.tolist() == [0.5] * 4
    assert series.histograms["itl_s"].counts.sum(axis=1).tolist() == [220, 260, 286, 300]


def test_a_label_set_that_shows_later_started_at_zero(tmp_path: Path) -> None:
    aborted = 'vllm:request_success_total{model_name="m",finished_reason="abort"} 2\n'
    text = page(NEW, 0, 0, 5) + page(NEW, 0, 0, 6) + aborted
    assert st.read_metrics(saved(tmp_path, text), interval_s=1).finished.tolist() == [5, 8]


def test_mended_counter_over_gaps() -> None:
    values, fell = mended_counter(np.array([math.nan, 4, math.nan, 6, 1, math.nan]))
    assert values.tolist() == [0, 4, 4, 6, 7, 7]
    assert fell.tolist() == [False, False, False, False, True, False]


def test_ranks_of_one_engine_count_once(tmp_path: Path) -> None:
    text = "".join(page(SGLANG, 4, 1, 9, labels=f'model_name="m",tp_rank="{rank}"') for rank in (0, 1))
    assert st.read_metrics(saved(tmp_path, f"# scrape 1\n{text}")).running.tolist() == [4]


def test_swapped_requests_wait_and_cache_size_is_read(tmp_path: Path) -> None:
    text = (
        page(OLD, 4, 1, 9)
        + 'vllm:num_requests_swapped{model_name="m"} 2\nvllm:cache_config_info{block_size="16",num_gpu_blocks="100"} 1\n'
    )
    series = st.read_metrics(saved(tmp_path, text), interval_s=1)
    assert series.waiting.tolist() == [3]
    assert series.kv_capacity_tokens == 1600


def test_exemplars_are_passed_over(tmp_path: Path) -> None:
    text = page(NEW, 1, 0, 1).replace('le="0.01"} 1', 'le="0.01"} 1 # {trace_id="x"} 0.004 1700000000.0')
    assert st.read_metrics(saved(tmp_path, f"# scrape 3\n{text}# EOF\n")).histograms["itl_s"].counts.tolist() == [
        [1, 1]
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no metric of vLLM"),
        ("node_cpu_seconds_total 3\n", "holds no metric of vLLM"),
        (page(NEW, 1, 0, 1), "does not tell when its scrapes were taken"),
        (
            page(NEW, 1, 0, 1, stamp=" 1000").replace("vllm:num_requests_waiting", "vllm:other"),
            "no vllm_num_requests_waiting",
        ),
        ("# scrape noon\n" + page(NEW, 1, 0, 1), "time 'noon' of a scrape"),
        ("# scrape 1\nvllm:num_requests_running{engine=\n", ":2: 'vllm:num_requests_running{engine=' is no sample"),
        ("# scrape 1\nvllm:num_requests_running one\n", ":2: 'vllm:num_requests_running one' is no sample"),
    ],
)
def test_recordings_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match="must") as error:
        st.read_metrics(saved(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_files_and_labels_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        st.read_metrics(tmp_path / "absent.prom")
    with pytest.raises(InputError, match="is empty"):
        st.read_metrics(tmp_path)
    (tmp_path / "binary.prom").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="cannot be read"):
        st.read_metrics(tmp_path / "binary.prom")
    with pytest.raises(InputError, match=r"no series with labels .* Found model_name=m"):
        st.read_metrics(saved(tmp_path, page(NEW, 1, 0, 1)), labels={"engine": "7"}, interval_s=1)
    with pytest.raises(InputError, match="counter = 'x'"):
        st.read_metrics(saved(tmp_path, page(NEW, 1, 0, 1) * 2), interval_s=1).rate_of("x")


def test_quantile_of_a_histogram() -> None:
    """Ten values up to 1, ten in (1, 2]: the median is 1, the upper quartile the middle of the second bucket."""
    histogram = st.MetricsHistogram(
        name="ttft_s",
        bounds=np.array([1.0, 2.0, math.inf]),
        counts=np.array([[0.0, 0, 0], [10, 10, 0], [10, 10, 5]]),
        sums=np.zeros(3),
    )
    assert histogram.quantile(0.5, 0, 1) == 1.0
    assert histogram.quantile(0.75, 0, 1) == 1.5
    assert histogram.quantile(0.5, 1, 2) == 2.0  # beyond the last finite bound
    assert math.isnan(histogram.quantile(0.5, 0, 0))


@pytest.mark.parametrize("old_names", [False, True])
def test_a_real_server_through_the_text_and_back(shared_data: Path, old_names: bool) -> None:
    record = real_record(RUNS[0])
    series = through_file(record, old_names=old_names)
    assert np.array_equal(series.running, record.running)
    assert np.array_equal(series.waiting, record.waiting)
    assert np.allclose(series.kv_occupancy, record.kv_occupancy, rtol=0, atol=1e-15)
    assert series.kv_capacity_tokens == 41_408
    assert series.finished[-1] == 300
    lengths = series.histograms["output_lengths"]
    assert lengths.counts[-1].sum() == 300
    assert lengths.mean(from_start=True) == pytest.approx(record.output_tokens.mean())
    ttft = series.histograms["ttft_s"]
    assert ttft.mean(from_start=True) == pytest.approx((record.first_token_s - record.arrival_s).mean())
    itl = (record.finish_s - record.first_token_s).sum() / (record.output_tokens - 1).sum()
    assert series.histograms["itl_s"].mean(from_start=True) == pytest.approx(itl)
    # Seven are inside at the first scrape; the log and the requests' own clock differ by a request or two a second.
    assert np.nansum(series.arrivals) == pytest.approx(293, abs=3)


def test_series_shows_itself(tmp_path: Path) -> None:
    series = st.read_metrics(saved(tmp_path, page(NEW, 4, 0, 10) + page(NEW, 6, 3, 14)), interval_s=2)
    assert repr(series) == f"MetricsSeries({tmp_path / 'recording.prom'}: vllm, 2 scrapes over 2 s)"
    assert ("arrivals", "4.5 req/s") in series.rows()
    json.dumps(series.to_dict(), allow_nan=False)
    assert {"time_s", "arrivals", "kv_occupancy"} <= set(series.to_frame().columns)
    assert len(series.plot().figure.axes) == 3
    with pytest.raises(ValueError, match="read-only"):
        series.running[0] = 1


LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)


@pytest.fixture(scope="module")
def simulated() -> ServerRecord:
    replica = st.Replica(iteration=LAW, kv_capacity_tokens=100_000, engine=st.Engine(max_num_seqs=128))
    lengths = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1000), output=st.lengths.Uniform(10, 500))
    workload = st.Workload.poisson(6.0, lengths)
    result = st.simulate(st.Fleet.of(replica), workload, requests=1500, rng=1, resolution_s=5.0, record_steps=True)
    return record_of(result, kv_capacity_tokens=100_000)


def test_steps_of_a_simulated_server_give_its_law_back(tmp_path: Path, simulated: ServerRecord) -> None:
    """What the law takes for each mean step, against its time: the law is affine, so means do; one step straddles a scrape."""
    steps = st.step_means(st.read_metrics(saved(tmp_path, recording(simulated))))
    assert steps.counted
    assert len(steps) > 40
    expected = (
        LAW.base_s
        + LAW.per_prefill_token_s * steps.prefill_tokens
        + LAW.per_decode_token_s * steps.decode_tokens
        + LAW.per_kv_token_s * steps.kv_tokens
    )
    assert float(np.median(expected / steps.time_s)) == pytest.approx(1.0, abs=0.01)
    assert np.abs(expected / steps.time_s - 1)[3:].max() < 0.1


def test_steps_from_the_inter_token_latency(tmp_path: Path, simulated: ServerRecord) -> None:
    """Weighted by tokens it is the longer step: a few per cent here; and it counts requests that ended, not those under way."""
    series = st.read_metrics(saved(tmp_path, recording(simulated)))
    others = {name: histogram for name, histogram in series.histograms.items() if name != "iteration_tokens"}
    steps, counted = st.step_means(replace(series, histograms=others)), st.step_means(series)
    assert not steps.counted
    assert float(steps.time_s.mean()) == pytest.approx(float(counted.time_s.mean()), rel=0.1)


def test_steps_that_cannot_be_told(tmp_path: Path) -> None:
    series = st.read_metrics(saved(tmp_path, page(NEW, 4, 0, 10) + page(NEW, 6, 3, 14)), interval_s=2)
    with pytest.raises(InputError, match="size of the KV cache"):
        st.step_means(series)
    bare = replace(series, kv_capacity_tokens=1000.0, histograms={})
    with pytest.raises(InputError, match="neither iteration_tokens_total nor"):
        st.step_means(bare)


def test_a_range_query_finer_than_the_scrapes_gives_the_same_steps(tmp_path: Path, simulated: ServerRecord) -> None:
    """Each scrape shown three times, 5 s apart, as a query with a third of the interval answers."""
    pages = [(15.0 * k, text) for k, (_, text) in enumerate(list(scrapes(simulated))[::3])]
    held = [(time_s + 5.0 * k, text) for time_s, text in pages for k in range(3)]
    plain, fine = (
        st.step_means(st.read_metrics(saved(tmp_path, "".join(f"# scrape {time_s}\n{text}" for time_s, text in rows))))
        for rows in (pages, held)
    )
    assert len(plain) > 15
    for name in ("prefill_tokens", "decode_tokens", "kv_tokens", "time_s", "weights"):
        assert getattr(fine, name) == pytest.approx(getattr(plain, name), rel=1e-12)
    assert "joined with the next" in fine.notes[0]


def test_prompt_tokens_found_in_the_prefix_cache_are_not_computed(tmp_path: Path) -> None:
    """10 000 prompt tokens of which 9 000 were cached, over 100 steps: 10 computed in each."""
    text = (
        "vllm:num_requests_running 8\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.5\n"
        'vllm:cache_config_info{{block_size="16",num_gpu_blocks="100"}} 1\nvllm:prompt_tokens_total {0}\n'
        "vllm:prefix_cache_hits_total {1}\nvllm:generation_tokens_total {2}\n"
        'vllm:iteration_tokens_total_bucket{{le="+Inf"}} {3}\n'
    )
    pages = text.format(0, 0, 0, 0) + text.format(0, 4000, 800, 100) + text.format(10_000, 9000, 1600, 200)
    steps = st.step_means(st.read_metrics(saved(tmp_path, pages), interval_s=2))
    assert steps.prefill_tokens.tolist() == [0, 10]  # hits are counted first: nothing negative, and nothing lost
    assert steps.notes == ("9000 prompt tokens found in the prefix cache left out of the steps",)


def sglang_pages(*, realtime: bool) -> str:
    """8 running, 50 steps/s, 2 s apart; the requests' tokens are counted when they end, in the second interval."""
    text = (
        "sglang:num_running_reqs 8\nsglang:num_queue_reqs 0\nsglang:token_usage 0.5\nsglang:max_total_num_tokens 1600\n"
        "sglang:prompt_tokens_total {0}\nsglang:generation_tokens_total {1}\n"
        'sglang:inter_token_latency_seconds_bucket{{le="+Inf"}} {2}\nsglang:inter_token_latency_seconds_sum {3}\n'
    )
    if realtime:
        text += 'sglang:realtime_tokens_total{{mode="prefill_compute"}} {4}\nsglang:realtime_tokens_total{{mode="decode"}} {2}\n'
    rows = ((0, 0, 0, 0.0, 0), (0, 0, 800, 16.0, 400), (5000, 4000, 1600, 32.0, 800))
    return "".join(text.format(*row) for row in rows)


def test_sglang_steps_follow_from_what_moves_with_the_steps(tmp_path: Path) -> None:
    steps = st.step_means(st.read_metrics(saved(tmp_path, sglang_pages(realtime=True)), interval_s=2))
    assert steps.weights.tolist() == [100, 100]
    assert steps.time_s == pytest.approx([0.02, 0.02])
    assert steps.decode_tokens.tolist() == [8, 8]
    assert steps.prefill_tokens.tolist() == [4, 4]
    series = st.read_metrics(saved(tmp_path, sglang_pages(realtime=False)), interval_s=2)
    with pytest.raises(InputError, match="no sglang:realtime_tokens_total"):
        st.step_means(series)
