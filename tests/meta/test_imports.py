"""`import stability` stays light: heavy packages load inside the functions that need them."""

from __future__ import annotations

import json
import re
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


def test_public_names_are_re_exports_and_nothing_else(root: Path) -> None:
    lines = (root / "stability" / "__init__.pyi").read_text(encoding="utf-8").splitlines()
    statements = [line for line in lines if line.strip() and not line.startswith("#")]
    assert all(re.fullmatch(r"from \.\S* import (\w+) as \1", line) for line in statements), (
        "stability/__init__.pyi must hold nothing but `from .x import Name as Name`."
    )


def test_a_public_name_of_a_package_can_be_the_first_that_is_used(root: Path) -> None:
    """A package has the attribute whatever has been imported before; a module has it by itself."""
    text = (root / "stability" / "__init__.pyi").read_text(encoding="utf-8")
    names = [
        name
        for source, name in re.findall(r"^from \.(\S*) import (\w+) as", text, re.MULTILINE)
        if (root / "stability" / Path(*source.split("."))).is_dir()
    ]
    assert {"catalog", "lengths", "policies", "uncertainty"} <= set(names)
    code = (
        "import sys, stability\n"
        f"for name in {names!r}:\n"
        "    for module in [m for m in sys.modules if m.split('.')[0] == 'stability']:\n"
        "        del sys.modules[module]\n"
        "    import stability\n"
        "    getattr(stability, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
