"""Grounds to doubt a fitted law, as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .._types import BoolArray
from .law_fit import LawFit

LOOSE = 0.5
"""Half-width over value from which a coefficient counts as loosely known."""

TOGETHER = 0.98
"""Correlation of two estimates from which the data hardly tell them apart."""

LEFT_OUT = 0.01
"""Share of the time missing from the law from which that is said."""

POOR = 0.1
"""Mean error from which the form is in doubt."""

BIASED = 0.05
"""Median error of one kind of step from which the form does not fit it."""

ROWS_EACH = 5
"""Fewest rows for each coefficient."""


def warnings_of(fit: LawFit, reasons: Sequence[str]) -> LawFit:
    """`fit` with its warnings; `reasons` say which forms could not be tried."""
    return replace(fit, warnings=(*_coefficients(fit), *_rows(fit), *(f"not tried: {reason}" for reason in reasons)))


def _coefficients(fit: LawFit) -> list[str]:
    found = []
    known = [item for item in fit.coefficients if item.identified]
    for item in fit.coefficients:
        if not item.identified:
            found.append(f"{item.label} is not identified: no row holds what it multiplies; it is taken as 0")
    for item, signed in zip(known, fit.signed.tolist(), strict=True):
        half = (item.high - item.low) / 2
        if item.high == 0:
            found.append(
                f"the data want {item.label} below 0 ({signed:.3g} s): another form may fit, or a column is wrong"
            )
        elif item.value == 0:
            found.append(f"{item.label} comes out as 0 and may be up to {item.high:.3g} s")
        elif half > LOOSE * item.value:
            found.append(f"{item.label} is loosely known: {item.low:.3g} .. {item.high:.3g} s")
    together = [item.label for item in known if item.name in ("per_token_s", "per_step_s")]
    unseen = [
        kind
        for kind, (_, most) in (("prompt", fit.ranges["prefill_tokens"]), ("decode", fit.ranges["decode_tokens"]))
        if most == 0
    ]
    if together and unseen:
        found.append(f"no row holds {unseen[0]} tokens: {together[0]} prices them like the others, unseen")
    deviation = np.sqrt(np.maximum(np.diag(fit.covariance), 1e-300))
    correlation = fit.covariance / np.outer(deviation, deviation)
    for group in _groups(np.abs(correlation) > TOGETHER):
        names = [known[place].label for place in group]
        found.append(
            f"{', '.join(names[:-1])} and {names[-1]} are hardly told apart: as one rises another falls; vary them apart"
        )
    return found


def _groups(linked: BoolArray) -> list[list[int]]:
    """Connected sets of more than one."""
    left, found = set(range(len(linked))), []
    while left:
        group, front = set(), {left.pop()}
        while front:
            group |= front
            front = {j for i in front for j in np.flatnonzero(linked[i]).tolist()} - group
        left -= group
        if len(group) > 1:
            found.append(sorted(group))
    return found


def _rows(fit: LawFit) -> list[str]:
    found = []
    if abs(fit.time_ratio - 1) > LEFT_OUT:
        word = "leaves out" if fit.time_ratio < 1 else "adds"
        found.append(
            f"the law {word} {100 * abs(1 - fit.time_ratio):.1f} % of the measured time, by rows that the robust loss holds "
            "back; if those stalls recur in service, fit with squares"
        )
    for name, rows in (
        ("decode-only rows", fit.prefill_tokens == 0),
        ("rows with prompt tokens", fit.prefill_tokens > 0),
    ):
        bias = float(np.median(fit.fitted_s[rows] / fit.time_s[rows])) - 1 if rows.any() else 0.0
        if abs(bias) > BIASED:
            found.append(
                f"{name} come out {100 * abs(bias):.0f} % too {'long' if bias > 0 else 'short'} (median): the form does not fit them"
            )
    if fit.mape > POOR:
        found.append(f"the law misses the rows by {100 * fit.mape:.0f} % on average: the form is in doubt")
    if fit.observations < ROWS_EACH * len(fit.coefficients):
        found.append(
            f"{fit.observations} rows for {len(fit.coefficients)} coefficients: errors in use will be larger than on these rows"
        )
    return found
