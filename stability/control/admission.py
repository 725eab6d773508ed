r"""Which requests to turn away in overload: the fluid knapsack, its bid prices, and thresholds for a controller on line.

With values :math:`v_k` (`RequestClass.value`), admitted rates :math:`y_k \le \lambda_k` and the rows of `rows`,

.. math:: \max \sum_k v_k y_k, \qquad \sum_i x_{ik} = y_k,\quad \sum_k T_{irk} x_{ik} \le b\, n_i .

**Upper bound** (with `rows="bound"`) on what any admission and any static routing earn per second in the long run. The duals
:math:`u_{ir}` price a second of a replica; a request of class k costs :math:`\pi_k = \min_i \sum_r u_{ir} T_{irk}`:

- bid price: admit iff :math:`v_k > \pi_k`. Optimal but for the classes with :math:`v_k = \pi_k`, at most one per binding row at a vertex,
  of which only a part fits: the fluid admits the fraction :math:`y_k/\lambda_k`.
- threshold: those classes are admitted while the work already accepted is below a threshold. Each pool keeps a level, raised by
  the replica-seconds :math:`\bar T_{ik} = \sum_r u_{ir} T_{irk}/\sum_r u_{ir}` of every request sent to it and drained at b n_i seconds per second.
  Classes worth more than they cost pass always, marginal ones below the threshold only, the others never.

First come, first served admits everything and, in overload, serves every class at the same share of its rate, :math:`\alpha^* \sum v_k \lambda_k`;
rejecting when full is as blind to values. Neither can earn more than the knapsack; they earn as much only where values are in
proportion to costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .._extras import needs
from .._result import Tabular, html_table, json_safe, percent, rate, text_table
from .._types import ArrayLike, FloatArray, IntArray, read_only
from ..errors import InputError, check_number
from ..model.fleet import Fleet
from ..model.workload import Workload
from ..policies.routers import BidPrice, WeightedSplit
from .linear import Certificate, LinearProgram, LinearSolution, gap_text, solve_linear
from .program import RoutingVariables, routing_variables
from .region import REFINED, settled
from .rows import FleetRows, by_pool, fleet_rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

ROUNDS = 8
STILL = 1e-4

MARGINAL = 1e-7
"""Relative difference of value and cost below which a class is marginal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassAdmission:
    """What happens to one class.

    Attributes
    ----------
    name : str
    rate_per_s, admitted_per_s : float
        Offered and, by the fluid optimum, admitted.
    value : float
        Of one request.
    bid_price : float
        pi: what its resources are worth.
    rule : str
        "always", "below the threshold" or "never".
    """

    name: str
    rate_per_s: float
    admitted_per_s: float
    value: float
    bid_price: float
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AdmissionPlan(Tabular):
    """Which classes a fleet admits, at which prices.

    Attributes
    ----------
    value_per_s : float
        Fluid optimum: value earned per second.
    offered_value_per_s : float
        If everything could be served.
    fcfs_value_per_s : float
        First come, first served on the best split of the arrivals as they are, with the same headroom.
    overload : float
        Greatest load if everything were admitted.
    classes : tuple of ClassAdmission
    pools : tuple of str
    shares : (n_pools, K) ndarray
        Where admitted requests go.
    seconds : (n_pools, K) ndarray
        Replica-seconds of a request in the priced rows of a pool; 0 where nothing binds.
    capacity : (n_pools,) ndarray
        Replica-seconds a second that may be promised.
    threshold_s : float
        Level, in seconds of the whole pool, below which marginal classes are admitted.
    certificate : Certificate
        Residuals of the linear program.
    solver : str
    system : FleetRows

    Examples
    --------
    See :func:`stability.admission_control`.
    """

    schema = "stability/admission/1"

    value_per_s: float
    offered_value_per_s: float
    fcfs_value_per_s: float
    overload: float
    classes: tuple[ClassAdmission, ...]
    pools: tuple[str, ...]
    shares: FloatArray
    seconds: FloatArray
    capacity: FloatArray
    threshold_s: float
    certificate: Certificate
    solver: str
    system: FleetRows = field(repr=False)

    def __repr__(self) -> str:
        return f"AdmissionPlan({self.value_per_s:.5g} of {self.offered_value_per_s:.5g} per s, overload {self.overload:.3f})"

    @property
    def router(self) -> WeightedSplit:
        """Where admitted requests go, as a policy."""
        rows = [row.tolist() if row.sum() > 0 else [1.0] * len(row) for row in self.shares.T]
        return WeightedSplit(rows)

    @property
    def bid_price_router(self) -> BidPrice:
        """Admission by bid prices, as a router: marginal classes are let in at the fraction of the fluid optimum."""
        prices = [
            [item.bid_price if share > 0 or item.rule == "never" else math.inf for share in self.shares[:, k].tolist()]
            for k, item in enumerate(self.classes)
        ]
        admitted = [item.admitted_per_s / item.rate_per_s if item.rate_per_s > 0 else 1.0 for item in self.classes]
        # A marginal class is worth its price but for rounding; one that is never admitted has the fraction 0.
        values = [item.value if item.rule in ("always", "never") else item.bid_price for item in self.classes]
        return BidPrice(
            values=tuple(values),
            prices=tuple(tuple(row) for row in prices),
            weights=tuple(tuple(row) for row in self.shares.T.tolist()),
            fractions=tuple(min(1.0, share) for share in admitted),
        )

    def admit(self, arrival_s: ArrayLike, request_class: ArrayLike, uniforms: ArrayLike) -> IntArray:
        """Pool of each arriving request, -1 for those turned away: the threshold rule, run on line.

        Parameters
        ----------
        arrival_s : (n,) array_like, non-decreasing
            Arrival times, s.
        request_class : (n,) array_like of int
            Index of its class.
        uniforms : (n,) array_like in [0, 1)
            One random number a request, for its pool.

        Returns
        -------
        (n,) ndarray of int
        """
        times, kinds = np.asarray(arrival_s, dtype=np.float64), np.asarray(request_class, dtype=np.int64)
        draws = np.asarray(uniforms, dtype=np.float64)
        if not len(times) == len(kinds) == len(draws):
            raise InputError(f"{len(times)} arrivals, {len(kinds)} classes and {len(draws)} draws, must be as many.")
        chosen = np.full(len(times), -1, dtype=np.int64)
        cumulative = np.cumsum(self.shares, axis=0)
        level, seen = np.zeros(len(self.pools)), np.zeros(len(self.pools))
        full = self.threshold_s * self.capacity
        rules = [item.rule for item in self.classes]
        for n, (now, kind, draw) in enumerate(zip(times.tolist(), kinds.tolist(), draws.tolist(), strict=True)):
            if rules[kind] == "never":
                continue
            pool = min(int(np.searchsorted(cumulative[:, kind], draw, side="right")), len(self.pools) - 1)
            level[pool] = max(0.0, level[pool] - (now - seen[pool]) * self.capacity[pool])
            seen[pool] = now
            if rules[kind] != "always" and level[pool] + self.seconds[pool, kind] > full[pool]:
                continue
            level[pool] += self.seconds[pool, kind]
            chosen[n] = pool
        return chosen

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        share = self.value_per_s / self.offered_value_per_s if self.offered_value_per_s > 0 else 1.0
        return [
            ("load if all were admitted", percent(self.overload)),
            ("value offered", f"{self.offered_value_per_s:.5g} per s"),
            ("value earned, fluid optimum", f"{self.value_per_s:.5g} per s ({percent(share)})"),
            ("  first come, first served", f"{self.fcfs_value_per_s:.5g} per s"),
            ("threshold", f"{self.threshold_s:.4g} s of accepted work"),
            ("residuals of the program", f"{gap_text(self.certificate.worst)} ({self.solver})"),
        ]

    _HEADER = ("class", "offered", "admitted", "value", "bid price", "admit")

    def _table(self) -> list[tuple[str, ...]]:
        return [
            (
                item.name,
                rate(item.rate_per_s),
                rate(item.admitted_per_s),
                f"{item.value:.4g}",
                f"{item.bid_price:.4g}",
                item.rule,
            )
            for item in self.classes
        ]

    def summary(self) -> str:
        """The plan as text tables."""
        return f"{text_table(self.rows())}\n\n{text_table(self._table(), self._HEADER)}"

    def _repr_html_(self) -> str:
        return html_table(self.rows()) + html_table(self._table(), self._HEADER)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        names = [name for name in self.__dataclass_fields__ if name != "system"]
        return {"schema": self.schema, **{name: json_safe(getattr(self, name)) for name in names}}

    def to_frame(self) -> pandas.DataFrame:
        """One row per class: rates, value, bid price, rule, and its share of each pool."""
        needs("pandas")
        import pandas

        return pandas.DataFrame(
            [
                {**json_safe(item), **{f"share_{name}": float(s) for name, s in zip(self.pools, shares, strict=True)}}
                for item, shares in zip(self.classes, self.shares.T, strict=True)
            ]
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Offered and admitted rate of each class, by value over bid price, on `ax` or a new figure."""
        from ..plots.control import admission_bars

        return admission_bars(self, ax)


def admission_control(
    fleet: Fleet, workload: Workload, *, rows: str = "policy", headroom: float = 0.01, threshold_s: float = 1.0
) -> AdmissionPlan:
    """Which requests to admit when not all can be served, worth most by `RequestClass.value`.

    Parameters
    ----------
    fleet : Fleet
        Mixed, independent pools.
    workload : Workload
        Classes with rates, 1/s, and values.
    rows : {"policy", "bound", "proved"}
        As in `capacity_region`.
    headroom : float in [0, 1)
        Share of each pool's capacity that is not promised.
    threshold_s : float > 0
        Accepted work, in seconds of a whole pool, up to which marginal classes are admitted: more lets fewer seconds idle and
        makes requests wait longer.

    Returns
    -------
    AdmissionPlan

    Raises
    ------
    UnservableError, NotModelledError, InputError
        As `capacity_region`; also if no class has a value.

    Examples
    --------
    One replica of 9.09 requests/s, offered 8/s worth 1 and 8/s worth 3: the dear ones pass, the cheap ones fill the rest.

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> classes = [st.RequestClass(name, 8.0, lengths, value=value) for name, value in (("cheap", 1.0), ("dear", 3.0))]
    >>> plan = st.admission_control(fleet, st.Workload(classes), headroom=0.0)
    >>> [(item.name, round(item.admitted_per_s, 2), item.rule) for item in plan.classes]
    [('cheap', 1.09, 'below the threshold'), ('dear', 8.0, 'always')]
    """
    free = check_number("headroom", headroom, at_least=0, below=1)
    level = check_number("threshold_s", threshold_s, above=0)
    steady = workload.averaged()
    values = np.array([item.value for item in steady.classes])
    if not float(values @ steady.rates_per_s) > 0:
        raise InputError("no class that arrives has a value, one must. Give RequestClass(..., value=...).")
    system, variables, found = _settle(fleet, steady, values, rows, 1 - free)
    return _plan(system, variables, found, values, 1 - free, level, _blind(fleet, steady, rows))


def knapsack(
    system: FleetRows, values: FloatArray, share: float, *, solver: str = "HIGHS"
) -> tuple[RoutingVariables, LinearSolution]:
    """The fluid program: shares of each class sent to each type, worth most; its value is minus what is earned.

    Parameters
    ----------
    system : FleetRows
    values : (K,) ndarray, >= 0
    share : float in (0, 1]
        Of the capacity that may be used.
    solver : {"HIGHS", "CLARABEL"}
    """
    from scipy import sparse

    variables = routing_variables(system, system.rates_per_s, np.full(len(system.types), share))
    below = sparse.vstack([variables.load, variables.once]).tocsr()
    worth = -(values * system.rates_per_s)[variables.class_]
    return variables, solve_linear(
        LinearProgram(cost=worth, below=below, limits=np.ones(below.shape[0])), solver=solver
    )


def _settle(
    fleet: Fleet, workload: Workload, values: FloatArray, rows: str, share: float
) -> tuple[FleetRows, RoutingVariables, LinearSolution]:
    """Solve, lay policy rows around the admitted mixes, and again until the value stands still."""
    system = fleet_rows(fleet, workload, rows=rows)
    variables, found = knapsack(system, values, share)
    mixes = np.broadcast_to(system.rates_per_s, system.fits.shape) / system.rates_per_s.sum()
    for _ in range(ROUNDS if rows == "policy" and len(system.classes) > 1 and len(system.types) <= REFINED else 0):
        own = np.maximum(variables.matrix(found.point), 0.0) * system.rates_per_s
        got = own.sum(axis=1, keepdims=True)
        mixes = (mixes + np.where(got > 1e-9, own / np.maximum(got, 1e-300), mixes)) / 2
        system = fleet_rows(fleet, workload, rows=rows, mixes=mixes)
        before = found.value
        variables, found = knapsack(system, values, share)
        if abs(found.value / before - 1) < STILL:
            break
    return system, variables, found


def _blind(fleet: Fleet, workload: Workload, rows: str) -> float:
    """Greatest factor on the arrivals as they are."""
    return settled(fleet, workload, rows=rows)[1].lower


def _plan(
    system: FleetRows,
    variables: RoutingVariables,
    found: LinearSolution,
    values: FloatArray,
    share: float,
    threshold_s: float,
    factor: float,
) -> AdmissionPlan:
    n, height = system.seconds.shape[:2]
    sent = np.maximum(variables.matrix(found.point), 0.0)
    admitted = np.minimum(sent.sum(axis=0), 1.0)
    prices = found.below_duals[: n * height].reshape(n, height) / (share * system.replicas)[:, None]
    cost = np.einsum("ir,irk->ik", prices, system.seconds)
    bid = np.where(system.fits, cost, np.inf).min(axis=0)
    weight = prices.sum(axis=1)
    priced = np.where(weight[:, None] > 0, cost / np.maximum(weight, 1e-300)[:, None], 0.0)
    routes = np.divide(sent, sent.sum(axis=0), out=np.zeros_like(sent), where=sent.sum(axis=0) > 1e-12)
    classes = []
    for k, name in enumerate(system.classes):
        margin = (values[k] - bid[k]) / max(values[k], bid[k], 1e-300) if np.isfinite(bid[k]) else -1.0
        marginal = abs(margin) <= MARGINAL and admitted[k] < 1 - 1e-9
        rule = "below the threshold" if marginal else "always" if margin > -MARGINAL else "never"
        if rule == "below the threshold" and admitted[k] <= 1e-9:
            rule = "never"
        classes.append(
            ClassAdmission(
                name=name,
                rate_per_s=float(system.rates_per_s[k]),
                admitted_per_s=float(admitted[k] * system.rates_per_s[k]),
                value=float(values[k]),
                bid_price=float(bid[k]),
                rule=rule,
            )
        )
    offered = float(values @ system.rates_per_s)
    pool_share = system.pool_share
    return AdmissionPlan(
        value_per_s=-found.value,
        offered_value_per_s=offered,
        fcfs_value_per_s=min(1.0, share * factor) * offered,
        overload=1 / factor,
        classes=tuple(classes),
        pools=system.pools,
        shares=read_only(by_pool(system, routes)),
        seconds=read_only(priced[system.type_of]),
        capacity=read_only(share * system.replicas[system.type_of] * pool_share),
        threshold_s=threshold_s,
        certificate=found.certificate,
        solver=found.solver,
        system=system,
    )
