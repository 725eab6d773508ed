"""`stability simulate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option
from .picture import picture_option, save_picture

SAMPLES = 400
"""Points of a picture over time."""


@click.command(
    cls=Command,
    examples=(
        ("stability simulate", "the bundled example"),
        ("stability simulate plan.yaml --requests 100000 --seed 3", "a plan of your own, longer, other requests"),
        ("stability simulate --rate 250 --requests 5000", "more than the example can serve"),
        ("stability simulate --saturated", "everything waits at the start: measures capacity"),
        ("stability simulate --concurrency 64", "a closed loop"),
        ("stability simulate plan.yaml --plot run.png", "with requests, KV cache and step time over time"),
        ("stability simulate --json", "for scripts"),
    ),
    exit_codes=(
        "0 done, 1 the queue grew as at no load below 1, 2 bad input, 4 internal error, 130 interrupted (what was done "
        "by then is printed)."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@rate_option
@click.option(
    "--requests", type=click.IntRange(min=1), metavar="N", help="Requests (default: 20000, or the whole trace)."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all randomness.")
@click.option(
    "--router", default="join_shortest_kv", show_default=True, metavar="NAME", help="How arrivals are spread."
)
@click.option("--saturated", is_flag=True, help="All requests wait at time 0.")
@click.option("--concurrency", type=click.IntRange(min=1), metavar="N", help="Closed loop: requests in the system.")
@picture_option("Draw the run over time: .png, .svg or .pdf.")
@json_option
def simulate(
    plan: str | None,
    rate_per_s: float | None,
    requests: int | None,
    seed: int,
    router: str,
    saturated: bool,
    concurrency: int | None,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Simulate the fleet of PLAN under its workload, token by token.

    PLAN is a YAML or TOML file; without it, the bundled example runs. One seed gives one run, to the bit.
    """
    from ..model.arrivals import Replay
    from ..sim.engine import simulate as run

    found = load_plan(plan)
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    arrivals = workload.arrivals
    count = requests or (len(arrivals.arrival_s) if isinstance(arrivals, Replay) else 20_000)
    result = run(
        found.fleet,
        workload,
        requests=count,
        router=router,
        rng=seed,
        saturated=saturated,
        concurrency=concurrency,
        resolution_s=None if plot is None else count / workload.rate_per_s / SAMPLES,
        progress=sys.stderr.isatty(),
    )
    name = EXAMPLE if plan is None else found.path
    if plot is not None:
        save_picture(result.plot(), plot)
    if as_json:
        print_json({"plan": name, **result.to_dict()})
    else:
        drawn = "" if plot is None else f"\n\npicture in {plot}"
        print_text(f"{name}\n\n{result.summary()}{drawn}")
    if not result.complete:
        return 130
    return 1 if result.overloaded else 0
