r"""The prefix cache of one replica as a balance of memory: how long unused prefixes stay, and which such times are equilibria.

The KV memory M holds what running requests use, A, and what is kept for later, O. With T the time for which an unused prefix stays
(`residence`), hits rise with T, so that work and A fall, while O rises. Memory is full when

.. math:: A(T) + O(T) = M,

    A = \lambda\tau E[g(T)] - \sum_i S_i (\rho_i - 1 + e^{-\rho_i}), \qquad \tau = c_0/(1 - \lambda E[W(T)]), \quad \rho_i = \lambda_i\tau E[n],

    O = \lambda \sum (\text{blocks left behind})\, E[\min(X, T)] + \sum_i S_i (e^{-\rho_i} - e^{-\rho_i - \lambda_i T}) .

A system prompt S_i is counted once: it is resident while any of its Poisson number of running requests (mean rho_i) uses it, and for T
after the last; so a turn finds it with probability 1 - exp(-rho_i - lambda_i T). What ended sessions leave behind is kept for T, in vain.

Where A + O < M memory is spare and T grows, where A + O > M it shrinks: an equilibrium is **stable** where A + O crosses M upwards and
**repelling** where it crosses downwards, or where another resource (slots, token budget, compute) has load 1. At T = 0 nothing waits in the cache. If running requests alone overflow M there, a backlog, once it
exists, takes every block as it is freed, hits stay away and it never drains, even where an equilibrium with a warm cache exists:

    `cold` capacity: largest rate with A(0) < M. Below it the fleet recovers from anything.
    `warm` capacity: largest rate with A(T) + O(T) <= M for some T. Up to it a warm cache carries the load.

Between the two both are possible: **metastable**. As the rate grows towards capacity, memory goes to running requests and the
cache with it: the cold capacity is that without conversations found.

**Approximation**: the limit of many sessions (Che), the mean of the memory in use for its fluctuating value, turns admitted as they arrive.
Not to be confused with the hit rate of an unbounded cache, which is an upper end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..model.replica import Replica
from ..model.sessions import turn_laws
from ..model.workload import RequestClass
from . import conditions
from .conditions import GATE_ROWS, RESERVE_ROWS, Resource
from .hits import at_hits, class_moments
from .moments import Demand
from .operating import operating_point
from .regimes import evicts
from .residence import reuse
from .turn_demand import TurnDemand, turn_demand

ROUNDS = 40
"""Rounds for the requests running, which depend on the system prompts found; it contracts by half a round."""

GRID = 160
"""Residence times tried on a first scan."""

REFINE = 3
"""Times a bracket is divided again, by `GRID`."""

MOST_PER_S = 1e9
"""Rate beyond which nothing is taken to bind."""

LONGEST_S = 1e8
"""Longest residence time looked at, s."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CacheState:
    """A replica at given residence times. Arrays over them.

    Attributes
    ----------
    residence_s : ndarray
    demand : (n, 15) ndarray
        Mean demand of a request.
    found : tuple of (n, J) ndarray
        By class of sessions: chance of each lag.
    system : tuple of (n, groups) ndarray
        Chance to find the system prompt.
    shared_tokens : ndarray
        KV tokens of a resident request counted with another one, on average.
    active_tokens, kept_tokens : ndarray
        A and O.
    load : ndarray
        Of the resource that binds; memory counts what runs.
    """

    residence_s: FloatArray
    demand: FloatArray
    found: tuple[FloatArray, ...]
    system: tuple[FloatArray, ...]
    shared_tokens: FloatArray
    active_tokens: FloatArray
    kept_tokens: FloatArray
    load: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Turns:
    """A class of sessions at one replica: its demands, the system prompts' whole blocks and shares, and their group."""

    table: TurnDemand
    tokens: FloatArray
    popularity: FloatArray
    group: FloatArray
    think_s: float
    think_cv: float


