r"""Latency and fluctuations below capacity. **Approximations**, with their measured errors.

TTFT = next iteration + prefill queue + own prefill + wait for admission. Prompts queue for the token budget as for one
server (see `_prefill_s`); with the chance that no slot or memory is left they wait for admission first, as in
E[wait | wait] = residence/(2 slots (1 - load)), until the diffusion of the fluid limit replaces it. Against simulation the
mean is within 25 % at half load and far too low at loads above 0.8, where admission dominates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from .._result import html_table, json_safe, percent, seconds, text_table
from .._types import FloatArray
from ..errors import InputError, NotModelledError, check_number
from ..model.fleet import Fleet, Pool
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from .analyze import analyze
from .conditions import capacities, work_s
from .fluctuations import Ages
from .moments import Demand
from .readings import like_engine, stand_in
from .report import PoolReport
from .solve import Solution, solve
from .steps import PromptLaw, prompt_law

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

    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                pool.name,
                seconds(pool.itl_s),
                seconds(pool.ttft_mean_s),
                seconds(pool.ttft_p99_s),
                f"{pool.wait_probability:.2g}",
                percent(pool.kv_occupancy),
                percent(pool.kv_occupancy_std),
                f"{pool.running_mean:.4g}",
            )
            for pool in self.pools
        ]

    def summary(self) -> str:
        """The pools as a text table."""
        return text_table(self._rows(), self._HEADER)

    def _repr_html_(self) -> str:
        return html_table(self._rows(), self._HEADER)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {"schema": "stability/latency/1", **json_safe(self)}


def latency(fleet: Fleet, workload: Workload) -> LatencyReport:
    """Inter-token latency, time to first token and KV fluctuations at the workload's rate.

    **Approximation**, for stationary rates below capacity; a schedule is taken at its time average.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives.

    Returns
    -------
    LatencyReport
        One entry per pool; times to first token are infinite where the pool is at or above capacity.

    Raises
    ------
    UnservableError, NotModelledError
        As `analyze`.
    """
    steady = workload.averaged()
    report = analyze(fleet, steady)
    classes = [item for item in steady.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    mix = rates / rates.sum()
    solved = solve([pool.replica for pool in fleet.pools], classes, mix, 0.95)
    known: dict[Any, PoolLatency] = {}
    found = []
    for row, (pool, at) in enumerate(zip(fleet.pools, report.pools, strict=True)):
        key = (pool.replica, at.rate_per_s / pool.replicas)
        if key not in known:
            known[key] = _pool_latency(pool, at, solved, row, classes, mix)
        same = known[key]
        found.append(
            PoolLatency(**{name: getattr(same, name) for name in same.__slots__ if name != "name"}, name=pool.name)
        )
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
    pool: Pool, at: PoolReport, solved: Solution, row: int, classes: Sequence[RequestClass], mix: FloatArray
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
    arriving = demand[Demand.PREFILL] + (0.0 if evicts else demand[Demand.DECODE] + 1)
    kept_free = replica.watermark_tokens

    # No room: the prompt (or reservation) does not fit beside the resident ones, or every slot is taken.
    waits = max(
        _upper_tail(room[0] - kept_free - arriving, claimed, claim_var),
        _upper_tail(room[1] - 0.5, at.running_mean, running_var),
    )
    prompts = prompt_law(tuple(item.lengths for item in classes), tuple(mix.tolist()))
    decodes = min(lam * at.iteration_s * demand[Demand.DECODE], room[1])
    mean, p99 = _prefill_s(prompts, lam, at, coefficients, max(room[2] - decodes, 1.0), room[2])
    overloaded = at.load >= 1
    residence = at.iteration_s * demand[Demand.ITERATIONS]
    slots = max(1.0, float(1 / solved.shares[row].max()) * demand[Demand.ITERATIONS])
    admission = residence / (2 * slots * max(1 - at.load, 1e-9)) * (1 + running_var / max(at.running_mean, 1e-9)) / 2
    admission_tail = admission * math.log(waits / 0.01) if waits > 0.01 else 0.0
    return PoolLatency(
        name=pool.name,
        itl_s=at.itl_s,
        ttft_mean_s=math.inf if overloaded else mean + waits * admission,
        ttft_p99_s=math.inf if overloaded else p99 + admission_tail,
        wait_probability=1.0 if overloaded else waits,
        kv_occupancy=at.kv_occupancy,
        kv_occupancy_std=float(math.sqrt(kv_var) / room[0]),
        running_mean=at.running_mean,
    )


def _prefill_s(
    prompts: PromptLaw, lam: float, at: PoolReport, law: FloatArray, room: float, budget: float
) -> tuple[float, float]:
    """Mean and 99th percentile of the time from arrival to first token once there is a slot and memory.

    Prefill is one server: a prompt's chunks and the decodes of the iterations they fill are its service, and prompts
    queue for it first come, first served (Pollaczek-Khinchine, exponential tail). A free server starts with the next
    iteration. The percentile takes the larger of the queue's and the prompt's own, with the other at its mean.
    """
    s, weights = prompts.values.astype(np.float64), prompts.probabilities
    own = law[1] * s + law[4] * s * s / 2
    carried = lam * at.iteration_s * float(weights @ own)
    decoding = max(at.iteration_s - carried, 0.0)
    service = own + decoding * s / room
    busy = lam * float(weights @ service)
    if busy >= 1:
        return math.inf, math.inf
    queue = lam * float(weights @ service**2) / (2 * (1 - busy))
    alone = own + decoding * np.ceil(s / budget)
    mean = float(weights @ alone)
    queue_tail = queue / busy * math.log(busy / 0.01) if busy > 0.01 else 0.0
    alone_tail = _weighted_quantile(alone, weights, 0.99)
    return decoding / 2 + queue + mean, decoding + max(queue_tail + mean, queue + alone_tail)


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


def _weighted_quantile(values: FloatArray, weights: FloatArray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, level * reached[-1])), len(values) - 1)])
