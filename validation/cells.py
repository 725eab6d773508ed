"""Cells of the validation table, and the registry of claims that fill them.

A claim is a function that yields tasks; a task is a picklable call that returns cells. Later predictions add a module
with a claim of their own and an import in `validation.claims`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum


class Status(Enum):
    """Outcome of a cell."""

    PASS = "pass"
    FAIL = "fail"
    UNDETERMINED = "undetermined"
    """The theory withholds a verdict: counted and shown, not counted as right."""
    EXPECTED_FAIL = "expected fail"
    """Fails and is listed by name, with its reason, in `validation.expected`."""
    UNEXPECTED_PASS = "unexpected pass"
    """Listed as failing and passes: the list must be shortened."""
    SHOWN = "shown"
    """Reported without a tolerance."""

    @property
    def is_failure(self) -> bool:
        """Whether the run fails because of it."""
        return self in (Status.FAIL, Status.UNEXPECTED_PASS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One prediction beside one observation.

    Attributes
    ----------
    claim : str
        Which prediction.
    case : str
        Under which conditions; `claim` and `case` name the cell.
    predicted, observed : float or str
        Figures, or words for verdicts.
    half_width : float
        Half-width of the observation's 95 % interval, in its unit; nan if none.
    tolerance : float
        Largest relative deviation that passes; nan if the cell is only shown.
    status : Status
    note : str
        Why, where that needs saying.
    """

    claim: str
    case: str
    predicted: float | str
    observed: float | str
    half_width: float = math.nan
    tolerance: float = math.nan
    status: Status
    note: str = ""

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.claim}: {self.case}"

    @property
    def deviation(self) -> float:
        """predicted/observed - 1; nan for words."""
        if isinstance(self.predicted, str) or isinstance(self.observed, str) or self.observed == 0:
            return math.nan
        return self.predicted / self.observed - 1


def measured(
    claim: str,
    case: str,
    *,
    predicted: float,
    observed: float,
    tolerance: float,
    half_width: float = math.nan,
    note: str = "",
) -> Cell:
    """A cell of two figures, judged by their relative deviation."""
    good = math.isfinite(predicted) and observed != 0 and abs(predicted / observed - 1) <= tolerance
    return Cell(
        claim=claim,
        case=case,
        predicted=predicted,
        observed=observed,
        half_width=half_width,
        tolerance=tolerance,
        status=Status.PASS if good else Status.FAIL,
        note=note,
    )


def shown(claim: str, case: str, *, predicted: float, observed: float, note: str = "") -> Cell:
    """A cell without a tolerance."""
    return Cell(claim=claim, case=case, predicted=predicted, observed=observed, status=Status.SHOWN, note=note)


@dataclass(frozen=True, slots=True)
class Task:
    """A picklable call that returns cells."""

    name: str
    call: Callable[..., list[Cell]]
    arguments: tuple[object, ...]

    def run(self) -> list[Cell]:
        """The cells; an exception becomes a failing cell, so that one defect does not hide the others."""
        try:
            return self.call(*self.arguments)
        except Exception as error:
            note = f"{type(error).__name__}: {error}"
            return [Cell(claim="runs", case=self.name, predicted="", observed="", status=Status.FAIL, note=note)]


Claim = Callable[[str], Iterator[Task]]
"""Yields the tasks of a claim for the size "quick" or "full"."""

_CLAIMS: dict[str, Claim] = {}


def claim(name: str) -> Callable[[Claim], Claim]:
    """Register a function as the claim `name`."""

    def register(function: Claim) -> Claim:
        if name in _CLAIMS:
            raise ValueError(f"claim {name!r} exists already, must be new. Choose another name.")
        _CLAIMS[name] = function
        return function

    return register


def tasks(size: str, only: str = "") -> list[Task]:
    """Tasks of every registered claim whose name contains `only`."""
    return [task for name, function in _CLAIMS.items() if only in name for task in function(size)]


def with_expectations(cells: Iterable[Cell], expected: dict[str, str]) -> list[Cell]:
    """The cells, with failures that are listed in `expected` (name -> reason) marked as such, and strictly so."""
    found = []
    for cell in cells:
        reason = expected.get(cell.name)
        if reason is None:
            found.append(cell)
        elif cell.status is Status.FAIL:
            found.append(replace(cell, status=Status.EXPECTED_FAIL, note=reason))
        else:
            found.append(replace(cell, status=Status.UNEXPECTED_PASS, note=f"listed as failing: {reason}"))
    return found
