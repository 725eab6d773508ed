"""What would change the verdict: replicas needed for a headroom, and the effect of single changes to a pool."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from .._result import Described, Verdict
from ..errors import InputError, check_number
from ..model.fleet import Barrier, Fleet, Pool
from ..model.workload import Workload
from .analyze import analyze
from .report import StabilityReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever(Described):
    """One change to the binding pool and what it does to the fleet.

    Attributes
    ----------
    change : str
        The change, in words.
    capacity_per_s : float
        Fleet capacity with it, 1/s.
    gain : float
        Relative change of the capacity.
    verdict : Verdict
        Verdict at the workload's rate with it.
    """

    change: str
    capacity_per_s: float
    gain: float
    verdict: Verdict


def replicas_needed(report: StabilityReport, *, headroom: float = 0.1) -> dict[str, int]:
    """Replicas each pool needs to be STABLE at its present arrivals with `headroom` to spare.

    Parameters
    ----------
    report : StabilityReport
        From `analyze`.
    headroom : float in [0, 1)
        Share of the certain capacity to stay below: load <= 1 - headroom.

    Returns
    -------
    dict of str to int
        By pool name.

    Raises
    ------
    InputError
        If a pool is certain to be stable at no rate (its policy is outside every regime with a known capacity).

    Examples
    --------
    A replica serves 1/(0.01 + 0.01*80/8) = 9.09 requests/s, certain below 9: 20 requests/s with 10 % to spare need 20/(0.9*9) = 2.5.

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> report = st.analyze(fleet, st.Workload.poisson(20.0, lengths))
    >>> round(report.stable_below_per_s, 2), st.replicas_needed(report, headroom=0.1)
    (9.0, {'pool': 3})
    """
    check_number("headroom", headroom, at_least=0, below=1)
    needed = {}
    for pool in report.pools:
        each = pool.stable_below_per_s / pool.replicas
        if not each > 0:
            raise InputError(
                f"pool {pool.name!r} has no certain capacity ({pool.reason}), must have some to be sized. "
                "Choose another admission policy."
            )
        exact = pool.rate_per_s / ((1 - headroom) * each)
        needed[pool.name] = max(1, math.floor(exact) + 1)
    return needed


def levers(fleet: Fleet, workload: Workload, report: StabilityReport) -> tuple[Lever, ...]:
    """The effect of single changes to the binding pool, best first.

    Parameters
    ----------
    fleet, workload
        What `report` was made from.
    report : StabilityReport
        From `analyze`.

    Returns
    -------
    tuple of Lever

    Examples
    --------
    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> workload = st.Workload.poisson(5.0, lengths)
    >>> best = st.levers(fleet, workload, st.analyze(fleet, workload))[0]
    >>> best.change, round(best.gain, 6)  # a second replica doubles the capacity
    ('one more replica', 1.0)
    """
    place = [pool.name for pool in fleet.pools].index(report.binding_pool)
    found = []
    for change, pool in _changes(fleet.pools[place]):
        pools = [*fleet.pools[:place], pool, *fleet.pools[place + 1 :]]
        changed = analyze(Fleet(pools, fleet.links), workload)
        found.append(
            Lever(
                change=change,
                capacity_per_s=changed.capacity_per_s,
                gain=changed.capacity_per_s / report.capacity_per_s - 1,
                verdict=changed.verdict,
            )
        )
    return tuple(sorted(found, key=lambda lever: -lever.gain))


def _changes(pool: Pool) -> Iterator[tuple[str, Pool]]:
    replica, engine = pool.replica, pool.replica.engine
    if isinstance(pool.coupling, Barrier):
        yield "one more group", replace(pool, replicas=pool.replicas + pool.coupling.workers)
        yield "no barrier", replace(pool, coupling="independent")
    else:
        yield "one more replica", replace(pool, replicas=pool.replicas + 1)
    more = math.ceil(replica.kv_capacity_tokens * 1.25)
    yield f"KV cache +25 % ({more} tokens)", replace(pool, replica=replace(replica, kv_capacity_tokens=more))
    slots, budget = 2 * engine.max_num_seqs, 2 * engine.max_num_batched_tokens
    wider = replace(engine, max_num_seqs=slots, max_num_batched_tokens=max(slots, engine.max_num_batched_tokens))
    yield f"max_num_seqs {slots}", replace(pool, replica=replace(replica, engine=wider))
    longer = replace(engine, max_num_batched_tokens=budget)
    yield f"max_num_batched_tokens {budget}", replace(pool, replica=replace(replica, engine=longer))
    if engine.scheduler is None:
        for admission in {"reserve", "prompt_gate"} - {engine.admission}:
            other = replace(engine, admission=admission)
            yield f"admission {admission}", replace(pool, replica=replace(replica, engine=other))
