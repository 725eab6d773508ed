"""`stability size`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError, check_integer, check_number
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text

if TYPE_CHECKING:
    from ..control.front import CostFront
    from ..control.sized import SizedFleet
    from ..io.plan import Plan

HEADROOMS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Targets of `--front headroom`."""

STEPS = (4.0, 3.0, 2.0, 1.5, 1.0, 0.75, 0.5)
"""Targets of `--front itl`, as multiples of the plan's."""


@click.command(
    cls=Command,
    examples=(
        ("stability size", "the bundled example: chat and code through a day"),
        ("stability size plan.yaml", "a plan of your own, with a price_per_hour for each pool or candidate"),
        ("stability size plan.yaml --spares 2", "stable with any two replicas lost"),
        ("stability size plan.yaml --switching-cost 0.5", "a fleet that follows the schedule"),
        ("stability size plan.yaml --front headroom", "what headroom costs"),
        ("stability size --plot fleet.png", "as a picture"),
        ("stability size --example > plan.yaml", "a plan to start from"),
    ),
    exit_codes="0 found and confirmed by the analysis, 1 there is no such fleet, 2 bad input, 3 found but not confirmed, "
    "4 internal error, 130 interrupted.",
)
@click.argument("plan", required=False, type=click.Path())
@click.option("--spares", type=int, metavar="K", help="Replicas that may fail at a time, in place of the plan's.")
@click.option(
    "--switching-cost",
    type=float,
    metavar="PRICE",
    help="Of starting a replica: the fleet may change with the schedule.",
)
@click.option("--front", type=click.Choice(("headroom", "itl")), help="The cheapest fleet for several targets instead.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Also draw the answer to a picture file.")
@click.option("--time-limit", type=float, default=20.0, metavar="S", help="For branch and bound, s.")
@click.option("--example", is_flag=True, help="Print the bundled example plan instead.")
@json_option
def size(
    plan: str | None,
    spares: int | None,
    switching_cost: float | None,
    front: str | None,
    plot: str | None,
    time_limit: float,
    example: bool,
    as_json: bool,
) -> int:
    """The cheapest fleet that serves PLAN's workload within its targets.

    Chooses from the `sizing` section's candidates, or from the kinds of replica in PLAN's fleet; each states its
    `price_per_hour`. Without PLAN, the bundled example runs.
    """
    from ..io.plan import example_text

    if example and as_json:
        print_json({"schema": "stability/example/1", "name": "sizing", "text": example_text("sizing")})
        return 0
    if example:
        print_text(example_text("sizing").rstrip())
        return 0
    found = load_plan(plan, "sizing")
    if spares is not None:
        found = replace(found, sizing=replace(found.sizing, spares=check_integer("--spares", spares, at_least=0)))
    if switching_cost is not None:
        cost = check_number("--switching-cost", switching_cost, at_least=0)
        found = replace(found, sizing=replace(found.sizing, switching_cost=cost))
    limit = check_number("--time-limit", time_limit, above=0)
    name = EXAMPLE if plan is None else found.path
    answer = _sized(found, limit) if front is None else _front(found, front)
    if plot is not None:
        _draw(answer, plot)
    if as_json:
        print_json({"plan": name, **answer.to_dict(), "notes": list(found.notes)})
    else:
        print_text(f"{name}\n\n{answer.summary()}{_assumed(answer, found)}")
    fleets = answer.fleets if hasattr(answer, "fleets") else (answer,)
    codes = [fleet.exit_code for fleet in fleets]
    return min(codes) if front is not None else codes[0]


def _sized(plan: Plan, time_limit_s: float) -> SizedFleet:
    from ..control.sizing import cheapest_fleet

    sizing = plan.sizing
    return cheapest_fleet(
        sizing.candidates or plan.fleet,
        plan.workload,
        targets=plan.targets,
        spares=sizing.spares,
        switching_cost=sizing.switching_cost,
        time_limit_s=time_limit_s,
    )


def _front(plan: Plan, against: str) -> CostFront:
    from ..control.front import cost_front

    sizing, targets = plan.sizing, plan.targets
    if against == "itl" and targets.itl_s is None:
        raise InputError(
            "targets.itl_ms is missing, must be given for --front itl, which varies it. Add it to the plan."
        )
    values = HEADROOMS if against == "headroom" else [(targets.itl_s or 1.0) * step for step in STEPS]
    return cost_front(
        sizing.candidates or plan.fleet,
        plan.workload,
        against="headroom" if against == "headroom" else "itl_s",
        values=values,
        targets=targets,
        spares=sizing.spares,
        switching_cost=sizing.switching_cost,
    )


def _draw(answer: SizedFleet | CostFront, path: str) -> None:
    """Draw the answer if there is one to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    answer.plot(figure.subplots())
    try:
        figure.savefig(Path(path), dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--plot = {path!r} cannot be written ({error}), must be a picture file such as fleet.png."
        ) from None


def _assumed(answer: SizedFleet | CostFront, plan: Plan) -> str:
    fleets = answer.fleets if hasattr(answer, "fleets") else (answer,)
    notes = [note for fleet in fleets for note in fleet.assumptions]
    notes += [f"{c.name}: {note}" for c in fleets[0].candidates for note in c.replica.notes]
    return "\n\nassumed\n" + "\n".join(f"- {note}" for note in dict.fromkeys([*notes, *plan.notes]))
