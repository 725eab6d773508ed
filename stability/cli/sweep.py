"""`stability sweep`."""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._result import Verdict, text_table
from ..errors import check_integer
from .output import Command, json_option, print_json, print_text

if TYPE_CHECKING:
    from ..sweep import Grid

SHOWN_ROWS = 24
"""Rows of the table; all are in the output."""

SHOWN_COLUMNS = {
    "status": "status",
    "predicted_verdict": "verdict",
    "predicted_load": "load",
    "predicted_capacity_per_s": "capacity, 1/s",
    "predicted_ttft_mean_s": "TTFT, s",
    "simulated_throughput_per_s": "simulated, 1/s",
    "simulated_itl_mean_s": "simulated ITL, s",
    "simulated_ttft_mean_s": "simulated TTFT, s",
}


def _jobs(ctx: click.Context, parameter: click.Parameter, value: int) -> int:  # noqa: ARG001
    return value if value == -1 else check_integer("--jobs", value, at_least=1, hint="-1 takes every processor.")


@click.command(
    cls=Command,
    examples=(
        ("stability sweep", "the bundled example, its rows as a table"),
        ("stability sweep grid.yaml", "rows to the grid's output, or on from where it was killed"),
        ("stability sweep grid.yaml --output rows.parquet", "as Parquet"),
        ("stability sweep grid.yaml --backend dask --address tcp://host:8786", "on a cluster"),
        ("stability sweep --example > grid.yaml", "a grid to start from"),
    ),
    exit_codes="0 every row has its figures, 1 some hold an error, 2 bad input, 4 internal error, 130 interrupted.",
)
@click.argument("grid", required=False, type=click.Path())
@click.option("--output", type=click.Path(), metavar="FILE", help="File of the rows, .jsonl or .parquet.")
@click.option(
    "--backend", type=click.Choice(("loky", "dask", "ray")), default="loky", help="Where points are computed."
)
@click.option(
    "--address", metavar="ADDRESS", help="Of a running Dask or Ray cluster; without it a local one is started."
)
@click.option(
    "--jobs", type=int, default=-1, callback=_jobs, metavar="N", help="Points at a time; -1: one a processor."
)
@click.option("--tries", type=click.IntRange(1), default=3, metavar="N", help="How often a point that fails is tried.")
@click.option("--prune", is_flag=True, help="Drop rows of another grid or version from the output.")
@click.option("--example", is_flag=True, help="Print the bundled example grid instead.")
@json_option
def sweep(
    grid: str | None,
    output: str | None,
    backend: str,
    address: str | None,
    jobs: int,
    tries: int,
    prune: bool,
    example: bool,
    as_json: bool,
) -> int:
    """Compute every point of GRID with every seed; one row each.

    GRID is a YAML or TOML file: a base plan, the keys that vary, and what to compute. Rows are written as they finish, by
    default beside GRID under its name and .jsonl. A sweep that was killed goes on from there.
    """
    from ..sweep import backend as computing_on
    from ..sweep import example_grid, read_grid, run
    from ..sweep.grid import example_text

    if example and as_json:
        print_json({"schema": "stability/example/1", "name": "sweep", "text": example_text()})
        return 0
    if example:
        print_text(example_text().rstrip())
        return 0
    known = example_grid() if grid is None else read_grid(grid)
    target = _target(known, grid, output)
    click.echo(f"{known.name}: {known.size()}", err=True)
    with tempfile.TemporaryDirectory() if target is None else nullcontext() as folder:
        path = target if folder is None else Path(folder, "rows.jsonl")
        with computing_on(backend, address=address, jobs=jobs):
            done = run(known, output=path, tries=tries, prune=prune, progress=sys.stderr.isatty())
        rows = _first_rows(done.output, None if target is None and as_json else SHOWN_ROWS)
    if as_json:
        kept = {"output": None, "results": rows} if target is None else {}
        print_json({**done.to_dict(), "grid": known.name, **kept})
    else:
        rest = f"\n... {done.rows - len(rows)} more" if done.rows > len(rows) else ""
        where = "" if target is None else f"\n\nrows in {target}"
        print_text(f"{_table(known, rows)}{rest}\n\n{done.summary()}{where}")
    return 1 if done.invalid or done.failed else 0


def _target(known: Grid, grid: str | None, output: str | None) -> Path | None:
    """Where rows go; None where only the table is wanted."""
    if output is not None:
        return Path(output)
    if known.output is not None or grid is None:
        return known.output
    return Path(grid).with_suffix(".jsonl")


def _first_rows(output: Path, most: int | None) -> list[dict[str, Any]]:
    from ..sweep.rows import journal_path

    with journal_path(output).open(encoding="utf-8") as lines:
        return [json.loads(line) for line in itertools.islice(lines, most)]


def _table(known: Grid, rows: list[dict[str, Any]]) -> str:
    columns = {name: name for name in known.axes}
    if known.seeds:
        columns["seed"] = "seed"
    columns |= {name: title for name, title in SHOWN_COLUMNS.items() if any(row.get(name) is not None for row in rows)}
    table = text_table([[_cell(row.get(name)) for name in columns] for row in rows], list(columns.values()))
    errors = Counter(row["error"] for row in rows if row["error"])
    return "\n\n".join([table, *(f"{count} row{'s' * (count > 1)}: {error}" for error, count in errors.items())])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    text = "-" if value is None else str(value)
    return text.upper() if text in {verdict.value for verdict in Verdict} else text
