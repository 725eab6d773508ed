r"""What the theory says of the capacity of published schedulers, where it says something.

A reading stands beside the rows of `conditions`, which are necessary for every scheduler:

| scheduler | reading | standing |
|---|---|---|
| `Wait`, constant lengths | `min_k n_k/(p_k DT(n))` if the full batch fits | proved below; above, for one class |
| `ClassBudgets`, constant lengths | the same with b_k: an iteration takes at most tau(b) | proved below; above, for one class |
| `RandomBudget`, budgets that never overflow | `E[B]/(c0 + E[B] E[W])` | proved |
| `NestedWait`, equal prompts | n_1/DT(n) under Theorem 2 with its memory; above n_1/(c0 + n_1 E[W]) none | proved over an hour but for the stated \
chance of overflow, for ever with one segment; necessary above |
| `Sarathi(gate=False)`, `Orca(gate=False)` | `B/(t(B) E[s + o - 1])` | proved, above and below |
| `DecodeFirst(gate=False)`, constant lengths | rounds of whole prompts and their decodes | exact |
| `PrefillFirst(gate=False)`, constant lengths | a bracket | sufficient and necessary |

p_k are the shares of the classes. Others have no reading: what is known of them bounds the total latency of finitely many
requests (`competitive`), not a rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._result import seconds
from .._types import FloatArray
from ..errors import InputError, NotModelledError
from ..model.engine import Scheduler
from ..model.iteration import IterationTime
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from ..policies import (
    ClassBudgets,
    DecodeFirst,
    Fcfs,
    NestedWait,
    Orca,
    PrefillFirst,
    RandomBudget,
    Sarathi,
    Wait,
    scheduler_of,
)
from . import footprint
from .disciplines import decode_first_rate, prefill_first_rates, token_region
from .nested_thresholds import check_nested
from .nested_wait import NestedModel, nested_engine_model
from .wait import engine_model, single_lengths


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Capacity of one replica under a published scheduler, 1/s.

    Attributes
    ----------
    capacity_per_s : float
    stable_below_per_s, unstable_above_per_s : float
        Where the verdict is certain; the bound for every policy holds besides.
    proved : bool
        Whether stability below is proved.
    doubt : str
        Why nothing between is certain; empty where the two meet or are a plain bracket.
    unlimited_memory : bool
        Whether the scheduler ignores the KV capacity, so that the bound for those that do not does not hold.
    ground : str
        What stability below rests on, where that needs saying.
    """

    capacity_per_s: float
    stable_below_per_s: float
    unstable_above_per_s: float
    proved: bool
    doubt: str = ""
    unlimited_memory: bool = False
    ground: str = ""


def has_reading(policy: Scheduler) -> bool:
    """Whether `reading` knows the scheduler (it may still refuse its settings)."""
    return type(policy) in _READINGS


def stand_in(replica: Replica) -> Replica:
    """The replica with the first-come-first-served engine whose demands and operating point are used in the scheduler's place."""
    policy = scheduler_of(replica.engine)
    if isinstance(policy, Fcfs):
        return replica
    same = isinstance(policy, Sarathi) and policy.gate
    engine = replace(replica.engine, scheduler=None, admission="prompt_gate" if same else "reserve", watermark=0.0)
    return replace(replica, engine=engine)


def like_engine(replica: Replica) -> bool:
    """Whether the scheduler decides as an engine's own first-come-first-served one, so that its theory holds."""
    policy = scheduler_of(replica.engine)
    return isinstance(policy, Fcfs) or (isinstance(policy, Sarathi) and policy.gate)


