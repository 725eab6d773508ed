"""The check every time series passes on its way in."""

from __future__ import annotations

import numpy as np

from .._types import ArrayLike, FloatArray
from ..errors import InputError


def checked_series(name: str, values: ArrayLike, *, at_least: int = 0) -> FloatArray:
    """`values` as a one-dimensional array of finite floats.

    Parameters
    ----------
    name : str
        What messages call it.
    values : (n,) array_like
    at_least : int
        Fewest entries.

    Returns
    -------
    (n,) array

    Raises
    ------
    InputError
        If it has another shape, too few entries, or one that is no finite number.
    """
    try:
        series: FloatArray = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} holds values that are no numbers, must be a series of numbers. Convert it.") from None
    if series.ndim != 1:
        raise InputError(f"{name} has {series.ndim} dimensions, must have one. Pass one series at a time.")
    if len(series) < at_least:
        raise InputError(f"{name} has {len(series)} entries, must have >= {at_least}. Run longer.")
    bad = np.flatnonzero(~np.isfinite(series))
    if len(bad):
        raise InputError(
            f"{name}[{bad[0]}] = {series[bad[0]]} ({len(bad)} such entries), must be finite. Drop or mend the gaps."
        )
    return series
