"""CONTRIBUTING names the folders that are there, CITATION.cff the version that is built, packages carry their data."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml


@pytest.fixture(scope="module")
def project(root: Path) -> dict:
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))


def packages(root: Path) -> set[str]:
    return {path.parent.name for path in (root / "stability").glob("*/__init__.py")}


def test_contributing_names_every_package_and_no_other(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("| folder |")[2].partition("\n\n")[0]
    assert set(re.findall(r"`stability/(\w+)`", table)) == packages(root)


def test_contributing_names_the_other_folders(root: Path) -> None:
    text = (root / "CONTRIBUTING.md").read_text(encoding="utf-8")
    folders = {path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))}
    for name in folders - {"stability", "build", "dist", "validation-report"}:
        assert re.search(rf"`{name}[`/]", text), f"CONTRIBUTING.md does not say what {name}/ is for."


def test_layers_are_the_packages(root: Path, project: dict) -> None:
    layers = " ".join(project["tool"]["importlinter"]["contracts"][0]["layers"])
    assert packages(root) <= set(re.findall(r"\w+", layers))


def test_the_citation_is_of_this_version(root: Path, project: dict) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["project"]["version"]
    assert citation["license"] == project["project"]["license"]
    assert citation["title"].startswith(project["project"]["name"])
    assert citation["authors"] == [{"name": "The llm-stability developers"}]
    assert {"message", "type", "abstract"} <= set(citation)


def test_archives_hold_what_they_must(root: Path, project: dict) -> None:
    """What `tools/check_wheel.py` asks of built archives exists here, so that the list does not go stale."""
    from tools.check_wheel import IN_SDIST, IN_WHEEL

    targets = project["tool"]["hatch"]["build"]["targets"]
    forced = {target: source for source, target in targets["wheel"]["force-include"].items()}
    for name in (*IN_SDIST, *IN_WHEEL):
        assert (root / forced.get(name, name)).is_file(), name
    included = targets["sdist"]["include"]
    for name in IN_SDIST:
        if name != "pyproject.toml":
            assert any(f"/{name}".startswith(entry) for entry in included), name


def test_the_package_is_typed(root: Path) -> None:
    assert (root / "stability" / "py.typed").is_file()
