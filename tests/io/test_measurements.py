"""Files of measurements: what is read, and one sentence with line and way out for what is wrong."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import stability as st
from stability.io.measurements import example, read_benchmark, read_histograms, read_steps

STEPS = "prefill_tokens,decode_tokens,kv_tokens,time_ms\n"
POINTS = "concurrency,isl,osl,ttft_ms,tpot_ms\n"
BUCKETS = "quantity,le_tokens,cumulative_count\n"
RUN = {
    "request_rate": "inf",
    "max_concurrency": 8,
    "duration": 100.0,
    "completed": 80,
    "total_input_tokens": 8000,
    "total_output_tokens": 16_000,
    "mean_ttft_ms": 50.0,
    "mean_tpot_ms": 45.0,
}


def write(folder: Path, text: str, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def one_sentence(message: str) -> str:
    assert "\n" not in message
    assert " must " in message
    assert message.endswith(".")
    return message


def test_steps_in_any_unit_order_and_company(tmp_path: Path) -> None:
    text = (
        "# my engine\nstep,time_ms,kv_tokens,Decode_Tokens,prompt_tokens,weight\n\n0,12.5,800,4,0,2\n1,20,800,4,100,1\n"
    )
    rows = read_steps(write(tmp_path, text))
    assert rows.time_s.tolist() == [0.0125, 0.02]
    assert rows.prefill_tokens.tolist() == [0, 100]
    assert rows.prefill_context.tolist() == [0, 5000]
    assert rows.weights.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("", "", "holds no rows"),
        (STEPS, "", "holds no rows"),
        (STEPS + "0,1,2\n", ":2", "3 fields, must be 4 as in the header"),
        (STEPS + "0,1,2,3\n0,1,x,3\n", ":3", "kv_tokens = 'x', must be a finite number >= 0"),
        (STEPS + "0,1,2,0\n", ":2", "time_ms = '0', must be a finite number > 0"),
        (STEPS + "0,-1,2,1\n", ":2", "decode_tokens = '-1', must be a finite number >= 0"),
        (STEPS + "0,1,nan,1\n", ":2", "kv_tokens = 'nan'"),
        (
            "prefill_tokens,decode_tokens,time_ms\n0,1,2\n",
            ":1",
            "no column for the KV tokens that decoding requests read",
        ),
        ("a,a\n1,2\n", ":1", "the column 'a' stands twice"),
        (STEPS.strip() + ",time_s\n0,1,2,3,4\n", ":1", "both give the time of a step"),
    ],
)
def test_bad_steps(tmp_path: Path, text: str, place: str, part: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(st.InputError) as raised:
        read_steps(path)
    message = one_sentence(str(raised.value))
    assert message.startswith(f"{path}{place}")
    assert part in message


def test_files_that_are_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(st.InputError, match="does not exist, must be a file"):
        read_steps(tmp_path / "none.csv")
    with pytest.raises(st.InputError, match="is a folder, must be a file"):
        read_steps(tmp_path)
    path = tmp_path / "latin.csv"
    path.write_bytes(STEPS.encode() + b"\xe4,1,2,3\n")
    with pytest.raises(st.InputError, match=r"latin.csv:2: byte 0xe4 is not UTF-8"):
        read_steps(path)


def test_benchmark_csv_of_one_deployment(tmp_path: Path) -> None:
    header = "gpu,concurrency,isl,osl,ttft_ms,tpot_ms\n"
    path = write(tmp_path, header + "a,4,100,50,80,10\nb,8,100,50,90,12\n")
    with pytest.raises(st.InputError) as raised:
        read_benchmark(path)
    assert "several deployments (gpu differ)" in one_sentence(str(raised.value))
    points, notes = read_benchmark(path, where=[("gpu", "b")])
    assert (points.in_flight.tolist(), points.tpot_s.tolist(), notes) == ([8], [0.012], ())
    assert points.ttft_s is not None
    with pytest.raises(st.InputError, match="no row with gpu = 'c', must be one of a, b"):
        read_benchmark(path, where=[("gpu", "c")])
    with pytest.raises(st.InputError, match="no column 'x' to select by"):
        read_benchmark(path, where=[("x", "c")])
    with pytest.raises(st.InputError, match=r"m.csv:2: osl = '1', must be a finite number >= 2"):
        read_benchmark(write(tmp_path, POINTS + "4,100,1,80,10\n"))


def test_vllm_results_one_several_appended_or_listed(tmp_path: Path) -> None:
    one = write(tmp_path, json.dumps(RUN), "one.json")
    points, notes = read_benchmark([one])
    # 80 completed in 100 s of 50 ms + 199 * 45 ms each: 7.2 in flight on average of 8.
    assert points.in_flight.tolist() == [8]
    assert points.prompt_tokens.tolist() == [100]
    assert points.output_tokens.tolist() == [200]
    assert points.tpot_s.tolist() == [0.045]
    assert points.ttft_s is not None
    assert points.ttft_s.tolist() == [0.05]
    assert notes == ()
    appended = write(tmp_path, json.dumps(RUN) + "\n" + json.dumps({**RUN, "max_concurrency": 16}) + "\n", "two.json")
    listed = write(tmp_path, json.dumps([RUN, RUN]), "list.json")
    many, notes = read_benchmark([appended, listed])
    assert many.in_flight.tolist() == [8, 16, 8, 8]
    assert "two.json:2: 7.2 in flight on average of 16" in notes[0]


def test_an_open_loop_is_read_by_littles_law(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({**RUN, "request_rate": 0.8, "max_concurrency": None}), "open.json")
    points, notes = read_benchmark(path)
    assert points.in_flight[0] == pytest.approx(0.8 * (0.05 + 199 * 0.045))
    assert "by Little's law" in notes[0]


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"mean_tpot_ms": None}, "mean_tpot_ms = None, must be a number > 0"),
        ({"completed": 0}, "completed = 0, must be a number > 0"),
        ({"max_concurrency": None}, "no max_concurrency and an infinite request_rate"),
        ({"max_concurrency": "many"}, "max_concurrency = 'many', must be a number"),
        ({"request_rate": "fast"}, "request_rate = 'fast', must be a number"),
        ({"total_output_tokens": 80}, "1 output tokens a request, must be >= 2"),
        ({"duration": float("nan")}, "duration = nan, must be a number"),
    ],
)
def test_bad_vllm_results(tmp_path: Path, changed: dict[str, object], part: str) -> None:
    path = write(tmp_path, json.dumps({**RUN, **changed}), "bad.json")
    with pytest.raises(st.InputError) as raised:
        read_benchmark(path)
    message = one_sentence(str(raised.value))
    assert message.startswith(f"{path}:1: ")
    assert part in message


@pytest.mark.parametrize(
    ("text", "part"), [("{", "not valid JSON"), ("", "is empty"), ("3", "a int, must be a result")]
)
def test_files_that_are_no_results(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(st.InputError) as raised:
        read_benchmark(write(tmp_path, text, "x.json"))
    assert part in one_sentence(str(raised.value))


def test_histograms(tmp_path: Path) -> None:
    text = BUCKETS + "prompt,10,3\nprompt,+Inf,5\noutput,1,0\noutput,2,7\n"
    found = read_histograms(write(tmp_path, text))
    assert found["prompt"].upper_bounds_tokens.tolist() == [10, np.inf]
    assert found["prompt"].counts.tolist() == [3, 2]
    assert found["output"].counts.tolist() == [0, 7]


@pytest.mark.parametrize(
    ("rows", "line", "part"),
    [
        ("prompt,10,3\nprompt,5,4\n", 3, "le_tokens = 5 after 10, must increase"),
        ("prompt,10,3\nprompt,20,2\n", 3, "cumulative_count = 2 after 3, must not decrease"),
        ("both,10,3\n", 2, "quantity = 'both', must be prompt or output"),
        ("prompt,x,3\n", 2, "le_tokens = 'x', must be a number > 0 or +Inf"),
        ("prompt,10,3\n", 2, "no output lengths were counted"),
    ],
)
def test_bad_histograms(tmp_path: Path, rows: str, line: int, part: str) -> None:
    with pytest.raises(st.InputError) as raised:
        read_histograms(write(tmp_path, BUCKETS + rows))
    message = one_sentence(str(raised.value))
    assert f":{line}: " in message
    assert part in message


def test_the_examples_are_what_the_tool_writes(root: Path, tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from tools import build_measurements as b; b.FOLDER = pathlib.Path(sys.argv[1]); b.main()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True)
    for kind in ("steps", "benchmark", "lengths"):
        assert (tmp_path / f"{kind}.csv").read_text(encoding="utf-8") == example(kind).read_text(encoding="utf-8")


@pytest.mark.parametrize(("key", "values"), [("model_id", ("a", "b")), ("backend", ("vllm", "sglang"))])
def test_results_of_several_deployments_are_refused(tmp_path: Path, key: str, values: tuple[str, str]) -> None:
    runs = [{**RUN, key: value} for value in values]
    together = write(tmp_path, json.dumps(runs), "mixed.json")
    with pytest.raises(st.InputError, match=rf"{key} = '{values[1]}', must be '{values[0]}' .*one deployment"):
        read_benchmark(together)
    apart = [write(tmp_path, json.dumps(run), f"{k}.json") for k, run in enumerate(runs)]
    with pytest.raises(st.InputError, match="one deployment"):
        read_benchmark(apart)
    chat = write(tmp_path, json.dumps([{**RUN, "backend": "openai"}, {**RUN, "backend": "openai-chat"}]), "chat.json")
    assert len(read_benchmark(chat)[0]) == 2


def test_more_in_flight_than_may_be_is_said(tmp_path: Path) -> None:
    """RUN holds 7.2 on average."""
    for limit, said in ((6.8, False), (6, True)):
        path = write(tmp_path, json.dumps({**RUN, "max_concurrency": limit}), "over.json")
        assert any("more than may be" in note for note in read_benchmark(path)[1]) is said


def test_packed_files_are_unpacked(tmp_path: Path) -> None:
    packed = tmp_path / "steps.csv.gz"
    packed.write_bytes(gzip.compress((STEPS + "0,4,800,12.5\n").encode()))
    assert read_steps(packed).time_s.tolist() == [0.0125]
    histograms = tmp_path / "lengths.csv.gz"
    histograms.write_bytes(gzip.compress(example("lengths").read_bytes()))
    assert read_histograms(histograms)["prompt"].counts.sum() == 2000
    run = tmp_path / "run.JSON.gz"
    run.write_bytes(gzip.compress(json.dumps(RUN).encode()))
    assert read_benchmark(run)[0].in_flight.tolist() == [8]
    for broken in (packed.read_bytes()[:30], packed.read_bytes()[:-12] + bytes(12)):
        packed.write_bytes(broken)
        with pytest.raises(st.InputError) as raised:
            read_steps(packed)
        assert "cannot be unpacked" in one_sentence(str(raised.value))


def test_endings_in_capitals_and_lines_that_end_with_cr(tmp_path: Path) -> None:
    assert read_benchmark(write(tmp_path, json.dumps(RUN), "RUN.JSON"))[0].in_flight.tolist() == [8]
    path = tmp_path / "mac.csv"
    path.write_bytes((STEPS + "0,4,800,12.5\n").replace("\n", "\r").encode())
    assert read_steps(path).time_s.tolist() == [0.0125]


def test_a_field_without_an_end(tmp_path: Path) -> None:
    with pytest.raises(st.InputError) as raised:
        read_steps(write(tmp_path, STEPS + "0,1,2," + "9" * 140_000 + "\n"))
    assert ":2: no CSV (field larger than" in one_sentence(str(raised.value))
