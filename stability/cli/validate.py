"""`stability validate`."""

from __future__ import annotations

import sys

import click

from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option


@click.command(
    cls=Command,
    examples=(
        ("stability validate", "the bundled example"),
        ("stability validate plan.yaml --requests 100000", "a plan of your own, more precisely"),
        ("stability validate --rate 150 --seed 3", "the example nearer its capacity, on other requests"),
        ("stability validate --json", "for scripts"),
    ),
    exit_codes=(
        "0 theory and simulation agree, 1 some prediction is off by more than is allowed, 2 bad input, 4 internal error, "
        "130 interrupted."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@rate_option
@click.option(
    "--requests",
    type=click.IntRange(min=1000),
    metavar="N",
    help="Requests at the plan's rate (default: 20000, or the whole trace).",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all runs.")
@json_option
def validate(plan: str | None, rate_per_s: float | None, requests: int | None, seed: int, as_json: bool) -> int:
    """Does a simulation of PLAN confirm what theory says about it?

    Compares the capacity, the verdict, and below capacity the latency between tokens, the KV occupancy and the time to
    first token. A prediction agrees if it is off by no more than its tolerance, that of the package's own validation, and
    the half-width of the measurement's 95 % interval together.
    """
    from ..compare.validate import validate as run

    found = load_plan(plan)
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    result = run(found.fleet, workload, requests=requests, rng=seed, progress=sys.stderr.isatty())
    name = EXAMPLE if plan is None else found.path
    if as_json:
        print_json({"plan": name, **result.to_dict(), "agrees": result.agrees})
    else:
        print_text(f"{name}\n\n{result.summary()}")
    return 0 if result.agrees else 1
