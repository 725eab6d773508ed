"""`stability schema`."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from .._result import text_table
from ..errors import InputError
from .output import Command, json_option, print_json, print_text


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    from ..io.plan import examples

    return [CompletionItem(name, help=text) for name, text in examples().items() if name.startswith(incomplete)]


@click.command(
    cls=Command,
    examples=(
        ("stability schema > plan-1.json", "for the first line of a plan"),
        ("stability schema --list", "the bundled example plans"),
        ("stability schema --example > plan.yaml", "a plan to start from"),
        ("stability schema --example reasoning > plan.yaml", "another one"),
    ),
    exit_codes="0, or 2 for an unknown example.",
)
@click.option(
    "--example",
    is_flag=False,
    flag_value="chat",
    metavar="[NAME]",
    shell_complete=_complete,
    help="Print a bundled example plan instead; chat without a NAME.",
)
@click.option("--list", "as_list", is_flag=True, help="Name the bundled example plans instead.")
@json_option
def schema(example: str | None, as_list: bool, as_json: bool) -> int:
    """The JSON Schema of plan files, for editors and CI; or an example plan."""
    from ..io.plan import example_text, examples, json_schema

    if as_list and example is not None:
        raise InputError("--list and --example are both given, must be one of them. Leave one out.")
    if as_list and as_json:
        print_json({"schema": "stability/examples/1", "examples": examples()})
    elif as_list:
        print_text(text_table(list(examples().items()), ("example", "what it shows")))
    elif example is not None and as_json:
        print_json({"schema": "stability/example/1", "name": example, "text": example_text(example)})
    elif example is not None:
        print_text(example_text(example).rstrip())
    else:
        print_json(json_schema())
    return 0
