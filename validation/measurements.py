"""Measured data beside the checkout, absent from the repository."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from .cells import Cell, Status

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data"


def absent(claim: str) -> Cell:
    """What a claim reports where the data is not there."""
    note = "skipped: needs the measurements in ../shared/data, which is not there"
    return Cell(claim=claim, case="skipped", predicted="", observed="", status=Status.SHOWN, note=note)


def table(name: str) -> list[dict[str, str]]:
    """Rows of a CSV file of the folder."""
    with (FOLDER / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def columns(name: str) -> dict[str, np.ndarray]:
    """Columns of a CSV file of numbers."""
    rows = table(name)
    return {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
