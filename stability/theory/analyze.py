"""`analyze`: the verdict on a fleet under a workload: capacities -> split over pools -> operating point -> verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .._result import Verdict
from .._types import FloatArray
from ..errors import InputError, NotModelledError, UnservableError, check_number
from ..model.arrivals import Replay
from ..model.checks import check_pair
from ..model.fleet import Barrier, Fleet, Pool
from ..model.iteration import IterationTime
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from . import conditions
from .conditions import BOTTLENECKS
from .coupled import ASSUMPTION, coupled, coupled_point, worker_of
from .hits import computed_lengths
from .moments import tail_probability
from .operating import OperatingPoint, law_operating_point, operating_point
from .prefix_analysis import STAYS, SessionAnalysis, unsettled
from .prefix_report import PrefixReport
from .readings import like_engine, stand_in, state
from .report import PoolReport, StabilityReport
from .solve import Solution, largest_footprint, solve
from .steps import prompt_law

RARE = 1e-3
"""Largest share of requests too long for the KV cache that an unbounded length law may have."""

HELD_BACK = 0.98
"""Share of the bound for every policy below which a published scheduler's own capacity is what binds."""

NEGLIGIBLE = 1e-9
"""Share below which it is not worth a note."""


def analyze(fleet: Fleet, workload: Workload, *, confidence: float = 0.95) -> StabilityReport:
    """Whether `fleet` is stable under `workload`, by how much and what binds.

    Arrivals are split over pools by their weights, or in proportion to capacity when none is given, and evenly over the
    replicas of a pool. A rate schedule is judged at its time average and at its peak window; where the two differ the
    verdict is UNDETERMINED.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives, 1/s.
    confidence : float in (0, 1)
        Level of the capacity interval that a finite trace of lengths leaves.

    Returns
    -------
    StabilityReport
        Verdict, capacities with their standing, operating point, one report per pool.

    Raises
    ------
    InputError
        If a replay's requests all arrive at one instant: they have no rate.
    UnservableError
        If a class holds requests longer than a pool's KV cache.
    NotModelledError
        For parts of the contract that have no theory yet.

    Notes
    -----
    See `stability.theory.conditions` for the formulas. STABLE is claimed below the lower end of a capacity that is
    proved or validated for the policy and regime, UNSTABLE above the upper end of the policy's capacity or of the bound
    that holds for every policy.

    Examples
    --------
    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> report = st.analyze(fleet, st.Workload.poisson(5.0, lengths))
    >>> report.verdict, report.bottleneck, round(report.capacity_per_s, 3)  # 1/(0.01 + 0.01*80/8)
    (<Verdict.STABLE: 'stable'>, 'batch_slots', 9.091)
    """
    check_number("confidence", confidence, above=0, below=1)
    check_pair(fleet, workload)
    check_rate(workload)
    if not workload.is_scheduled:
        return _stationary(fleet, workload, confidence)
    average = _stationary(fleet, workload.averaged(), confidence)
    peak = _stationary(fleet, workload.at(peak_window_s(fleet, workload)), confidence)
    verdict, reason = average.verdict, f"at the mean and at the peak alike: {average.reason}"
    if peak.verdict is not average.verdict:
        verdict = Verdict.UNDETERMINED
        what = "transient overload" if peak.verdict is Verdict.UNSTABLE else "mean and peak differ"
        reason = (
            f"{what}: {average.verdict} at the mean rate {average.rate_per_s:.4g}/s, "
            f"{peak.verdict} at the peak {peak.rate_per_s:.4g}/s"
        )
    return replace(average, verdict=verdict, reason=reason, peak=peak)


def check_rate(workload: Workload) -> None:
    """Refuse a replay without a rate: of requests that all arrive at one instant."""
    if isinstance(workload.arrivals, Replay) and workload.arrivals.span_s == 0:
        raise InputError(
            f"the {len(workload.arrivals.arrival_s)} requests of the replay arrive at one instant, must come at a rate. "
            "Give one: `arrivals: poisson` with rate_per_s in a plan, Workload.poisson(rate_per_s, lengths) in Python."
        )


