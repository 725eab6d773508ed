"""What no scheduler gets below on the very requests that were compared, and by which bound.

Two bounds of `control`, each for the requests whose latencies are measured (others left out: that only helps):

- `control.latency_floor`, for every scheduler on identical replicas: it holds for what the simulator does, evictions, restarts
  and pauses included.
- the relaxed program of `control.hindsight`, where an engine is that program's model: one replica, every iteration of the same
  length h (a law that is its base time alone) and only schedulers that never pause nor resume a request. Within a busy period
  iterations follow each other without gaps, so a request that is started for good at time t can be moved to round floor(t/h) and
  keeps all its rounds; two busy periods never share a round. It holds s + j - 1 tokens in the step of token j, hence prompts of
  s - 1 in the program; a prompt in chunks holds more. With a' = floor(a/h) the latencies add up to at least
  `h * bound - sum(a - h a')`. Within `MOST_ENTRIES` entries of the program's matrix.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray, IntArray
from ..control.hindsight import hindsight_bound, program_entries
from ..control.latency_floor import least_total_latency_s
from ..errors import NotModelledError
from ..model.engine import Scheduler
from ..model.fleet import Fleet
from ..model.iteration import IterationTime
from ..policies import (
    AMax,
    AMin,
    ClassBudgets,
    Fcfs,
    HindsightShortestFirst,
    RandomBudget,
    ShortestFirst,
    SortedF,
)

MOST_ENTRIES = 300_000
"""Size up to which the relaxed program is solved: some seconds a replication."""

WHOLE = (AMax, AMin, ClassBudgets, HindsightShortestFirst, RandomBudget, ShortestFirst, SortedF)
"""Schedulers whose requests, once started for good, run to their end without a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """Mean latency that no scheduler gets below on these requests.

    Attributes
    ----------
    latency_s : float or None
    method : str
        "mean busy times" or "relaxed program"; empty without a bound.
    note : str
        Why there is none, or why the program was not solved; empty otherwise.
    """

    latency_s: float | None
    method: str
    note: str


def hindsight_floor(
    fleet: Fleet,
    schedulers: Iterable[Scheduler],
    arrival_s: FloatArray,
    prompt_tokens: IntArray,
    output_tokens: IntArray,
) -> Floor:
    """The larger of the bounds that hold for all `schedulers`.

    Parameters
    ----------
    fleet : Fleet
    schedulers : iterable of Scheduler
        Those that are compared.
    arrival_s, prompt_tokens, output_tokens : (n,) ndarray
        The requests that are measured.
    """
    rivals = list(schedulers)
    prompts, outputs = np.asarray(prompt_tokens, dtype=np.int64), np.asarray(output_tokens, dtype=np.int64)
    unlimited = any(getattr(rival, "gate", True) is False for rival in rivals)
    try:
        total = least_total_latency_s(fleet, arrival_s, prompts, outputs, unlimited_memory=unlimited)
    except NotModelledError as error:
        return Floor(latency_s=None, method="", note=str(error))
    count = len(prompts)
    latency, method, note = total / count, "mean busy times", ""
    if not _slotted(fleet) or unlimited or not all(_never_pauses(rival) for rival in rivals):
        return Floor(latency_s=latency, method=method, note=note)
    replica = fleet.pools[0].replica
    law = replica.iteration
    assert isinstance(law, IterationTime)
    rounds = np.floor((arrival_s - arrival_s.min()) / law.base_s).astype(np.int64)
    room = replica.usable_kv_tokens
    entries = program_entries(rounds, prompts - 1, outputs, room)
    if entries > MOST_ENTRIES:
        note = f"the hindsight program has {entries} entries, is solved up to {MOST_ENTRIES}: compare fewer requests"
        return Floor(latency_s=latency, method=method, note=note)
    found = hindsight_bound(rounds, prompts - 1, outputs, kv_capacity_tokens=room, method="relaxed")
    early = float((arrival_s - arrival_s.min() - law.base_s * rounds).sum())
    program = (law.base_s * found.bound - early) / count
    if program > latency:
        latency, method = program, "relaxed program"
    return Floor(latency_s=latency, method=method, note=note)


def _never_pauses(policy: Scheduler) -> bool:
    return isinstance(policy, WHOLE) or (isinstance(policy, Fcfs) and policy.admission == "reserve")


def _slotted(fleet: Fleet) -> bool:
    """Whether every iteration takes the same time on the one replica, and decodes are never short of the budget."""
    law = fleet.pools[0].replica.iteration
    return (
        len(fleet.pools) == 1
        and fleet.pools[0].replicas == 1
        and isinstance(law, IterationTime)
        and law.base_s > 0
        and not any(law.coefficients[1:])
    )
