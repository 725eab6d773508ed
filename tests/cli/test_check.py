"""`stability check`: verdicts, exit codes, text and JSON."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stability import Verdict
from stability.cli.output import COLOURS

from .plans import CATALOG, HEADER, SMALL, with_trace


@pytest.fixture
def plan(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_bundled_example_is_comfortably_stable(cli) -> None:
    found = cli("check")
    assert (found.code, found.err) == (0, "")
    assert found.out.startswith("bundled example\n")
    assert "verdict                    STABLE\n" in found.out
    for row in ("bound, any policy", "bottleneck", "KV occupancy", "replicas at 10 % headroom", "what changes it"):
        assert row in found.out


def test_json_of_the_bundled_example(cli) -> None:
    found = cli("check", "--json")
    assert (found.code, found.err) == (0, "")
    answer = found.json
    assert answer["schema"] == "stability/check/1"
    assert answer["plan"] == "bundled example"
    assert answer["exit_code"] == 0
    report = answer["report"]
    assert report["verdict"] == "stable"
    assert report["stable_below_per_s"] < report["capacity_per_s"] <= report["upper_bound_per_s"]
    assert {target["name"] for target in answer["targets"]} == {"itl_s", "ttft_p99_s", "headroom"}
    assert answer["replicas_needed"] == {"chat": 2}
    assert any("KV capacity" in note for note in answer["notes"])


@pytest.mark.parametrize(
    ("rate", "code", "verdict"),
    [("5", 0, "STABLE"), ("9.0/s", 3, "UNDETERMINED"), ("600/min", 1, "UNSTABLE"), ("5e2", 1, "UNSTABLE")],
)
def test_rates_and_verdicts(cli, plan, rate: str, code: int, verdict: str) -> None:
    """Capacity 9.091/s by hand; between its proved and its bounding part nothing is claimed."""
    found = cli("check", plan(SMALL), "--rate", rate)
    assert found.code == code
    assert f"verdict                    {verdict}\n" in found.out
    assert "9.091 req/s" in found.out


def test_a_missed_target_is_a_no(cli, plan) -> None:
    found = cli("check", plan(SMALL + "targets: {itl_ms: 1}\n"))
    assert found.code == 1
    assert "verdict                    STABLE\n" in found.out
    assert "missed: " in found.out


def test_an_overloaded_fleet_says_so_in_every_row(cli, plan) -> None:
    path = plan(SMALL.replace("rate_per_s: 5", "rate_per_s: 20") + "targets: {ttft_p99_ms: 500}\n")
    text = cli("check", path).out
    assert "mean unbounded, 99 % unbounded" in text
    assert text.count("at capacity\n") == 4
    answer = cli("check", path, "--json").json
    assert answer["exit_code"] == 1
    assert answer["latency"]["ttft_p99_s"] is None  # JSON has no infinity


def test_several_pools_get_a_row_each(cli, plan) -> None:
    second = CATALOG.partition("fleet:\n")[2].replace("pool: a", "pool: b")
    found = cli("check", plan(SMALL + second))
    assert found.code == 0
    rows = [line.split()[0] for line in found.out.splitlines() if line.startswith(("a ", "b "))]
    assert rows == ["a", "b"]


def test_a_trace_is_replayed_at_its_own_rate_or_another(cli, plan, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + "".join(f"{i / 4},100,80\n" for i in range(101)))
    path = plan(with_trace("t.csv"))
    assert cli("check", path, "--json").json["report"]["rate_per_s"] == pytest.approx(4)
    scaled = cli("check", path, "--rate", 20, "--json")
    assert scaled.code == 1
    assert scaled.json["report"]["rate_per_s"] == pytest.approx(20)


def test_what_was_done_to_a_trace_is_told(cli, plan, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + "0,100,80\n1,100,0\n2,100,80\n")
    assert "- t.csv: dropped 1 of 3 rows without prompt or output tokens" in cli("check", plan(with_trace("t.csv"))).out


def test_toml_plans(cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(
        'schema = "stability/plan/1"\n[workload]\nrate_per_s = 5\nlengths = {prompt = 100, output = 80}\n'
        '[[fleet]]\npool = "a"\ngpu = "H100-SXM"\nmodel = "Llama-3.1-8B"\n'
    )
    assert cli("check", path).code == 0


@pytest.mark.parametrize(
    ("rate", "part"),
    [
        ("abc", "--rate = 'abc', must be a rate"),
        ("0", "--rate = 0.0, must be a finite number and > 0"),
        ("-1", "--rate = -1.0, must be"),
        ("nan", "--rate = 'nan', must be a rate"),
        ("1e300", "--rate = 1e+300, must be"),
        ("5 per day", "Correct the unit"),
    ],
)
def test_rates_that_are_none(cli, rate: str, part: str) -> None:
    assert part in cli("check", "--rate", rate).error()


def test_colour_is_for_terminals(cli) -> None:
    assert set(COLOURS) == set(Verdict)
    assert "\x1b" not in cli("check").out


@pytest.mark.parametrize(("rate", "code"), [(20, 0), (100, 0), (170, 0), (190, 3), (250, 1)])
def test_azure_trace_at_several_rates(cli, plan, shared_data: Path, rate: float, code: int) -> None:
    """Eight H100s: about 180 requests/s for certain, 194 at most."""
    trace = shared_data / "azure" / "azure_2023_conv.csv"
    text = CATALOG.replace("  rate_per_s: 5\n", "").replace("{prompt: 100, output: 80}", f"{{trace: {trace}}}")
    found = cli("check", plan(text + "    replicas: 8\n"), "--rate", rate, "--json")
    assert found.code == code
    report = found.json["report"]
    assert report["rate_per_s"] == pytest.approx(rate)
    assert report["load"] == pytest.approx(rate / report["capacity_per_s"])
    low, high = report["capacity_interval"]
    assert low < report["capacity_per_s"] < high
    assert report["bottleneck"] == "batch_slots"
    assert report["itl_s"] > 0
    assert 0 < report["kv_occupancy"] <= 1
    assert found.json["replicas_needed"]["a"] == pytest.approx(rate / (0.9 * report["stable_below_per_s"] / 8), abs=1)
    assert {lever["verdict"] for lever in found.json["levers"]} >= {
        {0: "stable", 3: "undetermined", 1: "unstable"}[code]
    }
