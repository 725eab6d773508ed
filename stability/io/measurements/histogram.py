"""Length histograms as CSV: cumulative counts by upper bound, as Prometheus has them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from ..._types import FloatArray
from .table import CsvTable

QUANTITIES = ("prompt", "output")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Histogram:
    """Requests by length.

    Attributes
    ----------
    upper_bounds_tokens : (n,) ndarray, increasing
        Upper bound of each bucket, tokens; the last may be infinite.
    counts : (n,) ndarray
        Requests in each bucket.
    """

    upper_bounds_tokens: FloatArray
    counts: FloatArray


def read_histograms(path: str | os.PathLike[str]) -> dict[str, Histogram]:
    """The histograms of prompt and output lengths of a CSV file.

    Parameters
    ----------
    path : str or os.PathLike
        CSV with the columns `quantity` (prompt or output), `le_tokens` (upper bound, +Inf for the last) and
        `cumulative_count` (requests up to the bound), bounds ascending.

    Returns
    -------
    dict of str to Histogram
        By "prompt" and "output".

    Raises
    ------
    InputError
        With file and line of what is wrong.
    """
    table = CsvTable(path)
    for name in ("quantity", "le_tokens", "cumulative_count"):
        table.find(f"the {name} of a bucket", {name: 1.0})
    cumulative = table.numbers("cumulative_count")
    rows: dict[str, list[tuple[float, float, int]]] = {name: [] for name in QUANTITIES}
    texts = zip(table.text("quantity"), table.text("le_tokens"), cumulative.tolist(), table.lines, strict=True)
    for quantity, bound_text, count, line in texts:
        if quantity not in rows:
            raise table.error(line, f"quantity = {quantity!r}, must be prompt or output. Correct the row.")
        try:
            bound = float(bound_text)
        except ValueError:
            bound = math.nan
        if not bound > 0:
            raise table.error(line, f"le_tokens = {bound_text!r}, must be a number > 0 or +Inf. Correct the row.")
        before = rows[quantity][-1] if rows[quantity] else (0.0, 0.0, 0)
        if bound <= before[0]:
            raise table.error(line, f"le_tokens = {bound:g} after {before[0]:g}, must increase. Sort the buckets.")
        if count < before[1]:
            raise table.error(
                line,
                f"cumulative_count = {count:g} after {before[1]:g}, must not decrease: counts are cumulative. Correct the row.",
            )
        rows[quantity].append((bound, count, line))
    found = {}
    for quantity, buckets in rows.items():
        if not buckets or not buckets[-1][1] > 0:
            raise table.error(table.lines[-1], f"no {quantity} lengths were counted, must be some. Add the buckets.")
        bounds, counts, _ = np.array(buckets).T
        found[quantity] = Histogram(upper_bounds_tokens=bounds, counts=np.diff(counts, prepend=0.0))
    return found
