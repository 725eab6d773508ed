r"""Load of one replica as linear rows in the rates of its classes, linearised at a mix.

A replica that gets x_k requests/s of class k has, per resource r, the load

.. math:: \sum_k x_k\, t_{rk}, \qquad t_{rk} = W_k + c_0\, a_{rk}/C_r ,

with the affine law's coefficients, or those of the tangent to a law's mean time. Packing slack, eviction waste, the
tangent and the measured tolerance depend on the mix, so they are taken at a given one: the rows are scaled so that *there*
they reach 1 exactly at the rate below which `analyze` says STABLE. Elsewhere they are an **approximation**, exact for affine
laws where slots, token budget or compute bind; whoever uses them verifies the outcome with `analyze` and linearises again.

Latency targets become rows as well. An inter-token latency caps the work, :math:`\lambda E[W] \le 1 - c_0'/\mathrm{ITL}`
(theory, "Below capacity"), scaled to what `rate_within` finds at the mix. A time to first token caps the load: the share of the
stable rate at which `rate_within` meets it at the mix is taken to hold for other mixes (**approximation**).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, read_only
from ..errors import UnservableError
from ..model.candidate import Candidate
from ..model.fleet import Fleet
from ..model.replica import Replica
from ..model.targets import Targets
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from ..theory.analyze import analyze
from ..theory.conditions import GATE_ROWS, RESERVE_ROWS, work_s
from ..theory.latency import latency, rate_within
from ..theory.moments import moments
from ..theory.solve import largest_footprint, solve

TARGETS = ("itl_s", "ttft_mean_s", "ttft_p99_s")
"""Latency targets, by field of `Targets` and of `LatencyReport`."""

LIGHT = 1e-3
"""Share of the stable rate that stands for a light load."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Linearised:
    """Rows of one replica at a mix; each is <= 1.

    Attributes
    ----------
    stable : (3, n_classes) ndarray
        Load of each resource per request/s; 0 for classes outside the mix.
    target : (m, n_classes) ndarray
        The same within headroom and latency targets, m >= 3.
    refusal : str
        Why the replica can serve nothing of the mix; empty where it can.
    """

    stable: FloatArray
    target: FloatArray
    refusal: str = ""


def workload_at(classes: Sequence[RequestClass], rates_per_s: FloatArray) -> Workload:
    """Poisson arrivals of the classes that have a rate."""
    used = zip(classes, rates_per_s.tolist(), strict=True)
    return Workload([item.with_rate(rate) for item, rate in used if rate > 0])


def linearised(replica: Replica, classes: Sequence[RequestClass], mix: FloatArray, targets: Targets) -> Linearised:
    """Rows of `replica`, linearised at `mix`.

    Parameters
    ----------
    replica : Replica
        One of a candidate's.
    classes : sequence of RequestClass
        Their own rates do not matter.
    mix : (n_classes,) ndarray, >= 0
        Proportions; classes with 0 get no row entries.
    targets : Targets
        Headroom and latencies.
    """
    used = np.flatnonzero(mix > 0)
    chosen = [classes[k].with_rate(1.0) for k in used.tolist()]
    shares = mix[used] / mix[used].sum()
    whole = _merged(tuple(chosen), tuple(shares.tolist()))
    solved = solve([replica], whole.classes, whole.rates_per_s, 0.95)
    limit = float(solved.stable_below[0])
    none = np.zeros((3, len(classes)))
    if not limit > 0:
        why = solved.doubts[0] or "it is certain to be stable at no rate"
        return Linearised(stable=none, target=none, refusal=f"no rate is certain to be stable: {why}")

    engine, policy = replica.engine, scheduler_of(replica.engine)
    demanded = GATE_ROWS if isinstance(policy, Fcfs) and policy.evicts else RESERVE_ROWS
    demand = np.array(
        [
            moments(item.lengths, engine.max_num_batched_tokens, engine.block_size, item.max_output_tokens).mean
            for item in chosen
        ]
    )
    law = solved.coefficients[0]
    work = np.maximum(work_s(np.broadcast_to(law, (len(chosen), 5)), demand), 0.0)
    occupied = demand[:, list(demanded)]  # (classes, 3)
    occupied = occupied * (solved.shares[0] / (shares @ occupied))
    times = (work[:, None] + max(float(law[0]), 0.0) * occupied).T
    times *= 1 / limit / float((times @ shares).max())

    stable = none.copy()
    stable[:, used] = times
    cap = 1.0 - (targets.headroom or 0.0)
    fleet, at_cap = Fleet.of(replica), whole.scaled(rate_per_s=cap * limit)
    missed = missed_targets(fleet, at_cap, targets)
    target = stable / cap
    for name in missed:
        reach = _rate_within(fleet, at_cap, name, float(getattr(targets, name)))
        if not reach > 0:
            least = latency_at(fleet, at_cap.scaled(factor=LIGHT), name)
            return Linearised(stable=stable, target=none, refusal=f"{name} is {least:.4g} even at a light load")
        if name == "itl_s" and float(shares @ work) > 0:
            row = np.zeros((1, len(classes)))
            row[0, used] = work / (reach * float(shares @ work))
            target = np.concatenate([target, row])
        else:
            target = np.concatenate([target, stable * (limit / reach)])
    return Linearised(stable=read_only(stable), target=read_only(target))


