"""`python -m validation [--quick | --full]`: run every claim, print one table, write one report, fail when a claim fails."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import joblib  # type: ignore[import-untyped]
from tqdm import tqdm

from . import claims  # noqa: F401 - registers them
from .cells import Cell, tasks, with_expectations
from .expected import expected, listed
from .report import html_report, markdown_report, table


def main(arguments: list[str] | None = None) -> int:
    """Run and return the exit code: 0 if nothing fails that is not expected to."""
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the subset for CI (default)")
    size.add_argument("--full", action="store_true", help="the whole matrix")
    parser.add_argument("--only", default="", metavar="CLAIM", help="claims whose name contains this")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (default: one per core)")
    parser.add_argument("--out", type=Path, default=Path("validation-report"), help="folder of the report")
    parser.add_argument("--list", action="store_true", help="print today's failures as the expected-to-fail list")
    options = parser.parse_args(arguments)
    which = "full" if options.full else "quick"
    begun = time.perf_counter()
    wanted = tasks(which, options.only)
    if not wanted:
        parser.error(f"no claim's name contains {options.only!r}")
    runs = joblib.Parallel(n_jobs=options.jobs, return_as="generator")(joblib.delayed(task.run)() for task in wanted)
    found = [cell for cells in tqdm(runs, total=len(wanted), unit="case", disable=None) for cell in cells]
    cells = with_expectations(found, expected(which))
    seconds = time.perf_counter() - begun
    if options.list:
        print(json.dumps(listed(cells), indent=1))
        return 0
    print(table(cells))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "report.html").write_text(html_report(cells, which, seconds), encoding="utf-8")
    (options.out / "report.md").write_text(markdown_report(cells, which, seconds), encoding="utf-8")
    (options.out / "cells.json").write_text(json.dumps([_plain(cell) for cell in cells], indent=1), encoding="utf-8")
    print(f"{len(cells)} cells in {seconds:.0f} s; report in {options.out}")
    return int(any(cell.status.is_failure for cell in cells))


def _plain(cell: Cell) -> dict[str, object]:
    values = {name: getattr(cell, name) for name in cell.__slots__}
    values["status"] = cell.status.value
    values["deviation"] = cell.deviation
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


if __name__ == "__main__":
    sys.exit(main())
