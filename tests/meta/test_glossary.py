"""The glossary names what the code names."""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import stability

UNITS = {
    "_s": "s",
    "_per_s": "1/s",
    "_tokens": "tokens",
    "_bytes": "bytes",
    "_bytes_per_s": "bytes/s",
    "_bytes_per_token": "bytes/token",
    "_token_s": "s/token",
    "_context_s": "s/token²",
}


def glossary(root: Path) -> dict[str, str]:
    """Unit of each name in code font in the second column of a table of four."""
    text = (root / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|[^|]*\| `(\w+)` \|[^|]*\| ([^|]+) \|$", text, flags=re.MULTILINE)
    return dict(rows)


def code_names() -> set[str]:
    """Attributes, fields and parameters of the classes reachable from the public names."""
    names: set[str] = set()
    modules = [stability, stability.lengths, stability.iteration, stability.policies]
    values = [value for module in modules for value in (getattr(module, n) for n in dir(module))]
    for value in values:
        if inspect.isclass(value) and value.__module__.startswith("stability"):
            names.update(dir(value))
            if dataclasses.is_dataclass(value):
                names.update(field.name for field in dataclasses.fields(value))
            members = [m for _, m in inspect.getmembers(value, callable) if hasattr(m, "__code__")]
            names.update(name for member in members for name in inspect.signature(member).parameters)
    return names


def test_every_glossary_name_exists_in_code(root: Path) -> None:
    entries = glossary(root)
    assert len(entries) > 25
    missing = sorted(set(entries) - code_names())
    assert not missing, (
        f"docs/reference/glossary.md lists {missing}, which no public name uses. Rename or drop the rows."
    )


def test_units_in_names_agree_with_the_glossary(root: Path) -> None:
    for name, unit in glossary(root).items():
        ending = max((e for e in UNITS if name.endswith(e)), key=len, default=None)
        if ending is not None and name not in ("max_num_batched_tokens",):
            assert unit == UNITS[ending], f"{name} ends in {ending}, but docs/reference/glossary.md gives {unit}."


@pytest.mark.parametrize(
    "ending", ["_s", "_per_s", "_tokens", "_bytes", "_bytes_per_s", "_bytes_per_token", "_per_hour"]
)
def test_every_unit_ending_is_explained(root: Path, ending: str) -> None:
    text = (root / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    assert f"| `{ending}` |" in text
