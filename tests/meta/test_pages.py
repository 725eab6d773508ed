"""Pages of the documentation: their commands run, their outputs are what the commands print, and every page is reachable."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import shlex
from pathlib import Path

import pytest

import stability
from stability.cli.main import COMMANDS, run
from tools.paste_outputs import BLOCK, pasted

ROOT = Path(__file__).resolve().parents[2]
NO_ANALYSIS = ("catalog", "schema", "init", "explain", "completion")
HOW_TO = sorted(path.name for path in (ROOT / "docs" / "how-to").glob("*.md"))
PLAN = "schema: stability/plan/1\nworkload: {rate_per_s: 20, lengths: azure-conv-2023}\n" + (
    "fleet: [{pool: chat, gpu: H100-SXM, model: Llama-3.1-8B, replicas: 2, engine: {max_num_batched_tokens: 8192}}]\n"
)


@pytest.mark.parametrize("name", ["tutorial.md"])
def test_outputs_are_what_the_commands_print(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert "<!-- output: " in text
    assert pasted(text) == text, f"Run `python -m tools.paste_outputs docs/{name}`."


@pytest.mark.parametrize("name", HOW_TO)
def test_how_to_pages_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "how-to" / name).read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for plan in ("plan.yaml", "today.yaml", "tomorrow.yaml"):
        Path(plan).write_text(PLAN, encoding="utf-8")
    for kind, what, _, body in BLOCK.findall(text):
        assert kind == "file"
        Path(what).write_text(body, encoding="utf-8")
    lines = [line for block in re.findall(r"^```sh\n(.+?)^```", text, re.M | re.S) for line in block.splitlines()]
    for line in lines:
        words, _, target = line.partition(" > ")
        with contextlib.redirect_stdout(io.StringIO()) as stream:
            code = run(shlex.split(words)[1:])
        assert words.startswith("stability ")
        assert code in (0, 1, 3), f"docs/how-to/{name}: `{line}` exits with {code}"
        if target:
            Path(target).write_text(stream.getvalue(), encoding="utf-8")
    for block in re.findall(r"^```python\n(.+?)^```", text, re.M | re.S):
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(block, name, "exec"), {})
    assert lines or "```python" in text or name == "index.md", f"docs/how-to/{name} shows no command."


def test_every_command_has_its_row() -> None:
    text = (ROOT / "docs" / "which-analysis.md").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if f"stability {name}" not in text and name not in NO_ANALYSIS]
    assert not missing, f"docs/which-analysis.md lacks {missing}. Add the question each answers."


def test_every_command_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if f"`stability {name}" not in text]
    assert not missing, f"README.md lacks {missing}. Add a row to its table of commands."


def test_every_public_name_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^   ([\w.]+)$", text, re.M))
    source = (ROOT / "stability" / "__init__.py").read_text(encoding="utf-8")
    names = set(getattr(stability, "__all__", ())) or set(re.findall(r"\bimport (\w+) as \1\b", source))
    assert len(names) > 60
    modules = {name for name in names if inspect.ismodule(getattr(stability, name))}
    missing = sorted(names - modules - listed)
    assert not missing, f"docs/reference/api.md lacks {missing}. List them under their subject."
    assert {name.partition(".")[0] for name in listed if "." in name} >= {"lengths", "iteration", "policies", "catalog"}


def test_pages_name_no_page_that_is_gone() -> None:
    gone = []
    for path in sorted((ROOT / "docs").rglob("*.md")):
        if "api" in path.parts or "_build" in path.parts:
            continue
        for target in re.findall(r"(?<![\w/])docs/[\w/-]+\.md", path.read_text(encoding="utf-8")):
            gone += [f"{path.name}: {target}"] if not (ROOT / target).exists() else []
    assert not gone, gone
