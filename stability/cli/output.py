"""What commands share: their help, plan arguments, and printing as text or JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import click

from .._result import Verdict
from ..errors import InputError, NotModelledError, check_number
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

LOADED = "stability.plan"
"""Under which name a command's context keeps the plan that it loaded last."""

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

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; an error about a class or a pool of a plan is told with its line."""
        try:
            return super().invoke(ctx)
        except (InputError, NotModelledError) as error:
            place = _place(str(error), ctx.meta.get(LOADED))
            if place is None:
                raise
            raise type(error)(f"{place}: {error}") from error

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Examples"):
            formatter.write_dl(self.examples, col_max=50)
        with formatter.section("Exit code"):
            formatter.write_text(self.exit_codes)


def load_plan(path: str | None, example: str = "chat") -> Plan:
    """The plan at `path`, or a bundled example without one."""
    from ..io.plan import example_plan, read_plan

    found = example_plan(example) if path is None else read_plan(path)
    if path is not None:
        click.get_current_context().meta[LOADED] = found
    return found


def _place(message: str, plan: Plan | None) -> str | None:
    """Where the first class or pool that an error names stands in the plan that was loaded last."""
    if plan is None or message.startswith(plan.path):
        return None
    named = {message.find(f"{kind} {name!r}"): place for (kind, name), place in plan.places.items()}
    found = [at for at in named if at >= 0]
    return named[min(found)] if found else None


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
