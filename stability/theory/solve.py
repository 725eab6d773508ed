"""Capacity of every replica of a fleet, as columns: what `analyze` judges.

Moments (one vector per class) -> rows (demands and capacities, by policy) -> capacity. Equal replicas are solved once,
affine laws all together; other laws contribute the affine law tangent to their mean iteration time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from .._types import BoolArray, FloatArray, IntArray
from ..model.iteration import IterationTime, Staircase
from ..model.lengths import Lengths
from ..model.replica import Replica
from ..model.workload import RequestClass
from . import conditions, envelope, footprint
from .conditions import BOUND_ROWS, GATE_ROWS, RESERVE_ROWS, Resource
from .hits import class_moments, computed_lengths
from .moments import N_DEMANDS, Demand, Moments, mean_over, standard_error
from .readings import reading, stand_in
from .regimes import evicts as evicts_of
from .regimes import gated
from .steps import prompt_law, tangent_laws
from .synchrony import roots_outside

ROW_TOLERANCE = 0.01
"""Deviation of the policy rows from simulation where one row dominates (measured: 0.6 %)."""

BALANCED_TOLERANCE = 0.035
"""The same where a second row is within 10 % of the binding one (measured: 1 to 3.5 %)."""

GATE_TOLERANCE = 0.03
"""Deviation of a prompt gate's capacity from simulation within the regime of the eviction theory (measured: 2 %)."""

LAW_TOLERANCE = 0.05
"""The same for laws that are averaged over step types."""

FEW_FIT = 0.1
"""Size-biased mean reservation over the cache from which too few requests fit for the large-system formulas."""

IDLE_SLOTS = 0.25
"""Most that queued prompts and chance leave idle of the slots (measured: 19 % with eight slots)."""

FEW_SLOTS = 16
"""Slots below which chance leaves some of them idle."""

COARSE = 0.25
"""Share of a reservation lost to block rounding from which growth seldom needs a block."""

CROWDED = 0.25
"""Share of the token budget taken by decodes from which prompts are taken to be chunked by what is left."""

CROWDED_TOLERANCE = 0.08
"""Accuracy of the rows there (measured: 5 %)."""

CYCLE_TOLERANCE = 0.10
"""The same where, besides, completions synchronise: prefill comes in bursts (measured: 9 %)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Capacities of one replica of each pool, 1/s, and what they were computed from. Arrays over pools.

    Attributes
    ----------
    demand : (n, 15) ndarray
        Mean demand of the mix.
    coefficients : (n, 5) ndarray
        Step-time law, or the tangent to its mean with the binding resource full.
    shares : (n, 3) ndarray
        E[a_r]/C_r under the pool's policy.
    capacity, upper_bound, stable_below, unstable_above : (n,) ndarray
        See `PoolReport`.
    interval : (n, 2) ndarray
        Confidence interval of the capacity.
    proved : list of float or None
        Proved capacity.
    evictions_per_request : (n,) ndarray
        At capacity.
    doubts : list of str
        Why a policy is outside every regime with a known capacity; empty where it is not.
    grounds : list of str
        What stability below rests on, where that needs saying.
    """

    demand: FloatArray
    coefficients: FloatArray
    shares: FloatArray
    capacity: FloatArray
    interval: FloatArray
    upper_bound: FloatArray
    proved: list[float | None]
    stable_below: FloatArray
    unstable_above: FloatArray
    evictions_per_request: FloatArray
    doubts: list[str]
    grounds: list[str]

    def over(self, rows: IntArray) -> Solution:
        """The solution of each pool from those of the distinct replicas."""

        def pick(name: str) -> Any:
            column = getattr(self, name)
            return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows.tolist()]

        return Solution(**{field.name: pick(field.name) for field in fields(self)})


