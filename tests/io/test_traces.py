import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stability.errors import InputError
from stability.io.traces import Trace, read_trace, source
from stability.model.arrivals import Poisson, Replay

DATA = Path(__file__).parents[2].parent / "shared" / "data"
shared = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data folder is absent")

PLAIN = "arrival_s,prompt_tokens,output_tokens\n0.0,374,44\n4.3146,396,109\n4.5,12,7\n"


def write(folder, content, name="trace.csv"):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def assert_plain(trace):
    np.testing.assert_array_equal(trace.arrival_s, [0.0, 4.3146, 4.5])
    np.testing.assert_array_equal(trace.prompt_tokens, [374, 396, 12])
    np.testing.assert_array_equal(trace.output_tokens, [44, 109, 7])


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.rstrip("\n"),
        PLAIN.replace("\n", "\r\n"),
        "\ufeff" + PLAIN,
        PLAIN.replace("\n", "\n\n"),
        PLAIN.replace("\n", "\r\n\r\n"),
        PLAIN.replace("arrival_s,prompt", '"Arrival_s", "prompt').replace("prompt_tokens", 'prompt_tokens"'),
        PLAIN.replace("374", '"374"').replace("4.5", "45e-1").replace("396", " 396"),
        PLAIN.replace("44\n", "44.0\n"),
        "output_tokens,user,arrival_s,prompt_tokens\n44,é,0.0,374\n109,,4.3146,396\n7,x,4.5,12\n",
        gzip.compress(PLAIN.encode()),
        gzip.compress(PLAIN[:60].encode()) + gzip.compress(PLAIN[60:].encode()),
        zstandard.compress(PLAIN.encode()),
        zstandard.compress(PLAIN[:60].encode()) + zstandard.compress(PLAIN[60:].encode()),
    ],
    ids=[
        "plain",
        "no feed",
        "crlf",
        "bom",
        "blanks",
        "crlf blanks",
        "quoted header",
        "quoted",
        "whole floats",
        "columns",
        "gzip",
        "gzip members",
        "zstd",
        "zstd frames",
    ],
)
def test_plain_traces_in_all_guises(tmp_path, content):
    trace = read_trace(write(tmp_path, content))
    assert_plain(trace)
    assert trace.cached_prefix_tokens is None
    assert trace.notes == ()


@pytest.mark.parametrize("size", [1, 7, 40, 64])
def test_blocks_of_any_size_give_the_same_trace(tmp_path, monkeypatch, size):
    monkeypatch.setattr(source, "READ_BYTES", size)
    for content in (PLAIN, gzip.compress(PLAIN.encode()), zstandard.compress(PLAIN.encode())):
        assert_plain(read_trace(write(tmp_path, content)))


def test_prefix_hits_are_kept(tmp_path):
    trace = read_trace(
        write(tmp_path, "arrival_s,prompt_tokens,output_tokens,prefix_hit_tokens\n0,100,5,0\n1,100,5,50\n")
    )
    np.testing.assert_array_equal(trace.cached_prefix_tokens, [0, 50])
    assert trace.notes == ("25.0% of the prompt tokens would hit an unbounded prefix cache; all of them are counted",)
    assert trace.describe().cached_share == 0.25


@pytest.mark.parametrize("zone", ["", "+00:00", "Z"])
def test_azure(tmp_path, zone):
    rows = ["2023-11-16 23:59:59.6805900", "2023-11-17 00:00:00.0000001", "2023-11-17 00:00:01"]
    content = "TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(f"{row}{zone},374,44\n" for row in rows)
    trace = read_trace(write(tmp_path, content))
    np.testing.assert_allclose(trace.arrival_s, [0.0, 0.3194101, 1.31941], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(trace.prompt_tokens, [374] * 3)
    np.testing.assert_array_equal(trace.output_tokens, [44] * 3)


def test_azure_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "READ_BYTES", 30)
    content = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:00:01,1,1\n2023-11-16 00:00:03,2,2\n2023-11-16 00:01:00,3,3\n"
    np.testing.assert_array_equal(read_trace(write(tmp_path, content)).arrival_s, [0.0, 2.0, 59.0])


@pytest.mark.parametrize(
    "content",
    [
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,0,1087,Conversation log\n118,GPT-4,417,276,693,API log\n",
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5.0,0,1.2,ChatGPT,472,18,490,Conversation log\n45.0,,,ChatGPT,1087,0,1087,Conversation log\n"
        "118.0,2,9,GPT-4,417,276,693,API log\n",
    ],
)
def test_burstgpt_without_its_failures(tmp_path, content):
    trace = read_trace(write(tmp_path, content))
    np.testing.assert_array_equal(trace.arrival_s, [5.0, 118.0])
    np.testing.assert_array_equal(trace.prompt_tokens, [472, 417])
    np.testing.assert_array_equal(trace.output_tokens, [18, 276])
    assert trace.notes == ("dropped 1 of 3 rows without prompt or output tokens (first in line 3)",)


