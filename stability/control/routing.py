r"""Static splits of the arrivals over a fleet's pools, by objective, with what proves or bounds each.

| objective | minimises | standing of the optimum |
|---|---|---|
| `"slack"` | greatest load | linear program, certificate in plain arithmetic (`balance`); under uncertain rates `robust` |
| `"itl"` | worst inter-token latency of a pool in use | linear program (`itl`) |
| `"congestion"` | sum over pools of n load/(1 - load) | convex, lower bound from the tangent (`congestion`) |
| `"waiting"` | requests waiting | not convex: local search and a lower bound (`waiting`) |
| `"cost"` | price per hour of the replicas in use | linear program in fractional replicas; rounding up keeps every row |

Targets become largest loads: a type whose mix may run at most at a share b of its capacity to meet ITL, TTFT or headroom gets rows <= b n,
found by `theory.latency.rate_within` at the mix it gets, again until the mix stands still. What the split then achieves is judged by
`analyze` and `latency`, pool by pool at its own mix, not by the rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from .._result import seconds
from .._types import FloatArray, read_only
from ..errors import InputError, check_choice
from ..model.fleet import Fleet, Pool
from ..model.targets import Targets
from ..model.workload import Workload
from ..theory.analyze import analyze
from ..theory.check import DEFAULT_HEADROOM
from ..theory.latency import latency, rate_within
from ..theory.report import PoolReport
from .balance import least_load
from .congestion import least_congestion
from .cost import least_cost
from .itl import bases, least_itl
from .linear import Certificate, InfeasibleError
from .region import REFINED
from .remedies import remedy
from .robust import robust_load
from .rows import FleetRows, by_pool, fleet_rows
from .split import OptimalSplit, PoolSplit
from .uncertainty import Uncertainty
from .waiting import fewest_waiting

OBJECTIVES = ("slack", "itl", "congestion", "waiting", "cost")

ROUNDS, LATENCY_ROUNDS = 8, 3
"""Times that rows and caps are laid anew around the mix that each type gets; fewer where each needs latencies."""

STILL = 1e-4

MISSED = 0.005
"""Share by which a latency may exceed its target for rounding's sake."""

USED = 1e-9
"""Share of the arrivals below which a pool is not in use."""


