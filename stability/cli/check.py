"""`stability check`."""

from __future__ import annotations

import click

from .output import json_option, load_plan, print_json, print_text


@click.command(
    epilog="Exit code: 0 stable and every target met, 1 unstable or a target missed, 2 bad input, 3 undetermined."
)
@click.argument("plan", required=False, type=click.Path())
@click.option("--rate", "rate_per_s", type=float, help="Total arrival rate, 1/s, in place of the plan's.")
@json_option
def check(plan: str | None, rate_per_s: float | None, as_json: bool) -> int:
    r"""Is the fleet of PLAN stable, by how much, what binds, and what changes the answer?

    \b
    Examples:
      stability check                      the bundled example
      stability check plan.yaml --rate 60
      stability check plan.yaml --json
    """
    from ..theory.check import check as check_fleet

    found = load_plan(plan)
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    result = check_fleet(found.fleet, workload, found.targets)
    if as_json:
        print_json({"plan": found.path, **result.to_dict()})
    else:
        notes = [f"- {note}" for note in result.report.assumptions]
        for pool in found.fleet.pools:
            notes += [f"- {pool.name}: {note}" for note in pool.replica.notes]
        print_text(f"{found.path}\n\n{result.summary()}\n\nassumed\n" + "\n".join(dict.fromkeys(notes)))
    return result.exit_code
