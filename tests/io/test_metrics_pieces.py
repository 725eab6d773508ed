"""Recorded metrics that come in pieces: replicas scraped apart, coming and going, and files that are damaged."""

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
from stability.io.metrics.endpoint import is_address

from .test_metrics import NEW, matrix, page, saved


def engine_page(instance: str, time_s: float, running: float, waiting: float, done: float) -> str:
    return page(NEW, running, waiting, done, labels=f'instance="{instance}"', stamp=f" {int(1000 * time_s)}")


def test_replicas_scraped_at_different_times_are_summed(tmp_path: Path) -> None:
    """Two replicas, scraped every 5 s and 2.3 s apart: 2 done each a scrape, so 4 arrivals a row, and 6 running in all."""
    text = "".join(
        engine_page("a", 5.0 * k, 4, 0, 2 * k) + engine_page("b", 5.0 * k + 2.3, 2, 1, 2 * k) for k in range(20)
    )
    series = st.read_metrics(saved(tmp_path, text))
    assert series.time_s.tolist() == [5.0 * k for k in range(20)]
    assert series.running.tolist() == [4] + [6] * 19
    assert series.arrivals.tolist()[2:] == [4] * 18
    assert math.isnan(series.arrivals[1])  # b was not seen before
    assert "scraped at different times" in series.notes[0]


def test_a_replica_that_takes_over_keeps_its_rows(tmp_path: Path) -> None:
    text = "".join(engine_page("a" if k < 10 else "b", 5.0 * k + (k >= 10), 4, 0, 2 * k) for k in range(15))
    series = st.read_metrics(saved(tmp_path, text))
    assert series.time_s.tolist() == [5.0 * k + (k >= 10) for k in range(15)]
    assert np.flatnonzero(series.restarted).tolist() == [10]


@pytest.mark.parametrize("away", [range(3), range(6, 9), range(4, 6)], ids=["late", "gone", "gap"])
def test_nothing_is_concluded_where_a_replica_comes_or_goes(tmp_path: Path, away: range) -> None:
    """b has 60 waiting and 500 000 done from before: neither is an arrival when it is first or no longer scraped."""
    entries = [
        {
            "metric": {"__name__": NEW[name], "instance": instance},
            "values": [
                [1.7e9 + 5 * k, str(value(k) if instance == "a" else value(k) + more)]
                for k in range(9)
                if instance == "a" or k not in away
            ],
        }
        for name, value, more in (
            ("running", lambda k: 4, 0),
            ("waiting", lambda k: 0, 60),
            ("done", lambda k: 3 * k, 500_000),
        )
        for instance in "ab"
    ]
    series = st.read_metrics(saved(tmp_path, json.dumps(matrix(entries)), "query.json"))
    changes = [k for k in range(1, 9) if (k in away) != (k - 1 in away)]
    assert np.flatnonzero(series.restarted).tolist() == changes
    assert np.nanmax(series.arrivals) == 6
    assert series.finished[-1] - series.finished[0] <= 2 * 3 * 8


@pytest.mark.parametrize(("told", "tokens"), [("", 1600), (',kv_cache_size_tokens="1500"', 1500)])
def test_the_cache_size_is_known_for_one_model(tmp_path: Path, told: str, tokens: int) -> None:
    """vLLM's cache_config_info carries no model_name."""
    text = "".join(
        page(NEW, 4, 1, 9, labels=f'model_name="{name}",instance="{name}"')
        + f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="100",instance="{name}"{told}}} 1\n'
        for name in "mn"
    )
    series = st.read_metrics(saved(tmp_path, f"# scrape 1\n{text}"), labels={"model_name": "m"})
    assert (series.running.tolist(), series.kv_capacity_tokens) == ([4], tokens)
    with pytest.raises(InputError, match="no series with labels"):
        st.read_metrics(tmp_path / "recording.prom", labels={"model_name": "x"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (page(NEW, 4, -1, 9), "vllm_num_requests_waiting = -1 at time 1.000 s, must be a finite number >= 0"),
        (page(NEW, math.inf, 0, 9), "vllm_num_requests_running = inf at time 1.000 s, must be"),
        (page(NEW, 4, 0, 9).replace('le="0.01"', 'le="abc"'), "le = 'abc' of vllm_inter_token_latency_seconds_bucket"),
        (page(NEW, math.nan, 0, 9), "no scrape with both running and waiting requests"),
    ],
)
def test_values_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match="must") as error:
        st.read_metrics(saved(tmp_path, f"# scrape 1\n{text}"))
    assert message in str(error.value)


def test_a_series_without_rows_has_a_repr(tmp_path: Path) -> None:
    series = st.read_metrics(saved(tmp_path, page(NEW, 4, 0, 10)), interval_s=2)
    assert "0 scrapes over 0 s" in repr(replace(series, time_s=np.empty(0)))


def test_a_damaged_archive_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = "".join(f"# scrape {k}\n{page(NEW, k, k, 3 * k)}" for k in range(50))
    packed = bytearray(gzip.compress(text.encode()))
    packed[60] ^= 0xFF
    packed[70] ^= 0x55
    file = tmp_path / "recording.prom.gz"
    file.write_bytes(packed)
    with pytest.raises(InputError, match=r"recording.prom.gz cannot be read .* must be text"):
        st.read_metrics(file)
    file.write_text(text, encoding="utf-8-sig")
    assert len(st.read_metrics(file)) == 50
    file.write_text(json.dumps(matrix([])), encoding="utf-8-sig")
    with pytest.raises(InputError, match="no metric of vLLM"):
        st.read_metrics(file)


def test_addresses_in_any_case() -> None:
    assert is_address("HTTP://host:8000")
    assert not is_address("https.prom")
