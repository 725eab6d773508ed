"""docs/guides/report.md: its commands and its Python run as printed, in an empty folder."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest


def test_the_page_runs_as_printed(cli, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (root / "docs" / "guides" / "report.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|python)\n(.+?)^```", text, re.M | re.S)
    assert [kind for kind, _ in blocks] == ["sh", "sh", "python"]
    pages = []
    for kind, block in blocks:
        if kind == "sh":
            assert cli(*shlex.split(block)[1:]).code == 0
        else:
            exec(compile(block, "report.md", "exec"), {})
        if Path("report.html").exists():
            pages.append(Path("report.html").read_text(encoding="utf-8"))
    assert len(pages) == 2
    assert all("STABLE" in page for page in pages)
