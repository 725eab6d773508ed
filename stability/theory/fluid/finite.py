"""What replicas of finite size add to the limit: evictions that chance causes, and the spread of what requests take."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...model.fleet import Pool
from ...model.workload import Workload
from ...policies import Fcfs, scheduler_of
from ..admission import demand_moments
from ..conditions import work_s
from ..moments import Demand
from ..report import PoolReport
from ..solve import solve


@dataclass(frozen=True, slots=True)
class Beyond:
    """Of one pool.

    Attributes
    ----------
    memory_tokens : float or None
        KV at which the limit has the capacity that `analyze` gives the pool, where eviction wastes some.
    spread : float
        Squared coefficient of variation of what a request takes of a saturated replica.
    """

    memory_tokens: float | None
    spread: float


def beyond_the_limit(pool: Pool, workload: Workload, at: PoolReport) -> Beyond:
    """Memory and spread of `pool` under the mean mix of `workload`.

    The memory: y/tau = capacity at tau = c0 + y E[W], hence y, hence y E[g] tokens beside the headroom.
    """
    classes = [item for item in workload.averaged().classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    replica, mix = pool.replica, rates / rates.sum()
    solved = solve([replica], classes, mix, 0.95)
    capacity, coefficients, demand = float(solved.capacity[0]), solved.coefficients[0], solved.demand[0]
    policy = scheduler_of(replica.engine)
    evicts = isinstance(policy, Fcfs) and policy.evicts
    rows = (Demand.VOLUME if evicts else Demand.RESERVED, Demand.ITERATIONS, Demand.TOKENS)
    of = demand_moments(
        classes,
        mix,
        coefficients=coefficients,
        row=rows[int(np.argmax(solved.shares[0]))],
        capacity_per_s=capacity,
        budget=replica.engine.max_num_batched_tokens,
        block_size=replica.engine.block_size,
    )
    memory = None
    if at.evictions_per_request > 0:
        spare = 1 / capacity - float(work_s(coefficients, demand))
        used = float(demand[Demand.VOLUME] * coefficients[0]) / spare if spare > 0 else math.inf
        memory = min(float(replica.usable_kv_tokens), used + replica.watermark_tokens)
    return Beyond(memory, max(0.0, of.square / of.mean_s**2 - 1))
