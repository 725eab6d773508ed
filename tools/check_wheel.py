"""Whether what `python -m build` made holds what it must and works where it is installed.

`python tools/check_wheel.py DIST BIN`: DIST holds the sdist and the wheel, BIN the programs of an environment in which the
wheel is installed. Commands run in a temporary folder, so that nothing is found in the checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

IN_WHEEL = (
    "stability/py.typed",
    "stability/cli/glossary.md",
    "stability/report/page.html",
    "stability/io/plan/plan-1.json",
    "stability/io/plan/examples/chat.yaml",
    "stability/sweep/examples/rates.yaml",
    "stability/model/catalog/data/laws.csv",
    "stability/model/catalog/data/workloads.json",
)
NOT_IN_WHEEL = ("tests/", "docs/", "validation/", "benchmarks/", "tools/", ".ci/")
IN_SDIST = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "CITATION.cff",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    ".ci/run",
    "docs/reference/glossary.md",
    "tests/conftest.py",
    "validation/__main__.py",
    "stability/__init__.py",
)

TYPED = """\
import stability as st

plan = st.example_plan()
report = st.analyze(plan.fleet, plan.workload)
reveal_type(report.capacity_per_s)
"""

COMMANDS: tuple[tuple[str, int, str], ...] = (
    ("stability --version", 0, "stability "),
    ("stability check", 0, "verdict                    STABLE"),
    ("stability schema --example long-context", 0, "schema: stability/plan/1"),
    ("stability check plan.yaml --report page.html", 1, "UNSTABLE"),
    ("stability init --yes --out mine.yaml", 0, "wrote mine.yaml"),
    ("stability explain watermark", 0, "share of the KV blocks kept free"),
    ("stability completion bash", 0, "_STABILITY_COMPLETE"),
    ("stability simulate mine.yaml --requests 500", 0, "500 completed of 500"),
    ("python -m stability catalog gpus", 0, "H100-SXM"),
)
"""Command line, exit code, what it prints."""


def main(dist: Path, programs: Path) -> None:
    """Check both archives, then the installed package."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.namelist()
    require("wheel", packed, IN_WHEEL)
    strays = [name for name in packed if name.startswith(NOT_IN_WHEEL)]
    if strays:
        sys.exit(f"{wheel.name} holds {strays[0]}, must hold the package alone. Correct [tool.hatch.build].")
    with tarfile.open(sdist) as tar:
        require("sdist", [name.partition("/")[2] for name in tar.getnames()], IN_SDIST)
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        for line, code, printed in COMMANDS:
            run(programs, line, code, printed, Path(folder), environment)
        if (programs / "mypy").exists():
            Path(folder, "typed.py").write_text(TYPED, encoding="utf-8")
            run(programs, "mypy --strict typed.py", 0, 'float"', Path(folder), environment)
    print(f"{wheel.name} and {sdist.name}: complete; {len(COMMANDS)} commands as they should be")


def require(kind: str, packed: Iterable[str], wanted: Iterable[str]) -> None:
    """Stop unless every wanted file is there."""
    missing = sorted(set(wanted) - set(packed))
    if missing:
        sys.exit(
            f"the {kind} lacks {', '.join(missing)}, must hold them. Correct [tool.hatch.build] in pyproject.toml."
        )


def run(programs: Path, line: str, code: int, printed: str, folder: Path, environment: dict[str, str]) -> None:
    """Stop unless the command exits and prints as it should."""
    name, *arguments = line.split()
    done = subprocess.run(
        [programs / name, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != code or printed not in done.stdout:
        sys.exit(
            f"`{line}` exited with {done.returncode}, must be {code} and print {printed!r}:\n{done.stdout}{done.stderr}"
        )
    if "--example" in arguments:
        (folder / "plan.yaml").write_text(done.stdout, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]).absolute())
