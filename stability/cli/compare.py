"""`stability compare`."""

from __future__ import annotations

import click

from .._result import text_table
from .output import Command, json_option, load_plan, print_json, print_text


@click.command(
    cls=Command,
    examples=(
        ("stability compare today.yaml tomorrow.yaml", "two plans side by side"),
        ("stability compare today.yaml tomorrow.yaml --json", "for scripts"),
    ),
    exit_codes="The worse of the two checks: 1 if either is unstable or misses a target, else 3 if either is undetermined, "
    "else 0; 2 bad input.",
)
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@json_option
def compare(first: str, second: str, as_json: bool) -> int:
    """Check two plans and print them side by side."""
    from ..theory.check import check as check_fleet

    plans, results = [], []
    for path in (first, second):  # one after the other, so that an error is placed in the right file
        plans.append(load_plan(path))
        results.append(check_fleet(plans[-1].fleet, plans[-1].workload, plans[-1].targets))
    codes = [result.exit_code for result in results]
    if as_json:
        both = [{"plan": plan.path, **result.to_dict()} for plan, result in zip(plans, results, strict=True)]
        print_json({"schema": "stability/compare/1", "plans": both})
    else:
        columns = [dict(result.rows()) for result in results]
        names = list(dict.fromkeys(name for column in columns for name in column if name != "because"))
        rows = [(name, *(column.get(name, "-") for column in columns)) for name in names]
        change = results[1].report.capacity_per_s / results[0].report.capacity_per_s - 1
        reasons = [f"{plan.path}: {result.report.reason}" for plan, result in zip(plans, results, strict=True)]
        table = text_table(rows, ("", *(plan.path for plan in plans)))
        print_text(f"{table}\n\ncapacity {100 * change:+.1f} %\n" + "\n".join(reasons))
    return next((code for code in (1, 3) if code in codes), 0)
