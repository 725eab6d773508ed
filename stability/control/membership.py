"""Membership of a capacity region, with its proof: a routing, or prices that separate (Farkas)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from .._result import no_truth
from .._types import ArrayLike, FloatArray, read_only
from ..errors import InputError
from ..policies.routers import WeightedSplit
from .balance import Balance, exact_factor_bounds, least_load
from .rows import FleetRows, by_pool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Membership:
    """Whether rates are in a region, with the proof.

    Attributes
    ----------
    inside : bool
        Strictly inside.
    factor : float
        Largest factor on the rates that stays in the region.
    rates_per_s : (K,) ndarray
        The rates asked about, 1/s.
    shares : (n_pools, K) ndarray
        Routing: share of each class that each pool gets. The proof if inside.
    class_prices : (K,) ndarray
        w, s: every rate vector of the region has `rates @ w <= 1`. The proof if outside.
    balance : Balance
        The same by type of replica, with the prices u from which w follows.
    system : FleetRows
        The rows.
    """

    inside: bool
    factor: float
    rates_per_s: FloatArray
    shares: FloatArray
    class_prices: FloatArray
    balance: Balance
    system: FleetRows

    def __bool__(self) -> bool:
        raise no_truth("Membership")

    def __repr__(self) -> str:
        return f"Membership({'inside' if self.inside else 'outside'}, factor {self.factor:.6g})"

    @property
    def router(self) -> WeightedSplit:
        """The routing as a policy."""
        return split_policy(self.shares)

    def exact(self) -> tuple[Fraction, Fraction]:
        """Bounds on the factor that the routing and the prices prove, in rational arithmetic without any rounding."""
        system, found = self.system, self.balance
        return exact_factor_bounds(
            system.seconds, system.replicas, self.rates_per_s, system.fits, found.shares, found.prices
        )


def membership(system: FleetRows, rates_per_s: ArrayLike) -> Membership:
    """Whether rates (K,), 1/s, are strictly inside the region of `system`."""
    rates = np.array(rates_per_s, dtype=np.float64)
    if rates.shape != system.rates_per_s.shape or not np.isfinite(rates).all() or (rates < 0).any() or not rates.any():
        raise InputError(
            f"rates_per_s = {rates.tolist()}, must be {len(system.classes)} finite numbers >= 0, not all 0. "
            f"Give one for each of {', '.join(system.classes)}."
        )
    for k in np.flatnonzero(rates).tolist():
        if not system.fits[:, k].any():
            raise InputError(f"class {system.classes[k]!r} fits no pool, must have rate 0.")
    found = least_load(system.seconds, system.replicas, rates, system.fits)
    return Membership(
        inside=found.lower > 1,
        factor=found.lower,
        rates_per_s=read_only(rates),
        shares=read_only(by_pool(system, found.shares)),
        class_prices=found.class_prices,
        balance=found,
        system=system,
    )


def split_policy(shares: FloatArray) -> WeightedSplit:
    """Shares of the classes (n_pools, K) as a routing policy."""
    return WeightedSplit([row.tolist() for row in shares.T])
