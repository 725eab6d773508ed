"""Why no fleet of the candidates will do, and the least change after which one does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .._result import percent, seconds
from .._types import IntArray
from ..model.candidate import Candidate
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from ..theory.analyze import analyze
from ..theory.solve import FEW_FIT, largest_footprint
from .fleet_program import FleetProgram, balanced, failures_of
from .linearised import LIGHT, TARGETS, latency_at
from .programs import Budget

NAMES = {"itl_s": "inter-token latency", "ttft_mean_s": "mean time to first token", "ttft_p99_s": "TTFT, 99 %"}


def refused(
    kinds: Sequence[Candidate],
    classes: Sequence[RequestClass],
    targets: Targets,
    unservable: Mapping[tuple[int, int], str],
    refusals: Mapping[tuple[int, int], str],
) -> str:
    """A sentence on a class that no candidate can serve at any rate; empty if there is none.

    Parameters
    ----------
    kinds : sequence of Candidate
    classes : sequence of RequestClass
    targets : Targets
    unservable : mapping of (candidate, class) to str
        Pairs that do not fit, with the reason.
    refusals : mapping of (candidate, class) to str
        Pairs of which nothing can be served within the targets, with the reason.
    """
    for k, item in enumerate(classes):
        fits = [i for i in range(len(kinds)) if (i, k) not in unservable]
        if not fits:
            return _too_long(kinds, item, unservable[0, k])
        if all((i, k) in refusals for i in fits):
            return _too_slow([kinds[i] for i in fits], item, targets, [refusals[i, k] for i in fits])
    return ""


def _too_long(kinds: Sequence[Candidate], item: RequestClass, said: str) -> str:
    rooms = [kind.replica.usable_kv_tokens for kind in kinds]
    best = kinds[int(np.argmax(rooms))]
    policy = scheduler_of(best.replica.engine)
    longest = largest_footprint(item, isinstance(policy, Fcfs) and policy.evicts)
    if not math.isfinite(longest):
        return f"kv_memory binds: no candidate holds class {item.name!r} ({said})"
    needed = math.ceil(longest / FEW_FIT)
    return (
        f"kv_memory binds: class {item.name!r} has requests of up to {longest:.0f} KV tokens, and the largest candidate, "
        f"{best.name}, holds {max(rooms)}; a candidate with {needed} KV tokens, in which {1 / FEW_FIT:.0f} fit, would do"
    )


def _too_slow(kinds: Sequence[Candidate], item: RequestClass, targets: Targets, said: Sequence[str]) -> str:
    alone = Workload([item.with_rate(1.0)])
    for name in TARGETS:
        limit = getattr(targets, name)
        if limit is None:
            continue
        least = {}
        for kind in kinds:
            fleet = Fleet.of(kind.replica)
            capacity = analyze(fleet, alone).capacity_per_s
            least[kind.name] = latency_at(fleet, alone.scaled(rate_per_s=LIGHT * capacity), name)
        best = min(least, key=lambda kind: least[kind])
        if least[best] > limit:
            return (
                f"the target for the {NAMES[name]} binds: {seconds(limit)}, but class {item.name!r} alone at a light load "
                f"has {seconds(least[best])} on the best candidate, {best}; a target of {_above(least[best])} or more can be met"
            )
    return f"no candidate is certain to serve class {item.name!r} within the targets: {kinds[0].name}: {said[0]}"


def _above(value: float) -> str:
    """`value` rounded up to three digits, for people."""
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return seconds(math.ceil(value / step - 1e-9) * step)


def shortfall(
    kinds: Sequence[Candidate], classes: Sequence[RequestClass], program: FleetProgram, budget: Budget
) -> str:
    """A sentence on what the candidates serve at most, which limit binds, and how many replicas are missing.

    Parameters
    ----------
    kinds : sequence of Candidate
    classes : sequence of RequestClass
    program : FleetProgram
        Infeasible.
    budget : Budget
        Time for the solver.
    """
    most = np.minimum(program.at_most, np.maximum(program.enough(), program.at_least)).astype(np.int64)
    reach, stranded = _reach(program, most)
    beyond = program.least_beyond(budget)
    limits = ", ".join(
        f"{kind.name} {n}" for kind, n in zip(kinds, most.tolist(), strict=True) if n < program.enough().max()
    )
    missing = ", ".join(f"{n} more {kinds[i].name}" for i, n in enumerate(beyond.tolist()) if n)
    withstand = f" with {program.spares} of them lost" if program.spares and not stranded else ""
    if reach > 0:
        serves = f"serve {percent(reach)} of the rates within the targets{withstand}"
        other = f", or {percent(math.floor(1e3 * reach) / 1e3)} of the rates,"
    else:
        held = ", ".join(repr(classes[k].name) for k in _stranded(program, most)) or "any class"
        serves, other = f"leave no replica for {held}{withstand}", ""
    return f"at_most binds: all that can be had ({limits or 'none'}) {serves}; {missing or 'more replicas'}{other} would do"


def _reach(program: FleetProgram, counts: IntArray) -> tuple[float, bool]:
    """Share of the rates that `counts` serve in the worst window, failures included; whether it is without failures."""
    loads = [balanced(program.target, program.allowed, rates, counts).value for rates in program.rates_per_s]
    worst, plain = max(loads), True
    if program.spares:
        for rates in program.rates_per_s:
            for lost in failures_of(counts, program.spares):
                left = np.maximum(counts - np.array(lost), 0)
                load = balanced(program.stable, program.allowed, rates, left).value
                if load > worst:
                    worst, plain = load, False
    return (1 / worst if math.isfinite(worst) else 0.0), plain


def _stranded(program: FleetProgram, counts: IntArray) -> list[int]:
    """Classes with a rate that no replica can hold."""
    can = (program.allowed & (counts > 0)[:, None]).any(axis=0)
    return np.flatnonzero(~can & (program.rates_per_s.max(axis=0) > 0)).tolist()
