"""`docs/guides/fleets.md`: its plan is one, its Python runs, its outputs are what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", text, re.M | re.S)


def test_page_shows_what_happens(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli) -> None:
    text = (root / "docs" / "guides" / "fleets.md").read_text(encoding="utf-8")
    (plan,) = blocks(text, "yaml")
    monkeypatch.chdir(tmp_path)
    Path("plan.yaml").write_text(plan, encoding="utf-8")
    names: dict[str, object] = {}
    for block in blocks(text, "python"):
        exec(compile(block, "fleets.md", "exec"), names)
    outputs = dict(re.findall(r"<!-- output: (\w+) -->\n```text\n(.+?)```", text, re.S))
    assert cli("region", "plan.yaml").out == outputs["region"]
    assert cli("route", "plan.yaml").out == outputs["route"]
    Path("plan.yaml").write_text(plan.replace("rate_per_s: 60", "rate_per_s: 120"), encoding="utf-8")
    assert cli("route", "plan.yaml", "--admission").out == outputs["admission"]
    remedy = re.search(r"^> (.+(?:\n> .+)*)$", text, re.M)
    assert remedy
    assert remedy[1].replace("\n> ", " ") in cli("route", "plan.yaml").out
