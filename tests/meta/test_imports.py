"""`import stability` stays light: heavy packages load inside the functions that need them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HEAVY = ("scipy.stats", "scipy.optimize", "cvxpy", "sympy", "numba", "matplotlib", "pandas", "pydantic")


def test_import_loads_nothing_heavy(root: Path) -> None:
    code = f"import json, sys, stability; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert loaded == [], f"import stability loads {loaded}. Import them inside the functions that need them."


def test_tests_run_against_the_checkout(root: Path) -> None:
    import stability

    assert Path(stability.__file__).is_relative_to(root)


def test_public_module_only_re_exports(root: Path) -> None:
    lines = (root / "stability" / "__init__.py").read_text(encoding="utf-8").split('"""', 2)[2].splitlines()
    statements = [line for line in lines if line.strip()]
    assert all(line.startswith("from .") and " as " in line for line in statements), (
        "stability/__init__.py must hold nothing but `from .x import Name as Name`."
    )
