"""What a fleet is to a simulation: its replicas one by one, and what each of them can hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .._types import IntArray
from ..errors import NotModelledError, UnservableError
from ..model.engine import ADMISSIONS, Scheduler
from ..model.fleet import Fleet
from ..model.replica import Replica
from ..model.requests import Requests
from ..model.workload import Workload
from ..policies.disciplines import DecodeFirst, Orca, PrefillFirst, Sarathi
from ..policies.fcfs import Fcfs, scheduler_of
from ..policies.flow_control import ClassBudgets, RandomBudget
from ..policies.priority import Priority
from ..policies.routers import Router
from ..policies.shortest_first import AMax, AMin, HindsightShortestFirst, ShortestFirst, SortedF
from ..policies.wait import NestedWait, Wait
from .scheduling import UNLIMITED_BLOCKS, check_classes, extra_tokens, limits_memory, whole_tokens

RESERVE, PROMPT_GATE, CHUNK_GATE = range(len(ADMISSIONS))
"""Codes of the admission rules, in the order of `ADMISSIONS`."""

(
    INTERPRETED,
    MIXED,
    PREFILL_FIRST,
    DECODE_FIRST,
    ORCA,
    PRIORITY,
    WAIT,
    NESTED_WAIT,
    CLASS_BUDGETS,
    RANDOM_BUDGET,
    LOOK_AHEAD,
) = range(-1, 10)
"""Codes of what a compiled step computes: nothing, as the reference has to; prompts and decodes together; one kind at a time; or
what a published discipline says."""

_DISCIPLINES: dict[type, int] = {
    type(None): MIXED,
    PrefillFirst: PREFILL_FIRST,
    DecodeFirst: DECODE_FIRST,
    Orca: ORCA,
    Priority: PRIORITY,
    Wait: WAIT,
    NestedWait: NESTED_WAIT,
    ClassBudgets: CLASS_BUDGETS,
    RandomBudget: RANDOM_BUDGET,
    ShortestFirst: LOOK_AHEAD,
    HindsightShortestFirst: LOOK_AHEAD,
    AMax: LOOK_AHEAD,
    AMin: LOOK_AHEAD,
    SortedF: LOOK_AHEAD,  # by prefixes
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One replica's limits as integers.

    Attributes
    ----------
    block_size : int
        Tokens per KV block.
    capacity_blocks, watermark_blocks : int
        KV blocks in all, and those kept free at admission while something runs.
    max_seqs, max_tokens : int
        Batch slots and token budget.
    admission : int
        Code of the admission rule.
    prefix_caching : bool
        Whether an evicted request may find its blocks again.
    scheduler : Scheduler or None
        The policy that plans the iterations; None for first come, first served.
    """

    block_size: int
    capacity_blocks: int
    watermark_blocks: int
    max_seqs: int
    max_tokens: int
    admission: int
    prefix_caching: bool
    scheduler: Scheduler | None = None

    @property
    def discipline(self) -> int:
        """Code of what a compiled step computes."""
        if isinstance(self.scheduler, SortedF) and self.scheduler.search == "exact":
            return INTERPRETED
        return _DISCIPLINES.get(type(self.scheduler), INTERPRETED)

    @property
    def extra_tokens(self) -> int:
        """Tokens charged to every resident request beyond those whose KV is stored."""
        return 0 if self.scheduler is None else extra_tokens(self.scheduler)


def limits_of(replica: Replica) -> Limits:
    """The limits of `replica`.

    Raises
    ------
    NotModelledError
        If its engine asks for what the simulator does not do.
    """
    engine = replica.engine
    scheduler = scheduler_of(engine)
    capacity = replica.capacity_blocks if limits_memory(scheduler) else UNLIMITED_BLOCKS
    planned = None
    if isinstance(scheduler, Sarathi):
        scheduler = Fcfs("prompt_gate")
    elif not isinstance(scheduler, Fcfs):
        if engine.prefix_caching:
            raise NotModelledError(
                f"prefix_caching = True with scheduler = {scheduler!r}, must be False unless first come, first served. "
                "Turn it off."
            )
        planned = scheduler
        scheduler = Fcfs("prompt_gate", float(getattr(scheduler, "watermark", 0.0)))
    return Limits(
        block_size=engine.block_size,
        capacity_blocks=capacity,
        watermark_blocks=int(scheduler.watermark * (capacity + 1)),
        max_seqs=engine.max_num_seqs,
        max_tokens=engine.max_num_batched_tokens,
        admission=ADMISSIONS.index(scheduler.admission),
        prefix_caching=engine.prefix_caching,
        scheduler=planned,
    )


