"""Routers: which replica an arriving request joins, decided once, at its arrival."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..errors import InputError, check_number, unknown_name
from ..model.fleet import Barrier, Fleet


class Router(ABC):
    """A routing policy as a parameter object: what it decides is in simulation, not here.

    Attributes
    ----------
    code : int
        Under which number kernels know the policy.
    draws : int
        Uniform random numbers it uses for one request.
    observes : bool
        Whether it looks at every replica's state at each arrival.

    Examples
    --------
    >>> from stability import policies
    >>> policies.RoundRobin().observes, policies.JoinShortestKv().observes
    (False, True)
    """

    code: int
    draws: int = 0
    observes: bool = False

    def shares(self, fleet: Fleet, classes: int) -> FloatArray:
        """Cumulative routing probabilities over the replicas, for policies that have them.

        Parameters
        ----------
        fleet : Fleet
            Whose replicas are meant, pool by pool.
        classes : int >= 1
            Request classes of the workload.

        Returns
        -------
        ndarray
            Shape (classes, replicas), or (classes, 0).
        """
        del fleet
        return np.empty((classes, 0))


@dataclass(frozen=True, slots=True)
class RoundRobin(Router):
    """Replicas in turn, by index.

    Examples
    --------
    A prompt of 100 tokens and three of 10, to two replicas:

    >>> import stability as st
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000), 2)
    >>> trace = st.Workload.from_requests([0.0, 0.001, 0.002, 0.003], [100, 10, 10, 10], [3, 3, 3, 3])
    >>> st.simulate(fleet, trace, router="round_robin").requests.replica.tolist()
    [0, 1, 0, 1]
    """

    code = 0


@dataclass(frozen=True, slots=True)
class Random(Router):
    """Every replica with the same probability.

    Examples
    --------
    A prompt of 100 tokens and three of 10, to two replicas:

    >>> import stability as st
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000), 2)
    >>> trace = st.Workload.from_requests([0.0, 0.001, 0.002, 0.003], [100, 10, 10, 10], [3, 3, 3, 3])
    >>> st.simulate(fleet, trace, router="random", rng=1).requests.replica.tolist()
    [0, 1, 1, 0]
    """

    code = 1
    draws = 1


@dataclass(frozen=True, slots=True)
class JoinShortestQueue(Router):
    """The replica with the fewest requests, waiting and running; ties to the lowest index.

    Examples
    --------
    A prompt of 100 tokens and three of 10, to two replicas:

    >>> import stability as st
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000), 2)
    >>> trace = st.Workload.from_requests([0.0, 0.001, 0.002, 0.003], [100, 10, 10, 10], [3, 3, 3, 3])
    >>> st.simulate(fleet, trace, router="join_shortest_queue").requests.replica.tolist()
    [0, 1, 0, 1]
    """

    code = 2
    observes = True


@dataclass(frozen=True, slots=True)
class JoinShortestKv(Router):
    """The replica with the fewest tokens: resident KV plus queued prompts; ties to the lowest index.

    Examples
    --------
    A prompt of 100 tokens and three of 10, to two replicas:

    >>> import stability as st
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000), 2)
    >>> trace = st.Workload.from_requests([0.0, 0.001, 0.002, 0.003], [100, 10, 10, 10], [3, 3, 3, 3])
    >>> st.simulate(fleet, trace, router="join_shortest_kv").requests.replica.tolist()
    [0, 1, 1, 1]
    """

    code = 3
    observes = True


@dataclass(frozen=True, slots=True)
class PowerOfTwo(Router):
    """Of two distinct replicas drawn at random, the one with fewer requests; ties to the lower index.

    Examples
    --------
    A prompt of 100 tokens and three of 10, to two replicas:

    >>> import stability as st
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000), 2)
    >>> trace = st.Workload.from_requests([0.0, 0.001, 0.002, 0.003], [100, 10, 10, 10], [3, 3, 3, 3])
    >>> st.simulate(fleet, trace, router="power_of_two", rng=1).requests.replica.tolist()
    [0, 1, 0, 1]
    """

    code = 4
    draws = 2


@dataclass(frozen=True, init=False)
class WeightedSplit(Router):
    """A static random split over the pools, evenly over the replicas of each; over the workers of one barrier group.

    Parameters
    ----------
    weights : sequence of float, or of one such sequence per request class, all >= 0
        Share of the requests for each pool, or for each worker of a fleet that is one barrier group, up to a factor.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.WeightedSplit([1.0, 3.0]).weights  # a quarter to the first pool, the rest to the second
    ((1.0, 3.0),)
    """

    weights: tuple[tuple[float, ...], ...]

    code = 5
    draws = 1

    def __init__(self, weights: Sequence[float] | Sequence[Sequence[float]]) -> None:
        rows = [tuple(row) if isinstance(row, Sequence) else (row,) for row in weights]
        if rows and not any(isinstance(row, Sequence) for row in weights):
            rows = [tuple(row[0] for row in rows)]
        for k, row in enumerate(rows):
            for i, weight in enumerate(row):
                check_number(f"weights[{k}][{i}]", weight, at_least=0)
        if not rows or any(len(row) != len(rows[0]) or not sum(row) > 0 for row in rows):
            raise InputError(
                f"weights = {weights!r}, must have one entry a pool and a positive sum in every row. "
                "Give every class a pool to go to."
            )
        object.__setattr__(self, "weights", tuple(rows))

    def shares(self, fleet: Fleet, classes: int) -> FloatArray:
        rows = self.weights * classes if len(self.weights) == 1 else self.weights
        counts = [pool.replicas for pool in fleet.pools]
        if len(counts) == 1 and isinstance(fleet.pools[0].coupling, Barrier) and len(rows[0]) == counts[0]:
            counts = [1] * counts[0]
        if len(rows) != classes or len(rows[0]) != len(counts):
            raise InputError(
                f"the split has {len(self.weights)} rows of {len(rows[0])} weights, must have 1 or {classes} rows "
                f"of {len(fleet.pools)}. Give one row a class and one weight a pool."
            )
        even = np.array([np.repeat(np.array(row) / counts, counts) for row in rows])
        cumulative = np.cumsum(even, axis=1)
        cumulative /= cumulative[:, -1:]
        for row in range(classes):  # whatever rounding leaves belongs to the last replica that takes anything
            cumulative[row, np.flatnonzero(even[row])[-1] :] = 1.0
        return cumulative


@dataclass(frozen=True, slots=True)
class PrefixAffinity(Router):
    """The replica with the best score: prompt tokens it has in its prefix cache, less its load times `balance`.

    The load is what `JoinShortestKv` looks at, resident and queued tokens; ties go to the least loaded, then to the lowest index. Requests
    that share no prefix join the least loaded replica.

    Parameters
    ----------
    balance : float >= 0
        Tokens of prefix that outweigh one token of load: 0 follows the prefix wherever it is, large values balance loads only.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    A prefix of 1000 tokens is followed to a replica that holds up to 20 000 tokens more than the others:

    >>> from stability import policies
    >>> policies.PrefixAffinity(balance=0.05)
    PrefixAffinity(balance=0.05)
    """

    balance: float = 0.05

    code = 10
    observes = True

    def __post_init__(self) -> None:
        check_number("balance", self.balance, at_least=0)


@dataclass(frozen=True, slots=True)
class BidPrice(Router):
    """Admission by bid prices: a request joins a pool only where its value is at least what it uses is worth; else it is turned away.

    Among the pools that admit its class, by the weights; evenly over the replicas of each. `AdmissionPlan.bid_price_router` has the
    prices of the fluid optimum.

    Parameters
    ----------
    values : sequence of float >= 0, one a request class
        What a request of the class earns.
    prices : sequence of sequences of float >= 0, a row a class, an entry a pool
        Price of the resources that one request of the class takes of the pool; infinite where it may not go.
    weights : sequence of sequences of float >= 0, as `prices`, optional
        Shares of the pools that admit the class; equal without them.
    fractions : sequence of float in [0, 1], one a class, optional
        Share of the admissible requests of a class that is let in: less than 1 for one whose value equals its price.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    A request takes resources worth 0.5: the first class, worth 1, is admitted, the second, worth 0.2, is not.

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=10_000), count=2)
    >>> router = st.policies.BidPrice(values=(1.0, 0.2), prices=((0.5,), (0.5,)))
    >>> router.shares(fleet, 2).tolist()  # cumulative over the replicas
    [[0.5, 1.0], [0.0, 0.0]]
    """

    values: tuple[float, ...]
    prices: tuple[tuple[float, ...], ...]
    weights: tuple[tuple[float, ...], ...] = ()
    fractions: tuple[float, ...] = ()

    code = 5  # kernels see shares that add up to less than one
    draws = 1

    def __post_init__(self) -> None:
        count = len(tuple(self.values))
        tables = {
            "values": (self.values,),
            "prices": self.prices,
            "weights": self.weights,
            "fractions": (self.fractions,),
        }
        for name, rows in tables.items():
            kept = tuple(tuple(float(value) for value in row) for row in rows)
            flat = [value for row in kept for value in row]
            if any(math.isnan(v) or v < 0 or (v > 1 and name == "fractions") for v in flat):
                raise InputError(f"{name} = {rows!r}, must be >= 0, and fractions <= 1. Correct the entries.")
            object.__setattr__(self, name, kept[0] if name in ("values", "fractions") else kept)
        widths = {len(row) for row in (*self.prices, *self.weights)}
        short = len(self.prices) != count or (self.weights and len(self.weights) != count)
        if not count or short or len(widths) != 1 or (self.fractions and len(self.fractions) != count):
            raise InputError(
                f"{count} values, {len(self.prices)} rows of prices, {len(self.weights)} of weights and {len(self.fractions)} fractions, "
                "must be a row a class of an entry a pool. Complete them."
            )

    def shares(self, fleet: Fleet, classes: int) -> FloatArray:
        if len(self.values) != classes or len(self.prices[0]) != len(fleet.pools):
            raise InputError(
                f"the bid prices are for {len(self.values)} classes and {len(self.prices[0])} pools, must be for {classes} and "
                f"{len(fleet.pools)}. Give one row a class and one price a pool."
            )
        counts = np.array([pool.replicas for pool in fleet.pools])
        found = np.zeros((classes, int(counts.sum())))
        for k, value in enumerate(self.values):
            weight = np.array(self.weights[k]) if self.weights else np.ones(len(counts))
            weight = np.where(value >= np.array(self.prices[k]), weight, 0.0)
            if weight.sum() > 0:
                admitted = self.fractions[k] if self.fractions else 1.0
                found[k] = np.cumsum(np.repeat(weight / counts, counts)) / weight.sum() * admitted
                last = np.flatnonzero(np.repeat(weight, counts))[-1]
                found[k, last:] = admitted  # what rounding leaves belongs to the last replica that takes anything
        return found


ROUTERS: dict[str, type[Router]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "join_shortest_queue": JoinShortestQueue,
    "join_shortest_kv": JoinShortestKv,
    "power_of_two": PowerOfTwo,
    "weighted_split": WeightedSplit,
    "prefix_affinity": PrefixAffinity,
}
"""Routers by the names `simulate` accepts."""


def router_of(router: str | Router, fleet: Fleet) -> Router:
    """The policy named by `router`; a named weighted split takes the weights of the fleet's pools.

    Parameters
    ----------
    router : str or Router
        A key of `ROUTERS`, or a policy, which is returned as it is.
    fleet : Fleet
        Whose pools may have weights.

    Returns
    -------
    Router
        The policy.

    Raises
    ------
    InputError
        If the name is unknown, or the split is named and the pools have no weights.
    """
    if isinstance(router, Router):
        return router
    if router not in ROUTERS:
        raise unknown_name("router", router, ROUTERS)
    if router == "weighted_split":
        weights = [pool.weight for pool in fleet.pools]
        if any(weight is None for weight in weights):
            raise InputError(
                "router = 'weighted_split', but the pools have no weight. Weigh the pools or use WeightedSplit(...)."
            )
        return WeightedSplit([weight or 0.0 for weight in weights])
    return ROUTERS[router]()