def solve(replicas: Sequence[Replica], classes: Sequence[RequestClass], mix: FloatArray, confidence: float) -> Solution:
    """Capacities of each of `replicas` for requests of `classes` in proportions `mix`.

    Parameters
    ----------
    replicas : sequence of Replica
        One per pool.
    classes : sequence of RequestClass
        With positive rates.
    mix : (n_classes,) ndarray
        Their shares of the arrivals.
    confidence : float
        Level of the capacity interval.
    """
    index: dict[Replica, int] = {}
    rows = np.array([index.setdefault(replica, len(index)) for replica in replicas])
    solved = _solve_distinct([stand_in(replica) for replica in index], classes, mix, confidence)
    return _with_readings(solved, list(index), classes, mix).over(rows)


def _with_readings(
    solved: Solution, replicas: Sequence[Replica], classes: Sequence[RequestClass], mix: FloatArray
) -> Solution:
    """The solution with what is known of schedulers that are not the engines' own in the place of their stand-ins'."""
    known = {
        row: found for row, replica in enumerate(replicas) if (found := reading(replica, classes, mix)) is not None
    }
    if not known:
        return solved
    columns = {name: getattr(solved, name).copy() for name in ("shares", "capacity", "interval", "upper_bound")}
    below, above, evictions = (
        solved.stable_below.copy(),
        solved.unstable_above.copy(),
        solved.evictions_per_request.copy(),
    )
    proved, doubts, grounds = list(solved.proved), list(solved.doubts), list(solved.grounds)
    for row, found in known.items():
        # Memory takes the share at which the flow balance gives this capacity, so that the load there is 1.
        base, capacity = float(solved.coefficients[row, 0]), found.capacity_per_s
        if base > 0:
            spent = 1 / capacity - float(conditions.work_s(solved.coefficients[row], solved.demand[row]))
            columns["shares"][row, 0] = max(spent, 0.0) / base
        columns["capacity"][row], columns["interval"][row] = capacity, capacity
        if found.unlimited_memory:
            columns["upper_bound"][row] = found.unstable_above_per_s
        below[row], evictions[row] = found.stable_below_per_s, 0.0
        above[row] = min(found.unstable_above_per_s, float(columns["upper_bound"][row]))
        proved[row], doubts[row] = (found.stable_below_per_s if found.proved else None), found.doubt
        grounds[row] = found.ground
    return replace(
        solved,
        **columns,
        stable_below=below,
        unstable_above=above,
        evictions_per_request=evictions,
        proved=proved,
        doubts=doubts,
        grounds=grounds,
    )


