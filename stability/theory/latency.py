r"""Latency and fluctuations below capacity. **Approximations**, with their measured errors.

KV in use fluctuates more than a Poisson stream would make it: a request's own work lengthens the iterations it sits in,
and longer iterations collect more arrivals (a linear Hawkes process in iteration time). With k_m(a), w_m(a) the KV and
seconds of mark m in its a-th iteration, means over marks barred and R = 1/(1 - lambda FFT[wbar]),

.. math:: \mathrm{Var}\,K = \lambda\tau\,E_m \sum_a \left[k_m + \lambda\,w_m * R * \bar k\right]^2(a),

measured against simulation at lambda E[W] = .09/.28/.57/.76: standard deviation over Poisson 1.05/1.19/1.58/2.19 here,
1.07/1.16/1.64/2.59 there.

TTFT = wait + ceil(s/B) tau + cp s + ca s^2/2. The wait is the residual iteration E[tau^2]/(2 E[tau]) plus, with the
chance that no room is left, a wait for admission; the latter follows the many-server form
E[wait | wait] = residence/(2 slots (1 - load)) until the diffusion of the fluid limit replaces it. Prompts ahead in the
budget add 10 to 30 % at high load.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from .._result import html_table, json_safe, percent, seconds, text_table
from .._types import FloatArray, IntArray
from ..errors import InputError, check_number
from ..model.fleet import Fleet, Pool
from ..model.lengths import AtomPart, ProductPart
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from .analyze import analyze
from .conditions import capacities, work_s
from .moments import Demand
from .report import PoolReport
from .solve import Solution, solve
from .steps import prompt_law

MARKS = 8
"""Strata per length axis of the marks that fluctuations are averaged over."""

RATE_TOLERANCE = 1e-3
"""Relative accuracy of a rate that meets a target."""

AGES = 128
"""Ages tabulated; longer lives are binned."""


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

    def met(rate_per_s: float) -> bool:
        at = steady.scaled(rate_per_s=rate_per_s)
        if only_itl:
            return max(pool.itl_s for pool in analyze(fleet, at).pools) <= wanted["itl_s"]
        found = latency(fleet, at)
        return all(getattr(found, name) <= value for name, value in wanted.items())

    top = analyze(fleet, steady).capacity_per_s * (1 - RATE_TOLERANCE)
    if met(top):
        return top
    low, high = 0.0, top
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if met(middle) else (low, middle)
        if high - low < RATE_TOLERANCE * high or high < RATE_TOLERANCE * top:
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
    policy = scheduler_of(replica.engine)
    evicts = isinstance(policy, Fcfs) and policy.evicts
    ages = _Ages.of(classes, mix, replica.engine.max_num_batched_tokens, coefficients, evicts).with_means(
        float(work_s(coefficients, demand)), demand, evicts
    )
    kv_var, claim_var, running_var = ages.variances(lam, at.iteration_s)
    claimed = lam * at.iteration_s * demand[Demand.VOLUME if evicts else Demand.RESERVED]
    arriving = demand[Demand.PREFILL] + (0.0 if evicts else demand[Demand.DECODE] + 1)
    kept_free = replica.watermark_tokens if evicts else 0

    # No room: the prompt (or reservation) does not fit beside the resident ones, or every slot is taken.
    waits = max(
        _upper_tail(room[0] - kept_free - arriving, claimed, claim_var),
        _upper_tail(room[1] - 0.5, at.running_mean, running_var),
    )
    chunks = demand[Demand.ITERATIONS] - demand[Demand.DECODE]
    own = coefficients[1] * demand[Demand.PREFILL] + coefficients[4] * demand[Demand.CONTEXT]
    residual = at.iteration_s / 2 * (1 + ages.iteration_cv2(lam, at.iteration_s))
    overloaded = at.load >= 1
    residence = at.iteration_s * demand[Demand.ITERATIONS]
    slots = max(1.0, float(1 / solved.shares[row].max()) * demand[Demand.ITERATIONS])
    admission = residence / (2 * slots * max(1 - at.load, 1e-9)) * (1 + running_var / max(at.running_mean, 1e-9)) / 2
    prompts = prompt_law(tuple(item.lengths for item in classes), tuple(mix.tolist()))
    long_prompt = _weighted_quantile(prompts.values, prompts.probabilities, 0.99)
    long_prefill = (
        math.ceil(long_prompt / replica.engine.max_num_batched_tokens) * at.iteration_s
        + coefficients[1] * long_prompt
        + coefficients[4] * long_prompt**2 / 2
    )
    tail = admission * math.log(waits / 0.01) if waits > 0.01 else 0.0
    return PoolLatency(
        name=pool.name,
        itl_s=at.itl_s,
        ttft_mean_s=math.inf if overloaded else float(residual + chunks * at.iteration_s + own + waits * admission),
        ttft_p99_s=math.inf if overloaded else float(2 * residual + long_prefill + tail),
        wait_probability=1.0 if overloaded else waits,
        kv_occupancy=at.kv_occupancy,
        kv_occupancy_std=float(math.sqrt(kv_var) / room[0]),
        running_mean=at.running_mean,
    )


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


def _weighted_quantile(values: IntArray, weights: FloatArray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, level * reached[-1])), len(values) - 1)])


@dataclass(frozen=True, slots=True, eq=False)
class _Ages:
    """KV held and seconds caused by representative requests, by age in bins of `width` iterations."""

    weights: FloatArray  # (marks,)
    kv_tokens: FloatArray  # (marks, ages), mean over the bin
    claimed: FloatArray  # (marks, ages), KV that admission counts: held, or reserved
    work_s: FloatArray  # (marks, ages), sum over the bin
    resident: FloatArray  # (marks, ages), iterations of the bin in which the mark is resident, over its width
    width: int

    @classmethod
    def of(cls, classes: Sequence[RequestClass], mix: FloatArray, budget: int, law: FloatArray, evicts: bool) -> _Ages:
        s, o, weights = _marks(classes, mix)
        chunks = -(-s // budget)
        life = chunks + o - 1
        width = max(1, -(-int(life.max()) // AGES))
        bins = -(-int(life.max()) // width)
        age = np.arange(bins * width)[None, :]  # iterations since admission
        decodes = age - chunks[:, None] + 1
        alive = age < life[:, None]
        done = np.minimum(age * budget, s[:, None])  # prompt tokens computed before this iteration
        chunk = np.minimum(budget, s[:, None] - done)
        held = np.where(decodes > 0, s[:, None] + decodes, done + chunk) * alive
        decoding = (decodes > 0) & alive
        work = np.where(
            decoding, law[2] + law[3] * (s[:, None] + decodes), law[1] * chunk + law[4] * chunk * (done + chunk / 2)
        )
        claim = held if evicts else (s + o)[:, None] * alive
        shape = (len(s), bins, width)
        return cls(
            weights,
            held.reshape(shape).mean(axis=2),
            claim.reshape(shape).mean(axis=2),
            (work * alive).reshape(shape).sum(axis=2),
            alive.reshape(shape).mean(axis=2),
            width,
        )

    def with_means(self, work_s: float, demand: FloatArray, evicts: bool) -> _Ages:
        """The same shapes with the exact means: strata miss part of a heavy tail."""
        wanted = (demand[Demand.VOLUME], demand[Demand.VOLUME if evicts else Demand.RESERVED])
        held, claimed = (
            column * (mean / (self.width * float(self.weights @ column.sum(axis=1))))
            for column, mean in zip((self.kv_tokens, self.claimed), wanted, strict=True)
        )
        total = float(self.weights @ self.work_s.sum(axis=1))
        work = self.work_s * (work_s / total) if total > 0 else self.work_s
        return _Ages(self.weights, held, claimed, work, self.resident, self.width)

    def variances(self, lam: float, iteration_s: float) -> tuple[float, float, float]:
        """Variance of the KV in use and of the KV claimed (tokens**2), and of the number running."""
        length = 1 << int(np.ceil(np.log2(8 * self.kv_tokens.shape[1])))
        work = np.fft.rfft(self.work_s, length, axis=1)
        mean_work = self.weights @ work
        echo = lam / (1 - np.minimum(lam, (1 - 1e-6) / max(mean_work[0].real, 1e-300)) * mean_work)
        found = []
        for held in (self.kv_tokens, self.claimed, self.resident):
            shape = np.fft.rfft(held, length, axis=1)
            response = np.fft.irfft(shape + work * (echo * (self.weights @ shape)), length, axis=1)
            found.append(float(lam * iteration_s * self.width * (self.weights @ (response**2).sum(axis=1))))
        return found[0], found[1], found[2]

    def iteration_cv2(self, lam: float, iteration_s: float) -> float:
        """Squared coefficient of variation of the iteration time, arrivals Poisson."""
        per_iteration = self.work_s / self.width
        spread = lam * iteration_s * self.width * float(self.weights @ (per_iteration**2).sum(axis=1))
        return spread / iteration_s**2


def _representatives(part: AtomPart) -> IntArray:
    """Rows in the middle of strata of equal probability: by output length, within each by prompt length."""
    count = len(part.output_tokens)
    weights = np.full(count, 1.0 / count) if part.probabilities is None else part.probabilities
    by_output = np.argsort(part.output_tokens, kind="stable")
    chosen = []
    for stratum in _equal_parts(by_output, weights):
        by_prompt = stratum[np.argsort(part.prompt_tokens[stratum], kind="stable")]
        reached = np.cumsum(weights[by_prompt])
        middles = (np.arange(MARKS) + 0.5) / MARKS * reached[-1]
        chosen.append(by_prompt[np.minimum(np.searchsorted(reached, middles), len(by_prompt) - 1)])
    return np.concatenate(chosen)


def _equal_parts(rows: IntArray, weights: FloatArray) -> list[IntArray]:
    """Consecutive runs of `rows` of about equal weight, none empty."""
    reached = np.cumsum(weights[rows])
    edges = np.searchsorted(reached, np.arange(1, MARKS) / MARKS * reached[-1])
    return [run for run in np.split(rows, edges) if len(run)]


def _marks(classes: Sequence[RequestClass], mix: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Representative (prompt, output, weight) triples: strata of each law's probability."""
    levels = (np.arange(MARKS) + 0.5) / MARKS
    prompts, outputs, weights = [], [], []
    for item, share in zip(classes, mix.tolist(), strict=True):
        for part in item.lengths.parts():
            if isinstance(part, ProductPart):
                s = np.repeat(part.prompt.quantile(levels), MARKS)
                o = np.tile(part.output.quantile(levels), MARKS)
                mass = np.full(len(s), 1.0 / len(s))
            else:
                rows = _representatives(part)
                s, o = part.prompt_tokens[rows], part.output_tokens[rows]
                mass = np.full(len(s), 1.0 / len(s))
            prompts.append(s)
            outputs.append(o)
            weights.append(share * part.weight * mass)
    return np.concatenate(prompts), np.concatenate(outputs), np.concatenate(weights)
