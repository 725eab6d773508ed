"""The files of the project: documented modules, small files, no paths of one machine, no leftovers."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 500
SKIPPED = {".git", ".venv", ".cache", "__pycache__", "build", "dist", "_build"}
LOCAL_PATH = re.compile(r"(?<![\w.:/*<>-])/(?:home|root|work|Users|mnt|private|var/folders)/\w|(?<!\w)[A-Z]:\\\\?Users")
LEFTOVER = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|^(?:<{7}|>{7}) |\bbreakpoint\(\)|co-authored-by", re.I | re.M)


def project_files() -> list[Path]:
    """Files under version control, or about to be; every file where git is absent."""
    try:
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("\0")
        found = [ROOT / name for name in listing if name]
    except (OSError, subprocess.CalledProcessError):
        found = [p for p in ROOT.rglob("*") if not SKIPPED & set(p.relative_to(ROOT).parts)]
    return sorted(p for p in found if p.is_file())


def text_of(path: Path) -> str | None:
    data = path.read_bytes()
    return None if b"\0" in data else data.decode("utf-8", errors="replace")


FILES = project_files()
PYTHON = [str(p.relative_to(ROOT)) for p in FILES if p.suffix == ".py"]
PACKAGE = [name for name in PYTHON if name.startswith("stability/")]


@pytest.mark.parametrize("name", PYTHON)
def test_python_files_are_small(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines < MOST_LINES, f"{name} has {lines} lines, must have < {MOST_LINES}. Split it by subject."


@pytest.mark.parametrize("name", PACKAGE)
def test_package_modules_are_documented(name: str) -> None:
    code = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    assert ast.get_docstring(code), f"{name} has no docstring. Open it with what the module holds."


@pytest.mark.parametrize("name", PACKAGE)
def test_package_reads_no_folder_of_the_checkout(name: str) -> None:
    code = ast.parse((ROOT / name).read_text(encoding="utf-8"))
    strings = [n.value for n in ast.walk(code) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    assert not [s for s in strings if "shared/data" in s], f"{name} names shared/data. Ship facts, not the folder."


def test_no_local_paths_or_leftovers() -> None:
    found = []
    for path in FILES:
        text = text_of(path)
        if text is None or path == Path(__file__):
            continue
        for pattern, what in ((LOCAL_PATH, "path of one machine"), (LEFTOVER, "leftover")):
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.start()) + 1
                found.append(f"{path.relative_to(ROOT)}:{line}: {what} {match.group()!r}")
    assert not found, "Remove these before they are committed:\n" + "\n".join(found)


def test_patterns_catch_what_they_should() -> None:
    assert LOCAL_PATH.search("see /home/someone/data")
    assert not LOCAL_PATH.search("https://example.org/home/page")
    assert LEFTOVER.search("# TODO later")


def test_readme_commands_are_what_ci_runs() -> None:
    readme, ci = (ROOT / "README.md").read_text(encoding="utf-8"), (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for name in ("check", "test"):
        block = re.search(rf"^<!-- ci:{name} -->\n```sh\n(.+?)\n```$", readme, flags=re.MULTILINE | re.DOTALL)
        assert block, f"README.md has no sh block after <!-- ci:{name} -->."
        assert f"readme_block {name}" in ci
        assert "\n" not in block[1], f"The README's {name} command must be one line."


def generated(target: Path) -> bool:
    """Whether a build of the documentation makes the page, from a notebook or from the code."""
    if target.parent == ROOT / "docs" / "notebooks":
        return (ROOT / "notebooks" / target.name).exists()
    return target in (ROOT / "docs" / "reference" / "cli.md", ROOT / "docs" / "reference" / "schema.md")


def test_documentation_links_resolve() -> None:
    broken = []
    for path in FILES:
        if path.suffix != ".md":
            continue
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            place = (path.parent / target).resolve()
            if "://" not in target and not place.exists() and not generated(place):
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert not broken, "Links lead nowhere:\n" + "\n".join(broken)
