"""What commands share: their help, plan arguments, and printing as text or JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from .._result import Verdict
from ..errors import check_number
from ..units import rate as parse_rate

if TYPE_CHECKING:
    from ..io.plan import Plan

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")

MOST_PER_S = 1e9
"""Largest rate that is no slip of the keyboard, 1/s."""


def _rate(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    if value is None:
        return None
    return check_number("--rate", parse_rate("--rate", value), above=0, at_most=MOST_PER_S)


rate_option = click.option(
    "--rate",
    "rate_per_s",
    callback=_rate,
    metavar="RATE",
    help="Total arrival rate in place of the plan's: 60 (per second), 600/min.",
)

COLOURS = {Verdict.STABLE: "green", Verdict.UNSTABLE: "red", Verdict.UNDETERMINED: "yellow"}

EXAMPLE = "bundled example"
"""What the plan that runs without a plan is called."""


class Command(click.Command):
    """A command whose help ends with examples and exit codes.

    Parameters
    ----------
    examples : tuple of (str, str)
        Command lines and what they show.
    exit_codes : str
        What its exit codes mean.
    """

    def __init__(self, *args: Any, examples: tuple[tuple[str, str], ...], exit_codes: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples, self.exit_codes = examples, exit_codes

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Examples"):
            formatter.write_dl(self.examples, col_max=50)
        with formatter.section("Exit code"):
            formatter.write_text(self.exit_codes)


def load_plan(path: str | None) -> Plan:
    """The plan at `path`, or the bundled example without one."""
    from ..io.plan import example_plan, read_plan

    return example_plan() if path is None else read_plan(path)


def print_json(value: dict[str, Any]) -> None:
    """JSON on standard output, nothing else."""
    _print(json.dumps(value, indent=2, allow_nan=False))


def print_text(text: str) -> None:
    """Text with verdicts in colour on a terminal; click strips the colour elsewhere."""
    for verdict, colour in COLOURS.items():
        styled = click.style(verdict.name, fg=colour, bold=True)
        text = re.sub(rf"\b{verdict.name}\b", styled, text)
    _print(text)


def _print(text: str) -> None:
    """Text on standard output; a reader that closes it early, like `head`, does not change the exit code."""
    try:
        click.echo(text)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
