"""`stability watch`."""

from __future__ import annotations

import json
import os
import sys
from importlib import resources
from pathlib import Path

import click

from ..errors import InputError, check_integer, check_number
from ..units import rate as parse_rate
from ..units import seconds as parse_seconds
from .output import Command, json_option, load_plan, print_json, print_text
from .picture import picture_option, save_picture

INTERRUPTED = 130
EXAMPLE = "bundled recording"
ROWS = 24
"""Lines of a recording that the table shows."""


def _time(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    name = parameter.opts[0]
    return None if value is None else check_number(name, parse_seconds(name, value), above=0)


def _rate(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    return None if value is None else check_number("--capacity", parse_rate("--capacity", value), above=0)


def _labels(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, str]:  # noqa: ARG001
    found = {}
    for item in value:
        name, sign, text = item.partition("=")
        if not sign or not name:
            raise InputError(f"--label = {item!r}, must be NAME=VALUE. Write --label engine=0, say.")
        found[name] = text
    return found


@click.command(
    cls=Command,
    examples=(
        ("stability watch", "a bundled recording of a server that is overloaded after five minutes"),
        ("stability watch recording.prom", "scrapes one after another, each below `# scrape TIME`"),
        ("stability watch query.json", "an answer of Prometheus to /api/v1/query_range"),
        ("stability watch http://127.0.0.1:8000/metrics", "a server, until Ctrl-C"),
        ("stability watch http://127.0.0.1:8000 --for 10min --json", "for ten minutes, a JSON line a scrape"),
        ("stability watch recording.prom --plan plan.yaml", "load and headroom by theory, earlier calls"),
        ("stability watch recording.prom --queue-limit 500", "when that many will wait"),
    ),
    exit_codes=(
        "0 stable, 1 overload was called (with --fail-on end: goes on at the end), 2 bad input, 3 undetermined, 4 internal "
        "error, 130 interrupted (after the table)."
    ),
)
@click.argument("target", required=False)
@click.option("--plan", type=click.Path(), help="Plan of the fleet: capacity, lengths and TTFT target from theory.")
@click.option(
    "--replicas", type=int, help="How many of the plan's replicas the metrics cover (default: those seen in them)."
)
@click.option(
    "--capacity", "capacity_per_s", callback=_rate, metavar="RATE", help="Capacity measured elsewhere: 1.7, 100/min."
)
@click.option("--queue-limit", type=float, metavar="N", help="Forecast when so many requests wait.")
@click.option(
    "--ttft",
    "ttft_s",
    callback=_time,
    metavar="TIME",
    help="Forecast when a newcomer waits so long (default: the plan's).",
)
@click.option(
    "--interval",
    "interval_s",
    callback=_time,
    metavar="TIME",
    help="Between scrapes (live: 5s; recorded: if it tells no time).",
)
@click.option(
    "--for", "for_s", callback=_time, metavar="TIME", help="How long to watch a server (default: until Ctrl-C)."
)
@click.option("--stop", is_flag=True, help="Stop watching a server at the first call of overload.")
@click.option(
    "--fail-on",
    type=click.Choice(["overload", "end"]),
    default="overload",
    show_default=True,
    help="Exit with 1 if overload was ever called, or only if it goes on at the end.",
)
@click.option(
    "--window", "window_s", callback=_time, default="60s", show_default=True, help="Window of rates and drifts."
)
@click.option(
    "--label", "labels", multiple=True, callback=_labels, metavar="NAME=VALUE", help="Only series with this label."
)
@click.option(
    "--alpha", type=float, default=0.01, show_default=True, help="Chance of ever calling overload at load <= 1."
)
@click.option("--dispersion", type=float, help="Requests that come or go together (default: from plan or metrics).")
@click.option(
    "--timeout", "timeout_s", callback=_time, default="5s", show_default=True, help="Longest wait for a scrape."
)
@click.option("--retries", type=int, default=2, show_default=True, help="Further attempts at a scrape.")
@picture_option("Draw the watch into this file.")
@json_option
def watch(
    target: str | None,
    plan: str | None,
    replicas: int | None,
    capacity_per_s: float | None,
    queue_limit: float | None,
    ttft_s: float | None,
    interval_s: float | None,
    for_s: float | None,
    stop: bool,
    fail_on: str,
    window_s: float,
    labels: dict[str, str],
    alpha: float,
    dispersion: float | None,
    timeout_s: float,
    retries: int,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Is a server being overloaded? Load, headroom, verdict and time to overflow from its metrics (vLLM or SGLang).

    TARGET is the http(s) address of a /metrics page, or a recording: a file of scrapes, a folder of them, or the JSON
    answer to a Prometheus range query. Without it, a bundled recording is watched. The verdict comes from tests that may be
    looked at after every scrape: their chance of ever calling overload at load <= 1 is at most --alpha.
    """
    from ..io.metrics import read_metrics
    from ..io.metrics.endpoint import Endpoint, is_address
    from ..monitor.capacity import KnownCapacity, capacity_of, stated
    from ..monitor.live import live
    from ..monitor.result import HEADER
    from ..monitor.watch import Watch, WatchLimits, exit_code
    from ..monitor.watch import watch as watch_series

    if plan is not None and capacity_per_s is not None:
        raise InputError("--plan and --capacity are both given, must be one of them. Drop one.")
    live_target = target is not None and is_address(target)
    if (for_s is not None or stop) and not live_target:
        raise InputError(
            "--for and --stop are for a server, must go with an http(s) address. Drop them for a recording."
        )
    if replicas is not None and plan is None:
        raise InputError("--replicas is given without --plan, must go with one. Add the plan.")
    if replicas is not None:
        check_integer("--replicas", replicas, at_least=1)

    def known(seen: int) -> KnownCapacity | None:
        if plan is not None:
            found = load_plan(plan)
            total = sum(pool.replicas for pool in found.fleet.pools)
            return capacity_of(found, replicas=replicas or min(max(seen, 1), total))
        return None if capacity_per_s is None else stated(capacity_per_s)

    code: int | None = None
    if target is not None and live_target:
        endpoint = Endpoint(target, timeout_s=timeout_s, retries=retries)
        seen = Watch(
            endpoint.address,
            alpha=alpha,
            dispersion=dispersion,
            known=known(1),
            limits=WatchLimits(queue=queue_limit, ttft_s=ttft_s, window_s=window_s),
        )
        points = live(
            endpoint,
            seen,
            interval_s=interval_s or 5.0,
            for_s=for_s,
            labels=labels,
            failed=lambda sentence: click.echo(f"missed: {sentence}", err=True),
        )
        try:
            for point in points:
                if not as_json and len(seen.points) == 1 and not _shown(_line(HEADER)):
                    break
                cells = point.cells(seen.points[0].time_s)
                line = json.dumps(point.to_dict(), allow_nan=False) if as_json else _line(cells)
                if not _shown(line) or (stop and seen.overloads):
                    break
        except KeyboardInterrupt:
            code = INTERRUPTED
            if not seen.points:
                raise
        report = seen.report()
    else:
        if target is None:
            with resources.as_file(resources.files("stability.monitor") / "examples" / "overload.prom.gz") as file:
                series = read_metrics(file, labels=labels, interval_s=interval_s)
        else:
            series = read_metrics(target, labels=labels, interval_s=interval_s)
        report = watch_series(
            series,
            capacity=known(len(series.replicas)),
            queue_limit=queue_limit,
            ttft_s=ttft_s,
            window_s=window_s,
            alpha=alpha,
            dispersion=dispersion,
        )
        if not as_json:
            print_text(f"{EXAMPLE if target is None else target}\n\n{report.table(ROWS)}\n")
    if plot is not None:
        save_picture(report.plot(), plot)
    if as_json and live_target:
        click.echo(json.dumps(report.to_dict() | {"points": []}, allow_nan=False))
    elif as_json:
        print_json(report.to_dict())
    else:
        print_text(report.summary())
    return exit_code(report, fail_on=fail_on) if code is None else code


WIDTHS = (7, 8, 8, 8, 13, 13, 8, 9, 13, 0)
"""Of the columns of a live line."""


def _shown(line: str) -> bool:
    """Print a line; False if nobody reads any more, as under `| head`."""
    try:
        click.echo(line)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _line(cells: tuple[str, ...]) -> str:
    return " ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip()
