"""Every notebook runs to its end, assertions included, as a notebook in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.py"))

EXECUTE = """
import sys
import jupytext
from nbclient import NotebookClient

notebook = jupytext.read(sys.argv[1])
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
pictures = sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", []))
print(pictures)
"""


def test_the_notebooks_are_found() -> None:
    assert len(NOTEBOOKS) >= 7


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name: str, tmp_path: Path) -> None:
    pytest.importorskip("jupytext")
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    path = ROOT / "notebooks" / name
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JUPYTER_PLATFORM_DIRS": "1", "IPYTHONDIR": str(tmp_path)}
    environment.pop("MPLBACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"notebooks/{name} fails:\n{done.stderr[-4000:]}"
    text = path.read_text(encoding="utf-8")
    wanted = len(re.findall(r"^_ = .+\.plot\(\)$", text, re.M)) + text.count("plt.subplots")
    assert int(done.stdout.split()[-1]) == wanted, f"notebooks/{name} shows too few pictures, or too many"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_ends_in_assertions(name: str) -> None:
    text = (ROOT / "notebooks" / name).read_text(encoding="utf-8")
    last = text.rstrip().rpartition("# %%")[2]
    assert "assert " in last, f"notebooks/{name} must end in a cell of assertions."
    assert text.startswith("# ---\n# jupyter:"), f"notebooks/{name} has no jupytext header."
