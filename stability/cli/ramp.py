"""`stability ramp`."""

from __future__ import annotations

import math
from pathlib import Path

import click

from ..errors import InputError, check_integer, check_number
from ..units import seconds as parse_seconds
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option


def _time(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    if value is None:
        return None
    name = f"--{parameter.name}".replace("_s", "").replace("_", "-")
    return check_number(name, parse_seconds(name, value), at_least=0)


def _outage(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, int | None] | None:  # noqa: ARG001
    """Pool and number of replicas: `chat:2`, `2`, `chat:all`."""
    if value is None:
        return None
    pool, _, count = value.rpartition(":")
    if count == "all":
        return pool, None
    if not count.isdigit():
        pool, count = value, "1"
    return pool, check_integer("--outage", int(count), at_least=1)


@click.command(
    cls=Command,
    examples=(
        ("stability ramp", "the bundled example through a 10-minute burst of twice the rate"),
        ("stability ramp --rate 150", "the example at another rate, where a burst hurts"),
        ("stability ramp plan.yaml", "a plan of your own; its schedule is followed if it has one"),
        ("stability ramp --burst 1.5 --burst-for 30min", "another burst"),
        ("stability ramp --outage 2 --outage-for 15min", "two replicas of the first pool lost and returned"),
        ("stability ramp --outage chat:all --plot ramp.png", "all of a pool, and a picture"),
        ("stability ramp --json", "for scripts"),
    ),
    exit_codes=(
        "0 the backlog is gone by the end, 1 it is not, 2 bad input, 3 undetermined, 4 internal error, 130 interrupted."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@click.option("--burst", "factor", type=float, metavar="FACTOR", help="Multiply all rates by this for a while.")
@click.option("--burst-for", "burst_for_s", callback=_time, default="10min", show_default=True, help="How long.")
@click.option(
    "--outage",
    "lost",
    callback=_outage,
    metavar="[POOL:]N",
    help="Replicas lost: 2, chat:2, chat:all, chat (one of it).",
)
@click.option("--outage-for", "outage_for_s", callback=_time, metavar="TIME", help="When they return (default: never).")
@click.option("--at", "at_s", callback=_time, default="2min", show_default=True, help="When it begins.")
@click.option(
    "--horizon", "horizon_s", callback=_time, metavar="TIME", help="Until when (default: as long as it takes)."
)
@click.option(
    "--wait",
    "wait_limit_s",
    callback=_time,
    metavar="TIME",
    help="Longest wait accepted (default: the plan's TTFT target, or 10s).",
)
@click.option("--plot", "picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the run into this file.")
@rate_option
@json_option
def ramp(
    plan: str | None,
    rate_per_s: float | None,
    factor: float | None,
    burst_for_s: float,
    lost: tuple[str, int | None] | None,
    outage_for_s: float | None,
    at_s: float,
    horizon_s: float | None,
    wait_limit_s: float | None,
    picture: Path | None,
    as_json: bool,
) -> int:
    """What happens to the fleet of PLAN over time: how long until a backlog is gone, what headroom avoids it, when to shed.

    PLAN is a YAML or TOML file; without it, the bundled example runs. Without --burst and --outage the plan's schedule is
    followed for one pass; a plan without one gets a burst of twice its rate over 10 minutes.
    """
    from ..theory.fluid.events import Burst, Outage
    from ..theory.fluid.transient import transient

    found = load_plan(plan)
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    burst = outage = None
    if factor is not None or (lost is None and not workload.is_scheduled):
        burst = Burst(factor=2.0 if factor is None else factor, duration_s=burst_for_s, at_s=at_s)
    if lost is not None:
        until_s = math.inf if outage_for_s is None else at_s + outage_for_s
        outage = Outage(pool=lost[0], replicas=lost[1], at_s=at_s, until_s=until_s)
    target = found.targets.ttft_p99_s or found.targets.ttft_mean_s
    result = transient(
        found.fleet,
        workload,
        burst=burst,
        outage=outage,
        horizon_s=horizon_s,
        wait_limit_s=wait_limit_s or target or 10.0,
    )
    if picture is not None:
        _draw(result, picture)
    name = EXAMPLE if plan is None else found.path
    if as_json:
        print_json({"plan": name, **result.to_dict()})
    else:
        print_text(f"{name}\n\n{result.summary()}")
    return 0 if result.recovers else 1


def _draw(result: object, path: Path) -> None:
    try:
        figure = result.plot().figure  # type: ignore[attr-defined]
    except ModuleNotFoundError as error:
        raise InputError(
            "--plot needs matplotlib, which is not installed. `pip install llm-stability[plots]`."
        ) from error
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--plot {path}: {error}. Name a file that can be written, ending in .png, .svg or .pdf."
        ) from error
