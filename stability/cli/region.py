"""`stability region`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import InputError
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

rows_option = click.option(
    "--rows",
    type=click.Choice(("policy", "bound", "proved")),
    default="policy",
    help="What the pools' schedulers reach, what no policy exceeds, or what is proved (reservation only).",
)


def save(axes: Axes, path: str) -> None:
    """Write the figure of `axes` to a file whose ending tells the format."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    known = figure.canvas.get_supported_filetypes()
    ending = Path(path).suffix.lstrip(".").lower()
    if ending not in known:
        raise InputError(f"--plot = {path!r}, must end in one of {', '.join(sorted(known))}. Use region.png, say.")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"--plot = {path!r} cannot be written: {error.strerror}. Choose another file.") from None


@click.command(
    cls=Command,
    examples=(
        ("stability region", "the bundled example"),
        ("stability region plan.yaml --plot region.png", "with a picture"),
        ("stability region plan.yaml --rows bound", "what no policy exceeds"),
        ("stability region --json", "for scripts"),
    ),
    exit_codes="0 the workload is strictly inside, 1 it is not, 2 bad input, 4 internal error, 130 interrupted.",
)
@click.argument("plan", required=False, type=click.Path())
@rows_option
@click.option("--plot", type=click.Path(), metavar="FILE", help="Draw the region into a file, region.png say.")
@json_option
def region(plan: str | None, rows: str, plot: str | None, as_json: bool) -> int:
    """Which rates can the fleet of PLAN serve under the best routing, and what is more of anything worth?

    Prices are the requests/s gained at the plan's mix by one more replica, GB of KV cache, slot, or 1000 tokens of budget.
    """
    from ..control.region import capacity_region

    found = load_plan(plan)
    result = capacity_region(found.fleet, found.workload, rows=rows)
    name = EXAMPLE if plan is None else found.path
    if plot is not None:
        save(result.plot(), plot)
    if as_json:
        print_json({"plan": name, **result.to_dict()})
    else:
        drawn = "" if plot is None else f"\n\npicture in {plot}"
        print_text(f"{name}\n\n{result.summary()}{drawn}")
    return 0 if result.factor > 1 else 1
