"""One replica of a stage (prefill, decode, or both at once): its work, its rows, and its inter-token latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from ..model.lengths import ProductPart
from ..model.replica import Replica
from ..model.workload import RequestClass
from ..policies import Fcfs, scheduler_of
from ..theory.conditions import (
    BOTTLENECKS,
    GATE_ROWS,
    RESERVE_ROWS,
    Resource,
    capacities,
    packing_slack,
    work_s,
)
from ..theory.footprint import prefill_volume
from ..theory.moments import N_DEMANDS, Demand, mean_over, moments
from ..theory.solve import solve
from ..theory.steps import Composition, effective_law, prompt_law

ONE_CHUNK = 2**31
"""A token budget in which every prompt is one chunk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One replica of a stage: c0, work, demand over capacity by resource, and its ITL at no load."""

    base_s: float
    work_s: float
    shares: tuple[float, float, float]
    memory_tokens: float
    light_itl_s: float

    @property
    def alone(self) -> float:
        """Rate of one replica with nothing held for transfers, 1/s."""
        return 1 / (self.work_s + self.base_s * max(self.shares))

    @property
    def bottleneck(self) -> str:
        """The resource that binds, or compute."""
        top = max(self.shares)
        by_compute = self.work_s + self.base_s * top < 1.1 * self.work_s
        return BOTTLENECKS[3 if by_compute else self.shares.index(top)]

    def load(self, rate: float, held_tokens: float) -> float:
        """Greatest load at `rate` per replica with `held_tokens` of memory taken by transfers."""
        left = self.memory_tokens - held_tokens
        memory = self.shares[0] * self.memory_tokens / left if left > 0 else math.inf
        return rate * (self.work_s + self.base_s * max(memory, *self.shares[1:]))

    def itl_s(self, rate: float) -> float:
        """Inter-token latency at `rate` per replica, s."""
        return self.light_itl_s / (1 - rate * self.work_s) if rate * self.work_s < 1 else math.inf

    def rate_within(self, itl_s: float | None) -> float:
        """Rate per replica up to which the inter-token latency stays below a target, 1/s."""
        if itl_s is None:
            return math.inf
        room = 1 - self.light_itl_s / itl_s
        return max(room, 0.0) / self.work_s if self.work_s > 0 else (math.inf if room >= 0 else 0.0)


def evicts(replica: Replica) -> bool:
    """Whether requests can lose their KV."""
    policy = scheduler_of(replica.engine)
    return isinstance(policy, Fcfs) and policy.evicts


def _demand(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray, budget: int) -> FloatArray:
    found = [moments(c.lengths, budget, replica.engine.block_size, c.max_output_tokens) for c in classes]
    return mean_over(found, mix)


def _prompts(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> float:
    """E of the KV volume held during prefill, token-iterations."""
    law = prompt_law(tuple(c.lengths for c in classes), tuple(mix.tolist()))
    engine = replica.engine
    held = prefill_volume(law.values, engine.max_num_batched_tokens, engine.block_size)
    return float(law.probabilities @ held)


def prefill_stage(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Stage:
    """Prompts alone, in iterations full of them."""
    engine = replica.engine
    budget = engine.max_num_batched_tokens
    whole = _demand(replica, classes, mix, budget)
    demand = np.zeros(N_DEMANDS)
    demand[Demand.PREFILL] = demand[Demand.TOKENS] = whole[Demand.PREFILL]
    demand[Demand.CONTEXT] = whole[Demand.CONTEXT]
    demand[Demand.ITERATIONS] = whole[Demand.ITERATIONS] - whole[Demand.DECODE]
    demand[Demand.VOLUME] = _prompts(replica, classes, mix)
    per_iteration = budget / float(demand[Demand.PREFILL])
    return _stage(replica, demand, (Demand.VOLUME, Demand.ITERATIONS, Demand.TOKENS), 0.0, per_iteration)


def decode_stage(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Stage:
    """Decodes alone, with the binding resource full."""
    engine = replica.engine
    whole = _demand(replica, classes, mix, engine.max_num_batched_tokens)
    once = _demand(replica, classes, mix, ONE_CHUNK)
    demand = np.zeros(N_DEMANDS)
    demand[Demand.DECODE] = demand[Demand.TOKENS] = demand[Demand.ITERATIONS] = whole[Demand.DECODE]
    demand[Demand.READ] = whole[Demand.READ]
    demand[Demand.VOLUME] = whole[Demand.VOLUME] - _prompts(replica, classes, mix)
    demand[Demand.RESERVED] = once[Demand.RESERVED] - once[Demand.LIMIT]  # R o - R
    if evicts(replica):
        return _stage(replica, demand, GATE_ROWS, float(replica.watermark_tokens), None)
    taken = replica.watermark_tokens + float(packing_slack(whole))
    return _stage(replica, demand, RESERVE_ROWS, taken, None)


def _stage(
    replica: Replica, demand: FloatArray, rows: tuple[Demand, ...], taken: float, per_iteration: float | None
) -> Stage:
    """A stage from its demand; `taken` tokens of memory cannot be used, `per_iteration` is where the law is taken."""
    limits = capacities(replica)
    limits[Resource.KV_MEMORY] = max(limits[Resource.KV_MEMORY] - taken, limits[Resource.KV_MEMORY] / 2)
    shares = demand[list(rows)] / limits
    full = 1 / float(shares.max()) if shares.max() > 0 else 1.0
    mean = demand[:4] * (full if per_iteration is None else per_iteration)
    one = [np.array([value]) for value in mean.tolist()]
    law = effective_law(replica.iteration, Composition(mean, one[0], one[1], one[2], one[3], np.ones(1)))
    return _of_rows(law, demand, shares, float(limits[Resource.KV_MEMORY]))


def _of_rows(law: FloatArray, demand: FloatArray, shares: FloatArray, memory_tokens: float) -> Stage:
    """A stage from the coefficients of its law, its demand, the shares of its rows and the memory that can be used."""
    decodes = float(demand[Demand.DECODE])
    own = float(demand[Demand.READ]) / decodes if decodes > 0 else 0.0
    return Stage(
        base_s=float(law[0]),
        work_s=float(work_s(law, demand)),
        shares=(float(shares[0]), float(shares[1]), float(shares[2])),
        memory_tokens=memory_tokens,
        light_itl_s=float(law[0] + law[2] + law[3] * own),
    )


def mixed_stage(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Stage:
    """A colocated replica by the same rows: without eviction waste, as in the stages."""
    solved = solve([replica], classes, mix, 0.95)
    demand, law = solved.demand[0], solved.coefficients[0]
    limits = capacities(replica)
    taken = float(replica.watermark_tokens)
    if not evicts(replica):
        taken += float(packing_slack(demand))
    limits[Resource.KV_MEMORY] = max(limits[Resource.KV_MEMORY] - taken, limits[Resource.KV_MEMORY] / 2)
    shares = demand[list(GATE_ROWS if evicts(replica) else RESERVE_ROWS)] / limits
    return _of_rows(law, demand, shares, float(limits[Resource.KV_MEMORY]))


def transfers(item: RequestClass) -> FloatArray:
    """E of 1, s, s^2, R and R s over requests with o > 1, R = s + o_max set aside by reservation (blocks not rounded)."""
    found = np.zeros(5)
    for part in item.lengths.parts():
        if isinstance(part, ProductPart):
            s, ps = part.prompt.values.astype(np.float64), part.prompt.probabilities
            o, po = part.output.values.astype(np.float64), part.output.probabilities
            later = po * (o > 1)
            limit = later @ o if item.max_output_tokens is None else item.max_output_tokens * later.sum()
            share, s1, s2 = float(later.sum()), float(ps @ s), float(ps @ s**2)
            row = [share, share * s1, share * s2, share * s1 + limit, share * s2 + s1 * limit]
        else:
            s, o = part.prompt_tokens.astype(np.float64), part.output_tokens.astype(np.float64)
            weights = np.full(len(s), 1 / len(s)) if part.probabilities is None else part.probabilities
            later = weights * (o > 1)
            limits = s + (o if item.max_output_tokens is None else float(item.max_output_tokens))
            row = [float(later @ column) for column in (np.ones(len(s)), s, s**2, limits, limits * s)]
        found += part.weight * np.array(row)
    return found
