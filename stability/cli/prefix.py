"""`stability prefix`."""

from __future__ import annotations

import click

from ..errors import InputError
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option


@click.command(
    cls=Command,
    examples=(
        ("stability prefix", "a bundled example: agentic sessions on four H100s"),
        ("stability prefix plan.yaml", "a plan of your own, with sessions and prefix_caching"),
        ("stability prefix --router random", "without a router by prefix"),
        ("stability prefix --rate 60 --json", "at another rate, for scripts"),
    ),
    exit_codes=(
        "0 one equilibrium and no backlog, 1 a backlog would stay or is certain, 2 bad input, 4 internal error, 130 interrupted."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@click.option("--router", default="prefix_affinity", show_default=True, metavar="NAME", help="The router.")
@rate_option
@json_option
def prefix(plan: str | None, router: str, rate_per_s: float | None, as_json: bool) -> int:
    """What do the sessions of PLAN find in the prefix cache, and can a backlog take the cache for good?

    Capacities with a warm and a cold cache, and every equilibrium between running requests and cached prefixes.
    """
    from ..theory.prefix_analysis import prefix_equilibria

    found = load_plan(plan, "sessions")
    if not found.workload.has_sessions:
        first = found.places["class", found.workload.classes[0].name]
        raise InputError(
            f"{first}: the workload has no `sessions`, must have some for prefix equilibria. "
            "Add them; `stability schema --example sessions` prints a plan that has some."
        )
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    report = prefix_equilibria(found.fleet, workload, router=router)
    name = EXAMPLE if plan is None else found.path
    if as_json:
        print_json({"plan": name, **report.to_dict()})
    else:
        print_text(f"{name}\n\n{report.summary()}")
    return int(any(pool.metastable or pool.at is None for pool in report.pools))
