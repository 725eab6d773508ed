r"""Latency and fluctuations below capacity. **Approximations**, with their measured errors.

TTFT = next iteration + prefill queue + own prefill + wait for admission. Prompts queue for the token budget as for one
server (`stability.theory.prefill`); with the chance that no slot or memory is left they wait for admission first: `wait="diffusion"`,
see `stability.theory.admission`. `wait="gaussian"` is the rough estimate that it replaced, kept as a baseline: a normal tail for
P(wait), residence/(2 slots (1 - load)) for its size, far too low at loads above 0.8, where admission dominates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from .._result import html_table, json_safe, percent, seconds, small, text_table
from .._types import FloatArray, dot
from ..errors import InputError, NotModelledError, check_choice, check_number
from ..model.fleet import Fleet, Pool
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from .admission import Wait, admission_wait, demand_moments
from .analyze import analyze
from .conditions import capacities, work_s
from .coupled import worker_of
from .fluctuations import Ages
from .moments import Demand
from .prefill import prefill_wait
from .prefix_analysis import settled, unsettled
from .readings import like_engine, stand_in
from .report import PoolReport
from .solve import Solution, computed_mix, solve
from .steps import prompt_law

RATE_TOLERANCE = 1e-3
"""Relative accuracy of a rate that meets a target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLatency:
    """Latency of one pool at its rate. Times in s, per replica where it matters.

    Attributes
    ----------
    name : str
    itl_s : float
        Token-weighted inter-token latency.
    ttft_mean_s, ttft_p99_s : float
        Time to first token, mean and 99th percentile; infinite at or above capacity.
    wait_probability : float
        P(an arrival finds no room for its prompt or no slot).
    kv_occupancy, kv_occupancy_std : float
        Mean and standard deviation of KV in use over capacity.
    running_mean : float
    """

    name: str
    itl_s: float
    ttft_mean_s: float
    ttft_p99_s: float
    wait_probability: float
    kv_occupancy: float
    kv_occupancy_std: float
    running_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyReport:
    """Latency of a fleet, pool by pool.

    Attributes
    ----------
    pools : tuple of PoolLatency
    itl_s, ttft_mean_s, ttft_p99_s : float
        Of the worst pool.

    Examples
    --------
    See :func:`stability.latency`.
    """

    pools: tuple[PoolLatency, ...]
    itl_s: float
    ttft_mean_s: float
    ttft_p99_s: float

    def __repr__(self) -> str:
        return (
            f"LatencyReport(ITL {seconds(self.itl_s)}, TTFT mean {seconds(self.ttft_mean_s)}, "
            f"p99 {seconds(self.ttft_p99_s)})"
        )

    _HEADER = ("pool", "ITL", "TTFT mean", "TTFT p99", "P(wait)", "KV", "KV sd", "running")

    @classmethod
    def header(cls) -> tuple[str, ...]:
        """Titles of the columns of `rows`."""
        return cls._HEADER

    def rows(self) -> list[tuple[str, ...]]:
        """The pools, one row each, for people."""
        return [
            (
                pool.name,
                seconds(pool.itl_s),
                seconds(pool.ttft_mean_s),
                seconds(pool.ttft_p99_s),
                small(float(f"{pool.wait_probability:.2g}")),
                percent(pool.kv_occupancy),
                percent(pool.kv_occupancy_std),
                f"{pool.running_mean:.4g}",
            )
            for pool in self.pools
        ]

    def summary(self) -> str:
        """The pools as a text table."""
        return text_table(self.rows(), self._HEADER)

    def _repr_html_(self) -> str:
        return html_table(self.rows(), self._HEADER)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": "stability/latency/1", **json_safe(self)}


