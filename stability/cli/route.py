"""`stability route`."""

from __future__ import annotations

import click

from ..errors import check_number
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text
from .region import rows_option, save


@click.command(
    cls=Command,
    examples=(
        ("stability route", "the bundled example"),
        ("stability route plan.yaml", "least greatest load within the plan's targets"),
        ("stability route plan.yaml --objective itl", "least worst inter-token latency"),
        ("stability route plan.yaml --spread 20%", "for rates up to 20 % higher"),
        ("stability route plan.yaml --admission", "what to turn away in overload, by the classes' values"),
        ("stability route --json", "for scripts"),
    ),
    exit_codes=(
        "0 a split keeps every row and target (with --admission: all is admitted), 1 none does, 2 bad input, "
        "4 internal error, 130 interrupted."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@click.option(
    "--objective",
    type=click.Choice(("slack", "itl", "congestion", "waiting", "cost")),
    default="slack",
    help="What to minimise: greatest load, worst ITL, congestion, requests waiting, price of the replicas in use.",
)
@rows_option
@click.option("--spread", metavar="SHARE", help="Rates may be higher by this share, all at once: 0.2 or 20%.")
@click.option("--admission", is_flag=True, help="Show bid prices and admission rules instead of a split.")
@click.option("--plot", type=click.Path(), metavar="FILE", help="Draw the split into a file, route.png say.")
@json_option
def route(
    plan: str | None, objective: str, rows: str, spread: str | None, admission: bool, plot: str | None, as_json: bool
) -> int:
    """How should the arrivals of PLAN be split over its pools, class by class?

    The split is static and random; its targets are those of the plan.
    """
    from ..control.admission import AdmissionPlan, admission_control
    from ..control.routing import optimal_split
    from ..control.split import OptimalSplit
    from ..control.uncertainty import Box

    found = load_plan(plan)
    name = EXAMPLE if plan is None else found.path
    result: AdmissionPlan | OptimalSplit
    if admission:
        result = admission_control(found.fleet, found.workload, rows=rows)
        good = result.overload < 1
    else:
        uncertainty = None if spread is None else Box(spread=_share(spread))
        result = optimal_split(
            found.fleet, found.workload, found.targets, objective=objective, rows=rows, uncertainty=uncertainty
        )
        good = result.feasible
    if plot is not None:
        save(result.plot(), plot)
    if as_json:
        print_json({"plan": name, **result.to_dict()})
    else:
        drawn = "" if plot is None else f"\n\npicture in {plot}"
        print_text(f"{name}\n\n{result.summary()}{drawn}")
    return 0 if good else 1


def _share(text: str) -> float:
    """0.2 or 20%."""
    number, unit = (text[:-1], 100.0) if text.endswith("%") else (text, 1.0)
    try:
        value: object = float(number) / unit
    except ValueError:
        value = text
    return check_number("--spread", value, at_least=0, hint="Write 0.2 or 20%.")
