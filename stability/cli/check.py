"""`stability check`."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import InputError
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option
from .page import report_option, write_page


@click.command(
    cls=Command,
    examples=(
        ("stability check", "the bundled example"),
        ("stability check plan.yaml", "a plan of your own"),
        ("stability check --rate 200", "the example at another rate"),
        ("stability check --report chat.html", "also as a page with pictures, to open in a browser"),
        ("stability check --json", "for scripts"),
    ),
    exit_codes=(
        "0 stable and every target met, 1 unstable or a target missed, 2 bad input, 3 undetermined, 4 internal error, "
        "130 interrupted."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@rate_option
@report_option
@json_option
def check(plan: str | None, rate_per_s: float | None, report: Path | None, as_json: bool) -> int:
    """Is the fleet of PLAN stable, by how much, what binds, and what changes the answer?

    PLAN is a YAML or TOML file; `stability schema` prints its JSON Schema. Without it, the bundled example runs.
    """
    from ..theory.check import check as check_fleet
    from .stages import check_stages, has_stages

    found = load_plan(plan)
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    name = EXAMPLE if plan is None else found.path
    if has_stages(found):
        if report is not None:
            raise InputError(f"{name} has prefill or decode pools, must have mixed ones for --report. Leave it out.")
        return check_stages(found, workload, name, as_json)
    result = check_fleet(found.fleet, workload, found.targets)
    lengths = [
        f"{item.name}: mean prompt {item.lengths.prompt_mean_tokens:.0f}, mean output "
        f"{item.lengths.output_mean_tokens:.0f} tokens"
        for item in workload.classes
    ]
    notes = [
        *lengths,
        *found.notes,
        *(f"{pool.name}: {note}" for pool in found.fleet.pools for note in pool.replica.notes),
    ]
    if report is not None:
        write_page(report, plan, found, workload, result, notes)
    if as_json:
        print_json({"plan": name, **result.to_dict(), "notes": notes})
    else:
        assumed = "\n".join(f"- {note}" for note in (*result.report.assumptions, *notes))
        written = "" if report is None else f"\n\nreport in {report}"
        print_text(f"{name}\n\n{result.summary()}\n\nassumed\n{assumed}{written}")
    return result.exit_code
