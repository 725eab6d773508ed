"""Pages made from the code at the start of a build: the command line's help, the plan schema, the notebooks.

They are written into folders that version control ignores.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from sphinx.application import Sphinx
from sphinx.config import Config

from stability.cli.main import COMMANDS, cli
from stability.io.plan import json_schema

DOCS = Path(__file__).resolve().parents[1]


def cli_page() -> str:
    """Every command's `--help`, as users see it."""
    root = click.Context(cli, info_name="stability")
    parts = ["# Command line", "", "Each command's `--help`. Exit codes stand at the end of each.", ""]
    parts += ["| command | answers |", "|---|---|"]
    parts += [f"| [`{name}`](#stability-{name}) | {line} |" for name, line in COMMANDS.items()]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        with click.Context(command, info_name=name, parent=root, max_content_width=100, terminal_width=100) as context:
            text = command.get_help(context)
            parts += ["", f"(stability-{name})=", "", f"## stability {name}", "", "```text", text.rstrip(), "```"]
            for inner in getattr(command, "commands", {}).values():
                with click.Context(inner, info_name=inner.name, parent=context, terminal_width=100) as nested:
                    parts += ["", f"### stability {name} {inner.name}", "", "```text", inner.get_help(nested), "```"]
    return "\n".join(parts) + "\n"


def schema_page() -> str:
    """The keys of plan files, section by section, from the JSON Schema that checks them."""
    schema = json_schema()
    parts = ["# Plan schema", "", "Every key of `stability/plan/1`, from the schema that checks plans"]
    parts += ["(`stability schema` prints it for editors). [Plan files](plans.md) explains them.", ""]
    parts += ["## Plan", "", *_keys(schema)]
    for name, section in sorted(schema["$defs"].items()):
        parts += [
            "",
            f"(plan-{_short(name)})=",
            "",
            f"## {_short(name)}",
            "",
            _cell(section.get("description", "")),
            "",
        ]
        parts += _keys(section) if section.get("properties") else [f"{_type(section)}."]
    return "\n".join(parts) + "\n"


def _keys(section: dict[str, Any]) -> list[str]:
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    required = set(section.get("required", ()))
    for key, entry in section["properties"].items():
        value = entry.get("default")
        default = "required" if key in required else "" if value in (None, [], {}) or isinstance(value, dict) else value
        rows.append(f"| `{key}` | {_type(entry)} | {default} | {_cell(entry.get('description', ''))} |")
    return rows


def _type(entry: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "$ref" in entry:
        name = _short(entry["$ref"].rpartition("/")[2])
        return f"[{name}](#plan-{name})"
    if "const" in entry:
        return f"`{entry['const']}`"
    if "enum" in entry:
        return ", ".join(f"`{item}`" for item in entry["enum"])
    for group in ("anyOf", "oneOf"):
        if group in entry:
            kinds = [_type(item) for item in entry[group] if item.get("type") != "null"]
            return " or ".join(dict.fromkeys(kinds))
    kind = entry.get("type", "any")
    if kind == "array":
        return f"list of {_type(entry.get('items', {}))}"
    if kind == "string" and entry.get("examples"):
        return f"`{entry['examples'][0]}`"
    low, high = entry.get("minimum", entry.get("exclusiveMinimum")), entry.get("maximum", entry.get("exclusiveMaximum"))
    sign = ">=" if "minimum" in entry else ">"
    text = kind if low is None else f"{kind} {sign} {low:g}"
    below = "<=" if "maximum" in entry else "<"
    return text if high is None or high >= 1e9 else f"{text}, {below} {high:g}"


def _short(name: str) -> str:
    plain = name.removesuffix("Section")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", plain).lower()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def included(name: str) -> str:
    """A page of the checkout's root with its links as they lead from `docs`."""
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    text = text.replace("](docs/", "](").replace("](LICENSE)", "](path:../LICENSE)")
    for page in ("CONTRIBUTING.md", "CHANGELOG.md"):
        text = text.replace(f"]({page})", f"]({page.lower()})")
    return text.replace("](README.md", "](index.md")


def write_pages(app: Sphinx, config: Config) -> None:  # noqa: ARG001
    """Write what is made from the code, where it changed."""
    _write(DOCS / "reference" / "cli.md", cli_page())
    _write(DOCS / "reference" / "schema.md", schema_page())
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        _write(DOCS / "_generated" / name, included(name))
    target = DOCS / "notebooks"
    for script in sorted((DOCS.parent / "notebooks").glob("[0-9]*.py")):
        _write(target / script.name, script.read_text(encoding="utf-8"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the pages when a build starts."""
    app.connect("config-inited", write_pages)
    return {"parallel_read_safe": True}