def _solve_distinct(
    replicas: Sequence[Replica], classes: Sequence[RequestClass], mix: FloatArray, confidence: float
) -> Solution:
    least, parts = _demands(replicas, classes, mix)
    limits = np.array([conditions.capacities(replica) for replica in replicas])
    evicts = np.array([evicts_of(replica) for replica in replicas])
    demand = _crowded(replicas, classes, mix, least, limits)
    headroom = np.array([float(replica.watermark_tokens) for replica in replicas])
    free = limits.copy()
    free[:, Resource.KV_MEMORY] -= headroom
    packed = free.copy()
    slack = np.minimum(conditions.packing_slack(demand), free[:, Resource.KV_MEMORY] / 2)
    packed[:, Resource.KV_MEMORY] -= slack
    reserve_shares = demand[:, list(RESERVE_ROWS)] / packed
    shares = np.where(evicts[:, None], demand[:, list(GATE_ROWS)] / free, reserve_shares)

    affine = np.array([isinstance(replica.iteration, IterationTime) for replica in replicas])
    laws, prompts = (
        [replica.iteration for replica in replicas],
        prompt_law(*computed_mix(classes, mix, replicas[0].engine.block_size)),
    )
    coefficients = tangent_laws(laws, prompts, demand, 1 / shares.max(axis=-1), limits)
    upper = conditions.affine_capacity(coefficients, demand, least[:, list(BOUND_ROWS)] / limits)
    for row in np.flatnonzero(~affine).tolist():
        upper[row] = envelope.upper_bound(replicas[row].iteration, least[row], limits[row])
    gates = gated(replicas, coefficients, demand, limits, *_mix(classes, mix), prompts=prompts)
    coefficients = gates.coefficients
    capacity = np.where(evicts, gates.capacity, conditions.affine_capacity(coefficients, demand, shares))
    # The share of memory at which the flow balance gives the gate's capacity, so that its load there is 1.
    spent = 1 / capacity - conditions.work_s(coefficients, demand)
    memory = np.divide(spent, coefficients[:, 0], out=shares[:, 0].copy(), where=coefficients[:, 0] > 0)
    shares[:, 0] = np.where(gates.evicting, memory, shares[:, 0])

    # What an evicting gate outside its validated regime reaches all the same, judged by the rows of reservation.
    reserving = coefficients  # the same tangents where every replica reserves
    if evicts.any():
        reserving = tangent_laws(laws, prompts, demand, 1 / reserve_shares.max(axis=-1), limits)
    reserved = conditions.affine_capacity(reserving, demand, reserve_shares)
    few = _few_fit(demand, free[:, Resource.KV_MEMORY], limits)
    doubts = [
        "so few requests fit in the KV cache at once that the formulas for many do not hold" if scarce else doubt
        for scarce, doubt in zip(few.tolist(), gates.doubts, strict=True)
    ]
    doubtful = np.array([bool(doubt) for doubt in doubts])
    own_limits = np.where(evicts[:, None], free, packed)
    spread = _relative_errors(parts, mix, coefficients, capacity, shares, own_limits, evicts, confidence)
    proved = [
        None if gate else _proved(replica, mean, limit, classes)
        for replica, mean, limit, gate in zip(replicas, demand, limits, evicts.tolist(), strict=True)
    ]
    floor = np.array([0.0 if value is None else value for value in proved])
    cycle = roots_outside(*_mix(classes, mix)) > 0
    tolerance = _tolerances(replicas, coefficients, demand, shares, gates.evicting, cycle)
    reserve_tolerance = _tolerances(replicas, reserving, demand, reserve_shares, np.zeros_like(evicts), cycle)
    least_sure = np.minimum(reserved * (1 - reserve_tolerance), gates.floor)
    certain = np.where(doubtful, least_sure, capacity * (1 - tolerance))
    certain = np.where(doubtful & few, 0.0, certain)

    interval = np.stack([capacity / (1 + spread), _over(capacity, 1 - spread)], axis=-1)
    upper_high = _over(upper, 1 - spread * upper / capacity)
    # Without packing slack the reservation rows are necessary for a policy that reserves; other rows are not exact.
    full = conditions.affine_capacity(coefficients, least, least[:, list(RESERVE_ROWS)] / limits)
    exceeded = np.where(evicts, 1 + tolerance, full / capacity * np.where(affine, 1.0, 1 + tolerance))
    spared = evicts & np.array([replica.engine.prefix_caching for replica in replicas])
    own_high = np.where((doubtful & evicts) | spared, np.inf, exceeded * interval[:, 1])
    return Solution(
        demand=demand,
        coefficients=coefficients,
        shares=shares,
        capacity=capacity,
        interval=interval,
        upper_bound=upper_high,
        proved=proved,
        stable_below=np.maximum(certain, floor) / (1 + spread),
        unstable_above=np.minimum(own_high, upper_high),
        evictions_per_request=gates.evictions_per_request,
        doubts=doubts,
        grounds=[""] * len(doubts),
    )


def _mix(classes: Sequence[RequestClass], mix: FloatArray) -> tuple[tuple[Lengths, ...], tuple[float, ...]]:
    """Length laws and shares, as the cached functions take them."""
    return tuple(item.lengths for item in classes), tuple(mix.tolist())


