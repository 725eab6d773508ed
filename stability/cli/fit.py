"""`stability fit`."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._result import Verdict, text_table
from ..errors import InputError, check_number
from ..units import seconds
from .output import EXAMPLE, Command, json_option, load_plan, print_json, print_text
from .picture import picture_option, save_picture

if TYPE_CHECKING:
    from ..calibration.capacity import FittedCapacity
    from ..calibration.law_fit import LawFit
    from ..calibration.length_fit import LengthsFit
    from ..io.metrics import MetricsFit

KINDS = ("steps", "benchmark", "lengths", "metrics")
NOT_OF_METRICS = {"host_text": "--host", "where": "--where", "budget": "--budget"}
CODES = {Verdict.STABLE: 0, Verdict.UNSTABLE: 1, Verdict.UNDETERMINED: 3}


def _where(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> list[tuple[str, str]]:  # noqa: ARG001
    found = []
    for text in value:
        column, sign, content = text.partition("=")
        if not sign or not column:
            raise InputError(f"--where = {text!r}, must be COLUMN=VALUE. Write, e.g., --where gpu=h100_sxm.")
        found.append((column, content))
    return found


def _time(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:  # noqa: ARG001
    return None if value is None else check_number(parameter.opts[0], seconds(parameter.opts[0], value), above=0)


@click.command(
    cls=Command,
    examples=(
        ("stability fit", "the bundled steps: a law, its intervals, what to paste into a plan"),
        ("stability fit steps steps.csv", "your engine's steps"),
        ("stability fit steps steps.csv --plan plan.yaml --pool chat", "and the capacity of that pool's fleet"),
        ("stability fit benchmark", "the bundled benchmark points"),
        ("stability fit benchmark run-8.json run-64.json", "results of `vllm bench serve --save-result`"),
        ("stability fit benchmark points.csv --where gpu=h100_sxm --where backend=vllm", "one deployment of many"),
        ("stability fit lengths", "the bundled histograms"),
        ("stability fit lengths requests.csv --json", "a request trace, for scripts"),
        ("stability fit metrics", "a bundled recording: a law, lengths, the rate, and the plan of them"),
        ("stability fit metrics recording.prom", "your server's metrics, recorded as for `stability watch`"),
        ("stability fit --plot residuals.png", "and a picture"),
    ),
    exit_codes=(
        "0 fitted (with --plan: and the fleet is stable), 1 the fleet of --plan is unstable, 2 bad input, 3 undetermined, "
        "4 internal error, 130 interrupted."
    ),
)
@click.argument("kind", required=False, type=click.Choice(KINDS), default="steps")
@click.argument("files", nargs=-1, type=click.Path())
@click.option(
    "--form",
    type=click.Choice(("auto", "affine_tied", "affine", "two_phase_tied", "two_phase", "hinge", "staircase")),
    default="auto",
    help="Form of the law; auto chooses by BIC.",
)
@click.option("--squares", is_flag=True, help="Least squares in place of the robust loss: stalls count in full.")
@click.option("--host", "host_text", metavar="TIME", help="Add this to every step: host time that kernel timings lack.")
@click.option("--level", type=float, default=0.95, show_default=True, help="Confidence level of the intervals.")
@click.option("--plan", "plan", type=click.Path(), metavar="PLAN", help="What the fit makes of this plan's capacity.")
@click.option("--pool", metavar="NAME", help="The pool of --plan that was measured.")
@click.option(
    "--where", multiple=True, callback=_where, metavar="COLUMN=VALUE", help="Rows of a benchmark CSV to take."
)
@click.option("--budget", type=click.IntRange(1), default=8192, show_default=True, help="Token budget of a benchmark.")
@click.option("--limit", type=click.IntRange(1), metavar="TOKENS", help="Longest length the engine accepts.")
@click.option(
    "--interval", "interval_s", callback=_time, metavar="TIME", help="Between scrapes of metrics that tell no time."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws behind the interval.")
@picture_option("Draw the residuals, or the lengths, into this file.")
@json_option
@click.pass_context
def fit(
    ctx: click.Context,
    kind: str,
    files: tuple[str, ...],
    form: str,
    squares: bool,
    host_text: str | None,
    level: float,
    plan: str | None,
    pool: str | None,
    where: list[tuple[str, str]],
    budget: int,
    limit: int | None,
    interval_s: float | None,
    seed: int,
    plot: Path | None,
    as_json: bool,
) -> int:
    """A step-time law from measured steps or benchmark points, length distributions from a trace or histogram, or both from metrics.

    KIND is steps, benchmark, lengths or metrics. FILES are CSV (their columns: docs, page Calibration); for benchmark also the
    JSON of `vllm bench serve`; for lengths one request trace or one histogram; for metrics one recording of vLLM's or SGLang's
    (docs, page Watching a server). Without FILES the bundled example runs.
    """
    from ..io.measurements import example

    if kind != "benchmark" and len(files) > 1:
        raise InputError(f"{len(files)} files for {kind}, must be one. Join them, or fit them one by one.")
    if pool is not None and plan is None:
        raise InputError("--pool without --plan, must have one: it names a pool of the plan. Add --plan PLAN.")
    if interval_s is not None and kind != "metrics":
        raise InputError(f"--interval with {kind}, must be with metrics. Leave it out.")
    paths = files or (str(example(kind)),)
    name = EXAMPLE if not files else ", ".join(files)
    if kind == "lengths":
        if plan is not None:
            raise InputError("--plan with lengths, must be with a law. Paste the lengths into the plan, then check it.")
        return _lengths(name, _fit_lengths(paths[0], limit), plot, as_json)
    metrics = None
    if kind == "metrics":
        metrics = _fit_metrics(ctx, paths[0], form, not squares, level, limit, interval_s)
        found, notes = metrics.law, metrics.notes
    else:
        found, notes = _fit_law(kind, paths, form, not squares, level, where, budget, host_text)
    capacity = None
    if plan is not None:
        from ..calibration.capacity import fitted_capacity

        loaded = load_plan(plan)
        capacity = fitted_capacity(loaded.fleet, loaded.workload, fit=found, pool=pool, rng=seed)
    if plot is not None:
        save_picture(found.plot(), plot)
    if metrics is not None:
        _show_metrics(name, metrics, capacity, as_json)
    else:
        _show(name, found, capacity, notes, as_json)
    return 0 if capacity is None else CODES[capacity.verdict]


def _fit_law(
    kind: str,
    paths: tuple[str, ...],
    form: str,
    robust: bool,
    level: float,
    where: list[tuple[str, str]],
    budget: int,
    host_text: str | None,
) -> tuple[LawFit, tuple[str, ...]]:
    from ..calibration.benchmark import loop_observations
    from ..calibration.fit import fit_law
    from ..io.measurements import read_benchmark, read_steps

    notes: tuple[str, ...] = ()
    if kind == "steps":
        steps = read_steps(paths[0])
    else:
        points, notes = read_benchmark(paths, where=where)
        steps = loop_observations(points, max_num_batched_tokens=budget)
    if host_text is not None:
        steps = steps.with_times(steps.time_s + seconds("--host", host_text))
    return fit_law(steps, form=form, robust=robust, level=level), notes


def _fit_metrics(
    ctx: click.Context,
    path: str,
    form: str,
    robust: bool,
    level: float,
    limit: int | None,
    interval_s: float | None,
) -> MetricsFit:
    from ..io.metrics import fit_metrics, read_metrics

    for parameter, option in NOT_OF_METRICS.items():
        if ctx.get_parameter_source(parameter) is not click.core.ParameterSource.DEFAULT:
            raise InputError(
                f"{option} with metrics, must be with another kind: a server's steps hold it already. Leave it out."
            )
    return fit_metrics(
        read_metrics(path, interval_s=interval_s), form=form, robust=robust, level=level, limit_tokens=limit
    )


def _fit_lengths(path: str, limit: int | None) -> LengthsFit:
    """Of a histogram, told by its header, or of a trace."""
    from ..calibration.length_fit import LengthsFit
    from ..calibration.lengths import fit_length, fit_lengths
    from ..io.measurements import read_histograms
    from ..io.traces import read_trace

    if _is_histogram(path):
        fits = {
            name: fit_length(item.upper_bounds_tokens, item.counts, limit_tokens=limit)
            for name, item in read_histograms(path).items()
        }
        return LengthsFit(prompt=fits["prompt"], output=fits["output"], spearman=None)
    trace = read_trace(path)
    return fit_lengths(trace.prompt_tokens, trace.output_tokens, limit_tokens=limit)


def _is_histogram(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            packed = file.peek(2)[:2] == b"\x1f\x8b"
            with io.TextIOWrapper(gzip.GzipFile(fileobj=file) if packed else file, encoding="utf-8-sig") as lines:
                return "le_tokens" in next((line for line in lines if not line.startswith("#")), "").casefold()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return False  # the trace reader says what is wrong


def _lengths(name: str, found: LengthsFit, plot: Path | None, as_json: bool) -> int:
    if plot is not None:
        save_picture(found.plot(), plot)
    if as_json:
        print_json({"file": name, **found.to_dict()})
    else:
        print_text(f"{name}\n\n{found.summary()}\n\nfor the workload of a plan\n\n{found.plan_snippet().rstrip()}")
    return 0


def _show(name: str, found: LawFit, capacity: FittedCapacity | None, notes: tuple[str, ...], as_json: bool) -> None:
    if as_json:
        answer: dict[str, Any] = {"file": name, **found.to_dict(), "notes": list(notes)}
        if capacity is not None:
            answer["capacity"] = capacity.to_dict()
        print_json(answer)
        return
    parts = [name, found.summary(), *(f"! {note}" for note in notes)]
    parts.append(f"for a pool of a plan\n\n{found.plan_snippet().rstrip()}")
    print_text("\n\n".join([*parts, *_capacity(found, capacity)]))


def _show_metrics(name: str, found: MetricsFit, capacity: FittedCapacity | None, as_json: bool) -> None:
    if as_json:
        answer: dict[str, Any] = {"file": name, **found.to_dict()}
        print_json(answer if capacity is None else {**answer, "capacity": capacity.to_dict()})
        return
    complete = (
        "a plan, but for the engine's settings" if found.workload_snippet() else "for a plan; its workload is not known"
    )
    parts = [name, found.summary(), f"{complete}\n\n{found.plan_snippet().rstrip()}"]
    print_text("\n\n".join([*parts, *_capacity(found.law, capacity)]))


def _capacity(found: LawFit, capacity: FittedCapacity | None) -> list[str]:
    """What the fit makes of a plan's capacity, for people."""
    if capacity is None:
        return []
    return [text_table(capacity.rows()), *(f"! {text}" for text in capacity.warnings[len(found.warnings) :])]
