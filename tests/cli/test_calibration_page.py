"""`docs/guides/calibration.md`: its output is what the command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def test_page_shows_what_happens(root: Path, cli) -> None:
    text = (root / "docs" / "guides" / "calibration.md").read_text(encoding="utf-8")
    outputs = re.findall(r"<!-- output: stability (.+?) -->\n```text\n(.+?)```", text, re.S)
    assert len(outputs) == 1
    for command, pasted in outputs:
        assert cli(*shlex.split(command)).out == pasted
