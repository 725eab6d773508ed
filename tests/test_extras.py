"""Optional libraries that are missing: one sentence with the command that installs them."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import stability as st
from stability._extras import EXTRAS, needs

WITHOUT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == {library!r} else find(name, *a)
import stability as st
plan = st.example_plan()
report = st.analyze(plan.fleet, plan.workload)
try:
    report.{method}()
except st.MissingLibraryError as error:
    assert isinstance(error, ImportError)
    print(error)
"""


@pytest.mark.parametrize(
    ("library", "method", "extra"), [("pandas", "to_frame", "frames"), ("matplotlib", "plot", "plots")]
)
def test_results_say_what_to_install(root: Path, library: str, method: str, extra: str) -> None:
    code = WITHOUT.format(library=library, method=method)
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == (
        f"{library} is not installed, must be for this. Install it: pip install 'llm-stability[{extra}]'.\n"
    )


def test_extras_exist(root: Path) -> None:
    import tomllib

    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for library, extra in EXTRAS.items():
        assert any(line.startswith(library) for line in project["optional-dependencies"][extra]), library


def test_what_is_there_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    needs("pandas", "matplotlib")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None)
    with pytest.raises(st.MissingLibraryError) as caught:
        needs("pandas")
    assert caught.value.name == "pandas"


def test_no_module_imports_an_optional_library_unasked(root: Path) -> None:
    """Every `import pandas` that runs follows `needs("pandas")`."""
    for path in (root / "stability").rglob("*.py"):
        lines = path.read_text(encoding="utf-8").splitlines()
        typing = False
        for before, line in zip(["", *lines], lines, strict=False):
            typing = line.startswith("if TYPE_CHECKING") or (typing and (not line or line.startswith(" ")))
            if not typing and line.strip().startswith(("import pandas", "from pandas")):
                assert before.strip() == 'needs("pandas")', f"{path.relative_to(root)}: {line.strip()}"
