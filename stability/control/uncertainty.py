"""What may be known of arrival rates besides their means: sets and scenarios that a split is to bear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Every class may arrive faster by a share of its rate, all at once.

    Parameters
    ----------
    spread : float >= 0
        Largest excess over the rate, relative to it.
    """

    spread: float

    def __post_init__(self) -> None:
        check_number("spread", self.spread, at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """As `Box`, but only so many classes at a time.

    Parameters
    ----------
    spread : float >= 0
        Largest excess over the rate, relative to it.
    classes : float >= 0
        Classes that are up at a time; a fraction lets one more be up in part.
    """

    spread: float
    classes: float

    def __post_init__(self) -> None:
        check_number("spread", self.spread, at_least=0)
        check_number("classes", self.classes, at_least=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenarios:
    """Rate vectors with probabilities; the mean load of the worst of them counts.

    Parameters
    ----------
    rates_per_s : sequence of sequences of float >= 0
        One row a scenario, one rate a class, 1/s.
    weights : sequence of float >= 0, optional
        Probabilities, up to a factor; equal without.
    level : float in [0, 1)
        The worst share 1 - level counts; 0 is the mean over all.
    """

    rates_per_s: Sequence[Sequence[float]]
    weights: Sequence[float] | None = None
    level: float = 0.9

    def __post_init__(self) -> None:
        check_number("level", self.level, at_least=0, below=1)
        if not len(self.rates_per_s):
            raise InputError("rates_per_s is empty, must hold at least one scenario.")
        if self.weights is not None and len(self.weights) != len(self.rates_per_s):
            raise InputError(f"{len(self.weights)} weights for {len(self.rates_per_s)} scenarios, must be as many.")


Uncertainty = Box | Budget | Scenarios
"""Any of them."""
