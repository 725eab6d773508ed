"""Several policies on common random numbers: paired differences with simultaneous intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from .._result import html_table, json_safe, no_truth, text_table
from .._types import ArrayLike
from ..errors import InputError, check_choice, check_number, unknown_name
from .intervals import Interval, batch_means_interval
from .series import checked_series

SCHEMA = "stability/comparison/1"
ADJUSTMENTS = ("bonferroni", "sidak")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedDifference:
    """Mean of one policy minus mean of another.

    Attributes
    ----------
    policy, against : str
    difference : float
        Mean over the replications of (policy - against).
    interval : Interval
        Simultaneous with those of the other pairs of the table; its own level is therefore higher.
    """

    policy: str
    against: str
    difference: float
    interval: Interval

    @property
    def distinct(self) -> bool:
        """Whether the interval excludes zero."""
        return 0.0 not in self.interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Paired differences that hold together with probability `level`.

    Attributes
    ----------
    metric : str
        What was measured, with its unit.
    means : mapping of str to float
        Mean over the replications, by policy.
    differences : tuple of PairedDifference
    replications : int
    level : float
        Probability that all intervals cover at once.
    adjustment : str
        "bonferroni" or "sidak".
    """

    metric: str
    means: Mapping[str, float]
    differences: tuple[PairedDifference, ...]
    replications: int
    level: float
    adjustment: str

    def __bool__(self) -> bool:
        raise no_truth("Comparison")

    def __repr__(self) -> str:
        distinct = sum(pair.distinct for pair in self.differences)
        return f"Comparison({self.metric!r}, {len(self.means)} policies, {distinct} of {len(self.differences)} pairs differ)"

    def rows(self) -> list[tuple[str, ...]]:
        """One row a pair: policy, against, difference, interval, whether it excludes zero."""
        return [
            (
                pair.policy,
                pair.against,
                f"{pair.difference:+.4g}",
                f"{pair.interval.low:+.4g} .. {pair.interval.high:+.4g}",
                "yes" if pair.distinct else "no",
            )
            for pair in self.differences
        ]

    def summary(self) -> str:
        """Means, then differences, as text tables."""
        means = text_table([(name, f"{mean:.5g}") for name, mean in self.means.items()], ("policy", self.metric))
        return f"{means}\n\n{text_table(self.rows(), self._header())}"

    def _repr_html_(self) -> str:
        return html_table(self.rows(), self._header(), caption=self.metric)

    def _header(self) -> tuple[str, ...]:
        return ("policy", "against", "difference", f"all at {100 * self.level:g} %", "differs")

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": SCHEMA, **json_safe(self)}


def comparison(
    results: Mapping[str, ArrayLike],
    *,
    metric: str = "result",
    baseline: str | None = None,
    level: float = 0.95,
    adjustment: str = "bonferroni",
) -> Comparison:
    """Differences between policies measured on the same replications.

    Replication i of every policy must have seen the same random numbers: then differences vary less than the policies
    do. Replications must be independent and their differences about normal (means over long runs are).

    Parameters
    ----------
    results : mapping of str to (n,) array_like, n >= 2
        One figure a replication, by policy.
    metric : str
        What the figures are, with the unit.
    baseline : str, optional
        Compare every other policy with this one; without it, every pair.
    level : float in (0, 1)
        Probability that all intervals cover at once.
    adjustment : {"bonferroni", "sidak"}
        With m pairs each interval has level `1 - (1 - level)/m` (holds whatever the dependence) or `level**(1/m)`
        (a little narrower; for normal differences).

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        With fewer than two policies, unequal numbers of replications, or values that are not finite.

    References
    ----------
    Law, Simulation Modeling and Analysis, sections 10.2 and 10.3 (paired t, all pairs, comparison with a standard).
    Sidak, "Rectangular confidence regions for the means of multivariate normal distributions", JASA 62 (1967) 626.

    Examples
    --------
    >>> table = comparison({"fcfs": [1.0, 2.0, 3.0], "srpt": [0.5, 1.6, 2.4]}, metric="TTFT mean (s)")
    >>> table
    Comparison('TTFT mean (s)', 2 policies, 1 of 1 pairs differ)
    >>> round(table.differences[0].difference, 3), table.differences[0].distinct
    (-0.5, True)
    """
    level = check_number("level", level, above=0, below=1)
    check_choice("adjustment", adjustment, ADJUSTMENTS)
    if len(results) < 2:
        raise InputError(f"results has {len(results)} policies, must have >= 2. Add one to compare with.")
    columns = {name: checked_series(f"results[{name!r}]", values, at_least=2) for name, values in results.items()}
    counts = {len(column) for column in columns.values()}
    if len(counts) > 1:
        raise InputError(f"results has policies of {sorted(counts)} replications, must have equally many. Pair them.")
    if baseline is None:
        pairs = [(second, first) for first, second in combinations(columns, 2)]
    elif baseline in columns:
        pairs = [(name, baseline) for name in columns if name != baseline]
    else:
        raise unknown_name("baseline", baseline, columns)
    own = 1 - (1 - level) / len(pairs) if adjustment == "bonferroni" else math.pow(level, 1 / len(pairs))
    replications = counts.pop()
    differences = []
    for policy, against in pairs:
        gaps = columns[policy] - columns[against]
        differences.append(
            PairedDifference(
                policy=policy,
                against=against,
                difference=float(gaps.mean()),
                interval=batch_means_interval(gaps, batches=replications, level=own),
            )
        )
    return Comparison(
        metric=metric,
        means={name: float(np.mean(column)) for name, column in columns.items()},
        differences=tuple(differences),
        replications=replications,
        level=level,
        adjustment=adjustment,
    )
