r"""The capacity region of a fleet: which rates of its classes it can serve, by which routing, and what stands in the way.

With the rows of `rows`, the region is the set of rate vectors

.. math:: \Lambda = \{\lambda : \exists\, x \ge 0,\ \sum_i x_{ik} = \lambda_k,\ \sum_k T_{irk} x_{ik} \le n_i\} ,

a polytope, the sum of one polytope a type of replica. `rows="bound"`: **necessary**, no routing serves rates outside; `"proved"`:
**sufficient**, every rate strictly inside is stable under the split given; `"policy"`: **approximate**, what the pools' own schedulers reach.
None of them makes another router, round robin say, stable.

- Largest factor: :math:`\alpha^* = \max\{\alpha : \alpha\lambda \in \Lambda\}`, a linear program (`balance`), with what more of anything is
  worth (`prices`).
- Membership: inside, the split at :math:`\alpha^* > 1` is the proof; outside, the class prices :math:`w_k = \min_i \sum_r u_{ir} T_{irk}` are:
  whatever the routing, :math:`\lambda \cdot w \le 1`, which this :math:`\lambda` breaks (Farkas).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import needs
from .._result import Tabular, html_table, json_safe, percent, rate, text_table
from .._types import ArrayLike, FloatArray, read_only
from ..errors import InputError, check_choice, check_number
from ..model.fleet import Fleet
from ..model.iteration import Table, TwoPhase
from ..model.workload import Workload
from ..policies.routers import WeightedSplit
from .balance import Balance, least_load
from .linear import gap_text
from .membership import Membership, membership, split_policy
from .prices import PoolPrices, pool_prices
from .rows import FleetRows, by_pool, fleet_rows
from .slices import polygon, support

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

MOST_ROUNDS = 12
"""Times that policy rows are laid anew around the mix that each type gets."""

STILL = 1e-5
"""Relative change of the factor at which they have settled."""

REFINED = 64
"""Types up to which this is done."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CapacityRegion(Tabular):
    """The rates that a fleet can serve, seen from one workload.

    Attributes
    ----------
    kind : str
        "policy" (approximate), "bound" (necessary) or "proved" (sufficient).
    factor : float
        Largest factor on the workload's rates.
    gap : float
        Relative distance from `factor` to what the prices prove.
    rate_per_s : float
        Total rate at the boundary in the workload's direction, 1/s.
    rates_per_s : (K,) ndarray
        Rates of the workload, 1/s.
    classes : tuple of str
    shares : (n_pools, K) ndarray
        Share of each class that each pool gets at the boundary.
    class_prices : (K,) ndarray
        w, s: share of the fleet that 1/s of each class takes; `rates @ w <= 1` in the region.
    pools : tuple of PoolPrices
    gpu_prices : dict of str to float
        Worth of one more GPU of each type, in the pool where it is worth most, 1/s.
    solver : str
    notes : tuple of str
        Pools whose policy rows lie outside every regime with a known capacity, and why.
    balance : Balance
        Split and prices by type of replica.
    system : FleetRows
        The rows.

    Examples
    --------
    See :func:`stability.capacity_region`.
    """

    schema = "stability/region/1"

    kind: str
    factor: float
    gap: float
    rate_per_s: float
    rates_per_s: FloatArray
    classes: tuple[str, ...]
    shares: FloatArray
    class_prices: FloatArray
    pools: tuple[PoolPrices, ...]
    gpu_prices: Mapping[str, float]
    solver: str
    notes: tuple[str, ...]
    balance: Balance = field(repr=False)
    system: FleetRows = field(repr=False)

    def __repr__(self) -> str:
        return f"CapacityRegion({self.kind}, factor {self.factor:.4f}, {self.rate_per_s:.4g}/s at this mix)"

    @property
    def router(self) -> WeightedSplit:
        """The split at the boundary as a policy."""
        return split_policy(self.shares)

    def contains(self, rates_per_s: ArrayLike) -> Membership:
        """Whether rates are strictly inside, with a routing or separating prices as proof.

        Parameters
        ----------
        rates_per_s : (K,) array_like, >= 0, not all 0
            Of the classes in order, 1/s. Rows stay those of the workload.

        Returns
        -------
        Membership
        """
        return membership(self.system, rates_per_s)

    def support(self, direction: ArrayLike) -> FloatArray:
        """The rates of the region that are farthest in a direction, 1/s.

        Parameters
        ----------
        direction : (K,) array_like
            Worth of 1/s of each class, say.

        Returns
        -------
        (K,) ndarray
        """
        wanted = np.array(direction, dtype=np.float64)
        if wanted.shape != self.rates_per_s.shape or not np.isfinite(wanted).all():
            raise InputError(f"direction = {wanted.tolist()}, must be {len(self.classes)} finite numbers.")
        return support(self.system, wanted)

    def slice(self, first: str, second: str, *, others: float = 1.0) -> FloatArray:
        """Vertices of the region in the plane of two classes, counter-clockwise from the origin, 1/s.

        Parameters
        ----------
        first, second : str
            Names of the classes.
        others : float >= 0
            The other classes stay at this multiple of the workload's rates.

        Returns
        -------
        (m, 2) ndarray
        """
        check_choice("first", first, self.classes)
        check_choice("second", second, [name for name in self.classes if name != first])
        factor = check_number("others", others, at_least=0)
        return polygon(self.system, self.classes.index(first), self.classes.index(second), factor * self.rates_per_s)

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        standing = {"policy": "approximate", "bound": "necessary", "proved": "sufficient"}[self.kind]
        found = [
            ("rows", f"{self.kind} ({standing})"),
            ("largest factor on the rates", f"{self.factor:.4f}"),
            ("rate now", rate(float(self.rates_per_s.sum()))),
            ("rate at the boundary, this mix", rate(self.rate_per_s)),
            ("gap to what the prices prove", f"{gap_text(self.gap)} ({self.solver})"),
        ]
        found += [("in doubt", doubt) for doubt in self.notes]
        for name, worth in self.gpu_prices.items():
            found.append((f"one more {name or 'GPU'}", f"+{worth:.4g} req/s"))
        return found

    _POOLS = ("pool", "load", "bottleneck", "one replica", "one GB of KV", "one slot", "1000 budget tokens")

    def _pool_rows(self) -> list[tuple[str, ...]]:
        def worth(value: float | None) -> str:
            return "-" if value is None else f"+{value:.3g}" if value > 1e-12 else "0"

        return [
            (
                pool.name,
                percent(pool.load),
                pool.bottleneck,
                worth(pool.per_replica),
                worth(pool.per_kv_gb),
                worth(pool.per_slot),
                worth(1e3 * pool.per_budget_token),
            )
            for pool in self.pools
        ]

    def _class_rows(self) -> list[tuple[str, ...]]:
        total = float(self.rates_per_s @ self.class_prices)
        return [
            (name, rate(float(now)), percent(float(now * price) / total), *(percent(float(s)) for s in shares))
            for name, now, price, shares in zip(
                self.classes, self.rates_per_s, self.class_prices, self.shares.T, strict=True
            )
        ]

    def _class_header(self) -> tuple[str, ...]:
        return ("class", "rate", "of the cost", *(f"to {pool.name}" for pool in self.pools))

    def summary(self) -> str:
        """The region as text tables: figures, split, prices in requests/s gained at this mix."""
        shown = [text_table(self.rows())]
        if len(self.pools) <= 12:
            shown.append(text_table(self._class_rows(), self._class_header()))
        shown.append(text_table(self._pool_rows()[:40], self._POOLS))
        return "\n\n".join(shown)

    def _repr_html_(self) -> str:
        return html_table(self.rows()) + html_table(self._pool_rows()[:40], self._POOLS)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        kept = (
            "kind",
            "factor",
            "gap",
            "rate_per_s",
            "rates_per_s",
            "classes",
            "shares",
            "class_prices",
            "pools",
            "gpu_prices",
            "solver",
            "notes",
        )
        return {"schema": self.schema, **{name: json_safe(getattr(self, name)) for name in kept}}

    def to_frame(self) -> pandas.DataFrame:
        """One row per pool: prices, and the rate of each class at the boundary, 1/s."""
        needs("pandas")
        import pandas

        rates = self.factor * self.shares * self.rates_per_s
        return pandas.DataFrame(
            [
                {
                    **json_safe(pool),
                    **{f"rate_{name}_per_s": float(x) for name, x in zip(self.classes, row, strict=True)},
                }
                for pool, row in zip(self.pools, rates, strict=True)
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The region in the plane of the two busiest classes with the workload in it, on `ax` or a new figure; one class: the loads at the boundary."""
        from ..plots.control import region_plot

        return region_plot(self, ax)


def capacity_region(fleet: Fleet, workload: Workload, *, rows: str = "policy") -> CapacityRegion:
    """The rates that `fleet` can serve, how far `workload` may grow, by which split, and what more of anything is worth.

    Valid for static random splits over pools of mixed replicas, evenly over the replicas of a pool; pool weights do not matter, since the
    split is what is sought.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        Classes and their rates, 1/s; a schedule counts with its time average.
    rows : {"policy", "bound", "proved"}
        Approximate for the pools' own schedulers; necessary for every scheduler; sufficient (reservation only).

    Returns
    -------
    CapacityRegion
        Factor, split and prices, with the certificate in `balance`.

    Raises
    ------
    UnservableError
        If a class fits no pool.
    InputError
        If nothing is proved for a class that arrives and `rows="proved"`.
    NotModelledError
        For parts of the contract that have no theory yet.

    Notes
    -----
    `max alpha: sum_k T_irk x_ik <= n_i, sum_i x_ik = alpha lambda_k` with `T = W + c0 a/C`. Policy rows are laid around the mix that each kind
    of replica gets, again until the factor stands still.

    Examples
    --------
    Slots bind: 8 slots, 80 iterations of 10 ms and 10 ms of work, so a request takes 0.01 + 0.01*80/8 = 0.11 s of a replica.

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine), 2)
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> region = st.capacity_region(fleet, st.Workload.poisson(10.0, lengths))
    >>> round(region.rate_per_s, 3), round(region.pools[0].per_replica, 3)  # 2/0.11 and 1/0.11
    (18.182, 9.091)
    """
    system, found = settled(fleet, workload, rows=rows)
    return _region(system, found)


def settled(fleet: Fleet, workload: Workload, *, rows: str) -> tuple[FleetRows, Balance]:
    """Rows around the mix that each type gets at the greatest factor, and the balance there; necessary rows only get more."""
    system = fleet_rows(fleet, workload, rows=rows)
    found = least_load(system.seconds, system.replicas, system.rates_per_s, system.fits)
    if len(system.types) > REFINED or (system.rates_per_s > 0).sum() < 2:
        return system, found
    if rows == "bound":
        return _tightest(fleet, workload, system, found)
    if rows != "policy":
        return system, found
    mixes = np.broadcast_to(system.rates_per_s, system.fits.shape)
    for _ in range(MOST_ROUNDS):
        own = found.shares * system.rates_per_s
        got = own.sum(axis=1, keepdims=True)
        target = np.where(
            got > 1e-9 * system.rates_per_s.sum(),
            own / np.maximum(got, 1e-300),
            mixes / mixes.sum(axis=1, keepdims=True),
        )
        mixes = (mixes / mixes.sum(axis=1, keepdims=True) + target) / 2
        system = fleet_rows(fleet, workload, rows=rows, mixes=mixes)
        before = found.lower
        found = least_load(system.seconds, system.replicas, system.rates_per_s, system.fits)
        if abs(found.lower / before - 1) < STILL:
            break
    return system, found


def _tightest(fleet: Fleet, workload: Workload, system: FleetRows, found: Balance) -> tuple[FleetRows, Balance]:
    """Necessary rows with tangents at other mixes, as long as that lowers the factor: every one of them holds."""
    if not any(isinstance(replica.iteration, TwoPhase | Table) for replica in system.types):
        return system, found
    for _ in range(MOST_ROUNDS):
        own = found.shares * system.rates_per_s
        mixes = np.where(own.sum(axis=1, keepdims=True) > 0, own, system.rates_per_s)
        other = fleet_rows(fleet, workload, rows="bound", mixes=mixes)
        both = replace(
            system,
            seconds=np.concatenate([system.seconds, other.seconds], axis=1),
            occupancy=np.concatenate([system.occupancy, other.occupancy], axis=1),
        )
        before = found.lower
        system = both
        found = least_load(system.seconds, system.replicas, system.rates_per_s, system.fits)
        if found.lower > before * (1 - STILL):
            break
    return system, found


def _region(system: FleetRows, found: Balance) -> CapacityRegion:
    pools = pool_prices(system, found)
    by_gpu = dict[str, float]()
    for pool in pools:
        by_gpu[pool.gpu] = max(by_gpu.get(pool.gpu, 0.0), pool.per_gpu)
    return CapacityRegion(
        kind=system.kind,
        factor=found.lower,
        gap=found.gap,
        rate_per_s=found.lower * float(system.rates_per_s.sum()),
        rates_per_s=read_only(system.rates_per_s),
        classes=system.classes,
        shares=read_only(by_pool(system, found.shares)),
        class_prices=read_only(np.where(np.isfinite(found.class_prices), found.class_prices, np.nan)),
        pools=pools,
        gpu_prices=by_gpu,
        solver=found.solver,
        notes=system.doubts,
        balance=found,
        system=system,
    )
