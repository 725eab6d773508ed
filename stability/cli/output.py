"""What commands share: options, plan arguments, and printing as text or JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from .._result import Verdict

if TYPE_CHECKING:
    from ..io.plan import Plan

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

COLOURS = {Verdict.STABLE: "green", Verdict.UNSTABLE: "red", Verdict.UNDETERMINED: "yellow"}


def load_plan(path: str | None) -> Plan:
    """The plan at `path`, or the bundled example without one."""
    from ..io.plan import example_plan, read_plan

    return example_plan() if path is None else read_plan(path)


def print_json(value: dict[str, Any]) -> None:
    """JSON on standard output, nothing else."""
    click.echo(json.dumps(value, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Text with verdicts in colour on a terminal; click strips the colour elsewhere."""
    for verdict, colour in COLOURS.items():
        styled = click.style(verdict.name, fg=colour, bold=True)
        text = re.sub(rf"\b{verdict.name}\b", styled, text)
    click.echo(text)