def state(replica: Replica, classes: Sequence[RequestClass], rates_per_s: FloatArray) -> dict[str, float]:
    """Mean state of a replica whose scheduler holds work back, by the names of `OperatingPoint`; empty for the others.

    WAIT starts a batch of type j every n_j/lambda_j on average, so that is the gap between a request's tokens, and n_j of them are at
    each stage between batches. What has no formula is NaN.

    Parameters
    ----------
    replica : Replica
    classes : sequence of RequestClass
    rates_per_s : (n,) ndarray
        Of each class at this replica.
    """
    policy = scheduler_of(replica.engine)
    if not isinstance(policy, (Wait, NestedWait, DecodeFirst, PrefillFirst)):
        return {}
    found = dict.fromkeys(("iteration_s", "itl_s", "busy", "running", "kv_tokens"), math.nan)
    if isinstance(policy, Wait):
        model = engine_model(replica, _unit(classes, rates_per_s))
        counts, decodes = np.asarray(policy.thresholds, dtype=np.float64), model.stages - 1
        batch = model.iteration_s(counts)
        prompts = np.array([item.lengths.prompt_mean_tokens for item in classes])
        found["itl_s"] = float(counts @ decodes) / float(rates_per_s @ decodes) if decodes.any() else math.nan
        found["running"] = float(counts @ decodes + batch * rates_per_s.sum())
        found["kv_tokens"] = float(counts @ (model.volume_tokens - prompts) + batch * (rates_per_s @ prompts))
        if len(counts) == 1:
            found["iteration_s"] = batch
            found["busy"] = min(1.0, float(rates_per_s[0]) * batch / counts[0])
    return found