def latency(fleet: Fleet, workload: Workload, *, wait: str = "diffusion") -> LatencyReport:
    """Inter-token latency, time to first token and KV fluctuations at the workload's rate.

    **Approximation**, for stationary rates below capacity; a schedule is taken at its time average.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives.
    wait : {"diffusion", "gaussian"}
        Estimate of the wait for admission; the second is a rough baseline.

    Returns
    -------
    LatencyReport
        One entry per pool; times to first token are infinite where the pool is at or above capacity.

    Raises
    ------
    UnservableError, NotModelledError
        As `analyze`.

    Examples
    --------
    At 5 requests/s of 10 ms work each, 0.95 of the time is left for iterations of 10 ms:

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.latency(fleet, st.Workload.poisson(5.0, lengths))
    >>> round(found.itl_s, 4)  # 0.01/(1 - 5*0.01)
    0.0105
    """
    check_choice("wait", wait, ("diffusion", "gaussian"))
    steady = workload.averaged()
    if unsettled([item for item in steady.classes if item.mean_rate_per_s > 0]):
        parts = [latency(alone, at_hits, wait=wait) for alone, at_hits in settled(fleet, steady)]
        return _over_pools([part.pools[0] for part in parts])
    report = analyze(fleet, steady)
    classes = [item for item in steady.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    mix = rates / rates.sum()
    solved = solve([worker_of(pool) for pool in fleet.pools], classes, mix, 0.95)
    known: dict[Any, PoolLatency] = {}
    found = []
    for row, (pool, at) in enumerate(zip(fleet.pools, report.pools, strict=True)):
        key = (pool.replica, pool.coupling, at.rate_per_s / pool.replicas)
        if key not in known:
            known[key] = _pool_latency(pool, at, solved, row, classes, mix, wait)
        same = known[key]
        found.append(
            PoolLatency(**{name: getattr(same, name) for name in same.__slots__ if name != "name"}, name=pool.name)
        )
    return _over_pools(found)


def _over_pools(found: Sequence[PoolLatency]) -> LatencyReport:
    return LatencyReport(
        pools=tuple(found),
        itl_s=max(pool.itl_s for pool in found),
        ttft_mean_s=max(pool.ttft_mean_s for pool in found),
        ttft_p99_s=max(pool.ttft_p99_s for pool in found),
    )


def rate_within(
    fleet: Fleet,
    workload: Workload,
    *,
    itl_s: float | None = None,
    ttft_mean_s: float | None = None,
    ttft_p99_s: float | None = None,
) -> float:
    """Largest rate at this mix that meets latency targets, 1/s; 0 if even a light load misses them.

    Parameters
    ----------
    fleet, workload
        As `latency`; the workload's own rate does not matter.
    itl_s, ttft_mean_s, ttft_p99_s : float > 0, optional
        Targets; at least one.

    Returns
    -------
    float
        Requests/s.

    Raises
    ------
    InputError
        If an argument breaks the rule stated for it.

    Examples
    --------
    The latency at that rate is the target:

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> within = st.rate_within(fleet, st.Workload.poisson(5.0, lengths), itl_s=0.0105)
    >>> round(st.latency(fleet, st.Workload.poisson(within, lengths)).itl_s, 4)
    0.0105
    """
    targets = {"itl_s": itl_s, "ttft_mean_s": ttft_mean_s, "ttft_p99_s": ttft_p99_s}
    wanted = {name: check_number(name, value, above=0) for name, value in targets.items() if value is not None}
    if not wanted:
        raise InputError("no target given, must give itl_s, ttft_mean_s or ttft_p99_s.")

    steady = workload.averaged()
    only_itl = set(wanted) == {"itl_s"}

    def margin(rate_per_s: float) -> float:
        """Least of limit/value - 1 over the targets: near capacity, a latency's inverse is nearly linear in the rate."""
        at = steady.scaled(rate_per_s=rate_per_s)
        if only_itl:
            return wanted["itl_s"] / max(pool.itl_s for pool in analyze(fleet, at).pools) - 1
        found = latency(fleet, at)
        return min(limit / float(getattr(found, name)) - 1 for name, limit in wanted.items())

    top = analyze(fleet, steady).capacity_per_s * (1 - RATE_TOLERANCE)
    low, high = RATE_TOLERANCE * top, top
    above = margin(high)
    if above >= 0:
        return top
    below = margin(low)
    if below < 0:
        return 0.0
    # Illinois: a false position that keeps one end twice has that end's margin halved.
    kept = 0
    for _ in range(60):
        middle = low + (high - low) * below / (below - above)
        middle = min(max(middle, low * (1 + RATE_TOLERANCE / 2)), high * (1 - RATE_TOLERANCE / 2))  # closes the bracket
        found = margin(middle)
        if found >= 0:
            low, below, above, kept = middle, found, above / 2 if kept > 0 else above, 1
        else:
            high, above, below, kept = middle, found, below / 2 if kept < 0 else below, -1
        if high - low < RATE_TOLERANCE * high:
            break
    return low


def _pool_latency(
    pool: Pool, at: PoolReport, solved: Solution, row: int, classes: Sequence[RequestClass], mix: FloatArray, wait: str
) -> PoolLatency:
    replica = pool.replica
    lam = min(at.rate_per_s / pool.replicas, float(solved.capacity[row]) * (1 - 1e-6))
    demand = solved.demand[row]
    coefficients = _law_at(solved.coefficients[row], demand, at.iteration_s, lam)
    room = capacities(replica)
    if not like_engine(replica):
        raise NotModelledError(
            f"pool {pool.name!r}: {scheduler_of(replica.engine)!r} has no latency theory here, must be first come, first served. "
            "For WAIT: stability.theory.wait.latency_bound_s. Else simulate it."
        )
    policy = scheduler_of(stand_in(replica).engine)
    evicts = isinstance(policy, Fcfs) and policy.evicts
    ages = Ages.of(classes, mix, replica.engine.max_num_batched_tokens, coefficients, evicts).with_means(
        float(work_s(coefficients, demand)), demand, evicts
    )
    kv_var, claim_var, running_var = ages.variances(lam, at.iteration_s)
    claimed = lam * at.iteration_s * demand[Demand.VOLUME if evicts else Demand.RESERVED]
    prompts = prompt_law(*computed_mix(classes, mix, replica.engine.block_size))
    decodes = min(lam * at.iteration_s * demand[Demand.DECODE], room[1])
    prefill = prefill_wait(prompts, lam, at, coefficients, max(room[2] - decodes, 1.0), room[2])
    usage = _Usage(float(claimed), at.kv_occupancy * float(room[0]), claim_var, at.running_mean, running_var)
    if wait == "gaussian":
        arriving = demand[Demand.PROMPT] + (0.0 if evicts else demand[Demand.DECODE] + 1)
        slots = max(1.0, float(1 / solved.shares[row].max()) * demand[Demand.ITERATIONS])
        waits = _gaussian_wait(usage, room, replica.watermark_tokens + arriving, at, demand, slots)
        mean_s = prefill.mean_s + waits.probability * waits.mean_s
        tail = waits.mean_s * math.log(waits.probability / 0.01) if waits.probability > 0.01 else 0.0
        p99_s = prefill.p99_s + tail
    else:
        waits = _diffusion_wait(usage, replica, evicts, solved, row, lam, coefficients, classes, mix)
        mean_s = prefill.mean_s + waits.probability * waits.mean_s if waits.probability > 0 else prefill.mean_s
        p99_s = prefill.quantile_s(0.99, waits)
    overloaded = at.load >= 1
    return PoolLatency(
        name=pool.name,
        itl_s=at.itl_s,
        ttft_mean_s=math.inf if overloaded else mean_s,
        ttft_p99_s=math.inf if overloaded else p99_s,
        wait_probability=1.0 if overloaded else waits.probability,
        kv_occupancy=at.kv_occupancy,
        kv_occupancy_std=float(math.sqrt(kv_var) / room[0]),
        running_mean=at.running_mean,
    )


@dataclass(frozen=True, slots=True)
class _Usage:
    """KV that admission counts (mean over iterations) and holds (mean over time), tokens, and requests running."""

    claimed: float
    held: float
    claimed_variance: float
    running: float
    running_variance: float


def _gaussian_wait(
    usage: _Usage, room: FloatArray, taken: float, at: PoolReport, demand: FloatArray, slots: float
) -> Wait:
    """The baseline. No room: the prompt (or reservation) does not fit beside the resident ones, or every slot is taken."""
    waits = max(
        _upper_tail(room[0] - taken, usage.claimed, usage.claimed_variance),
        _upper_tail(room[1] - 0.5, usage.running, usage.running_variance),
    )
    size = at.iteration_s * demand[Demand.ITERATIONS] / (2 * slots * max(1 - at.load, 1e-9))
    return Wait(probability=waits, mean_s=size * (1 + usage.running_variance / max(usage.running, 1e-9)) / 2)


def _diffusion_wait(
    usage: _Usage,
    replica: Replica,
    evicts: bool,
    solved: Solution,
    row: int,
    lam: float,
    coefficients: FloatArray,
    classes: Sequence[RequestClass],
    mix: FloatArray,
) -> Wait:
    """The longer of the waits for memory and for slots; the token budget's is in the prefill queue.

    Arrivals see averages over time, in which a request counts for longer in the iterations that its own work makes long.
    """
    demand, capacity, engine = solved.demand[row], float(solved.capacity[row]), replica.engine
    room = capacities(replica)
    if evicts:
        whole = prompt_law(tuple(item.lengths for item in classes), tuple(mix.tolist()))
        s, p = whole.values.astype(np.float64), whole.probabilities
        left_over = dot(p, s**2) / (2 * dot(p, s))
    else:
        left_over = demand[Demand.LIMIT_SQUARE] / (2 * demand[Demand.LIMIT])
    stretched = lam / max(1 - lam * float(work_s(coefficients, demand)), 1e-9)

    def waits(resource: Demand, free: float, mean: float, variance: float) -> Wait:
        of = demand_moments(
            classes,
            mix,
            coefficients=coefficients,
            row=resource,
            capacity_per_s=capacity,
            budget=engine.max_num_batched_tokens,
            block_size=engine.block_size,
        )
        if resource is Demand.RESERVED:
            mean += stretched * of.own_limit
        elif resource is Demand.ITERATIONS:
            mean += stretched * of.own_s
        return admission_wait(
            room=free,
            mean=mean,
            variance=variance,
            load=lam / capacity,
            demand_mean_s=of.mean_s,
            demand_square=of.square,
        )

    free = float(room[0] - replica.watermark_tokens - left_over)
    if evicts:
        memory = waits(Demand.VOLUME, free, usage.held, usage.claimed_variance)
    else:
        memory = waits(Demand.RESERVED, free, usage.claimed, usage.claimed_variance)
    slots = waits(Demand.ITERATIONS, float(room[1]), usage.running, usage.running_variance)
    return max(memory, slots, key=lambda wait: wait.probability)


def _law_at(coefficients: FloatArray, demand: FloatArray, iteration_s: float, lam: float) -> FloatArray:
    """The tangent law with its base moved so that it gives the pool's iteration time at its rate."""
    moved = coefficients.copy()
    moved[0] = max(iteration_s * (1 - lam * float(work_s(coefficients, demand))), 0.0)
    return moved


def _upper_tail(level: float, mean: float, variance: float) -> float:
    """P(normal > level)."""
    if variance <= 0:
        return float(mean > level)
    return NormalDist(mean, math.sqrt(variance)).cdf(2 * mean - level)
