"""`stability fit`: kinds of measurements, exit codes, JSON, pictures, and what the plan gets."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from stability.io.measurements import example
from stability.io.plan import plan_from_text

from .plans import HEADER, SMALL

STEPS = "prefill_tokens,decode_tokens,kv_tokens,time_ms\n"
LAW = "    iteration: {affine: {base_s: 0.01}}"


def slots(rows: int = 60) -> str:
    """Steps of 10 ms and 50 us a decode, without noise."""
    lines = [
        f"{(i % 3) * 64},{i % 13 + 1},{(i % 13 + 1) * (100 + i % 7 * 50)},{10 + 0.05 * (i % 13 + 1):.6f}"
        for i in range(rows)
    ]
    return STEPS + "\n".join(lines) + "\n"


def test_the_bundled_steps(cli) -> None:
    found = cli("fit")
    assert (found.code, found.err) == (0, "")
    for part in ("bundled example", "two_phase", "95 % interval", "for a pool of a plan", "iteration:"):
        assert part in found.out
    answer = cli("fit", "steps", "--json").json
    assert answer["schema"] == "stability/law-fit/1"
    # The law that the example was drawn from: 8 ms, 20 us, 40 ns in decode-only steps.
    truth = {"base_s": 8e-3, "per_decode_token_s": 2e-5, "per_kv_token_s": 4e-8}
    decode = {item["name"]: item for item in answer["coefficients"] if item["phase"] == "decode"}
    assert all(decode[name]["low"] <= value <= decode[name]["high"] for name, value in truth.items())


def test_the_bundled_benchmark_and_lengths(cli) -> None:
    answer = cli("fit", "benchmark", "--json").json
    assert answer["mape"] < 0.02
    assert answer["notes"] == []
    lengths = cli("fit", "lengths", "--json").json
    assert (lengths["prompt"]["family"], lengths["output"]["family"]) == ("lognormal", "gamma")
    assert lengths["prompt"]["upper_bounds_tokens"][-1] == "+Inf"
    assert "spearman" in cli("fit", "lengths").out


@pytest.mark.parametrize(("rate", "code"), [(5, 0), (1000, 1)])
def test_with_a_plan_the_exit_code_is_the_verdict(cli, tmp_path: Path, rate: float, code: int) -> None:
    steps, plan = tmp_path / "steps.csv", tmp_path / "plan.yaml"
    steps.write_text(slots())
    plan.write_text(SMALL.replace("rate_per_s: 5", f"rate_per_s: {rate}"))
    found = cli("fit", "steps", steps, "--plan", plan, "--json")
    assert found.code == code
    capacity = found.json["capacity"]
    assert capacity["verdict"] == ("unstable" if code else "stable")
    assert capacity["capacity_interval"][0] <= capacity["capacity_per_s"] * (1 + 1e-9)
    at_capacity = SMALL.replace("rate_per_s: 5", f"rate_per_s: {capacity['capacity_per_s']}")
    plan.write_text(at_capacity)
    assert cli("fit", "steps", steps, "--plan", plan).code == 3


def test_host_time_forms_and_squares(cli, tmp_path: Path) -> None:
    steps = tmp_path / "steps.csv"
    steps.write_text(slots())
    plain, host = (
        cli("fit", "steps", steps, "--form", "affine", *more, "--json").json for more in ((), ("--host", "2ms"))
    )
    assert plain["law"]["base_s"] == pytest.approx(0.01)
    assert host["law"]["base_s"] == pytest.approx(0.012)
    assert cli("fit", "steps", steps, "--squares", "--form", "affine_tied").code == 0


def test_a_trace_gives_lengths_for_a_plan(cli, tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    trace.write_text(HEADER + "".join(f"{i},{100 + i * 7 % 400},{10 + i * 11 % 90}\n" for i in range(300)))
    found = cli("fit", "lengths", trace)
    assert found.code == 0
    snippet = found.out.partition("for the workload of a plan\n\n")[2]
    indented = "".join(f"  {line}\n" for line in snippet.splitlines())
    plan = plan_from_text(
        f"schema: stability/plan/1\nworkload:\n  rate_per_s: 1\n{indented}" + SMALL[SMALL.index("fleet:") :]
    )
    assert plan.workload.classes[0].lengths.prompt_mean_tokens == pytest.approx(299.5, rel=0.03)


def test_vllm_results(cli, tmp_path: Path) -> None:
    paths = []
    for n, isl, osl in [(n, s, o) for n in (1, 8, 32) for s, o in ((100, 200), (1000, 100), (2000, 300))]:
        tpot = 10 + 0.05 * n + 0.002 * n * isl / osl
        run = {
            "request_rate": "inf",
            "max_concurrency": n,
            "completed": 10 * n,
            "duration": 10 * (0.05 + tpot * 1e-3 * (osl - 1)),
            "total_input_tokens": 10 * n * isl,
            "total_output_tokens": 10 * n * osl,
            "mean_ttft_ms": 50.0,
            "mean_tpot_ms": tpot,
        }
        paths.append(tmp_path / f"{n}-{isl}.json")
        paths[-1].write_text(json.dumps(run))
    answer = cli("fit", "benchmark", *paths, "--json").json
    assert answer["observations"] == 9
    assert answer["law"]["base_s"] == pytest.approx(0.01, rel=0.05)


def test_pictures(cli, tmp_path: Path) -> None:
    for kind in ("steps", "lengths"):
        path = tmp_path / f"{kind}.png"
        assert cli("fit", kind, "--plot", path).code == 0
        assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("steps", "a.csv", "b.csv"), "2 files for steps, must be one"),
        (("--pool", "chat"), "--pool without --plan, must have one"),
        (("lengths", "--plan", "p.yaml"), "--plan with lengths, must be with a law"),
        (("benchmark", "--where", "gpu"), "--where = 'gpu', must be COLUMN=VALUE"),
        (("steps", "none.csv"), "none.csv does not exist, must be a file"),
        (("lengths", "none.csv"), "none.csv does not exist, must be a trace file"),
        (("metrics", "none.prom"), "none.prom does not exist, must be a file or folder"),
        (("metrics", "a.prom", "b.prom"), "2 files for metrics, must be one"),
        (("metrics", "--host", "2ms"), "--host with metrics, must be with another kind"),
        (("metrics", "--budget", "8192"), "--budget with metrics, must be"),
        (("metrics", "--where", "gpu=x"), "--where with metrics, must be"),
        (("steps", "--interval", "5s"), "--interval with steps, must be with metrics"),
        (("--level", "2"), "level = 2.0, must be"),
        (("--plot", "x.doc"), "must end in one of"),
        (("sizes",), "'sizes' is not one of"),
    ],
)
def test_bad_input(cli, arguments: tuple[str, ...], part: str) -> None:
    assert part in cli("fit", *arguments).error()


def test_bad_files_name_their_line(cli, tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    path.write_text(STEPS + "0,1,2,3\n0,1,2,x\n")
    assert cli("fit", "steps", path).error().startswith(f"{path}:3: time_ms = 'x', must be")
    path.write_text(STEPS + "".join(f"0,{i},{100 * i},{10 + i}\n" for i in range(1, 20)))
    assert "cannot tell" in cli("fit", "steps", path).error()


def test_the_bundled_metrics_give_law_lengths_rate_and_a_plan(cli) -> None:
    """Drawn from 12 ms and 0.1 ms a prompt token, lognormal lengths of means 700 and 300 (tools/record_example.py)."""
    answer = cli("fit", "metrics", "--json").json
    assert answer["schema"] == "stability/metrics-fit/1"
    assert answer["law"]["law"]["base_s"] == pytest.approx(0.012, rel=0.02)
    assert answer["law"]["law"]["per_prefill_token_s"] == pytest.approx(1e-4, rel=0.05)
    plan = plan_from_text(answer["plan"])
    (asked,) = plan.workload.classes
    assert asked.lengths.prompt_mean_tokens == pytest.approx(700, rel=0.02)
    assert asked.lengths.output_mean_tokens == pytest.approx(300, rel=0.02)
    assert answer["rate_per_s"] == pytest.approx(
        answer["lengths"]["prompt"]["requests"] / 2400, rel=0.02
    )  # nothing piles up
    text = cli("fit", "metrics")
    assert text.code == 0
    assert answer["plan"].rstrip() in text.out
    assert "the rows are means between scrapes" in text.out


def test_metrics_with_a_plan_and_an_interval(cli, tmp_path: Path) -> None:
    plan, recording = tmp_path / "plan.yaml", tmp_path / "recording.prom"
    plan.write_text(SMALL)
    text = gzip.decompress(example("metrics").read_bytes()).decode()
    recording.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("# scrape")))
    assert "--interval" in cli("fit", "metrics", recording).error()
    found = cli("fit", "metrics", recording, "--interval", "30s", "--plan", plan, "--json")
    assert found.code == 0
    assert found.json["capacity"]["verdict"] == "stable"
    assert found.json["law"]["law"] == cli("fit", "metrics", "--json").json["law"]["law"]


def test_packed_histograms(cli, tmp_path: Path) -> None:
    packed = tmp_path / "lengths.csv.gz"
    packed.write_bytes(gzip.compress(example("lengths").read_bytes()))
    assert cli("fit", "lengths", packed, "--json").json["prompt"] == cli("fit", "lengths", "--json").json["prompt"]