def replicas_of(fleet: Fleet) -> tuple[list[Replica], IntArray]:
    """The fleet's replicas one by one, and the pool of each.

    Raises
    ------
    NotModelledError
        If a pool is coupled by a barrier or computes only one phase.
    """
    for pool in fleet.pools:
        if pool.role != "mixed" or fleet.links:
            raise NotModelledError(
                f"pool {pool.name!r} has role {pool.role!r} and the fleet {len(fleet.links)} links, "
                "must be mixed pools without links until prefill/decode pools are simulated. "
                "Make the pools mixed, or use `stability check`, disaggregation() in Python."
            )
        if pool.coupling != "independent":
            raise NotModelledError(
                f"pool {pool.name!r} is coupled by {pool.coupling!r}, must be 'independent' here. "
                "Simulate one barrier group with simulate_barrier()."
            )
    replicas = [pool.replica for pool in fleet.pools for _ in range(pool.replicas)]
    pools = np.repeat(np.arange(len(fleet.pools)), [pool.replicas for pool in fleet.pools])
    return replicas, pools


def check_prefixes(fleet: Fleet, workload: Workload) -> None:
    """Raise a `NotModelledError` where a scheduler of its own would meet prefixes known to be cached, or sessions."""
    known = any(item.finds_prefixes for item in workload.classes)
    for pool in fleet.pools:
        policy = limits_of(pool.replica).scheduler
        if known and policy is not None:
            raise NotModelledError(
                f"pool {pool.name!r} has {policy!r} and the workload prefixes that are found in the cache, must be served first come, first "
                "served. Use admission=..., or leave the prefixes out."
            )


def check_servable(fleet: Fleet, router: Router, workload: Workload, blocks: Iterable[Requests]) -> None:
    """Raise an `UnservableError` naming the first request that some replica it may join can never serve.

    Parameters
    ----------
    blocks : iterable of Requests
        The requests of the run; not drawn if even the longest of the workload fits everywhere.
    """
    for pool in fleet.pools:
        check_classes(scheduler_of(pool.replica.engine), len(workload.classes))
    prompt = np.array([item.lengths.max_prompt_tokens for item in workload.classes])
    output = np.array([item.max_output_tokens or item.lengths.max_output_tokens for item in workload.classes])
    if all(
        (prompt + output).max() <= pool.replica.usable_kv_tokens
        and whole_tokens(scheduler_of(pool.replica.engine), prompt, output).max()
        <= pool.replica.engine.max_num_batched_tokens
        for pool in fleet.pools
    ):
        return
    if workload.has_sessions:
        raise UnservableError(
            f"turns of sessions reach {(prompt + output).max():.0f} tokens (longest prompt and output), must fit the KV cache of every pool. "
            "Lower limit_tokens of the sessions or enlarge the cache."
        )
    first = 0
    for block in blocks:
        _check_block(fleet, router, block, first=first, classes=len(workload.classes))
        first += len(block)


def _check_block(fleet: Fleet, router: Router, block: Requests, *, first: int, classes: int) -> None:
    shares = router.shares(fleet, classes)
    offsets = np.cumsum([0, *(pool.replicas for pool in fleet.pools)])
    for index, pool in enumerate(fleet.pools):
        limits = limits_of(pool.replica)
        tokens = _largest_footprint(limits, block)
        too_long = tokens > limits.capacity_blocks * limits.block_size
        policy = scheduler_of(pool.replica.engine)
        whole = whole_tokens(policy, block.prompt_tokens, block.output_tokens)
        too_wide = whole > limits.max_tokens
        if shares.shape[1]:
            edges = np.concatenate((np.zeros((classes, 1)), shares), axis=1)
            takes = edges[:, offsets[index + 1]] > edges[:, offsets[index]]
            too_long &= takes[block.request_class]
            too_wide &= takes[block.request_class]
        if too_long.any():
            row = int(np.argmax(too_long))
            what = "prompt and output limit" if limits.admission == RESERVE else "prompt and output but the last token"
            raise UnservableError(
                f"request {first + row} needs {tokens[row]} KV tokens ({what}), must fit the "
                f"{limits.capacity_blocks * limits.block_size} of a replica of pool {pool.name!r}. "
                "Drop or shorten it, route it elsewhere or enlarge the KV cache."
            )
        if too_wide.any():
            row = int(np.argmax(too_wide))
            raise UnservableError(
                f"request {first + row} needs {whole[row]} tokens computed in one iteration, as {type(policy).__name__} splits no "
                f"prompts, must fit max_num_batched_tokens = {limits.max_tokens} of pool {pool.name!r}. "
                "Raise the token budget, or choose a policy that computes prompts in chunks."
            )


def _largest_footprint(limits: Limits, block: Requests) -> IntArray:
    # The last generated token's KV is never stored, but a reservation does not count on that.
    if limits.admission == RESERVE:
        return block.prompt_tokens + block.max_output_tokens
    return block.prompt_tokens + block.output_tokens - 1 + limits.extra_tokens
