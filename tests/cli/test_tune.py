"""`stability tune`: its answer, its exit codes, its picture, and bad input."""

from __future__ import annotations

import pytest

MEMORY = """\
schema: stability/plan/1
workload:
  rate_per_s: 3
  lengths: {prompt: {uniform: [10, 1600]}, output: {uniform: [10, 1600]}}
fleet:
  - pool: a
    iteration: {affine: {base_s: 12 ms, per_prefill_token_s: 20 us, per_decode_token_s: 20 us, per_kv_token_s: 80 ns}}
    kv_capacity_tokens: 97k
    engine: {max_num_seqs: 1024, max_num_batched_tokens: 2048}
"""
"""One replica whose memory binds."""


def write(tmp_path, text: str = MEMORY):
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return path


def test_the_example(cli) -> None:
    found = cli("tune")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("bundled example\n")
    assert "max_num_seqs 256 -> 384" in found.out
    assert "vLLM:  --max-num-seqs 384" in found.out


def test_a_memory_bound_plan(cli, tmp_path) -> None:
    found = cli("tune", write(tmp_path))
    assert found.code == 0
    assert "watermark 0 -> 0.022" in found.out
    assert (
        "engine: {max_num_seqs: 1024, max_num_batched_tokens: 2048, admission: prompt_gate, watermark: 0.022}"
        in found.out
    )


def test_the_plan_line_makes_the_plan_best(cli, tmp_path) -> None:
    path = write(tmp_path)
    answer = cli("tune", path, "--json").json
    line = answer["pools"][0]["plan_engine"]
    better = MEMORY.replace("engine: {max_num_seqs: 1024, max_num_batched_tokens: 2048}", line)
    again = cli("tune", write(tmp_path, better))
    assert again.code == 0
    assert "present settings are best" in again.out


def test_json(cli, tmp_path) -> None:
    answer = cli("tune", write(tmp_path), "--vary", "watermark", "--json").json
    assert answer["schema"] == "stability/tuning/1"
    assert (answer["exit_code"], answer["standing"], answer["picture"]) == (0, "validated", None)
    assert answer["gain"] == pytest.approx(0.05, abs=0.01)
    pool = answer["pools"][0]
    assert pool["then"]["engine"]["watermark"] == pytest.approx(0.022)
    assert len(pool["sensitivity"]["watermark"]) == len(pool["sensitivity"]["capacity_per_s"]) > 90


def test_targets_of_the_options_and_of_the_plan(cli, tmp_path) -> None:
    assert cli("tune", write(tmp_path), "--itl", "100ms", "--ttft", "1s", "--ttft-p99", "2s").code == 0
    missed = cli("tune", write(tmp_path), "--itl", "1ms")
    assert (missed.code, missed.err) == (1, "")
    assert "targets cannot be met: the best settings allow 0 req/s of the 3 req/s" in missed.out
    assert "against 1 ms at a light load" in missed.out
    in_plan = cli("tune", write(tmp_path, MEMORY + "targets: {itl_ms: 1}\n"), "--json")
    assert (in_plan.code, in_plan.json["met"]) == (1, False)
    assert cli("tune", write(tmp_path, MEMORY + "targets: {itl_ms: 1}\n"), "--itl", "100ms").code == 0


def test_the_rate_is_what_the_targets_are_for(cli, tmp_path) -> None:
    path = write(tmp_path, MEMORY + "targets: {headroom: 10%}\n")
    assert cli("tune", path).code == 0
    assert cli("tune", path, "--rate", "3.8").code == 1


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_the_picture(cli, tmp_path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"tune.{ending}"
    found = cli("tune", write(tmp_path), "--plot", path)
    assert found.code == 0
    assert f"picture in {path}" in found.out
    assert path.stat().st_size > 5_000


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--itl", "abc"], "--itl = 'abc', must be a time"),
        (["--itl", "0"], "--itl = 0.0, must be a finite number and > 0"),
        (["--ttft-p99", "2 parsecs"], "Correct the unit 'parsecs'"),
        (["--pool", "b"], "unknown pool 'b'"),
        (["--vary", "slots"], "'slots' is not one of"),
        (["--plot", "tune.txt"], "--plot = 'tune.txt', must end in one of .png, .svg, .pdf"),
        (["--plot", "nowhere/tune.png"], "must be in a folder that exists"),
        (["--rate", "-1"], "--rate = -1.0, must be"),
        (["--watermarks", "1"], "No such option"),
    ],
)
def test_bad_input(cli, tmp_path, arguments: list[str], part: str) -> None:
    message = cli("tune", write(tmp_path), *arguments).error()
    assert part in message
    assert "\n" not in message