def misfit(item: Candidate, one: RequestClass) -> str:
    """Why a candidate cannot hold a class, by `analyze`; empty where it can."""
    policy = scheduler_of(item.replica.engine)
    if isinstance(policy, Fcfs) and largest_footprint(one, policy.evicts) <= item.replica.usable_kv_tokens:
        return ""
    try:
        analyze(Fleet.of(item.replica, name=item.name), Workload([one]))
    except UnservableError as error:
        return str(error)
    return ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstRows:
    """First rows of a candidate, and the classes it can serve nothing of, with the reason."""

    stable: FloatArray
    target: FloatArray
    refusals: dict[int, str]


def first_rows(item: Candidate, classes: Sequence[RequestClass], mix: FloatArray, targets: Targets) -> FirstRows:
    """Rows at `mix`; where nothing of it can be served, one class at a time, the greatest of each class's rows added up."""
    none = np.zeros((3, len(classes)))
    if not mix.any():
        return FirstRows(stable=none, target=none, refusals={})
    whole = linearised(item.replica, classes, mix, targets)
    if not whole.refusal:
        return FirstRows(stable=whole.stable, target=whole.target, refusals={})
    stable, target, refusals = none.copy(), none[:1].copy(), {}
    for k in np.flatnonzero(mix > 0).tolist():
        alone = linearised(item.replica, classes, mix * (np.arange(len(mix)) == k), targets)
        stable[:, k], target[0, k] = alone.stable[:, k], alone.target[:, k].max()
        if alone.refusal:
            refusals[k] = alone.refusal
    return FirstRows(stable=stable, target=target, refusals=refusals)


@lru_cache(maxsize=256)
def _merged(classes: tuple[RequestClass, ...], shares: tuple[float, ...]) -> Workload:
    """The mix at rate 1, as one class of mixed lengths where nothing else tells the classes apart.

    Rates of one class scale without rounding its mix, by which what is costly about lengths is remembered.
    """
    whole = workload_at(classes, np.array(shares))
    if any(item.max_output_tokens is not None for item in classes):
        return whole
    return Workload.poisson(1.0, whole.lengths)


def latency_at(fleet: Fleet, workload: Workload, name: str) -> float:
    """The latency called `name` of the worst pool, s."""
    if name == "itl_s":
        return max(pool.itl_s for pool in analyze(fleet, workload).pools)
    return float(getattr(latency(fleet, workload), name))


def missed_targets(fleet: Fleet, workload: Workload, targets: Targets) -> list[str]:
    """Latency targets that `fleet` misses at the workload's rate."""
    wanted = [name for name in TARGETS if getattr(targets, name) is not None]
    if not wanted:
        return []
    if wanted == ["itl_s"]:
        return wanted if latency_at(fleet, workload, "itl_s") > float(targets.itl_s or math.inf) else []
    found = latency(fleet, workload)
    return [name for name in wanted if getattr(found, name) > getattr(targets, name)]


def _rate_within(fleet: Fleet, workload: Workload, name: str, limit: float) -> float:
    if name == "itl_s":
        return rate_within(fleet, workload, itl_s=limit)
    if name == "ttft_mean_s":
        return rate_within(fleet, workload, ttft_mean_s=limit)
    return rate_within(fleet, workload, ttft_p99_s=limit)
