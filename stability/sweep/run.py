"""Sweeps: what is missing of a grid is computed in parallel, and every row is on disk before the next one is looked at."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib

from .._result import html_table, json_safe, text_table
from ..errors import InputError, StabilityError, check_integer
from .evaluate import evaluate
from .grid import Grid, Point, check_output, read_grid
from .rows import Journal, journal_path, read, write_parquet

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "stability/sweep/1"

SLICE_S = 5.0
"""Longest time between two writes that is aimed at where a backend hands over results only by the slice, s."""


class WorkersDied(StabilityError):
    """Worker processes died again and again without finishing a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep did.

    Attributes
    ----------
    output : Path
        File of the rows, in the order of the grid.
    rows : int
        Rows in it.
    computed, reused : int
        Rows that this run computed, and rows that were there.
    invalid, failed : int
        Rows with an error: plans that make no sense; and other exceptions, which the next run tries again.
    elapsed_s : float
        Wall time, s.
    """

    output: Path
    rows: int
    computed: int
    reused: int
    invalid: int
    failed: int
    elapsed_s: float

    def __repr__(self) -> str:
        return f"SweepResult({self.output}: {self.rows} rows, {self.computed} computed, {self.invalid + self.failed} errors)"

    def table(self) -> list[tuple[str, str]]:
        """The figures by name, for people."""
        return [
            ("rows", f"{self.rows}"),
            ("computed", f"{self.computed} in {self.elapsed_s:.1f} s"),
            ("there already", f"{self.reused}"),
            ("invalid plans", f"{self.invalid}"),
            ("failed", f"{self.failed}{'; run again to retry' if self.failed else ''}"),
        ]

    def summary(self) -> str:
        """A table of the figures."""
        return text_table(self.table())

    def _repr_html_(self) -> str:
        return html_table(self.table())

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": SCHEMA, **json_safe(self)}

    def to_frame(self) -> pd.DataFrame:
        """The rows, see `stability.sweep.read`."""
        return read(self.output)


def run(
    grid: Grid | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    tries: int = 3,
    prune: bool = False,
    progress: bool = False,
) -> SweepResult:
    """Compute what is missing of a grid.

    Points go through joblib: `joblib.parallel_config(backend=...)` around the call, or `stability.sweep.backend`, choose
    processes, Dask or Ray. Each row is appended to the output as it arrives, so that a run that is killed loses only what
    was being computed; the next one goes on from there. At the end the rows are put in the order of the grid: the file is
    the same to the last bit however often it was interrupted and wherever it was computed.

    Parameters
    ----------
    grid : Grid, str or os.PathLike
        What to compute, or its file.
    output : str or os.PathLike, optional
        File of the rows, .jsonl or .parquet, in place of the grid's. Parquet is written at the end, from JSON lines beside it.
    jobs : int, optional
        Points computed at a time; -1 for as many as there are processors. Without it joblib's configuration holds, or 1.
    tries : int >= 1
        How often a point is tried when something fails that is not the input's fault; and how often in a row workers may die.
    prune : bool
        Drop rows that the output has from another grid or version, which is an error otherwise.
    progress : bool
        Show a progress bar with the time left.

    Returns
    -------
    SweepResult
        Counts, and the file with the rows.

    Raises
    ------
    InputError
        If the grid makes no sense, or the output holds anything else than its rows.
    WorkersDied
        If worker processes died `tries` times in a row and no row was finished between.
    """
    started_s = time.monotonic()
    tries = check_integer("tries", tries, at_least=1)
    if jobs is not None and jobs != -1:
        check_integer("jobs", jobs, at_least=1, hint="-1 takes every processor.")
    known = grid if isinstance(grid, Grid) else read_grid(grid)
    target = _target(known, output)
    keys = [point.key for point in known.points()]
    with Journal(journal_path(target)) as journal:
        alien = len(journal.rows.keys() - set(keys))
        if alien and not prune:
            raise InputError(
                f"{journal.path} has {alien} rows of another grid or version, must have only rows of {known.name}. "
                "Name another output, or drop them with prune."
            )
        missing = {key for key in keys if key not in journal.rows or journal.rows[key].status == "failed"}
        reused = len(keys) - len(missing)
        with _bar(progress, len(keys), reused) as bar:
            for row in _computed(known, missing, jobs=jobs, tries=tries):
                journal.append(row)
                bar.update()
        states = [journal.rows[key].status for key in keys]
        journal.sort(keys)
    if target != journal.path:
        write_parquet(journal.path, target)
    return SweepResult(
        output=target,
        rows=len(keys),
        computed=len(keys) - reused,
        reused=reused,
        invalid=states.count("invalid"),
        failed=states.count("failed"),
        elapsed_s=time.monotonic() - started_s,
    )


def _target(grid: Grid, output: str | os.PathLike[str] | None) -> Path:
    if output is not None:
        return check_output(Path(output))
    if grid.output is None:
        raise InputError(
            f"{grid.name} names no output, must be told where rows go. Add `output: rows.jsonl` or name one."
        )
    return grid.output


def _computed(grid: Grid, missing: set[str], *, jobs: int | None, tries: int) -> Iterator[dict[str, Any]]:
    """The rows of `missing` as they are finished; begins again with what is left when workers die."""
    deaths = 0
    while missing:
        left = frozenset(missing)
        points = (point for point in grid.points() if point.key in left)
        try:
            for row in _rows(points, jobs, tries):
                missing.discard(row["key"])
                deaths = 0
                yield row
        except Exception as error:  # `evaluate` raises none, so it is the workers
            deaths += 1
            if deaths >= tries:
                raise WorkersDied(
                    f"workers died {deaths} times in a row ({type(error).__name__}), must finish a row between. "
                    "Use fewer jobs if memory ran out; what is done is kept."
                ) from error


def _rows(points: Iterator[Point], jobs: int | None, tries: int) -> Iterator[dict[str, Any]]:
    """Rows as they are finished; by the slice from backends that can only hand over lists, as Ray's."""
    tasks = (joblib.delayed(evaluate)(point, tries) for point in points)
    try:
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
    except ValueError:
        yield from _rows_by_slice(tasks, jobs)
    else:
        yield from parallel(tasks)


def _rows_by_slice(tasks: Iterator[Any], jobs: int | None) -> Iterator[dict[str, Any]]:
    with joblib.Parallel(n_jobs=jobs) as parallel:
        size = workers = joblib.effective_n_jobs(-1 if jobs is None else jobs)
        while some := list(itertools.islice(tasks, size)):
            began_s = time.monotonic()
            yield from parallel(some)
            took_s = time.monotonic() - began_s
            size = 2 * size if took_s < SLICE_S / 2 else max(workers, size // 2) if took_s > SLICE_S else size


def _bar(wanted: bool, total: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit="row", disable=not wanted)