def optimal_split(
    fleet: Fleet,
    workload: Workload,
    targets: Targets | None = None,
    *,
    objective: str = "slack",
    rows: str = "policy",
    uncertainty: Uncertainty | None = None,
) -> OptimalSplit:
    """The best static split of a workload over a fleet's pools.

    Parameters
    ----------
    fleet : Fleet
        Mixed, independent pools; their weights do not matter, prices only for "cost".
    workload : Workload
        Classes and rates, 1/s; a schedule counts with its time average.
    targets : Targets, optional
        ITL, TTFT and headroom that every pool in use is to meet; "cost" keeps 10 % headroom where none is stated.
    objective : {"slack", "itl", "congestion", "waiting", "cost"}
        What to minimise; see the module.
    rows : {"policy", "bound", "proved"}
        As in `capacity_region`.
    uncertainty : uncertainty.Box, Budget or Scenarios, optional
        Of the rates, for "slack"; see `stability.uncertainty`.

    Returns
    -------
    OptimalSplit
        Where no split satisfies the rows and targets: the split of least load, marked infeasible, with the reason.

    Raises
    ------
    UnservableError, NotModelledError, InputError
        As `capacity_region`; also if "cost" lacks a price or an objective takes no uncertainty.

    Examples
    --------
    Two pools, one twice as fast, balanced at 2:1:

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> slow, fast = (
    ...     st.Replica(iteration=st.IterationTime(base_s=base), kv_capacity_tokens=100_000, engine=engine)
    ...     for base in (0.02, 0.01)
    ... )
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> split = st.optimal_split(st.Fleet([st.Pool("slow", slow), st.Pool("fast", fast)]), st.Workload.poisson(9.0, lengths))
    >>> split.shares.round(3).ravel().tolist(), round(split.load, 3)  # capacities 5 and 10 per s
    ([0.333, 0.667], 0.6)
    """
    check_choice("objective", objective, OBJECTIVES)
    if uncertainty is not None and objective != "slack":
        raise InputError(f"uncertainty with objective = {objective!r}, must be with 'slack'. Drop one of them.")
    wanted = Targets() if targets is None else targets
    if objective == "cost" and wanted.headroom is None:
        wanted = replace(wanted, headroom=DEFAULT_HEADROOM)  # the cheapest split fills whatever it may fill
    steady = workload.averaged()
    found = _settle(fleet, steady, wanted, objective, rows, uncertainty)
    pools = _judge(fleet, steady, found, wanted)
    feasible, reason = found.load < 1, ""
    if not feasible:
        reach = partial(_factor, caps=found.caps, uncertainty=uncertainty)
        reason = remedy(fleet, steady, wanted, found.system, found.caps, found.factor, reach)
    else:
        missed = [text for pool in pools for text in _missed(pool, wanted)]
        feasible, reason = not missed, "; ".join(missed)
    return OptimalSplit(
        objective=found.objective,
        value=found.value,
        lower_bound=found.lower,
        gap=found.value / found.lower - 1 if found.lower > 0 else math.inf,
        feasible=feasible,
        reason=reason,
        rows_kind=rows,
        classes=found.system.classes,
        rates_per_s=read_only(found.system.rates_per_s),
        shares=read_only(by_pool(found.system, np.maximum(found.shares, 0.0))),
        pools=tuple(pools),
        load=found.load,
        certificate=found.certificate,
        solver=found.solver,
        system=found.system,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Found:
    """A split by type of replica."""

    system: FleetRows
    caps: FloatArray
    shares: FloatArray
    objective: str
    value: float
    lower: float
    load: float
    factor: float
    certificate: Certificate | None
    solver: str
    used: FloatArray | None = None


def _settle(
    fleet: Fleet, workload: Workload, targets: Targets, objective: str, rows: str, uncertainty: Uncertainty | None
) -> _Found:
    """Solve, lay rows and caps around the mixes found, and again until the load stands still."""
    merged = objective != "waiting"
    system = fleet_rows(fleet, workload, rows=rows, merged=merged)
    mixes = np.broadcast_to(system.rates_per_s, system.fits.shape) / system.rates_per_s.sum()
    caps = _caps(system, workload, targets, mixes)
    found = _solve(fleet, workload, system, caps, objective, uncertainty)
    settled = rows != "policy" and targets == Targets(headroom=targets.headroom)
    rounds = ROUNDS if targets.ttft_mean_s is None and targets.ttft_p99_s is None else LATENCY_ROUNDS
    for _ in range(0 if settled or len(system.classes) < 2 or len(system.types) > REFINED else rounds):
        own = found.shares * system.rates_per_s
        got = own.sum(axis=1, keepdims=True)
        mixes = (mixes + np.where(got > USED * system.rates_per_s.sum(), own / np.maximum(got, 1e-300), mixes)) / 2
        system = fleet_rows(fleet, workload, rows=rows, mixes=mixes, merged=merged)
        caps = _caps(system, workload, targets, mixes)
        before = found.value
        found = _solve(fleet, workload, system, caps, objective, uncertainty)
        if abs(found.value - before) <= STILL * abs(before):
            break
    return found


def _caps(system: FleetRows, workload: Workload, targets: Targets, mixes: FloatArray) -> FloatArray:
    """Largest load of each type at which its mix meets the targets; 0 where no load does. Shape (n,)."""
    most = 1 - (targets.headroom or 0.0)
    limits = {name: getattr(targets, name) for name in ("itl_s", "ttft_mean_s", "ttft_p99_s")}
    caps = np.full(len(system.types), most)
    if all(limit is None for limit in limits.values()):
        return caps
    for i, replica in enumerate(system.types):
        alone = _mix_workload(workload, np.where(system.fits[i], mixes[i], 0.0))
        if alone is None:
            caps[i] = 0.0
            continue
        one = Fleet.of(replica)
        reach = rate_within(one, alone, **limits)
        caps[i] = min(most, reach / analyze(one, alone).capacity_per_s)
    return caps


def _mix_workload(workload: Workload, rates: FloatArray) -> Workload | None:
    """The classes at other rates; those at 0 left out."""
    classes = [item.with_rate(float(x)) for item, x in zip(workload.classes, rates, strict=True) if x > 0]
    return Workload(classes) if classes else None


def _solve(
    fleet: Fleet,
    workload: Workload,
    system: FleetRows,
    caps: FloatArray,
    objective: str,
    uncertainty: Uncertainty | None,
) -> _Found:
    usable = caps > 0
    reachable = (system.fits & usable[:, None]).any(axis=0) | (system.rates_per_s == 0)
    if not reachable.all():
        # No load meets the targets for some class: balance without them, marked as beyond any load.
        plain = least_load(system.seconds, system.replicas, system.rates_per_s, system.fits)
        return _Found(
            system=system,
            caps=caps,
            shares=plain.shares,
            objective="slack",
            value=1 / plain.lower,
            lower=1 / plain.upper,
            load=math.inf,
            factor=0.0,
            certificate=None,
            solver=plain.solver,
        )
    capped = system.replicas * np.where(usable, caps, 1.0)
    balance = least_load(system.seconds, capped, system.rates_per_s, system.fits & usable[:, None])
    slack = _Found(
        system=system,
        caps=caps,
        shares=balance.shares,
        objective="slack",
        value=1 / balance.lower,
        lower=1 / balance.upper,
        load=1 / balance.lower,
        factor=balance.lower,
        certificate=Certificate(primal=0.0, dual=0.0, gap=balance.gap),  # both bounds are of repaired points
        solver=balance.solver,
    )
    if uncertainty is not None:
        shares, found = robust_load(system, np.where(usable, caps, 0.0), uncertainty)
        return replace(
            slack,
            shares=shares,
            value=found.value,
            lower=found.value * (1 - abs(found.certificate.gap)),
            load=found.value,
            factor=1 / found.value,
            certificate=found.certificate,
            solver=found.solver,
        )
    if objective == "slack" or slack.load >= 1:
        return slack
    if objective == "congestion":
        shares, value, lower = least_congestion(system, caps)
        return replace(
            _with_load(slack, shares, capped), objective=objective, value=value, lower=lower, solver="CLARABEL"
        )
    if objective == "waiting":
        waiting = fewest_waiting(system, workload, caps, balance.shares)
        return replace(
            _with_load(slack, waiting.shares, capped),
            objective=objective,
            value=waiting.value,
            lower=waiting.lower,
            solver=f"SLSQP from {waiting.starts} starts; CLARABEL",
        )
    if objective == "cost":
        shares, used, linear = least_cost(fleet, system, caps)
        return replace(
            _with_load(slack, shares, capped),
            objective=objective,
            value=linear.value,
            lower=linear.value * (1 - abs(linear.certificate.gap)),
            certificate=linear.certificate,
            solver=linear.solver,
            used=used,
        )
    try:
        shares, _, linear = least_itl(system, caps)
    except InfeasibleError:
        return slack
    worst = float(bases(system)[usable].min()) / -linear.value
    return replace(
        _with_load(slack, shares, capped),
        objective=objective,
        value=worst,
        lower=worst * (1 - abs(linear.certificate.gap)),
        certificate=linear.certificate,
        solver=linear.solver,
    )


def _factor(system: FleetRows, *, caps: FloatArray, uncertainty: Uncertainty | None) -> float:
    """Largest factor on the rates under the caps."""
    usable = caps > 0
    if uncertainty is not None:
        return 1 / robust_load(system, caps, uncertainty)[1].value
    capped = system.replicas * np.where(usable, caps, 1.0)
    return least_load(system.seconds, capped, system.rates_per_s, system.fits & usable[:, None]).lower


def _with_load(found: _Found, shares: FloatArray, capped: FloatArray) -> _Found:
    """The same for other shares, which keep the rows to a solver's tolerance where any do."""
    rates = shares * found.system.rates_per_s
    load = float((np.einsum("irk,ik->ir", found.system.seconds, rates) / capped[:, None]).max())
    return replace(found, shares=shares, load=min(load, 1 - 1e-12))


def _judge(fleet: Fleet, workload: Workload, found: _Found, targets: Targets) -> list[PoolSplit]:
    """How each pool fares at its own mix."""
    system = found.system
    rates = by_pool(system, found.shares * system.rates_per_s)
    timed = targets.ttft_mean_s is not None or targets.ttft_p99_s is not None
    judged: list[PoolSplit] = []
    for p, pool in enumerate(fleet.pools):
        used = float(system.pool_replicas[p])
        if found.used is not None:
            used = float(found.used[system.type_of[p]] * system.pool_share[p])
        own = rates[p] * (rates[p] > USED * workload.rate_per_s)
        alone = _mix_workload(workload, own)
        if alone is None:
            judged.append(
                PoolSplit(
                    name=pool.name,
                    rate_per_s=0.0,
                    load=0.0,
                    verdict=None,
                    bottleneck="-",
                    itl_s=math.nan,
                    ttft_mean_s=None,
                    ttft_p99_s=None,
                    replicas_used=used,
                )
            )
            continue
        kept = pool.replicas if found.used is None else max(1, math.ceil(used - 1e-9))
        report = _report(pool, kept, alone)
        times = latency(Fleet([replace(pool, weight=None, replicas=kept)]), alone) if timed else None
        judged.append(
            PoolSplit(
                name=pool.name,
                rate_per_s=float(own.sum()),
                load=report.load,
                verdict=report.verdict,
                bottleneck=report.bottleneck,
                itl_s=report.itl_s,
                ttft_mean_s=None if times is None else times.ttft_mean_s,
                ttft_p99_s=None if times is None else times.ttft_p99_s,
                replicas_used=used,
            )
        )
    return judged


def _report(pool: Pool, replicas: int, workload: Workload) -> PoolReport:
    return analyze(Fleet([replace(pool, weight=None, replicas=replicas)]), workload).pools[0]


def _missed(pool: PoolSplit, targets: Targets) -> list[str]:
    """Targets that a pool in use misses, in words."""
    missed = []
    for name in ("itl_s", "ttft_mean_s", "ttft_p99_s"):
        limit, value = getattr(targets, name), getattr(pool, name)
        if limit is not None and value is not None and value > limit * (1 + MISSED):
            missed.append(
                f"pool {pool.name!r} has {name} {seconds(value)}, must be at most {seconds(limit)}: its load must fall below {pool.load:.3f}"
            )
    return missed
