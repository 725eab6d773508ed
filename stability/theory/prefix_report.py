"""What the theory says of a fleet's prefix caches: equilibria, hit rates, and the capacities with a warm and a cold cache."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .._extras import needs
from .._result import Described, Tabular, html_table, percent, rate, seconds, text_table
from .._types import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEquilibrium(Described):
    """One balance of running requests and cached prefixes in a replica's memory.

    Attributes
    ----------
    residence_s : float
        Time for which a prefix that nobody uses stays in the cache (the characteristic time); infinite where the cache never
        fills, 0 in a backlog.
    hit_rate : float
        Share of the prompt tokens that are found.
    conversation_hits : float
        Chance that a turn after the first finds its conversation, whole or as an earlier turn left it.
    active_tokens, kept_tokens : float
        KV of running requests, and kept for later.
    load : float
        Of the resource that binds, at these hits; 1 and more in a backlog.
    stable : bool
        Whether small deviations die out; a repelling equilibrium separates two stable ones.

    Examples
    --------
    See :func:`stability.prefix_equilibria`.
    """

    residence_s: float
    hit_rate: float
    conversation_hits: float
    active_tokens: float
    kept_tokens: float
    load: float
    stable: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolPrefixes(Described):
    """The prefix caches of a pool's replicas.

    Attributes
    ----------
    name : str
    rate_per_s : float
        Requests sent to the pool.
    cold_capacity_per_s : float
        Rate up to which the pool recovers from any backlog: no conversation is found in one.
    warm_capacity_per_s : float
        Rate up to which an equilibrium with a warm cache exists. Above the cold capacity a backlog, once there, stays.
    equilibria : tuple of CacheEquilibrium
        By residence time.
    unbounded_hit_rate : float
        Share of the prompt tokens that a cache without bounds would find.
    kv_capacity_tokens : float
        Of a replica.
    residence_s, needed_tokens : ndarray
        The balance: KV that running requests and prefixes kept for so long need together.

    Examples
    --------
    See :func:`stability.prefix_equilibria`.
    """

    name: str
    rate_per_s: float
    cold_capacity_per_s: float
    warm_capacity_per_s: float
    equilibria: tuple[CacheEquilibrium, ...]
    unbounded_hit_rate: float
    kv_capacity_tokens: float
    residence_s: FloatArray
    needed_tokens: FloatArray

    @property
    def metastable(self) -> bool:
        """Whether both a warm cache that carries the load and a backlog that never drains are possible."""
        return self.rate_per_s > self.cold_capacity_per_s and self.at is not None

    @property
    def at(self) -> CacheEquilibrium | None:
        """The stable equilibrium with the most hits; None if there is none."""
        stable = [point for point in self.equilibria if point.stable]
        return stable[-1] if stable else None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixReport(Tabular):
    """Prefix caches pool by pool, under one router.

    Attributes
    ----------
    router : str
    pools : tuple of PoolPrefixes

    Examples
    --------
    See :func:`stability.prefix_equilibria`.
    """

    router: str
    pools: tuple[PoolPrefixes, ...]

    schema: ClassVar[str] = "stability/prefix/1"
    _HEADER: ClassVar[tuple[str, ...]] = (
        "pool",
        "equilibrium",
        "unused stay",
        "tokens found",
        "conversations found",
        "running",
        "cached",
        "load",
    )

    def __repr__(self) -> str:
        worst = max(self.pools, key=lambda pool: pool.rate_per_s / pool.cold_capacity_per_s)
        return f"PrefixReport({self.router}, {len(self.pools)} pools, {len(worst.equilibria)} equilibria in {worst.name!r})"

    def rows(self) -> list[tuple[str, str]]:
        """Rates, capacities and the state, for people."""
        found = [("router", self.router)]
        for pool in self.pools:
            where = f" ({pool.name})" if len(self.pools) > 1 else ""
            found += [
                (f"rate{where}", rate(pool.rate_per_s)),
                (f"capacity, cold cache{where}", rate(pool.cold_capacity_per_s)),
                (f"capacity, warm cache{where}", rate(pool.warm_capacity_per_s)),
                (f"found by an unbounded cache{where}", percent(pool.unbounded_hit_rate)),
                (f"metastable{where}", _state(pool)),
            ]
        return found

    def table_rows(self) -> list[tuple[str, ...]]:
        """One row per equilibrium."""
        return [
            (
                pool.name,
                "stable" if point.stable else "repelling",
                "for ever" if math.isinf(point.residence_s) else seconds(point.residence_s),
                percent(point.hit_rate),
                percent(point.conversation_hits),
                percent(point.active_tokens / pool.kv_capacity_tokens),
                percent(point.kept_tokens / pool.kv_capacity_tokens),
                percent(point.load),
            )
            for pool in self.pools
            for point in pool.equilibria
        ]

    def summary(self) -> str:
        """Capacities and equilibria as text tables."""
        return f"{text_table(self.rows())}\n\n{text_table(self.table_rows(), self._HEADER)}"

    def _repr_html_(self) -> str:
        return html_table(self.rows()) + html_table(self.table_rows(), self._HEADER)

    def to_frame(self) -> pd.DataFrame:
        """One row per equilibrium, units in column names."""
        needs("pandas")
        import pandas as pd

        names = CacheEquilibrium.__slots__
        return pd.DataFrame(
            [
                {"pool": pool.name, **{name: getattr(point, name) for name in names}}
                for pool in self.pools
                for point in pool.equilibria
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """KV needed against the time unused prefixes stay, on `ax` (a new figure without it), with the capacity it meets."""
        from ..plots.prefix import memory_balance

        return memory_balance(self.pools, ax)


def _state(pool: PoolPrefixes) -> str:
    """What the equilibria mean, for people."""
    if pool.at is None:
        return "no equilibrium: a backlog is certain"
    return "yes: a backlog would stay" if pool.metastable else "no"