def reading(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Reading | None:
    """What is known of the capacity of the replica's scheduler; None where it is that of its stand-in.

    Parameters
    ----------
    replica : Replica
    classes : sequence of RequestClass
        With positive rates.
    mix : (n,) ndarray
        Their shares of the arrivals.

    Raises
    ------
    NotModelledError
        If nothing is known, with the reason.
    """
    policy = scheduler_of(replica.engine)
    if isinstance(policy, Fcfs):
        return None
    known = _READINGS.get(type(policy))
    if known is None:
        raise NotModelledError(
            f"{policy!r} has no capacity in theory: what is known of it bounds the total latency of finitely many requests "
            "(stability.theory.competitive). Measure it: stability.measured_capacity(fleet, workload)."
        )
    return known(policy, replica, classes, np.asarray(mix, dtype=np.float64))


def _unit(classes: Sequence[RequestClass], mix: FloatArray) -> Workload:
    return Workload([item.with_rate(float(share)) for item, share in zip(classes, mix, strict=True)])


def _paced(
    counts: tuple[int, ...],
    volume: FloatArray | None,
    replica: Replica,
    classes: Sequence[RequestClass],
    mix: FloatArray,
) -> Reading:
    """Schedulers that advance n_k requests of class k at every stage."""
    if len(counts) != len(classes):
        raise InputError(
            f"the scheduler has {len(counts)} classes and the workload {len(classes)} with a rate, must have as many. "
            "Give one entry per class."
        )
    try:
        model = engine_model(replica, _unit(classes, mix))
    except InputError as error:
        raise NotModelledError(f"{error} Several lengths in a class have no capacity in theory.") from None
    held = model.memory_tokens(counts) if volume is None else float(np.asarray(counts) @ volume)
    stages, tokens = float(np.asarray(counts) @ model.stages), float(np.asarray(counts) @ model.tokens)
    if held > model.kv_capacity_tokens or stages > model.slots or tokens > model.budget:
        raise NotModelledError(
            f"the full batch takes {held:.0f} KV tokens, {stages:.0f} slots and {tokens:.0f} tokens computed, must fit "
            f"{model.kv_capacity_tokens:.0f}, {model.slots:.0f} and {model.budget:.0f} for a capacity in theory. "
            "Lower thresholds or budgets."
        )
    rate = float((np.asarray(counts) / mix).min()) / model.iteration_s(counts)
    return Reading(
        capacity_per_s=rate,
        stable_below_per_s=rate,
        unstable_above_per_s=rate if len(counts) == 1 else math.inf,  # every batch of the one class is full
        proved=True,
    )


def _wait(policy: Wait, replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Reading:
    return _paced(policy.thresholds, None, replica, classes, mix)


def _class_budgets(policy: ClassBudgets, replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Reading:
    try:
        s, o = np.array([single_lengths(item) for item in classes]).T
    except InputError as error:
        raise NotModelledError(f"{error} Several lengths in a class have no capacity in theory.") from None
    block = replica.engine.block_size
    held = (
        footprint.volume(s, o, 1, block, residency="slots")
        if policy.residency == "slots"
        else footprint.volume(s, o, 1, block, residency="wait")
    )
    return _paced(policy.budgets, held, replica, classes, mix)


def _random_budget(policy: RandomBudget, replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Reading:
    law = replica.iteration
    lengths = _unit(classes, mix).lengths
    longest = lengths.max_output_tokens
    if not isinstance(law, IterationTime) or not math.isfinite(longest):
        raise NotModelledError(f"{policy!r} has a capacity in theory for an affine law and bounded outputs only.")
    most = policy.high * (lengths.max_prompt_tokens * longest + longest * (longest + 1) / 2)
    tokens = policy.high * (lengths.max_prompt_tokens + longest - 1)
    engine = replica.engine
    if (
        most > replica.usable_kv_tokens
        or policy.high * longest > engine.max_num_seqs
        or tokens > engine.max_num_batched_tokens
    ):
        raise NotModelledError(
            f"{policy!r} can overflow the KV cache, the slots or the token budget, must not for a capacity in theory: what evictions cost it is not "
            "known. stability.theory.flow_control.overflow_bound says how rare they are."
        )
    budget = (policy.low + policy.high) / 2
    rate = budget / (law.base_s + budget * _work_s(replica, classes, mix))
    return Reading(capacity_per_s=rate, stable_below_per_s=rate, unstable_above_per_s=rate, proved=True)


def _nested(policy: NestedWait, replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> Reading:
    model = nested_engine_model(replica, _unit(classes, mix))
    ends = [*policy.ends[:-1], int(model.decode_tokens[-1])]  # the last segment goes on as long as requests do
    found = check_nested(model, ends, policy.thresholds)
    # The conditions on ratios and memory do not depend on the rate.
    if not bool((found.shares[1:] * found.thresholds[:-1] < found.thresholds[1:]).all()):
        raise NotModelledError(
            f"{policy!r} lets a boundary queue grow: n_k must be above p_k n_(k-1) for a capacity in theory."
        )
    first = float(found.thresholds[0])
    rate = first / found.iteration_s
    law, above = replica.iteration, math.inf
    if isinstance(law, IterationTime):  # every batch takes n_1 new requests at most: lambda (c0/n_1 + E[W]) <= 1
        above = first / (law.base_s + first * _work_s(replica, classes, mix))
    doubt = _nested_doubt(model, ends, policy, replica.engine.block_size)
    if len(ends) == 1:
        ground = "Theorem 2 of arXiv 2504.11320: one segment holds no more than its stages"
    else:
        ground = f"Theorem 2 of arXiv 2504.11320: memory suffices with probability {1 - found.overflow:g} for {seconds(found.horizon_s)}"
    return Reading(
        capacity_per_s=rate,
        stable_below_per_s=0.0 if doubt else rate,
        unstable_above_per_s=above,
        proved=len(ends) == 1 and not doubt,
        doubt=doubt,
        ground="" if doubt else ground,
    )


def _nested_doubt(model: NestedModel, ends: Sequence[int], policy: NestedWait, block_size: int) -> str:
    """Which assumption of Theorem 2 fails; empty if none does."""
    if not model.prompts_equal:
        return "Theorem 2 of Nested WAIT is for prompts of one length, these differ"
    # A block more than its tokens is what a request can hold of the cache.
    held = replace(model, prompt_tokens=model.prompt_tokens + block_size - 1)
    found = check_nested(held, ends, policy.thresholds)
    if found.required_tokens > model.kv_capacity_tokens:
        return (
            f"Nested WAIT needs {found.required_tokens:.0f} KV tokens for an overflow probability of {found.overflow:g} an hour, "
            f"has {model.kv_capacity_tokens:.0f}"
        )
    if not (found.thresholds[1:] < found.thresholds[:-1]).all():
        return (
            f"Theorem 2 of Nested WAIT is for thresholds that fall from segment to segment, {policy.thresholds} do not"
        )
    # Stages, boundary queues within their buffers, and the prefill take slots; the batch takes the token budget.
    starts = np.concatenate(([0], found.boundaries[:-1]))
    queued = float((found.buffers_tokens[1:] / (held.prompt_tokens + starts[1:])).sum())
    counts = found.thresholds.astype(np.float64)
    stages = float(counts @ (found.boundaries - starts)) + counts[0]
    if stages + queued > model.slots:
        return f"Nested WAIT needs {stages + queued:.0f} slots for its stages and queues, has {model.slots:.0f}"
    tokens = counts[0] * model.prompt_tokens + stages - counts[0]
    if tokens > model.budget:
        return f"a full batch of Nested WAIT computes {tokens:.0f} tokens, the budget is {model.budget:.0f}"
    return ""


def _work_s(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray) -> float:
    """E[W] of a request under the replica's affine law, s."""
    from .conditions import work_s
    from .moments import mean_over, moments

    law, engine = replica.iteration, replica.engine
    assert isinstance(law, IterationTime)
    found = [moments(item.lengths, engine.max_num_batched_tokens, engine.block_size) for item in classes]
    return float(work_s(np.array(law.coefficients), mean_over(found, mix)))


def _work_conserving(
    policy: Sarathi | Orca, replica: Replica, classes: Sequence[RequestClass], mix: FloatArray
) -> Reading | None:
    if policy.gate:
        if isinstance(policy, Sarathi):
            return None
        raise NotModelledError(
            f"{policy!r} has no capacity in theory with a KV limit. Measure it: stability.measured_capacity."
        )
    _slots_do_not_bind(policy, replica)
    means = [(item.lengths.prompt_mean_tokens, item.lengths.output_mean_tokens - 1) for item in classes]
    prefill, decode = (float(mix @ column) for column in np.array(means).T)
    found = token_region(
        replica.iteration, replica.engine.max_num_batched_tokens, prefill_tokens=prefill, decode_tokens=decode
    )
    full = replica.engine.max_num_batched_tokens / found.batch_s / (prefill + decode)
    return Reading(
        capacity_per_s=full,
        stable_below_per_s=full,
        unstable_above_per_s=found.rate_per_s,
        proved=True,
        unlimited_memory=True,
    )


def _not_work_conserving(
    policy: DecodeFirst | PrefillFirst,
    replica: Replica,
    classes: Sequence[RequestClass],
    mix: FloatArray,  # noqa: ARG001
) -> Reading:
    if policy.gate:
        raise NotModelledError(
            f"{policy!r} has no capacity in theory with a KV limit. Measure it: stability.measured_capacity."
        )
    _slots_do_not_bind(policy, replica)
    if len(classes) > 1:
        raise NotModelledError(f"{policy!r} has a capacity in theory for one class of constant lengths only.")
    try:
        s, o = single_lengths(classes[0])
    except InputError as error:
        raise NotModelledError(str(error)) from None
    budget = replica.engine.max_num_batched_tokens
    if isinstance(policy, DecodeFirst):
        rate = decode_first_rate(replica.iteration, budget, prefill_tokens=s, decode_tokens=o - 1)
        return Reading(
            capacity_per_s=rate, stable_below_per_s=rate, unstable_above_per_s=rate, proved=True, unlimited_memory=True
        )
    low, high = prefill_first_rates(replica.iteration, budget, prefill_tokens=s, decode_tokens=o - 1)
    return Reading(
        capacity_per_s=low, stable_below_per_s=low, unstable_above_per_s=high, proved=True, unlimited_memory=True
    )


def _slots_do_not_bind(policy: Scheduler, replica: Replica) -> None:
    engine = replica.engine
    if engine.max_num_seqs < engine.max_num_batched_tokens:
        raise NotModelledError(
            f"{policy!r} with {engine.max_num_seqs} slots has no capacity in theory: a limit on the requests of a batch breaks Theorem 2. "
            f"Set max_num_seqs = {engine.max_num_batched_tokens}."
        )


_READINGS: dict[type, Callable[[Any, Replica, Sequence[RequestClass], FloatArray], Reading | None]] = {
    Wait: _wait,
    NestedWait: _nested,
    ClassBudgets: _class_budgets,
    RandomBudget: _random_budget,
    Sarathi: _work_conserving,
    Orca: _work_conserving,
    DecodeFirst: _not_work_conserving,
    PrefillFirst: _not_work_conserving,
}