class PrefixCache:
    """The memory of one replica under classes of which some are sessions.

    Parameters
    ----------
    replica : Replica
    classes : sequence of RequestClass
        With positive rates.
    mix : (n,) ndarray
        Their shares of the arrivals.
    returns : tuple of float
        Chance that a replica is visited again first j = 1, 2, ... turns later: (1.0,) where sessions stay.
    coefficients : (5,) ndarray
        Affine step-time law, or a tangent.
    """

    def __init__(
        self,
        replica: Replica,
        classes: Sequence[RequestClass],
        mix: FloatArray,
        returns: tuple[float, ...],
        coefficients: FloatArray,
    ) -> None:
        self.replica, self.classes, self.mix, self.returns = replica, tuple(classes), mix, returns
        self.coefficients = coefficients
        self.limits = conditions.capacities(replica)
        self.evicts = evicts(replica)
        engine = replica.engine
        block = engine.block_size
        key = (engine.max_num_batched_tokens, block)
        self.plain = [None if item.sessions else class_moments(item, *key).mean for item in classes]
        self.left = [item.lengths.prompt_mean_tokens + item.lengths.output_mean_tokens - 1 for item in classes]
        self.turns: list[_Turns | None] = []
        for item in classes:
            law = item.sessions
            if law is None:
                self.turns.append(None)
                continue
            table = turn_demand(law, len(returns), *key, item.max_output_tokens)
            places = {tokens: g for g, (tokens, _) in enumerate(law.system_groups)}
            group = np.array([places[tokens] for tokens in law.system_prompt_tokens])
            of_group = np.array([share for _, share in law.system_groups])
            popularity = np.array(law.popularity) / of_group[group] * table.shares[group]
            tokens = np.array(law.system_prompt_tokens, dtype=np.float64) // block * block
            self.turns.append(_Turns(table, tokens, popularity, group, law.think_s, law.think_cv))

    def at(self, rate_per_s: float, residence_s: FloatArray) -> CacheState:
        """The replica at `rate_per_s` requests/s if unused prefixes stay for `residence_s`."""
        time = np.asarray(residence_s, dtype=np.float64)
        resident_s = np.zeros_like(time)
        for _ in range(ROUNDS):
            found, system, kept, shared = self._hits(rate_per_s, time, resident_s)
            demand = self._demand(found, system)
            work = np.minimum(rate_per_s * conditions.work_s(self.coefficients, demand), 1 - 1e-9)
            iteration = self.coefficients[0] / (1 - work)
            updated = iteration * demand[:, Demand.ITERATIONS]
            if np.allclose(updated, resident_s, rtol=1e-6, atol=0):
                break
            resident_s = (resident_s + updated) / 2
        point = operating_point(
            np.broadcast_to(self.coefficients, (len(time), 5)), demand, np.full(len(time), rate_per_s)
        )
        running = rate_per_s * point.iteration_s * demand[:, Demand.ITERATIONS]
        active = rate_per_s * point.iteration_s * demand[:, Demand.VOLUME] - shared
        # Loads as of a replica that is never idle.
        rows = demand[:, list(GATE_ROWS if self.evicts else RESERVE_ROWS)].copy()
        if self.evicts:
            rows[:, 0] -= np.divide(shared, rate_per_s * iteration)
        free = self.limits.copy()
        free[Resource.KV_MEMORY] -= self.replica.watermark_tokens
        load = rate_per_s * (
            conditions.work_s(self.coefficients, demand) + self.coefficients[0] * (rows / free).max(axis=-1)
        )
        return CacheState(
            residence_s=time,
            demand=demand,
            found=found,
            system=system,
            shared_tokens=np.divide(shared, running, out=np.zeros_like(shared), where=running > 0),
            active_tokens=active,
            kept_tokens=kept,
            load=load,
        )

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt, tokens."""
        return math.fsum(
            share * item.lengths.prompt_mean_tokens for share, item in zip(self.mix.tolist(), self.classes, strict=True)
        )

    def conversation_hits(self, state: CacheState) -> FloatArray:
        """Chance that a turn after the first finds its conversation, at whatever lag."""
        found, chances = iter(state.found), np.zeros_like(state.residence_s)
        later = 0.0
        for share, turns in zip(self.mix.tolist(), self.turns, strict=True):
            if turns is None:
                continue
            weight = share * turns.table.weight.sum(axis=0)
            chances += next(found) @ weight[1:]
            later += float(weight[1])
        return chances / later if later > 0 else chances

    def excess_tokens(self, rate_per_s: float, residence_s: FloatArray) -> FloatArray:
        """A + O - M, tokens; infinite where a resource is overloaded."""
        state = self.at(rate_per_s, residence_s)
        over = state.active_tokens + state.kept_tokens - self.limits[Resource.KV_MEMORY]
        return np.where(state.load < 1, over, np.inf)

    def equilibria(self, rate_per_s: float) -> tuple[list[float], list[bool]]:
        """Residence times at which memory is full, s, and whether each is stable; an infinite one where it never fills."""
        grid = np.concatenate(([0.0], np.geomspace(1e-3, LONGEST_S, GRID)))
        sign = self.excess_tokens(rate_per_s, grid) > 0
        times, stable = [], []
        for i in np.flatnonzero(sign[1:] != sign[:-1]).tolist():
            low, high = grid[i], grid[i + 1]
            for _ in range(REFINE):
                inner = np.linspace(low, high, GRID)
                crossed = (self.excess_tokens(rate_per_s, inner) > 0) != sign[i]
                place = int(np.argmax(crossed))
                low, high = float(inner[place - 1]), float(inner[place])
            times.append((low + high) / 2)
            stable.append(not sign[i])
        if not sign[-1]:
            times.append(math.inf)
            stable.append(True)
        return times, stable

    def cold_capacity(self) -> float:
        """Largest rate at which running requests fit without any conversation found, 1/s."""
        return self._largest(np.zeros(1))

    def warm_capacity(self) -> float:
        """Largest rate that some residence time carries, 1/s."""
        rough = np.concatenate(([0.0], np.geomspace(1e-2, LONGEST_S, GRID // 2)))
        first = self._largest(rough)
        best = int(np.argmin(self.excess_tokens(first * (1 - 1e-3), rough)))
        near = np.linspace(rough[max(best - 1, 0)], rough[min(best + 1, len(rough) - 1)], GRID // 2)
        return max(first, self._largest(near))

    def _largest(self, residence_s: FloatArray) -> float:
        low, high = 0.0, 1.0
        while (self.excess_tokens(high, residence_s) <= 0).any():
            low, high = high, 2 * high
            if high > MOST_PER_S:
                return math.inf
        for _ in range(40):
            middle = (low + high) / 2
            if (self.excess_tokens(middle, residence_s) <= 0).any():
                low = middle
            else:
                high = middle
            if high - low < 1e-4 * high:
                break
        return low

    def classes_at(self, state: CacheState, index: int) -> list[RequestClass]:
        """The classes with what they find in that state: ordinary ones to the rest of the theory."""
        found, system = iter(state.found), iter(state.system)
        shared = float(state.shared_tokens[index])
        weight = sum(share for share, turns in zip(self.mix.tolist(), self.turns, strict=True) if turns is not None)
        return [
            item
            if turns is None
            else at_hits(item, tuple(next(found)[index].tolist()), tuple(next(system)[index].tolist()), shared / weight)
            for item, turns in zip(self.classes, self.turns, strict=True)
        ]

    def everything_found(self) -> list[RequestClass]:
        """The classes if every prefix were found and every system prompt held once by all: least demands."""
        classes = []
        for item, turns in zip(self.classes, self.turns, strict=True):
            if turns is None:
                classes.append(item)
                continue
            shared = float((turns.popularity * turns.tokens).sum())
            found = (1.0, *(0.0 for _ in self.returns[1:]))
            classes.append(at_hits(item, found, tuple(1.0 for _ in turns.table.shares), shared))
        return classes

    def _hits(
        self, rate_per_s: float, time: FloatArray, resident_s: FloatArray
    ) -> tuple[tuple[FloatArray, ...], tuple[FloatArray, ...], FloatArray, FloatArray]:
        """Chances by class, KV tokens kept, and KV tokens that would be counted twice."""
        found, system = [], []
        kept, shared = np.zeros_like(time), np.zeros_like(time)
        for share, turns, left in zip(self.mix.tolist(), self.turns, self.left, strict=True):
            rate = share * rate_per_s
            if turns is None:
                kept += rate * left * time  # nobody asks for it again
                continue
            held, chances = turns.table.kept_tokens.sum(axis=0), []
            kept += rate * held[0] * time
            for lag, returns in enumerate(self.returns, start=1):
                hit, kept_s = reuse(time, turns.think_s, turns.think_cv, gaps=lag, between_s=(lag - 1) * resident_s)
                chances.append(returns * hit)
                kept += rate * held[lag] * returns * (kept_s - time)
            found.append(np.stack(chances, axis=-1))
            per_prompt = rate * turns.popularity
            rho = np.minimum(per_prompt * resident_s[:, None], 1e6)
            gone = np.exp(-rho - per_prompt * np.minimum(time[:, None], 1e12))
            kept += (turns.tokens * (np.exp(-rho) - gone)).sum(axis=-1)
            shared += (turns.tokens * (rho - 1 + np.exp(-rho))).sum(axis=-1)
            groups = len(turns.table.shares)
            of_group = np.array([turns.popularity[turns.group == g].sum() for g in range(groups)])
            q = [((1 - gone) * turns.popularity)[:, turns.group == g].sum(axis=-1) / of_group[g] for g in range(groups)]
            system.append(np.stack(q, axis=-1))
        return tuple(found), tuple(system), kept, shared

    def _demand(self, found: tuple[FloatArray, ...], system: tuple[FloatArray, ...]) -> FloatArray:
        chances, prompts = iter(found), iter(system)
        total: FloatArray = np.zeros(1)
        for share, turns, plain in zip(self.mix.tolist(), self.turns, self.plain, strict=True):
            total = total + share * (plain if turns is None else turns.table.mean(next(chances), next(prompts)))
        return total


def revisits(replicas: int, *, stays: bool, lags: int = 1) -> tuple[float, ...]:
    """Chance that a session comes back to a replica first after j = 1, 2, ... turns.

    1 at once where the router keeps sessions together; else 1/G (1 - 1/G)**(j-1), as if each turn went to one of G replicas at
    random: exact for random routing, an **approximation** for round robin and routers by load.

    Parameters
    ----------
    replicas : int >= 1
        G.
    stays : bool
        Whether turns go where the last one went.
    lags : int >= 1
        Turns that may come before (`most_lags`); chances that together are below `NEGLIGIBLE` are left out, too.

    Examples
    --------
    >>> revisits(2, stays=False, lags=3)
    (0.5, 0.25, 0.125)
    """
    if stays or replicas == 1:
        return (1.0,)
    count = max(1, min(lags, MOST_LAGS, math.ceil(math.log(NEGLIGIBLE) / math.log1p(-1 / replicas))))
    return tuple((1 - 1 / replicas) ** (j - 1) / replicas for j in range(1, count + 1))


def most_lags(classes: Sequence[RequestClass]) -> int:
    """Most turns that come before a turn, those before a share of `NEGLIGIBLE` of the turns left out."""
    most = 1
    for item in classes:
        law = item.sessions
        if law is None:
            continue
        for system, _ in law.system_groups:
            masses = np.array([float(turn.sum()) for turn in turn_laws(law, system)])
            later = masses[::-1].cumsum()[::-1] / masses.sum()
            most = max(most, int((later > NEGLIGIBLE).sum()) - 1)
    return most


NEGLIGIBLE = 1e-3
"""Share of the turns, or chance to come back to a replica, that is left out."""

MOST_LAGS = 256
"""Turns ago that a conversation is looked for, at most."""