def computed_mix(
    classes: Sequence[RequestClass], mix: FloatArray, block_size: int
) -> tuple[tuple[Lengths, ...], tuple[float, ...]]:
    """The same with the prompt tokens that are computed: those found in the prefix cache left out."""
    return tuple(computed_lengths(item, block_size) for item in classes), tuple(mix.tolist())


def _demands(
    replicas: Sequence[Replica], classes: Sequence[RequestClass], mix: FloatArray
) -> tuple[FloatArray, list[list[Moments]]]:
    """Mean demand of the mix at each replica, and the class moments behind it."""
    known: dict[tuple[int, int], tuple[FloatArray, list[Moments]]] = {}
    demand, parts = np.empty((len(replicas), N_DEMANDS)), []
    for row, replica in enumerate(replicas):
        key = (replica.engine.max_num_batched_tokens, replica.engine.block_size)
        if key not in known:
            found = [class_moments(item, *key) for item in classes]
            known[key] = mean_over(found, mix), found
        demand[row] = known[key][0]
        parts.append(known[key][1])
    return demand, parts


def _crowded(
    replicas: Sequence[Replica],
    classes: Sequence[RequestClass],
    mix: FloatArray,
    least: FloatArray,
    limits: FloatArray,
) -> FloatArray:
    """Demands with the chunks that decodes leave room for: B - D tokens instead of B, where D takes much of B."""
    demand = least.copy()
    shares = (least[:, list(GATE_ROWS)] / limits).max(axis=-1)
    decodes = least[:, Demand.DECODE] / shares
    budget = limits[:, Resource.TOKEN_BUDGET]
    for row in np.flatnonzero(decodes > CROWDED * budget).tolist():
        room = max(1, int(budget[row] - min(decodes[row], limits[row, Resource.BATCH_SLOTS] - 1)))
        found = [class_moments(item, room, replicas[row].engine.block_size) for item in classes]
        demand[row] = mean_over(found, mix)
    return demand


def _few_fit(demand: FloatArray, free: FloatArray, limits: FloatArray) -> BoolArray:
    """Where a typical resident request takes much of the cache, or a block much of a request."""
    typical = demand[:, Demand.LIMIT_SQUARE] / demand[:, Demand.LIMIT]
    coarse = demand[:, Demand.LIMIT] > (1 + COARSE) * (demand[:, Demand.PROMPT] + demand[:, Demand.DECODE])
    binds = demand[:, Demand.RESERVED] / free > 0.5 * demand[:, Demand.ITERATIONS] / limits[:, Resource.BATCH_SLOTS]
    return np.asarray(((typical > FEW_FIT * free) | coarse) & binds)


def _tolerances(
    replicas: Sequence[Replica],
    coefficients: FloatArray,
    demand: FloatArray,
    shares: FloatArray,
    evicting: BoolArray,
    cycle: bool,
) -> FloatArray:
    """Measured accuracy of the policy rows, by regime and law."""
    ordered = np.sort(shares, axis=-1)
    limited = coefficients[:, 0] * ordered[:, -1] > 0.1 * conditions.work_s(coefficients, demand)
    balanced = limited & (ordered[:, -2] > 0.9 * ordered[:, -1])
    rows = np.where(balanced, BALANCED_TOLERANCE, np.where(evicting, GATE_TOLERANCE, ROW_TOLERANCE))
    budget = np.array([replica.engine.max_num_batched_tokens for replica in replicas])
    rows = np.where(demand[:, Demand.DECODE] / ordered[:, -1] > CROWDED * budget, CROWDED_TOLERANCE, rows)
    rows = rows + _idle_slots(demand, shares, np.array([conditions.capacities(replica) for replica in replicas]))
    for row, replica in enumerate(replicas):
        law = replica.iteration
        if isinstance(law, Staircase):
            # A batch beside a step's edge lands on either side of it: one step more or less.
            per_iteration = 1 / float(shares[row].max())
            time = coefficients[row, 0] + per_iteration * conditions.work_s(coefficients[row], demand[row])
            rows[row] = max(LAW_TOLERANCE, law.per_step_s / float(time))
        elif not isinstance(law, IterationTime):
            rows[row] = CYCLE_TOLERANCE if cycle else LAW_TOLERANCE
    return rows


