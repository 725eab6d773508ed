"""What a fleet may be built from: kinds of replica with the number that can be had of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .._result import Described
from ..errors import InputError, NotModelledError, check_integer, check_number
from .fleet import Fleet, Pool
from .replica import Replica


@dataclass(frozen=True, slots=True)
class Candidate(Described):
    """A kind of replica (GPU type, parallelism and engine settings) that a fleet may hold some of.

    Parameters
    ----------
    name : str
        Unique among the candidates.
    replica : Replica
        What each of them is.
    at_least : int >= 0
        Fewest replicas, such as those bought already.
    at_most : int >= at_least, optional
        Most replicas, such as a quota; without it as many as needed.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000, price_per_hour=2.0)
    >>> st.Candidate("rented", replica, at_least=2, at_most=8).at_most
    8
    """

    name: str
    replica: Replica
    at_least: int = 0
    at_most: int | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("name is empty, must name the candidate. Give each candidate a name of its own.")
        if not isinstance(self.replica, Replica):
            raise InputError(
                f"replica = {self.replica!r}, must be a Replica. Use Replica(...) or stability.replica(...)."
            )
        check_integer("at_least", self.at_least, at_least=0)
        if self.at_most is not None:
            check_integer("at_most", self.at_most, at_least=self.at_least, hint="Raise it or lower at_least.")

    @classmethod
    def of(cls, pool: Pool) -> Candidate:
        """Any number of replicas like those of `pool`."""
        if pool.role != "mixed" or pool.coupling != "independent":
            raise NotModelledError(
                f"pool {pool.name!r} has a prefill/decode role or a barrier, candidates must be independent mixed replicas. "
                "See stability.disaggregation for pools with roles."
            )
        return cls(pool.name, pool.replica)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What a planner may choose from, and what the choice has to withstand.

    Parameters
    ----------
    candidates : sequence of Candidate
        Kinds of replica; empty for those of the fleet.
    spares : int >= 0
        Replicas that may fail at a time (the k of N+k).
    switching_cost : float >= 0, optional
        Price of starting one replica, in the currency of `price_per_hour`: the fleet may then change with a rate schedule.
        Without it, one fleet serves all hours.
    """

    candidates: Sequence[Candidate] = ()
    spares: int = 0
    switching_cost: float | None = None

    def __post_init__(self) -> None:
        check_integer("spares", self.spares, at_least=0)
        if self.switching_cost is not None:
            check_number("switching_cost", self.switching_cost, at_least=0)
        object.__setattr__(self, "candidates", tuple(self.candidates))
        names = [item.name for item in self.candidates]
        if len(set(names)) < len(names):
            raise InputError(f"candidate names {names} repeat, must be distinct. Rename one.")


def priced(given: Fleet | Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates, or those of a fleet, each with a name of its own and a price."""
    kinds = tuple(Candidate.of(pool) for pool in given.pools) if isinstance(given, Fleet) else tuple(given)
    if not kinds:
        raise InputError("candidates is empty, must hold at least one kind of replica. Add a Candidate.")
    for index, item in enumerate(kinds):
        if not isinstance(item, Candidate):
            raise InputError(f"candidates[{index}] = {item!r}, must be a Candidate. Use Candidate(name, replica).")
    names = [item.name for item in kinds]
    if len(set(names)) < len(names):
        raise InputError(f"candidate names {names} repeat, must be distinct. Rename one.")
    unpriced = [item.name for item in kinds if item.replica.price_per_hour is None]
    if unpriced:
        named, verb = ", ".join(f"pool {name!r}" for name in unpriced), "has" if len(unpriced) == 1 else "have"
        raise InputError(
            f"{named} {verb} no price_per_hour, must have one to be compared. "
            "Give each the price of a replica, all of its GPUs together."
        )
    return kinds
