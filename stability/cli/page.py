"""The page that `stability check --report` writes: the option and the file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._extras import needs
from ..errors import InputError

if TYPE_CHECKING:
    from ..io.plan import Plan
    from ..model.workload import Workload
    from ..theory.check import CheckResult


def _page(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:  # noqa: ARG001
    if value is None:
        return None
    path = Path(value)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--report = {value!r}, must end in .html. Name a page.")
    if not path.parent.is_dir():
        raise InputError(f"--report = {value!r}, must be in a folder that exists. Create {str(path.parent)!r} first.")
    needs("matplotlib", "jinja2")
    return path


report_option = click.option(
    "--report", callback=_page, metavar="FILE", help="Also write a page with pictures that opens anywhere: report.html."
)


def write_page(
    path: Path,
    plan: str | None,
    found: Plan,
    workload: Workload,
    result: CheckResult,
    notes: Sequence[str],
) -> None:
    """The result as a page. It names files without their folders, so that it is the same wherever it is made."""
    from ..io.plan import example_text
    from ..report.page import page_of

    name = None if plan is None else Path(plan).name
    rate = [] if workload is found.workload else ["--rate", f"{workload.rate_per_s:g}"]
    sources = {note for pool in found.fleet.pools for note in (f"{pool.name}: {text}" for text in pool.replica.notes)}
    page = page_of(
        found.fleet,
        workload,
        found.targets,
        result,
        title=name or "the bundled example",
        plan_text=example_text() if plan is None else Path(plan).read_text(encoding="utf-8-sig"),
        notes=[note for note in notes if note not in sources],
        command=shlex.join(["stability", "check", *([name] if name else []), *rate, "--report", path.name]),
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--report = {str(path)!r} cannot be written ({error.strerror}). Choose another file."
        ) from None
