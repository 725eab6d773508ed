"""From the prefix cache's equilibria to capacities and operating points: what `analyze` does with sessions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from .._result import percent, seconds
from .._types import FloatArray, read_only
from ..errors import InputError, NotModelledError
from ..model.checks import check_pair
from ..model.fleet import Barrier, Fleet, Pool
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from ..policies import PrefixAffinity, Router
from ..policies.routers import router_of
from .hits import ClassAtHits, nothing_found
from .prefix import GRID, LONGEST_S, PrefixCache, most_lags, revisits
from .prefix_report import CacheEquilibrium, PoolPrefixes, PrefixReport
from .readings import like_engine
from .solve import Solution, solve

PREFIX_TOLERANCE = 0.10
"""Share by which the warm capacity may be too low: above it by more, no equilibrium is taken to exist."""

COLD_CHANGE, COLD_ROUNDS = 1e-4, 60
"""Relative change at which the capacity with a cold cache is settled, and most rounds until then."""

STAYS = (
    "sessions stay at their replicas (a router by prefix that does not balance loads against prefixes); for others see "
    "stability.prefix_equilibria"
)

TWO = (
    "two equilibria: a warm cache carries the load ({hits} of the prompt tokens found, unused prefixes stay {time}), up to "
    "{warm:.4g}/s; a backlog takes the cache and, above {cold:.4g}/s, never drains"
)


def unsettled(classes: Sequence[RequestClass]) -> bool:
    """Whether some class is of sessions whose hits are not known yet."""
    return any(item.sessions is not None and not isinstance(item, ClassAtHits) for item in classes)


class SessionAnalysis:
    """The replicas of a fleet under a mix with sessions.

    `solution` holds capacities with a cold cache: what running requests share of system prompts is found, conversations
    are not. Its bounds for every policy are those with everything found.

    Parameters
    ----------
    pools : sequence of Pool
    replicas : sequence of Replica
        One of each pool.
    classes : sequence of RequestClass
        With positive rates.
    mix : (n,) ndarray
        Their shares.
    confidence : float
    returns : tuple of float
        See `PrefixCache`.
    """

    def __init__(
        self,
        pools: Sequence[Pool],
        replicas: Sequence[Replica],
        classes: Sequence[RequestClass],
        mix: FloatArray,
        confidence: float,
        returns: Sequence[tuple[float, ...]],
    ) -> None:
        for pool in pools:
            _check_modelled(pool)
        self.pools, self.replicas, self.classes, self.mix, self.confidence = pools, replicas, classes, mix, confidence
        known: dict[tuple[Replica, tuple[float, ...]], tuple[PrefixCache | None, Solution, float]] = {}
        self.keys = list(zip(replicas, returns, strict=True))
        for key in self.keys:
            if key not in known:
                known[key] = self._cold(*key)
        self.known = known
        self.solution = _stacked([known[key][1] for key in self.keys])

    def _cold(self, replica: Replica, returns: tuple[float, ...]) -> tuple[PrefixCache | None, Solution, float]:
        plain = solve([replica], self.classes, self.mix, self.confidence)
        if not replica.engine.prefix_caching:
            alone = all(item.sessions is None or item.sessions.turns.max_tokens == 1 for item in self.classes)
            return None, plain if alone else replace(plain, proved=[None]), math.nan  # no turn waits for another
        cold = plain
        # The law's tangent, and the requests that share, at the capacity found last: from nothing shared upwards to the least rate that
        # a backlog keeps up by itself.
        for _ in range(COLD_ROUNDS):
            last = float(cold.capacity[0])
            cache = PrefixCache(replica, self.classes, self.mix, returns, cold.coefficients[0])
            state = cache.at(min(last, cache.cold_capacity()), np.zeros(1))
            cold = solve([replica], cache.classes_at(state, 0), self.mix, self.confidence)
            if abs(float(cold.capacity[0]) - last) < COLD_CHANGE * last:
                break
        best = solve([replica], cache.everything_found(), self.mix, self.confidence)
        warm = max(cache.warm_capacity(), float(cold.capacity[0]))
        ceiling = np.minimum(best.upper_bound, (1 + PREFIX_TOLERANCE) * warm)
        return cache, replace(cold, proved=[None], upper_bound=best.upper_bound, unstable_above=ceiling), warm

    def at(
        self, per_replica: FloatArray
    ) -> tuple[Solution, Solution, list[list[RequestClass]], list[PoolPrefixes | None]]:
        """At rates of one replica of each pool, 1/s.

        Returns
        -------
        judged, operating : Solution
            The cold one with doubts where two equilibria exist; and that at the hits of the warmest equilibrium.
        classes : list
            At those hits, by pool.
        prefixes : list of PoolPrefixes or None
            None without prefix caching.
        """
        doubts, operating, classes, prefixes = list(self.solution.doubts), [], [], []
        done: dict[Any, tuple[Solution, list[RequestClass], PoolPrefixes | None]] = {}
        for row, (pool, key) in enumerate(zip(self.pools, self.keys, strict=True)):
            cache, cold, warm = self.known[key]
            lam = float(per_replica[row])
            if cache is None:
                found: tuple[Solution, list[RequestClass], PoolPrefixes | None] = (
                    cold,
                    [nothing_found(item) for item in self.classes],
                    None,
                )
            elif (key, lam, pool.replicas) in done:
                found = done[key, lam, pool.replicas]
            else:
                found = done[key, lam, pool.replicas] = self._settled(pool, cache, cold, warm, lam)
            solution, at_hits, report = found
            operating.append(solution)
            classes.append(at_hits)
            prefixes.append(None if report is None else replace(report, name=pool.name))
            if report is not None and report.metastable and report.at is not None:
                doubts[row] = TWO.format(
                    hits=percent(report.at.hit_rate),
                    time=seconds(report.at.residence_s),
                    warm=report.warm_capacity_per_s,
                    cold=report.cold_capacity_per_s,
                )
        return replace(self.solution, doubts=doubts), _stacked(operating), classes, prefixes

    def _settled(
        self, pool: Pool, cache: PrefixCache, cold: Solution, warm: float, rate_per_s: float
    ) -> tuple[Solution, list[RequestClass], PoolPrefixes]:
        times, stable = cache.equilibria(rate_per_s)
        finite = np.array([min(time, LONGEST_S) for time in times])
        points: tuple[CacheEquilibrium, ...] = ()
        if times:
            state = cache.at(rate_per_s, finite)
            hits = np.maximum(1 - state.demand[:, 0] / cache.prompt_tokens, 0.0)  # rounding left out
            talks = cache.conversation_hits(state)
            points = tuple(
                CacheEquilibrium(
                    residence_s=times[i],
                    hit_rate=float(hits[i]),
                    conversation_hits=float(talks[i]),
                    active_tokens=float(state.active_tokens[i]),
                    kept_tokens=float(min(state.kept_tokens[i], cache.limits[0] - state.active_tokens[i])),
                    load=float(state.load[i]),
                    stable=stable[i],
                )
                for i in range(len(times))
            )
        best = max((i for i in range(len(times)) if stable[i]), default=None)
        chosen = state if best is not None else cache.at(min(rate_per_s, float(cold.capacity[0])), np.zeros(1))
        classes = cache.classes_at(chosen, best or 0)
        grid = np.concatenate(([0.0], np.geomspace(0.1, 1e5, GRID)))
        balance = cache.at(rate_per_s, grid)
        needed = np.where(balance.load < 1, balance.active_tokens + balance.kept_tokens, np.inf)
        endless = cache.at(rate_per_s, np.array([LONGEST_S]))
        report = PoolPrefixes(
            name=pool.name,
            rate_per_s=rate_per_s * pool.replicas,
            cold_capacity_per_s=float(cold.capacity[0]) * pool.replicas,
            warm_capacity_per_s=warm * pool.replicas,
            equilibria=points,
            unbounded_hit_rate=max(float(1 - endless.demand[0, 0] / cache.prompt_tokens), 0.0),
            kv_capacity_tokens=float(cache.limits[0]),
            residence_s=read_only(grid),
            needed_tokens=read_only(needed),
        )
        return solve([cache.replica], classes, self.mix, self.confidence), classes, report


def prefix_equilibria(fleet: Fleet, workload: Workload, *, router: str | Router = "prefix_affinity") -> PrefixReport:
    """How long prefixes stay in a fleet's caches, what is found, and at which rates two equilibria exist.

    **Approximation**, for many sessions and stationary rates; a schedule is taken at its time average.

    Parameters
    ----------
    fleet : Fleet
        Pools with prefix caching.
    workload : Workload
        With sessions.
    router : str or Router
        A router by prefix keeps sessions where they are, whatever its `balance`, which is not read: where loads outweigh prefixes, take
        "join_shortest_kv". Under all others a turn goes to one of the pool's replicas at random
        (a weighted split: of its pool), and system prompts are held by each.

    Returns
    -------
    PrefixReport
        One entry per pool.

    Raises
    ------
    InputError
        If there are no sessions, or a pool has no prefix cache.
    NotModelledError
        For pools whose scheduler or coupling the theory does not take in.

    Notes
    -----
    See `stability.theory.prefix` for the balance whose roots the equilibria are.

    Examples
    --------
    Two replicas; a turn finds what the last one left if it goes to the same one.

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.02, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(prefix_caching=True)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=200_000, engine=engine), 2)
    >>> chat = st.Sessions(st.lengths.Constant(4), st.lengths.Constant(500), st.lengths.Constant(50), think_s=10)
    >>> workload = st.Workload.sessions(0.2, chat)
    >>> [st.prefix_equilibria(fleet, workload, router=r).pools[0].at.conversation_hits > 0.95
    ...  for r in ("prefix_affinity", "random")]
    [True, False]
    """
    check_pair(fleet, workload)
    if not workload.has_sessions:
        raise InputError("the workload has no sessions, must have some. Build it with Workload.sessions(...).")
    for pool in fleet.pools:
        if not pool.replica.engine.prefix_caching:
            raise InputError(f"pool {pool.name!r} has prefix_caching = False, must be True. Turn it on in the engine.")
    policy = router_of(router, fleet)
    stays = isinstance(policy, PrefixAffinity)
    steady = workload.averaged()
    classes = [item for item in steady.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    mix = rates / rates.sum()
    lags = most_lags(classes)
    among = [revisits(pool.replicas, stays=stays, lags=lags) for pool in fleet.pools]
    found = SessionAnalysis(fleet.pools, [pool.replica for pool in fleet.pools], classes, mix, 0.95, among)
    counts = np.array([pool.replicas for pool in fleet.pools], dtype=np.float64)
    from .analyze import split_over

    share = split_over(fleet.pools, counts * found.solution.capacity)
    *_, prefixes = found.at(share * rates.sum() / counts)
    return PrefixReport(
        router=router if isinstance(router, str) else repr(policy),
        pools=tuple(pool for pool in prefixes if pool is not None),
    )


def settled(fleet: Fleet, workload: Workload) -> list[tuple[Fleet, Workload]]:
    """Each pool as a fleet of its own, with its share of a stationary workload at the hits of its warmest equilibrium."""
    from .analyze import split_over

    classes = [item for item in workload.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    total = float(rates.sum())
    found = SessionAnalysis(
        fleet.pools, [pool.replica for pool in fleet.pools], classes, rates / total, 0.95, [(1.0,)] * len(fleet.pools)
    )
    counts = np.array([pool.replicas for pool in fleet.pools], dtype=np.float64)
    split = split_over(fleet.pools, counts * found.solution.capacity)
    *_, at_hits, _ = found.at(split * total / counts)
    return [
        (Fleet([replace(pool, weight=None)]), Workload(of_pool, workload.arrivals).scaled(factor=share))
        for pool, of_pool, share in zip(fleet.pools, at_hits, split.tolist(), strict=True)
        if share > 0
    ]


def _check_modelled(pool: Pool) -> None:
    if isinstance(pool.coupling, Barrier):
        raise NotModelledError(
            f"pool {pool.name!r} is behind a barrier, must be independent for sessions. Drop the coupling."
        )
    if pool.replica.engine.prefix_caching and not like_engine(pool.replica):
        raise NotModelledError(
            f"pool {pool.name!r} has a scheduler of its own and prefix caching, must be first come, first served for sessions. "
            "Use admission=..., or turn prefix_caching off."
        )


def _stacked(solutions: Sequence[Solution]) -> Solution:
    """One solution with the rows of several."""

    def pick(name: str) -> Any:
        columns = [getattr(solution, name) for solution in solutions]
        return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else [x for c in columns for x in c]

    return Solution(**{field.name: pick(field.name) for field in fields(Solution)})
