"""One time axis for replicas that were scraped at different times.

Prometheus scrapes each target at an offset of its own, and dumps keep those stamps. The stamps of the target with the most of
them become rows, and those of others where no row is near; between its own stamps each other series keeps its last value,
for no longer than one and a half of its scrape intervals. Where targets share their stamps (answers to a range query, one page
of several engines) every stamp is a row and nothing is carried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ..._types import FloatArray
from .names import TARGET_LABELS
from .samples import Key, Labels, Samples

NEAR = 0.75
"""Scrape intervals within which a row stands for another target's stamp."""

CARRIED = 1.5
"""Scrape intervals for which a value is kept."""


def target(key: Key) -> Labels:
    """Labels that tell what was scraped."""
    return tuple(pair for pair in key[1] if pair[0] in TARGET_LABELS)


def align(samples: Samples, keys: Iterable[Key]) -> tuple[FloatArray, Mapping[Labels, float]]:
    """Rows for all targets of `keys`, s, and for how long values of each target are kept (empty where none are), s."""
    stamps: dict[Labels, set[float]] = {}
    for key in keys:
        stamps.setdefault(target(key), set()).update(samples.series[key])
    every = np.array(sorted(set().union(*stamps.values())))
    order = sorted(stamps, key=lambda name: (-len(stamps[name]), name))
    own = {name: np.array(sorted(stamps[name])) for name in order}
    interval = {name: float(np.median(np.diff(times))) if len(times) > 1 else 0.0 for name, times in own.items()}
    rows = own[order[0]]
    for name in order[1:]:
        after = np.searchsorted(rows, own[name])
        last = len(rows) - 1
        gap = np.minimum(
            np.abs(rows[np.minimum(after, last)] - own[name]), np.abs(rows[np.maximum(after - 1, 0)] - own[name])
        )
        rows = np.unique(np.concatenate([rows, own[name][gap > NEAR * interval[name]]]))
    if len(rows) == len(every):
        return every, {}
    return rows, {name: CARRIED * width for name, width in interval.items()}
