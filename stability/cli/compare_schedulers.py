"""`stability compare-schedulers`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..errors import check_integer
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option
from .picture import picture_option, save_picture


@click.command(
    "compare-schedulers",
    cls=Command,
    examples=(
        ("stability compare-schedulers", "the bundled example"),
        ("stability compare-schedulers plan.yaml --plot schedulers.png", "a plan of your own, and a picture"),
        ("stability compare-schedulers --policies engine,wait,orca --rate 22", "some schedulers at another rate"),
        ("stability compare-schedulers --requests 5000 --seed 3 --json", "for scripts"),
    ),
    exit_codes="0 compared, 2 bad input, 4 internal error, 130 interrupted.",
)
@click.argument("plan", required=False, type=click.Path())
@rate_option
@click.option(
    "--policies",
    metavar="NAMES",
    help="Schedulers, separated by commas; the first is the baseline. `--policies list` names them all.",
)
@click.option("--requests", type=int, default=1000, show_default=True, help="Requests per replication.")
@click.option("--replications", type=int, default=5, show_default=True, help="Independent runs of each scheduler.")
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the requests, the same for all.")
@picture_option("Draw a panel per metric: .png, .svg or .pdf.")
@json_option
def compare_schedulers(
    plan: str | None,
    rate_per_s: float | None,
    policies: str | None,
    requests: int,
    replications: int,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Published schedulers against the engine's own on the fleet and workload of PLAN, in simulation.

    PLAN is a YAML or TOML file; without it, a bundled example runs. Every scheduler sees the same requests; thresholds and
    budgets are chosen by theory. Prints throughput, latencies, evictions and memory with confidence intervals, differences from the
    first scheduler, and each scheduler's capacity where theory has one. The first run of a scheduler compiles its simulator, which
    takes half a minute or more and is kept for later runs.
    """
    from ..compare.candidates import DEFAULT, NAMES
    from ..compare.schedulers import compare_schedulers as compare

    if policies == "list":
        print_text("\n".join(name + (" (default)" if name in DEFAULT else "") for name in NAMES))
        return 0
    check_integer("--requests", requests, at_least=100)
    check_integer("--replications", replications, at_least=2)
    check_integer("--seed", seed, at_least=0)
    found = load_plan(plan, "schedulers")  # schedulers do not differ on an idle fleet
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    names = DEFAULT if policies is None else tuple(name.strip() for name in policies.split(","))
    result = compare(
        found.fleet,
        workload,
        names,
        requests=requests,
        replications=replications,
        rng=seed,
        progress=sys.stderr.isatty() and not as_json,
    )
    name = EXAMPLE if plan is None else found.path
    if plot is not None:
        save_picture(result.plot(), plot)
    if as_json:
        print_json({"plan": name, **result.to_dict(), "picture": None if plot is None else str(plot)})
    else:
        drawn = "" if plot is None else f"\n\npicture in {plot}"
        print_text(f"{name}\n\n{result.summary()}{drawn}")
    return 0