def _idle_slots(demand: FloatArray, shares: FloatArray, limits: FloatArray) -> FloatArray:
    """Share of the slots that prompts hold while they queue for the token budget, and of what few slots fluctuate by.

    Prefill is one server: its queue has rho^2 (1 + cv^2)/(2 (1 - rho)) prompts (Pollaczek-Khinchine). The rows leave it out, as the
    limit of many slots does; where it matters they are too high.
    """
    per_iteration = 1 / shares.max(axis=-1)
    slots, budget = limits[:, Resource.BATCH_SLOTS], limits[:, Resource.TOKEN_BUDGET]
    prompt = demand[:, Demand.PREFILL]
    room = np.maximum(budget - per_iteration * demand[:, Demand.DECODE], 1.0)
    load = np.minimum(per_iteration * prompt / room, 0.95)
    square = 2 * demand[:, Demand.CONTEXT] / prompt**2  # 1 + cv^2
    queue = load * load * square / (2 * (1 - load))
    binding = shares[:, Resource.BATCH_SLOTS] > 0.9 * shares.max(axis=-1)
    varied = np.sqrt(np.clip(square - 1, 0.0, 1.0))
    chance = np.where(slots < FEW_SLOTS, 0.5 / np.sqrt(slots), 0.0) * np.minimum(1.0, 4 * load) * varied
    return np.where(binding, np.minimum(queue / slots + chance, IDLE_SLOTS), 0.0)


def _over(value: FloatArray, share: FloatArray) -> FloatArray:
    """value/share; infinite where the share is not positive: too few observations to rule anything out."""
    return np.asarray(np.divide(value, share, out=np.full_like(value, np.inf), where=share > 0))


def _relative_errors(
    parts: Sequence[list[Moments]],
    mix: FloatArray,
    coefficients: FloatArray,
    capacity: FloatArray,
    shares: FloatArray,
    limits: FloatArray,
    evicts: BoolArray,
    confidence: float,
) -> FloatArray:
    """Half-width of the confidence interval of 1/capacity, relative to it, from finite traces of lengths.

    1/capacity is linear in the mean demands while the binding row stays the same (delta method).
    """
    spread = np.zeros(len(parts))
    if all(item.covariance is None for item in parts[0]):
        return spread
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    for row, binding in enumerate(shares.argmax(axis=-1).tolist()):
        gradient = np.zeros(N_DEMANDS)
        gradient[:4] = coefficients[row, 1:]
        demanded = (GATE_ROWS if evicts[row] else RESERVE_ROWS)[binding]
        gradient[demanded] += coefficients[row, 0] / limits[row, binding]
        spread[row] = z * standard_error(gradient, parts[row], mix) * capacity[row]
    return spread


def _proved(replica: Replica, demand: FloatArray, limits: FloatArray, classes: Sequence[RequestClass]) -> float | None:
    largest = max(_largest_reservation(item) for item in classes)
    if math.isinf(largest):
        return None
    laws = envelope.majorants(replica.iteration, replica.engine.max_num_batched_tokens)
    reserved = float(footprint.blocks(int(largest), replica.engine.block_size))
    # A watermark keeps as much of the cache empty as one more request could.
    return conditions.proved_capacity(laws, demand, limits, reserved + replica.watermark_tokens)


def _largest_reservation(item: RequestClass) -> float:
    """Most KV tokens that a request of the class sets aside."""
    if item.max_output_tokens is None:
        return item.lengths.max_total_tokens
    return item.lengths.max_prompt_tokens + item.max_output_tokens


def largest_footprint(item: RequestClass, evicts: bool) -> float:
    """Most KV tokens a request of the class needs at once to be served at all."""
    return item.lengths.max_total_tokens - 1 if evicts else _largest_reservation(item)
