"""`stability explain` and `stability completion`."""

from __future__ import annotations

import inspect
import shutil
import subprocess
from pathlib import Path

import pytest

import stability as st
from stability.cli import terms
from stability.cli.main import COMMANDS, run
from stability.model.engine import ADMISSIONS
from stability.plots.style import RESOURCE_COLOURS


@pytest.mark.parametrize(
    ("term", "name", "kind"),
    [
        ("kv_memory", "kv_memory", "bottleneck"),
        ("KV-memory", "kv_memory", "bottleneck"),
        ("undetermined", "UNDETERMINED", "verdict"),
        ("3", "3", "exit code"),
        ("UnservableError", "UnservableError", "error"),
        ("sarathi", "Sarathi", "policy"),
        ("prompt_gate", "prompt_gate", "policy"),
        ("ITL", "itl_s", "term"),
        ("inter-token latency", "itl_s", "term"),
        ("load", "load", "term"),
        ("K", "kv_tokens", "term"),
        ("tau", "time_s", "term"),
        ("c_0", "base_s", "term"),
        ("equilibrium", "equilibrium", "term"),
    ],
)
def test_terms_by_name_and_symbol(cli, term: str, name: str, kind: str) -> None:
    (found,) = cli("explain", term, "--json").json["entries"]
    assert (found["name"], found["kind"]) == (name, kind)
    assert cli("explain", term).out.startswith(f"{name} ({kind})\n\n")


def test_a_reason_pasted_whole_is_found(cli) -> None:
    engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine)
    lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    for rate, part in [(1.0, "lower end"), (9.99, "ruled out"), (20.0, "upper end")]:
        reason = st.analyze(st.Fleet.of(replica), st.Workload.poisson(rate, lengths)).reason
        assert part in cli("explain", reason).out, reason


@pytest.mark.parametrize("words", list(terms.REASONS))
def test_reasons_are_those_of_the_theory(root: Path, words: str) -> None:
    files = (root / "stability" / "theory").glob("*.py")
    sources = " ".join(path.read_text(encoding="utf-8").replace('"\n', "").replace('f"', "") for path in files)
    joined = " ".join(sources.replace('"', " ").split())
    assert words in joined, f"no sentence of stability/theory has the words {words!r}. Correct the table."


def test_verdicts_bottlenecks_and_policies_are_complete() -> None:
    names = {kind: {entry.name for entry in terms.entries() if entry.kind == kind} for kind in terms.KINDS}
    assert names["verdict"] == {str(verdict) for verdict in st.Verdict}
    assert names["bottleneck"] == {*RESOURCE_COLOURS, "scheduler"}
    assert set(ADMISSIONS) <= names["policy"]
    schedulers = {n for n, v in vars(st.policies).items() if inspect.isclass(v) and hasattr(v, "parameters")}
    assert {"Fcfs", "Wait", "Sarathi"} <= schedulers & names["policy"]
    assert {"InputError", "PlanError", "NotModelledError", "MissingLibraryError"} <= names["error"]


def test_no_entry_holds_sections_of_a_docstring() -> None:
    held = [entry.name for entry in terms.entries() if ">>>" in entry.text or "---" in entry.text]
    assert not held


def test_the_glossary_has_one_source(root: Path) -> None:
    text = (root / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    assert terms.glossary_text() == text
    found = {entry.name: entry for entry in terms.glossary()}
    assert len(found) > 45
    assert (found["kv_capacity_tokens"].symbol, found["kv_capacity_tokens"].unit) == ("M", "tokens")
    assert not any(set("$\\`") & set(entry.text + entry.symbol + entry.unit) for entry in found.values())


def test_unknown_terms_get_near_ones(cli) -> None:
    assert "Did you mean watermark" in cli("explain", "watermrk").error()
    assert "the term is empty" in cli("explain", "").error()
    assert cli("explain", "qqqqq").error() == "unknown term 'qqqqq'. `stability explain` lists all."


def test_without_a_term_all_are_listed(cli) -> None:
    found = cli("explain")
    assert found.code == 0
    assert all(f"{kind}\n" in found.out for kind in terms.KINDS)
    assert len(cli("explain", "--json").json["entries"]) == len(terms.entries())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(cli, shell: str, tmp_path: Path) -> None:
    found = cli("completion", shell)
    assert found.code == 0
    assert "_STABILITY_COMPLETE" in found.out
    if shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(found.out)
        subprocess.run([shell, "-n", str(script)], check=True)
    assert "is not one of" in cli("completion", "tcsh").error()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("stability comp", ["compare", "compare-routers", "compare-schedulers", "completion"]),
        ("stability init --gpu H1", ["H100-SXM", "H100-PCIe"]),
        ("stability init --model qwen3-3", ["Qwen3-30B-A3B", "Qwen3-32B"]),
        ("stability init --lengths az", ["azure-conv-2023", "azure-code-2023"]),
        ("stability init --admission pr", ["prompt_gate"]),
        ("stability schema --example rea", ["reasoning"]),
        ("stability explain kv_m", ["kv_memory"]),
        ("stability check --rep", ["--report"]),
        ("stability --vers", ["--version"]),
    ],
)
def test_names_are_completed(capsys, monkeypatch, words: str, expected: list[str]) -> None:
    monkeypatch.setenv("_STABILITY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit) as exit_code:
        run([])
    assert exit_code.value.code == 0
    assert [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()] == expected


def test_every_command_is_completed(capsys, monkeypatch) -> None:
    monkeypatch.setenv("_STABILITY_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "stability ")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        run([])
    assert [line.partition(",")[2] for line in capsys.readouterr().out.splitlines()] == list(COMMANDS)


def test_every_row_of_check_can_be_explained(cli) -> None:
    table = cli("check").out.split("\n\n")[1]
    for row in table.splitlines():
        name = row.strip().split("  ")[0]
        if not name.startswith(("target ", "replicas at")):
            assert cli("explain", name).code == 0, name
