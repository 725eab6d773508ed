"""`stability compare-routers`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text

if TYPE_CHECKING:
    from ..policies.routers import Router


@click.command(
    name="compare-routers",
    cls=Command,
    examples=(
        ("stability compare-routers", "the bundled example under every router"),
        ("stability compare-routers plan.yaml", "a plan of your own, also one pool behind a barrier"),
        ("stability compare-routers --router random --router join_shortest_kv", "some routers"),
        (
            "stability compare-routers --router bid_price --router round_robin",
            "with requests turned away by their value",
        ),
        ("stability compare-routers plan.yaml --concurrency 608", "a closed loop: so many requests in the system"),
        ("stability compare-routers --requests 5000 --seed 3 --json", "for scripts"),
    ),
    exit_codes="0 done, 1 no router keeps up, 2 bad input, 4 internal error, 130 interrupted.",
)
@click.argument("plan", required=False, type=click.Path())
@click.option(
    "--router",
    "routers",
    multiple=True,
    metavar="NAME",
    help="A router; repeat for several (default: all but bid_price, which admits by value).",
)
@click.option(
    "--requests", type=click.IntRange(min=1), help="Requests of each run (default: 20000, or the whole trace)."
)
@click.option("--concurrency", type=click.IntRange(min=1), help="Closed loop: requests in the system.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all runs.")
@json_option
def compare_routers(
    plan: str | None,
    routers: tuple[str, ...],
    requests: int | None,
    concurrency: int | None,
    seed: int,
    as_json: bool,
) -> int:
    """Simulate the fleet of PLAN under one router after another, with the same requests.

    Independent replicas route on arrival. Behind a barrier routers that balance choose among the requests that wait.
    """
    from ..sim.routers import compare_routers as compare

    loaded = load_plan(plan)
    chosen: list[str | Router] = []
    for name in routers:
        if name == "bid_price":
            from ..control.admission import admission_control

            chosen.append(admission_control(loaded.fleet, loaded.workload).bid_price_router)
        else:
            chosen.append(name)
    found = compare(loaded.fleet, loaded.workload, routers=chosen, requests=requests, concurrency=concurrency, rng=seed)
    if as_json:
        print_json(found.to_dict())
    else:
        how = "closed loop" if concurrency else f"{loaded.workload.rate_per_s:.4g} requests/s"
        print_text(f"{plan or EXAMPLE}: {found.requests} requests, {how}, seed {seed}\n\n{found.summary()}")
    return int(found.all_overloaded)
