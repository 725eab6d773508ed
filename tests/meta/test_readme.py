"""The README's Python runs as printed, its outputs are what the commands print, and every plan in the documentation is one."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from stability.cli.main import run
from stability.io.plan import plan_from_text


def test_python_blocks_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.+?)^```", (root / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert "stable" in capsys.readouterr().out.casefold()


def test_outputs_are_what_the_commands_print(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    outputs = re.findall(r"^<!-- output: stability (.+?) -->\n```\w+\n(.+?)^```", readme, re.M | re.S)
    assert len(outputs) == readme.count("<!-- output: ") == 2
    for command, pasted in outputs:
        assert run(shlex.split(command)) == 0
        assert pasted == capsys.readouterr().out, f"Paste the output of `stability {command}` into README.md."


@pytest.mark.parametrize("name", ["README.md", "docs/reference/plans.md", "docs/guides/sizing.md"])
def test_plans_are_plans(root: Path, name: str) -> None:
    plans = re.findall(r"^```yaml\n(.+?)^```", (root / name).read_text(encoding="utf-8"), re.M | re.S)
    assert plans
    for text in plans:
        assert plan_from_text(text).workload.rate_per_s > 0
