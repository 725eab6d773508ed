"""The schedulers that `stability compare-schedulers` knows by name, with their parameters chosen by theory for a fleet and its workload."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..errors import StabilityError, unknown_name
from ..model.engine import Scheduler
from ..model.fleet import Fleet
from ..model.workload import Workload
from ..policies import (
    AMin,
    ClassBudgets,
    ClassMean,
    DecodeFirst,
    Fcfs,
    NestedWait,
    Orca,
    PrefillFirst,
    Priority,
    PromptMean,
    Sarathi,
    ShortestFirst,
    SortedF,
    Wait,
    scheduler_of,
)
from ..theory.flow_control import best_budgets
from ..theory.nested_thresholds import nested_thresholds
from ..theory.nested_wait import nested_engine_model
from ..theory.wait import engine_model
from ..theory.wait_thresholds import wait_thresholds

DEFAULT = ("engine", "headroom", "reserve", "prefill-first", "wait", "nested-wait", "shortest-first")
"""What is compared unless something else is asked for: the rest takes longer or differs less."""


def named_policies(
    fleet: Fleet, workload: Workload, names: Sequence[str] = DEFAULT
) -> tuple[dict[str, Scheduler], dict[str, str]]:
    """Schedulers by name, and why some of them are not to be had here.

    Thresholds and budgets are chosen for the rate of one replica of the first pool and used in all.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives.
    names : sequence of str
        Of `NAMES`; the fleet's own scheduler is "engine".

    Returns
    -------
    policies : dict of str to Scheduler
    refused : dict of str to str
        The reason, by name.
    """
    policies: dict[str, Scheduler] = {}
    refused: dict[str, str] = {}
    for name in names:
        build = NAMES.get(name)
        if build is None:
            raise unknown_name("scheduler", name, NAMES)
        try:
            policies[name] = build(fleet, workload)
        except StabilityError as error:
            refused[name] = str(error)
    return policies, refused


def with_scheduler(fleet: Fleet, policy: Scheduler) -> Fleet:
    """The fleet with every engine running `policy`."""
    pools = [
        replace(pool, replica=replace(pool.replica, engine=replace(pool.replica.engine, scheduler=policy)))
        for pool in fleet.pools
    ]
    return Fleet(pools, fleet.links)


def per_replica(fleet: Fleet, workload: Workload) -> Workload:
    """What one replica of the first pool gets when arrivals are spread evenly over all replicas."""
    return workload.averaged().scaled(factor=1 / sum(pool.replicas for pool in fleet.pools))


def _engine(fleet: Fleet, _: Workload) -> Scheduler:
    return scheduler_of(fleet.pools[0].replica.engine)


def _headroom(fleet: Fleet, workload: Workload) -> Scheduler:
    """The prompt gate with the headroom that the eviction theory recommends."""
    from ..control.tuning import tune

    gate = Fleet([replace(fleet.pools[0], weight=None)])
    gate = with_scheduler(gate, Fcfs("prompt_gate"))
    share = workload.scaled(factor=fleet.pools[0].replicas / sum(pool.replicas for pool in fleet.pools))
    best = tune(gate, share, vary=("watermark",), latencies=False).pools[0].then.engine
    return Fcfs("prompt_gate", best.watermark)


def _wait(fleet: Fleet, workload: Workload) -> Wait:
    return wait_thresholds(engine_model(fleet.pools[0].replica, per_replica(fleet, workload))).policy


def _nested_wait(fleet: Fleet, workload: Workload) -> NestedWait:
    return nested_thresholds(nested_engine_model(fleet.pools[0].replica, per_replica(fleet, workload))).policy


def _class_budgets(fleet: Fleet, workload: Workload) -> ClassBudgets:
    """The largest least b_k/lambda_k within memory, slots and token budget."""
    model = engine_model(fleet.pools[0].replica, per_replica(fleet, workload))
    held = model.volume_tokens + model.stages  # the slotted count: s + j after the j-th token
    need = np.max([held / model.kv_capacity_tokens, model.stages / model.slots, model.tokens / model.budget], axis=0)
    return ClassBudgets(tuple(best_budgets(model.rates_per_s, need, 1.0).tolist()))


NAMES: dict[str, Callable[[Fleet, Workload], Scheduler]] = {
    "engine": _engine,
    "prompt-gate": lambda *_: Fcfs("prompt_gate"),
    "headroom": _headroom,
    "reserve": lambda *_: Fcfs("reserve"),
    "sarathi": lambda *_: Sarathi(),
    "orca": lambda *_: Orca(),
    "prefill-first": lambda *_: PrefillFirst(),
    "decode-first": lambda *_: DecodeFirst(),
    "wait": _wait,
    "nested-wait": _nested_wait,
    "class-budgets": _class_budgets,
    "shortest-first": lambda _, workload: ShortestFirst("output", PromptMean.learned(workload), "engine"),
    "shortest-first-class": lambda _, workload: ShortestFirst("output", ClassMean.learned(workload), "engine"),
    "shortest-first-oracle": lambda *_: ShortestFirst("output", residency="engine"),
    "svf": lambda *_: ShortestFirst("volume", residency="engine"),
    "sorted-f": lambda *_: SortedF("prefix", residency="engine"),
    "a-min": lambda *_: AMin(1, "engine"),
    "priority": lambda _, workload: Priority("shortest", predictor=PromptMean.learned(workload)),
}
"""Builders by name. `svf`, `sorted-f` and `shortest-first-oracle` know output lengths; `shortest-first` and `priority` only
the mean for prompts of that length, `shortest-first-class` that of the request's class."""
