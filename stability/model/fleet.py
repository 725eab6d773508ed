"""Fleets: pools of equal replicas, and what couples or links them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .._result import Described, html_table
from ..errors import InputError, check_choice, check_integer, check_number
from .replica import Replica

ROLES = ("mixed", "prefill", "decode")


@dataclass(frozen=True, slots=True)
class Barrier:
    """Workers in lock-step: every iteration of a group lasts as long as its slowest worker's, plus `sync_s`.

    Parameters
    ----------
    workers : int >= 2
        Data-parallel workers of one group.
    sync_s : float >= 0
        Time of the barrier itself, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Two groups of eight workers:

    >>> import stability as st
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000)
    >>> pool = st.Pool("decode", replica, 16, role="decode", coupling=st.Barrier(workers=8))
    >>> pool.replicas // pool.coupling.workers
    2
    """

    workers: int
    sync_s: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", check_integer("workers", self.workers, at_least=2))
        check_number("sync_s", self.sync_s, at_least=0)


@dataclass(frozen=True, slots=True)
class Pool(Described):
    """Equal replicas under one name.

    Parameters
    ----------
    name : str
        Unique in the fleet.
    replica : Replica
        What each of them is.
    replicas : int >= 1
        How many.
    role : {"mixed", "prefill", "decode"}
        What the pool computes; prefill and decode pools are joined by a `Link`.
    coupling : "independent" or Barrier
        Whether replicas iterate on their own or in lock-step groups.
    weight : float >= 0, optional
        Share of the arrivals under a stated split, up to a factor; without it arrivals follow capacity.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import stability as st
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000, gpus=2)
    >>> st.Fleet([st.Pool("chat", replica, 3), st.Pool("batch", replica)]).gpus  # (3 + 1) * 2
    8
    """

    name: str
    replica: Replica
    replicas: int = 1
    role: str = "mixed"
    coupling: Literal["independent"] | Barrier = "independent"
    weight: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("name is empty, must name the pool. Give each pool a name of its own.")
        if not isinstance(self.replica, Replica):
            raise InputError(
                f"replica = {self.replica!r}, must be a Replica. Use Replica(...) or stability.replica(...)."
            )
        count = check_integer("replicas", self.replicas, at_least=1, hint="Remove the pool or give it a replica.")
        object.__setattr__(self, "replicas", count)
        check_choice("role", self.role, ROLES)
        if isinstance(self.coupling, Barrier):
            if self.replicas % self.coupling.workers:
                raise InputError(
                    f"replicas = {self.replicas}, must be a multiple of the barrier's {self.coupling.workers} workers. "
                    "Count workers as replicas."
                )
        elif self.coupling != "independent":
            raise InputError(f"coupling = {self.coupling!r}, must be 'independent' or Barrier(...). Use one of them.")
        if self.weight is not None:
            check_number("weight", self.weight, at_least=0)


@dataclass(frozen=True, slots=True)
class Link:
    """A network between two pools that KV moves over, after prefill.

    Parameters
    ----------
    source, target : str
        Names of the pools.
    bandwidth_bytes_per_s : float > 0
        Total bandwidth, bytes/s.
    latency_s : float >= 0
        Added to each transfer, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    10 000 tokens of 128 kiB take a second on this link:

    >>> import stability as st
    >>> link = st.Link("prefill", "decode", bandwidth_bytes_per_s=10_000 * 131_072)
    >>> 10_000 * 131_072 / link.bandwidth_bytes_per_s
    1.0
    """

    source: str
    target: str
    bandwidth_bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        check_number("bandwidth_bytes_per_s", self.bandwidth_bytes_per_s, above=0)
        check_number("latency_s", self.latency_s, at_least=0)


@dataclass(frozen=True, init=False)
class Fleet:
    """Pools that serve one workload.

    Parameters
    ----------
    pools : sequence of Pool
        At least one, with distinct names.
    links : sequence of Link
        Between prefill and decode pools.

    Raises
    ------
    InputError
        If names repeat, a link leads nowhere, or only some pools have a weight.

    Examples
    --------
    >>> import stability as st
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000)
    >>> fleet = st.Fleet([st.Pool("chat", replica, 3), st.Pool("batch", replica, 1)])
    >>> fleet.replicas, st.Fleet.of(replica, 8).replicas
    (4, 8)
    """

    pools: tuple[Pool, ...]
    links: tuple[Link, ...]

    def __init__(self, pools: Sequence[Pool], links: Sequence[Link] = ()) -> None:
        if not pools:
            raise InputError("pools is empty, must hold at least one pool. Add a pool.")
        for index, pool in enumerate(pools):
            if not isinstance(pool, Pool):
                raise InputError(f"pools[{index}] = {pool!r}, must be a Pool. Use Pool(name, replica, replicas).")
        names = [pool.name for pool in pools]
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if repeated:
            raise InputError(f"pool names {repeated} repeat, must be distinct. Rename one.")
        for index, link in enumerate(links):
            for end in (link.source, link.target):
                if end not in names:
                    raise InputError(f"links[{index}] names pool {end!r}, must be one of {names}. Correct the link.")
        weighted = [pool.weight is not None for pool in pools]
        if any(weighted) and not all(weighted):
            missing = [pool.name for pool in pools if pool.weight is None]
            raise InputError(f"pools {missing} have no weight, must have one when others do. Weigh all pools or none.")
        if all(weighted) and not sum(pool.weight or 0.0 for pool in pools) > 0:
            raise InputError("the pool weights sum to 0, must be positive. Give at least one pool a weight.")
        object.__setattr__(self, "pools", tuple(pools))
        object.__setattr__(self, "links", tuple(links))

    @classmethod
    def of(cls, replica: Replica, count: int = 1, *, name: str = "pool") -> Fleet:
        """One pool, called `name`, of `count` copies of `replica`."""
        return cls([Pool(name, replica, count)])

    def _repr_html_(self) -> str:
        header = ("pool", "replicas", "role", "GPU", "model", "KV tokens", "slots", "token budget", "scheduler")
        rows = []
        for pool in self.pools:
            replica, engine = pool.replica, pool.replica.engine
            policy = engine.admission if engine.scheduler is None else repr(engine.scheduler)
            rows.append(
                (
                    pool.name,
                    str(pool.replicas),
                    pool.role,
                    replica.gpu or "-",
                    replica.model or "-",
                    f"{replica.kv_capacity_tokens}",
                    f"{engine.max_num_seqs}",
                    f"{engine.max_num_batched_tokens}",
                    policy,
                )
            )
        return html_table(rows, header)

    @property
    def replicas(self) -> int:
        """Replicas over all pools."""
        return sum(pool.replicas for pool in self.pools)

    @property
    def gpus(self) -> int:
        """GPUs over all pools."""
        return sum(pool.replicas * pool.replica.gpus for pool in self.pools)
