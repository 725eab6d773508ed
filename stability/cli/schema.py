"""`stability schema`."""

from __future__ import annotations

import click

from .output import Command, print_json, print_text


@click.command(
    cls=Command,
    examples=(
        ("stability schema > plan-1.json", "for the first line of a plan"),
        ("stability schema --example > plan.yaml", "a plan to start from"),
    ),
    exit_codes="0, always.",
)
@click.option("--example", is_flag=True, help="Print the bundled example plan instead.")
def schema(example: bool) -> int:
    """The JSON Schema of plan files, for editors and CI."""
    from ..io.plan import example_text, json_schema

    if example:
        print_text(example_text().rstrip())
    else:
        print_json(json_schema())
    return 0
