"""Papers that count time in slots, run in the reference simulator: one iteration is one slot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stability.model.engine import Engine, Scheduler
from stability.model.iteration import IterationLaw, IterationTime
from stability.model.replica import Replica
from stability.model.requests import Requests
from stability.sim.domain import limits_of
from stability.sim.reference import ReferenceRun, Step, run_reference

BEYOND_REACH = 1 << 30


def slotted_replica(
    scheduler: Scheduler | None, capacity_tokens: int, *, law: IterationLaw | None = None, budget: int = BEYOND_REACH
) -> Replica:
    """Blocks of one token, one slot an iteration, and neither slots nor token budget that bind."""
    engine = Engine(max_num_seqs=budget, max_num_batched_tokens=budget, block_size=1, scheduler=scheduler)
    return Replica(iteration=law or IterationTime(base_s=1.0), kv_capacity_tokens=capacity_tokens, engine=engine)


def run_slots(
    scheduler: Scheduler | None,
    requests: Requests,
    capacity_tokens: int,
    *,
    law: IterationLaw | None = None,
    budget: int = BEYOND_REACH,
    horizon_s: float = np.inf,
    seed: int = 0,
) -> ReferenceRun:
    """`requests` under `scheduler` on one slotted replica."""
    replica = slotted_replica(scheduler, capacity_tokens, law=law, budget=budget)
    limits = replace(limits_of(replica), max_seqs=BEYOND_REACH)
    root = np.random.SeedSequence(seed)
    return run_reference([(limits, replica.iteration)], requests, root=root, horizon_s=horizon_s)


def steps_of(run: ReferenceRun) -> list[Step]:
    """The steps of a run of one replica."""
    return [step for _, step in run.steps]


def total_latency(run: ReferenceRun) -> float:
    """TEL: sum of completion minus arrival."""
    return sum(job.finish_s - job.arrival_s for job in run.requests)


def requests_at(arrival_s: object, prompt: object, output: object, kind: object = 0) -> Requests:
    """Concrete requests from columns or scalars."""
    times = np.asarray(arrival_s, dtype=np.float64)
    columns = [np.broadcast_to(np.asarray(c, dtype=np.int64), times.shape).copy() for c in (prompt, output, kind)]
    return Requests(
        arrival_s=times,
        prompt_tokens=columns[0],
        output_tokens=columns[1],
        max_output_tokens=columns[1],
        cached_prefix_tokens=np.zeros_like(columns[0]),
        request_class=columns[2],
    )
