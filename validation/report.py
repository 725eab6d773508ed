"""The validation table as text, Markdown and self-contained HTML with deviation plots."""

from __future__ import annotations

import base64
import html
import io
import math
import platform
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

import numpy as np

from stability._result import html_table, text_table

from .cells import Cell, Status

HEADER = ("claim", "cells", "pass", "fail", "expected fail", "undetermined", "shown", "within tolerance", "worst")

PACKAGES = ("llm-stability", "numpy", "scipy", "numba")


def rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """One row per claim."""
    found: list[tuple[str, ...]] = []
    for name in dict.fromkeys(cell.claim for cell in cells):
        mine = [cell for cell in cells if cell.claim == name]
        count = Counter(cell.status for cell in mine)
        judged = len(mine) - count[Status.SHOWN] - count[Status.UNDETERMINED]
        good = count[Status.PASS] + count[Status.UNEXPECTED_PASS]
        deviations = [abs(cell.deviation) for cell in mine if math.isfinite(cell.deviation)]
        found.append(
            (
                name,
                str(len(mine)),
                str(good),
                str(count[Status.FAIL]),
                str(count[Status.EXPECTED_FAIL]),
                str(count[Status.UNDETERMINED]),
                str(count[Status.SHOWN]),
                f"{100 * good / judged:.1f} %" if judged else "-",
                f"{100 * max(deviations):.1f} %" if deviations else "-",
            )
        )
    return found


def table(cells: Sequence[Cell]) -> str:
    """The claims, and every cell that fails or passes unexpectedly."""
    text = text_table(rows(cells), HEADER)
    bad = [cell for cell in cells if cell.status.is_failure]
    if bad:
        text += "\n\nfailures\n" + text_table([_cell_row(cell) for cell in worst_first(bad)], CELL_HEADER)
    return text


CELL_HEADER = ("cell", "predicted", "observed", "+-", "deviation", "tolerance", "status", "note")


def _cell_row(cell: Cell) -> tuple[str, ...]:
    def figure(value: float | str) -> str:
        return value if isinstance(value, str) else "-" if math.isnan(value) else f"{value:.4g}"

    deviation = "-" if math.isnan(cell.deviation) else f"{100 * cell.deviation:+.1f} %"
    tolerance = "-" if math.isnan(cell.tolerance) else f"{100 * cell.tolerance:g} %"
    return (
        cell.name,
        figure(cell.predicted),
        figure(cell.observed),
        figure(cell.half_width),
        deviation,
        tolerance,
        cell.status.value,
        cell.note,
    )


def worst_first(cells: Sequence[Cell]) -> list[Cell]:
    """By how far outside the tolerance they are."""

    def excess(cell: Cell) -> float:
        if math.isnan(cell.deviation) or math.isnan(cell.tolerance):
            return math.inf
        return abs(cell.deviation) / cell.tolerance

    return sorted(cells, key=excess, reverse=True)


def environment(size: str, seconds: float) -> list[tuple[str, str]]:
    """What the figures were measured on."""
    return [
        ("size", size),
        ("wall time", f"{seconds:.0f} s"),
        ("machine", f"{platform.machine()}, Python {platform.python_version()}"),
        *((name, _version(name)) for name in PACKAGES),
    ]


def _version(name: str) -> str:
    try:
        return version(name)
    except ModuleNotFoundError:
        return "from the checkout"


def markdown_report(cells: Sequence[Cell], size: str, seconds: float) -> str:
    """Claims, the worst cells of each, and every expected failure, for the docs."""
    parts = ["# Validation", "", _markdown_table(HEADER, rows(cells)), "", "## Worst cells of each claim", ""]
    for name in dict.fromkeys(cell.claim for cell in cells):
        mine = worst_first([cell for cell in cells if cell.claim == name and cell.status is not Status.SHOWN])[:5]
        if mine:
            parts += [f"### {name}", "", _markdown_table(CELL_HEADER, [_cell_row(cell) for cell in mine]), ""]
    listed = [cell for cell in cells if cell.status is Status.EXPECTED_FAIL]
    if listed:
        parts += ["## Expected to fail", "", _markdown_table(CELL_HEADER, [_cell_row(cell) for cell in listed]), ""]
    parts += ["## Measured on", "", _markdown_table(("", ""), environment(size, seconds)), ""]
    return "\n".join(parts)


def _markdown_table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in body]
    return "\n".join(lines)


STYLE = """
:root { color-scheme: light dark; font-family: system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
td, th { padding: .2rem .6rem; border-bottom: 1px solid #8884; } img { max-width: 100%; background: white; }
"""


def html_report(cells: Sequence[Cell], size: str, seconds: float) -> str:
    """One file that opens without a network: pictures first, then the claims, then every cell."""
    tables = [
        ("Claims", html_table(rows(cells), HEADER)),
        ("Measured on", html_table(environment(size, seconds))),
        ("Every cell", html_table([_cell_row(cell) for cell in worst_first(cells)], CELL_HEADER)),
    ]
    body = "".join(f"<h2>{html.escape(name)}</h2><div class='wide'>{text}</div>" for name, text in tables)
    picture = _deviation_picture(cells)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Validation</title><style>{STYLE}</style>"
        f"<h1>Validation ({html.escape(size)})</h1>{picture}{body}</html>"
    )


def _deviation_picture(cells: Sequence[Cell]) -> str:
    """Deviations of each claim against its tolerance, as an inline image."""
    from matplotlib.figure import Figure

    names = [
        name
        for name in dict.fromkeys(c.claim for c in cells)
        if any(math.isfinite(c.deviation) for c in cells if c.claim == name)
    ]
    if not names:
        return ""
    figure = Figure(figsize=(9, 1.2 + 0.8 * len(names)), layout="constrained")
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    for row, name in enumerate(names):
        mine = [cell for cell in cells if cell.claim == name and math.isfinite(cell.deviation)]
        x = np.clip([100 * cell.deviation for cell in mine], -60, 60)
        colours = ["#0072B2" if cell.status in (Status.PASS, Status.SHOWN) else "#D55E00" for cell in mine]
        axes.scatter(x, row + rng.uniform(-0.25, 0.25, len(mine)), c=colours, s=9, alpha=0.7, linewidths=0)
        tolerance = max((100 * c.tolerance for c in mine if math.isfinite(c.tolerance)), default=0.0)
        axes.plot([-tolerance, -tolerance], [row - 0.35, row + 0.35], color="black", linewidth=1)
        axes.plot([tolerance, tolerance], [row - 0.35, row + 0.35], color="black", linewidth=1)
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(
        "predicted over observed - 1, % (clipped at 60); bars: widest tolerance of the claim; orange: outside"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='deviations by claim' src='data:image/png;base64,{data}'>"