def test_mooncake_prefix_hits(tmp_path):
    entries = [
        (0, 1300, 5, [1, 2, 3]),
        (500, 1300, 6, [1, 2, 4]),  # two leading blocks
        (1000, 1300, 7, [9, 2, 3]),  # known blocks behind an unknown one do not count
        (1500, 1300, 8, [1, 2, 3]),  # the whole prompt, its last block incomplete
    ]
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    content = "".join(json.dumps(dict(zip(names, entry, strict=True))) + "\n" for entry in entries)
    trace = read_trace(write(tmp_path, content, "t.jsonl"))
    np.testing.assert_array_equal(trace.arrival_s, [0.0, 0.5, 1.0, 1.5])
    np.testing.assert_array_equal(trace.output_tokens, [5, 6, 7, 8])
    np.testing.assert_array_equal(trace.cached_prefix_tokens, [0, 1024, 0, 1300])


def test_formats_can_be_named(tmp_path):
    file = write(tmp_path, PLAIN)
    assert_plain(read_trace(file, format="requests"))
    with pytest.raises(InputError, match=r"format = 'request', must be one of .* Did you mean 'requests'\?"):
        read_trace(file, format="request")


def test_sorting_on_request(tmp_path):
    trace = read_trace(
        write(tmp_path, "arrival_s,prompt_tokens,output_tokens\n2,1,1\n1,2,2\n2,3,3\n0,4,4\n"), sort=True
    )
    np.testing.assert_array_equal(trace.arrival_s, [0, 1, 2, 2])
    np.testing.assert_array_equal(trace.prompt_tokens, [4, 2, 1, 3])
    assert trace.notes == ("sorted the rows by arrival",)
    content = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 00:00:09,1,1\n2023-11-16 00:00:03,2,2\n"
    np.testing.assert_array_equal(read_trace(write(tmp_path, content), sort=True).arrival_s, [0.0, 6.0])


arrivals = st.lists(st.floats(0, 1e9), min_size=1, max_size=40).map(sorted)
columns = arrivals.flatmap(
    lambda times: st.tuples(
        st.just(times), *[st.lists(st.integers(1, 2**31), min_size=len(times), max_size=len(times)) for _ in range(2)]
    )
)


@given(columns)
def test_what_is_written_is_read(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("round")
    content = "arrival_s,prompt_tokens,output_tokens\n" + "".join(
        f"{t!r},{s},{o}\n" for t, s, o in zip(*rows, strict=True)
    )
    trace = read_trace(write(folder, content))
    assert trace.arrival_s.tolist() == rows[0]
    assert trace.prompt_tokens.tolist() == rows[1]
    assert trace.output_tokens.tolist() == rows[2]
    again = trace.workload()
    assert again.arrivals.arrival_s.tolist() == rows[0]
    assert again.lengths.output_tokens.tolist() == rows[2]


def test_workloads_of_a_trace(tmp_path):
    trace = read_trace(write(tmp_path, PLAIN))
    workload = trace.workload()
    assert isinstance(workload.arrivals, Replay)
    assert workload.rate_per_s == pytest.approx(2 / 4.5)
    faster = trace.scaled(rate_per_s=4)
    assert faster.rate_per_s == pytest.approx(4)
    np.testing.assert_allclose(np.diff(faster.arrival_s), np.diff(trace.arrival_s) * (2 / 4.5) / 4)
    assert trace.scaled(factor=2).span_s == pytest.approx(2.25)
    bootstrap = trace.resampled()
    assert bootstrap.arrivals == Poisson()
    assert bootstrap.rate_per_s == workload.rate_per_s
    assert repr(trace).startswith("Trace(3 requests over 4.5 s, ")
    assert len(trace) == 3


def test_a_trace_at_one_instant_has_no_rate(tmp_path):
    trace = read_trace(write(tmp_path, "arrival_s,prompt_tokens,output_tokens\n7,1,1\n7,2,2\n"))
    assert trace.rate_per_s is None
    with pytest.raises(InputError, match="all come at once"):
        trace.scaled(rate_per_s=1)


def test_traces_do_not_change(tmp_path):
    trace = read_trace(write(tmp_path, PLAIN))
    with pytest.raises(ValueError, match="read-only"):
        trace.prompt_tokens[0] = 1
    mine = np.array([1, 2])
    Trace(arrival_s=np.array([0.0, 1.0]), prompt_tokens=mine, output_tokens=mine)
    mine[0] = 5
    with pytest.raises(InputError, match=r"output_tokens has shape \(3,\), must be \(2,\)"):
        Trace(arrival_s=np.array([0.0, 1.0]), prompt_tokens=mine, output_tokens=np.array([1, 2, 3]))


@shared
@pytest.mark.parametrize(
    ("name", "rows", "hits"),
    [
        ("azure/azure_2023_conv.csv", 19_366, False),
        ("azure/azure_2023_code.csv", 8_819, False),
        ("mooncake/mooncake_conversation.csv", 12_031, True),
        ("mooncake/mooncake_synthetic.csv", 3_993, True),
        ("llmservingsim/vllm_run_RTX4090_Llama-3.1-8B.csv", 300, False),
    ],
)
def test_published_traces(name, rows, hits):
    trace = read_trace(DATA / name)
    assert len(trace) == rows
    table = np.genfromtxt(DATA / name, delimiter=",", names=True)
    np.testing.assert_array_equal(trace.arrival_s, table["arrival_s"])
    np.testing.assert_array_equal(trace.prompt_tokens, table["prompt_tokens"])
    np.testing.assert_array_equal(trace.output_tokens, table["output_tokens"])
    assert (trace.cached_prefix_tokens is not None) == hits
