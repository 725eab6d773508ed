"""`stability tune`."""

from __future__ import annotations

from pathlib import Path

import click

from ..control.settings import SETTINGS
from ..errors import check_number
from ..units import seconds as parse_seconds
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text, rate_option
from .picture import picture_option, save_picture


def _time(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    name = parameter.opts[0]
    return None if value is None else check_number(name, parse_seconds(name, value), above=0)


@click.command(
    cls=Command,
    examples=(
        ("stability tune", "the bundled example"),
        ("stability tune plan.yaml --plot tune.png", "a plan of your own, with capacity against headroom"),
        ("stability tune --rate 200 --itl 30ms", "the most within an inter-token latency"),
        ("stability tune --vary watermark --json", "headroom alone, for scripts"),
    ),
    exit_codes=(
        "0 settings found (the present ones may be best already), 1 no setting meets the targets at the rate, 2 bad input, "
        "4 internal error, 130 interrupted."
    ),
)
@click.argument("plan", required=False, type=click.Path())
@click.option("--pool", metavar="NAME", help="The pool to tune; all by default.")
@rate_option
@click.option("--itl", callback=_time, metavar="TIME", help="Mean inter-token latency to stay within: 50ms.")
@click.option("--ttft", callback=_time, metavar="TIME", help="Mean time to first token to stay within: 500ms.")
@click.option("--ttft-p99", callback=_time, metavar="TIME", help="99th percentile of the time to first token: 2s.")
@click.option(
    "--vary", multiple=True, type=click.Choice(SETTINGS), help="A setting that may change; repeat for several."
)
@picture_option("Draw capacity against headroom: .png, .svg or .pdf.")
@json_option
def tune(
    plan: str | None,
    pool: str | None,
    rate_per_s: float | None,
    itl: float | None,
    ttft: float | None,
    ttft_p99: float | None,
    vary: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
) -> int:
    """Which engine settings serve the most, within the latency targets of PLAN or of the options?

    PLAN is a YAML or TOML file; without it, the bundled example runs. Prints present and recommended headroom (watermark),
    slots, token budget and admission policy of each pool, the gain, and the flags to paste. Targets given as options
    replace the plan's.
    """
    from ..control.tuning import tune as tune_fleet
    from ..model.targets import Targets

    found = load_plan(plan)
    workload = found.workload if rate_per_s is None else found.workload.scaled(rate_per_s=rate_per_s)
    targets = found.targets
    if any(value is not None for value in (itl, ttft, ttft_p99)):
        targets = Targets(itl_s=itl, ttft_mean_s=ttft, ttft_p99_s=ttft_p99, headroom=targets.headroom)
    result = tune_fleet(found.fleet, workload, targets=targets, pool=pool, vary=vary or SETTINGS)
    name = EXAMPLE if plan is None else found.path
    if plot is not None:
        save_picture(result.plot(), plot)
    if as_json:
        print_json({"plan": name, **result.to_dict(), "picture": None if plot is None else str(plot)})
    else:
        drawn = "" if plot is None else f"\n\npicture in {plot}"
        print_text(f"{name}\n\n{result.summary()}{drawn}")
    return result.exit_code