def _stationary(fleet: Fleet, workload: Workload, confidence: float) -> StabilityReport:
    classes = [item for item in workload.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    total = float(rates.sum())
    assumptions = _check(fleet.pools, classes)
    if unsettled(classes):
        return _with_sessions(fleet, classes, rates, confidence, assumptions)
    workers = [worker_of(pool) for pool in fleet.pools]
    solved, barrier_s = coupled(fleet.pools, solve(workers, classes, rates / total, confidence), classes, rates / total)
    counts = np.array([pool.replicas for pool in fleet.pools], dtype=np.float64)
    split = split_over(fleet.pools, counts * solved.capacity)
    per_replica = split * total / counts
    points = _operating_points(workers, classes, rates / total, solved, per_replica)
    points = coupled_point(
        fleet.pools, points, solved, classes, rates / total, np.minimum(per_replica, solved.capacity)
    )
    reports = _pool_reports(fleet.pools, solved, split * total, counts, per_replica, points, barrier_s)
    return _fleet_report(fleet.pools, reports, split, total, assumptions)


def _with_sessions(
    fleet: Fleet, classes: Sequence[RequestClass], rates: FloatArray, confidence: float, assumptions: list[str]
) -> StabilityReport:
    """Capacities with a cold cache, the operating point at the hits of the warmest equilibrium."""
    pools, total = fleet.pools, float(rates.sum())
    mix = rates / total
    replicas = [pool.replica for pool in pools]
    found = SessionAnalysis(pools, replicas, classes, mix, confidence, [(1.0,)] * len(pools))
    counts = np.array([pool.replicas for pool in pools], dtype=np.float64)
    split = split_over(pools, counts * found.solution.capacity)
    per_replica = split * total / counts
    solved, operating, at_hits, prefixes = found.at(per_replica)
    points = [
        _operating_points([replica], at_hits[row], mix, operating.over(np.array([row])), per_replica[row : row + 1])
        for row, replica in enumerate(replicas)
    ]
    columns = {name: np.concatenate([getattr(p, name) for p in points]) for name in OperatingPoint.__slots__}
    reports = _pool_reports(
        pools, solved, split * total, counts, per_replica, OperatingPoint(**columns), np.zeros(len(pools))
    )
    caching = tuple(pool for pool in prefixes if pool is not None)
    if caching:
        assumptions = [*assumptions, STAYS]
    report = _fleet_report(pools, reports, split, total, assumptions)
    return replace(report, prefixes=PrefixReport(router="prefix_affinity", pools=caching) if caching else None)


def _check(pools: Sequence[Pool], classes: Sequence[RequestClass]) -> list[str]:
    """Refuse what is not modelled or cannot be served; return the assumptions made."""
    known = any(item.finds_prefixes and item.sessions is None for item in classes)
    notes = ["arrivals of a pool are split evenly over its replicas", "requests of a class are independent"]
    if known:
        notes.append("prefixes known to be cached are found, whatever else the cache holds")
    longest = {evicts: max(largest_footprint(item, evicts) for item in classes) for evicts in (False, True)}
    for pool in pools:
        if pool.weight == 0:
            continue
        if pool.role != "mixed":
            raise NotModelledError(
                f"pool {pool.name!r}: prefill/decode roles have no analysis yet. "
                "Use `stability check`, disaggregation() in Python, for a prefill and a decode pool."
            )
        if isinstance(pool.coupling, Barrier):
            notes.append(ASSUMPTION)
        policy = scheduler_of(stand_in(pool.replica).engine)
        assert isinstance(policy, Fcfs)
        if longest[policy.evicts] > pool.replica.usable_kv_tokens:
            for item in classes:
                _check_fits(pool, item, policy.evicts, notes)
    return list(dict.fromkeys(notes))


def _check_fits(pool: Pool, item: RequestClass, evicts: bool, notes: list[str]) -> None:
    room = pool.replica.usable_kv_tokens
    longest = largest_footprint(item, evicts)
    if longest <= room:
        return
    if math.isfinite(longest):
        raise UnservableError(
            f"class {item.name!r} has requests that take up to {longest:.0f} KV tokens, must fit in the {room} of pool "
            f"{pool.name!r}. Truncate the lengths, give the replica more memory or keep the class off this pool."
        )
    share = tail_probability(item.lengths, room)
    if share > RARE:
        raise UnservableError(
            f"class {item.name!r}: {100 * share:.3g} % of the requests do not fit in the {room} KV tokens of pool "
            f"{pool.name!r}, must be at most {100 * RARE:g} %. Truncate the lengths with limit=..."
        )
    if share < NEGLIGIBLE:
        return
    notes.append(
        f"lengths of class {item.name!r} are unbounded: {share:.1e} of its requests exceed {room} KV tokens, ignored"
    )


def split_over(pools: Sequence[Pool], capacity: FloatArray) -> FloatArray:
    """Share of the arrivals each pool gets: its weight, or its share of the capacity."""
    weights = capacity if pools[0].weight is None else np.array([pool.weight for pool in pools], dtype=np.float64)
    return np.asarray(weights / weights.sum())


def _operating_points(
    replicas: Sequence[Replica],
    classes: Sequence[RequestClass],
    mix: FloatArray,
    solved: Solution,
    per_replica: FloatArray,
) -> OperatingPoint:
    """Every pool at its rate, or at capacity when it is overloaded."""
    rate = np.maximum(np.minimum(per_replica, solved.capacity * (1 - 1e-6)), 1e-300)
    others = [i for i, replica in enumerate(replicas) if not isinstance(replica.iteration, IterationTime)]
    coefficients = solved.coefficients
    if others:
        coefficients = coefficients.copy()
        coefficients[others] = (1.0, 0.0, 0.0, 0.0, 0.0)  # replaced below
    point = operating_point(coefficients, solved.demand, rate)
    columns = {name: np.array(getattr(point, name)) for name in OperatingPoint.__slots__}
    block = replicas[0].engine.block_size
    computed = tuple(computed_lengths(item, block) for item in classes)
    prompts = prompt_law(computed, tuple(mix.tolist())) if others else None
    known: dict[tuple[Replica, float], OperatingPoint] = {}
    for index in others:
        replica = replicas[index]
        key = (replica, float(rate[index]))
        if key not in known:
            assert prompts is not None
            known[key] = law_operating_point(
                replica.iteration,
                solved.demand[index],
                prompts,
                key[1],
                float(replica.engine.max_num_batched_tokens),
                1 / float(solved.shares[index].max()),
            )
        for name, column in columns.items():
            column[index] = getattr(known[key], name)
    for index, replica in enumerate(replicas):
        for name, value in state(replica, classes, mix * rate[index]).items():
            columns[name][index] = value
    return OperatingPoint(**columns)


def _pool_reports(
    pools: Sequence[Pool],
    solved: Solution,
    rates: FloatArray,
    counts: FloatArray,
    per_replica: FloatArray,
    points: OperatingPoint,
    barrier_s: FloatArray,
) -> list[PoolReport]:
    loads = conditions.affine_loads(per_replica, solved.coefficients, solved.demand, solved.shares)
    loads += (per_replica * barrier_s)[:, None]
    compute = per_replica * (conditions.work_s(solved.coefficients, solved.demand) + barrier_s)
    bottleneck = conditions.binding(solved.coefficients, solved.demand, solved.shares)
    room = np.array([pool.replica.usable_kv_tokens for pool in pools], dtype=np.float64)
    columns = {
        "capacity": counts * solved.capacity,
        "low": counts * solved.interval[:, 0],
        "high": counts * solved.interval[:, 1],
        "stable": counts * solved.stable_below,
        "unstable": counts * solved.unstable_above,
        "upper": counts * solved.upper_bound,
        "load": per_replica / solved.capacity,
        "iteration": points.iteration_s,
        "itl": points.itl_s,
        "occupancy": np.minimum(points.kv_tokens / room, 1.0),
        "running": points.running,
        "rate": rates,
    }
    table = {name: column.tolist() for name, column in columns.items()}
    load_table, compute_list, bottlenecks = loads.tolist(), compute.tolist(), bottleneck.tolist()
    reports = []
    for i, pool in enumerate(pools):
        verdict, reason = _judge(
            pool, table["rate"][i], table["stable"][i], table["unstable"][i], solved.doubts[i], solved.grounds[i]
        )
        memory, slots, budget = load_table[i]
        proved = solved.proved[i]
        reports.append(
            PoolReport(
                name=pool.name,
                replicas=pool.replicas,
                rate_per_s=table["rate"][i],
                verdict=verdict,
                reason=reason,
                capacity_per_s=table["capacity"][i],
                capacity_interval=(table["low"][i], table["high"][i]),
                proved_capacity_per_s=None if proved is None else pool.replicas * proved,
                stable_below_per_s=table["stable"][i],
                unstable_above_per_s=table["unstable"][i],
                upper_bound_per_s=table["upper"][i],
                load=table["load"][i],
                loads={"kv_memory": memory, "batch_slots": slots, "token_budget": budget, "compute": compute_list[i]},
                bottleneck=_bottleneck(pool, table["capacity"][i], table["upper"][i], BOTTLENECKS[bottlenecks[i]]),
                iteration_s=table["iteration"][i],
                itl_s=table["itl"][i],
                kv_occupancy=table["occupancy"][i],
                running_mean=table["running"][i],
                evictions_per_request=float(solved.evictions_per_request[i]),
            )
        )
    return reports


def _bottleneck(pool: Pool, capacity: float, upper: float, resource: str) -> str:
    """The binding resource, or the scheduler where it holds back what the resources allow."""
    return "scheduler" if not like_engine(pool.replica) and capacity < HELD_BACK * upper else resource


def _judge(
    pool: Pool, rate: float, stable_below: float, unstable_above: float, doubt: str, ground: str
) -> tuple[Verdict, str]:
    """Decision 1 for one pool."""
    if rate > unstable_above:
        return (
            Verdict.UNSTABLE,
            f"pool {pool.name!r} gets {rate:.4g}/s, more than the {unstable_above:.4g}/s it can serve",
        )
    if rate < stable_below:
        why = f" ({ground})" if ground else ""
        return Verdict.STABLE, f"pool {pool.name!r} gets {rate:.4g}/s and is stable up to {stable_below:.4g}/s{why}"
    if doubt:
        return Verdict.UNDETERMINED, f"pool {pool.name!r}: {doubt}"
    return Verdict.UNDETERMINED, (
        f"pool {pool.name!r} gets {rate:.4g}/s, between {stable_below:.4g}/s, below which stability is proved or "
        f"validated, and {unstable_above:.4g}/s, above which it is ruled out"
    )


def _fleet_report(
    pools: Sequence[Pool], reports: list[PoolReport], split: FloatArray, total: float, assumptions: list[str]
) -> StabilityReport:
    used = [report for report, share in zip(reports, split.tolist(), strict=True) if share > 0]
    worst = max(used, key=lambda report: report.load)
    by_verdict = {verdict: [r for r in used if r.verdict is verdict] for verdict in Verdict}
    for verdict in (Verdict.UNSTABLE, Verdict.UNDETERMINED, Verdict.STABLE):
        if by_verdict[verdict]:
            lead = max(by_verdict[verdict], key=lambda report: report.load)
            break

    def least(values: Sequence[float]) -> float:
        """The fleet's rate at which the first pool reaches its own value."""
        return float((np.array(values)[split > 0] / split[split > 0]).min())

    proved = [report.proved_capacity_per_s if share > 0 else 0.0 for report, share in zip(reports, split, strict=True)]
    if len(pools) > 1:
        how = "in proportion to capacity" if pools[0].weight is None else "by the stated weights"
        assumptions = [*assumptions, f"arrivals are split over pools {how}; bounds hold under this split"]
    return StabilityReport(
        verdict=lead.verdict,
        reason=lead.reason,
        rate_per_s=total,
        capacity_per_s=least([report.capacity_per_s for report in reports]),
        capacity_interval=(
            least([report.capacity_interval[0] for report in reports]),
            least([report.capacity_interval[1] for report in reports]),
        ),
        proved_capacity_per_s=(None if any(p is None for p in proved) else least([p for p in proved if p is not None])),
        stable_below_per_s=least([report.stable_below_per_s for report in reports]),
        unstable_above_per_s=least([report.unstable_above_per_s for report in reports]),
        upper_bound_per_s=least([report.upper_bound_per_s for report in reports]),
        load=worst.load,
        bottleneck=worst.bottleneck,
        iteration_s=worst.iteration_s,
        itl_s=worst.itl_s,
        kv_occupancy=worst.kv_occupancy,
        running_mean=worst.running_mean,
        evictions_per_request=worst.evictions_per_request,
        pools=tuple(reports),
        binding_pool=worst.name,
        assumptions=tuple(assumptions),
    )


def peak_window_s(fleet: Fleet, workload: Workload) -> float:
    """Start of the window that asks most of the fleet: the greatest load of any resource of any pool.

    Loads add over classes, each as it loads the resource alone; the windows of the greatest sums are analysed.
    """
    costs: list[FloatArray] = []
    for item in workload.classes:
        if item.mean_rate_per_s > 0:
            alone = _stationary(fleet, Workload([item.with_rate(1.0)]), 0.95)
            costs.append(np.array([[*pool.loads.values(), pool.load] for pool in alone.pools]).ravel())
        else:
            costs.append(np.zeros(0))
    width = max(len(cost) for cost in costs)
    table = np.array([np.zeros(width) if not len(cost) else cost for cost in costs])  # (classes, resources)
    starts = workload.window_starts_s()
    rates = np.array([[_rate_at(item, t) for item in workload.classes] for t in starts.tolist()])
    loads = rates @ table
    candidates = dict.fromkeys([int(loads.max(axis=1).argmax()), *loads.argmax(axis=0).tolist()])
    used = [index for index in candidates if rates[index].sum() > 0]
    if len(used) < 2:
        return float(starts[used[0] if used else 0])
    found = {index: _stationary(fleet, workload.at(float(starts[index])), 0.95).load for index in used}
    return float(starts[max(found, key=lambda index: found[index])])


def _rate_at(item: RequestClass, time_s: float) -> float:
    return item.mean_rate_per_s if isinstance(item.rate_per_s, (int, float)) else float(item.rate_per_s.at(time_s))
