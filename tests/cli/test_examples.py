"""The bundled plans: each says what `stability check` says, and truly."""

from __future__ import annotations

import re

import pytest

from stability.io.plan import example_text, examples, json_schema

VERDICT = re.compile(r"^# `stability check`: (STABLE|UNSTABLE|UNDETERMINED)(.*), exit code (\d)", re.MULTILINE)


def test_the_usual_services_are_there() -> None:
    wanted = {"chat", "code", "long-context", "reasoning", "disaggregated", "gpu-types"}
    assert wanted <= set(examples())
    assert all(text.endswith((".", "!", "own.")) for text in examples().values())


@pytest.mark.parametrize("name", list(examples()))
def test_an_example_says_its_verdict_truly(cli, tmp_path, name: str) -> None:
    text = example_text(name)
    said = VERDICT.search(text)
    assert said, (
        f"{name}.yaml does not say what `stability check` finds. Add a line: # `stability check`: STABLE, exit code 0."
    )
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    found = cli("check", path)
    assert found.code == int(said[3])
    assert re.search(rf"^(verdict +)?{said[1]}\b", found.out, re.MULTILINE)
    if "every target met" in said[2] or "target met" in said[2]:
        assert "missed: " not in found.out
        assert "met: " in found.out


@pytest.mark.parametrize("name", list(examples()))
def test_an_example_is_printed_by_name(cli, name: str) -> None:
    assert cli("schema", "--example", name).out == example_text(name)


@pytest.mark.parametrize(
    ("command", "name"), [("schema --example chat", "chat"), ("size --example", "sizing"), ("sweep --example", "sweep")]
)
def test_an_example_as_json(cli, command: str, name: str) -> None:
    found = cli(*command.split(), "--json").json
    assert (found["schema"], found["name"]) == ("stability/example/1", name)
    assert found["text"] == cli(*command.split()).out


def test_lists_and_unknown_names(cli) -> None:
    assert cli("schema", "--list", "--json").json["examples"] == examples()
    assert "long-context   Documents" in cli("schema", "--list").out
    assert cli("schema", "--example").out == example_text("chat")
    assert "unknown example plan 'code2'. Did you mean code" in cli("schema", "--example", "code2").error()
    assert "unknown example plan" in cli("schema", "--example", "../examples/chat").error()
    assert f"Known: {', '.join(examples())}." in cli("schema", "--example", "nope").error()
    assert "must be one of them" in cli("schema", "--list", "--example", "chat").error()
    assert cli("schema").json == json_schema()


@pytest.mark.parametrize("command", ["route", "region", "ramp", "tune", "compare-schedulers", "simulate"])
def test_commands_that_know_no_stages_name_one_that_does(cli, tmp_path, command: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(example_text("disaggregated"))
    message = cli(command, path).error()
    assert "`stability check`" in message
    assert len(message) < 400


@pytest.mark.parametrize("command", ["route", "region", "ramp", "tune"])
def test_commands_that_know_no_sessions_name_one_that_does(cli, tmp_path, command: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(example_text("sessions"))
    assert "`stability check`" in cli(command, path).error()


def test_compute_says_what_is_full_before_it(cli, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(example_text("long-context"))
    assert "compute (kv_memory is full first, but lifting every limit gains less than 10 %)" in cli("check", path).out


def test_figures_of_one_pool_name_it(cli, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(example_text("gpu-types"))
    rows = dict(re.findall(r"^(\S.*?) {2,}(.+)$", cli("check", path).out, re.MULTILINE))
    assert rows["inter-token latency"].endswith("(pool h100)")  # the one that binds
    assert rows["target ITL"].endswith("(pool a100)")  # the slowest
    assert rows["time to first token"].endswith("(pool a100)")


def test_a_disaggregated_plan(cli, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    text = example_text("disaggregated")
    path.write_text(text)
    answer = cli("check", path, "--json").json
    assert (answer["verdict"], answer["exit_code"]) == ("undetermined", 3)
    assert set(answer["loads"]) == {"prefill", "decode", "link"}
    overloaded = cli("check", path, "--rate", 200)
    assert overloaded.code == 1
    assert overloaded.out.splitlines()[2].startswith("UNSTABLE: a stage gets ")
    path.write_text(text.replace("itl_ms: 20", "itl_ms: 2, headroom: 10%"))
    missed = cli("check", path)
    assert missed.code == 1
    assert "target ITL  missed: " in missed.out
    assert "target headroom  met: " in missed.out
    path.write_text(text.replace("itl_ms: 20", "ttft_ms: 20"))
    assert "targets for the time to first token" in cli("check", path).error()
    assert "must have mixed ones for --report" in cli("check", path, "--report", tmp_path / "x.html").error()
