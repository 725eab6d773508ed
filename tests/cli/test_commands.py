"""`stability compare`, `trace`, `catalog`, `schema`, the help, and what every command has in common."""

from __future__ import annotations

import gzip
import re
import shlex
from pathlib import Path

import pytest
import zstandard

import stability as st
from stability.cli.main import COMMANDS
from stability.cli.main import cli as group

from .plans import HEADER, SMALL

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n"
)
MOONCAKE = (
    '{"timestamp": 0, "input_length": 1000, "output_length": 52, "hash_ids": [1, 2]}\n'
    '{"timestamp": 4000, "input_length": 1000, "output_length": 26, "hash_ids": [1, 3]}\n'
)
REQUESTS = HEADER + "0,100,10\n4,300,30\n"


@pytest.mark.parametrize(
    ("text", "span_s", "prompt_mean"),
    [(REQUESTS, 4, 200), (AZURE, 4.314579, 385), (BURSTGPT, 40, 779.5), (MOONCAKE, 4, 1000)],
)
@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
def test_traces_of_every_format(cli, tmp_path: Path, text: str, span_s: float, prompt_mean: float, ending: str) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[ending]
    path = tmp_path / f"trace{ending}"
    path.write_bytes(pack(text.encode()))
    found = cli("trace", path, "--json")
    assert (found.code, found.err) == (0, "")
    summary = found.json
    assert summary["schema"] == "stability/trace-summary/1"
    assert summary["rows"] == 2
    assert summary["span_s"] == pytest.approx(span_s)
    assert summary["prompt"]["mean_tokens"] == prompt_mean
    shown = cli("trace", path)
    assert shown.code == 0
    for row in ("requests", "mean rate", "cv of gaps", "correlation", "p99.9"):
        assert row in shown.out
    assert ("prefix hits" in shown.out) == (text == MOONCAKE)


def test_rows_out_of_order_can_be_sorted(cli, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "4,300,30\n0,100,10\n")
    assert "--sort" in cli("trace", path).error()
    found = cli("trace", path, "--sort", "--json").json
    assert (found["span_s"], found["notes"]) == (4, ["sorted the rows by arrival"])


@pytest.mark.parametrize(
    ("rates", "code"),
    [((5, 5), 0), ((5, 9), 3), ((5, 50), 1), ((9, 50), 1), ((50, 9), 1)],
)
def test_compare_exits_with_the_worse_code(cli, tmp_path: Path, rates: tuple[int, int], code: int) -> None:
    paths = []
    for name, rate in zip("ab", rates, strict=True):
        paths.append(tmp_path / f"{name}.yaml")
        paths[-1].write_text(SMALL.replace("rate_per_s: 5", f"rate_per_s: {rate}"))
    found = cli("compare", *paths)
    assert (found.code, found.err) == (code, "")
    assert "capacity +0.0 %" in found.out
    answer = cli("compare", *paths, "--json").json
    assert answer["schema"] == "stability/compare/1"
    assert [plan["report"]["rate_per_s"] for plan in answer["plans"]] == list(rates)


def test_compare_reports_the_change_of_the_capacity(cli, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(SMALL)
    (tmp_path / "b.yaml").write_text(SMALL + "    replicas: 2\n")
    assert "capacity +100.0 %" in cli("compare", tmp_path / "a.yaml", tmp_path / "b.yaml").out


@pytest.mark.parametrize(
    ("kind", "known"), [("gpus", "H100-SXM"), ("models", "Llama-3.1-8B"), ("workloads", "azure-conv-2023")]
)
def test_catalog_kinds(cli, kind: str, known: str) -> None:
    found = cli("catalog", kind)
    assert (found.code, found.err) == (0, "")
    assert known in found.out
    assert "\n[1] " in found.out  # sources
    records = cli("catalog", kind, "--json").json[kind]
    assert known in {record["name"] for record in records}
    assert all(record["source"] for record in records)


def test_catalog_laws_and_roofline(cli) -> None:
    laws = cli("catalog", "laws", "--json").json["laws"]
    assert all(record["source"] and record["gpu"] and record["law"] for record in laws)
    assert len(st.catalog.laws()) == len(laws)
    assert "TwoPhase" in cli("catalog", "laws").out
    shown = cli("catalog", "roofline").out
    assert "all: median over laws" in shown
    assert all(record["median_error"] >= 0 for record in cli("catalog", "roofline", "--json").json["roofline"])


def test_catalog_without_a_kind(cli) -> None:
    assert set(cli("catalog", "--json").json) == {"schema", "gpus", "models", "workloads", "laws"}
    assert re.findall(r"^(\w+)$", cli("catalog").out, re.M) == ["gpus", "models", "workloads", "laws"]


def test_schema_is_the_shipped_one(cli, root: Path) -> None:
    import json

    shipped = json.loads((root / "stability" / "io" / "plan" / "plan-1.json").read_text(encoding="utf-8"))
    assert cli("schema").json == shipped


def test_the_printed_example_is_a_plan(cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(cli("schema", "--example").out, encoding="utf-8")
    assert cli("check", path).out.partition("\n")[2] == cli("check").out.partition("\n")[2]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_that_parse(cli, command: str) -> None:
    found = cli(command, "--help")
    assert found.code == 0
    assert found.out.startswith(f"Usage: stability {command} ")
    assert "Examples:" in found.out
    assert "Exit code:" in found.out
    known = group.get_command(None, command)  # type: ignore[arg-type]
    assert known.examples
    for line, _ in known.examples:
        assert line in found.out
        words = shlex.split(line.partition(">")[0])
        assert words[:2] == ["stability", command]
        known.make_context(command, words[2:])


def test_the_examples_without_files_run(cli) -> None:
    for command in COMMANDS:
        for line, _ in group.get_command(None, command).examples:  # type: ignore[arg-type]
            words = shlex.split(line.partition(">")[0])[1:]
            if not any("." in word for word in words):
                assert cli(*words).code in (0, 1)  # `--rate 200` is more than the example can serve


def test_help_and_version(cli) -> None:
    assert "Commands:" in cli("--help").out
    assert cli("--help").code == 0
    assert re.fullmatch(r"stability \S.*\n", cli("--version").out)


def test_nothing_to_do_is_no_verdict(cli) -> None:
    found = cli()
    assert (found.code, found.out) == (2, "")
    assert found.err.startswith("Usage: stability")
