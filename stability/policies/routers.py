"""Routers: which replica an arriving request joins, decided once, at its arrival."""

from __future__ import annotations

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
    """Replicas in turn, by index."""

    code = 0


@dataclass(frozen=True, slots=True)
class Random(Router):
    """Every replica with the same probability."""

    code = 1
    draws = 1


@dataclass(frozen=True, slots=True)
class JoinShortestQueue(Router):
    """The replica with the fewest requests, waiting and running; ties to the lowest index."""

    code = 2
    observes = True


@dataclass(frozen=True, slots=True)
class JoinShortestKv(Router):
    """The replica with the fewest tokens: resident KV plus queued prompts; ties to the lowest index."""

    code = 3
    observes = True


@dataclass(frozen=True, slots=True)
class PowerOfTwo(Router):
    """Of two distinct replicas drawn at random, the one with fewer requests; ties to the lower index."""

    code = 4
    draws = 2


@dataclass(frozen=True, init=False)
class WeightedSplit(Router):
    """A static random split over the pools, evenly over the replicas of each; over the workers of one barrier group.

    Parameters
    ----------
    weights : sequence of float, or of one such sequence per request class, all >= 0
        Share of the requests for each pool, or for each worker of a fleet that is one barrier group, up to a factor.
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


ROUTERS: dict[str, type[Router]] = {
    "round_robin": RoundRobin,
    "random": Random,
    "join_shortest_queue": JoinShortestQueue,
    "join_shortest_kv": JoinShortestKv,
    "power_of_two": PowerOfTwo,
    "weighted_split": WeightedSplit,
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
