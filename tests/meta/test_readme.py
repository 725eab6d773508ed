"""The README's Python runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


def test_python_blocks_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.+?)^```", (root / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "stable" in capsys.readouterr().out.casefold()
