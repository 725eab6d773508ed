"""`tune`: the engine settings that serve the most, below capacity alone or within latency targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .._result import rate, seconds
from ..errors import InputError, check_choice, check_number, unknown_name
from ..model.checks import check_independent, check_no_prefixes, check_pair
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import RequestClass, Workload
from ..theory.analyze import analyze, peak_window_s
from ..theory.latency import PoolLatency, latency
from .flags import engine_flags, plan_engine
from .search import Found, search
from .sensitivity import longest_watermark, sensitivity
from .settings import SETTINGS, PoolModel, Setting, plain
from .tuned import PoolTuning, TuningResult

WORTH = 0.005
"""Relative gain below which a setting stays as it is."""

LIGHT = 1e-3
"""Load at which a target that no rate meets is shown."""


def tune(
    fleet: Fleet,
    workload: Workload,
    *,
    targets: Targets | None = None,
    pool: str | None = None,
    vary: Sequence[str] = SETTINGS,
    worth: float = WORTH,
    latencies: bool = True,
) -> TuningResult:
    """The engine settings that serve the highest rate: headroom, slots, token budget and admission policy.

    Capacities inside the validated regimes are trusted; outside they are **approximate** and say so. A setting whose
    capacity is in doubt is recommended only where the present one's is in doubt, too, and a chunk gate never where it can
    collapse.

    Parameters
    ----------
    fleet : Fleet
        What serves.
    workload : Workload
        What arrives; a rate schedule is taken at its peak window.
    targets : Targets, optional
        Latency limits and spare capacity: then the rate that meets them is maximised.
    pool : str, optional
        The pool to tune; every pool with arrivals by default.
    vary : sequence of {"admission", "watermark", "max_num_seqs", "max_num_batched_tokens"}
        Settings that may change.
    worth : float in [0, 1)
        Relative gain that a change has to bring.
    latencies : bool
        Whether to compute latencies now and then at the workload's rate.

    Returns
    -------
    TuningResult
        Present and recommended engine of each pool, gain, latencies, sensitivity to headroom, flags to paste.

    Raises
    ------
    InputError
        If a pool or a setting is unknown.
    UnservableError, NotModelledError
        As `analyze`.

    Notes
    -----
    Headroom h trades memory against eviction, 1/lambda*(h) = c0/y + E[W] + e w with y = (M - E[F])/(E[g] + e v); the
    optimum is found on a grid and refined, with h* = ln(theta w p0 M^2/(c0 g))/theta as a cross-check.

    Examples
    --------
    Iterations of 10 ms, 50 of them a request, 100 slots: 100/(0.01*50) = 200 requests/s. A request holds 125 tokens on
    average, so memory has room for 800: 640 slots leave a fifth of it, and 640/(0.01*50) = 1280.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=100, max_num_batched_tokens=8192, block_size=1)
    >>> law = st.IterationTime(base_s=0.01)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(50))
    >>> result = st.tune(fleet, st.Workload.poisson(150.0, lengths), vary=["max_num_seqs"])
    >>> result.pools[0].change, round(result.capacity_now_per_s), round(result.capacity_per_s)
    ('max_num_seqs 100 -> 640', 200, 1280)
    """
    check_pair(fleet, workload)
    check_independent(fleet, "tuning")
    check_no_prefixes(workload, "tuning")
    check_number("worth", worth, at_least=0, below=1)
    for name in vary:
        check_choice("vary", name, SETTINGS)
    if not vary:
        raise InputError(f"vary is empty, must name settings that may change. Choose from {', '.join(SETTINGS)}.")
    wanted = targets if targets is not None else Targets()
    busiest = workload.at(peak_window_s(fleet, workload)) if workload.is_scheduled else workload.averaged()
    report = analyze(fleet, busiest)
    classes = [item for item in busiest.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    found = []
    for item, at in zip(fleet.pools, report.pools, strict=True):
        if (pool is None and at.rate_per_s > 0) or item.name == pool:
            model = PoolModel(item, classes, rates / rates.sum(), wanted)
            found.append(_tune_pool(model, at.rate_per_s, vary, worth, latencies))
    if not found:
        raise unknown_name("pool", pool, [item.name for item in fleet.pools])
    then = {item.pool: item.then.engine for item in found}
    tuned = [replace(p, replica=replace(p.replica, engine=then.get(p.name, p.replica.engine))) for p in fleet.pools]
    return TuningResult(
        pools=tuple(found),
        capacity_now_per_s=report.capacity_per_s,
        capacity_per_s=analyze(Fleet(tuned, fleet.links), busiest).capacity_per_s,
        targets=wanted,
    )


def _tune_pool(model: PoolModel, rate_per_s: float, vary: Sequence[str], worth: float, latencies: bool) -> PoolTuning:
    pool = model.pool
    if not rate_per_s > 0:
        raise InputError(
            f"pool {pool.name!r} gets no requests (weight = 0), must get some to be tuned. Choose another."
        )
    found = search(model, plain(pool.replica.engine, pool.name), vary, worth)
    gate = replace(found.then.engine, admission="prompt_gate")
    marks = {0.0, gate.watermark, longest_watermark(model, gate)}
    if found.now.engine.admission != "reserve":
        marks.add(found.now.engine.watermark)
    at_now, at_then = _latencies(model, found, rate_per_s) if latencies else (None, None)
    within = model.rate_within(found.then)
    return PoolTuning(
        pool=pool.name,
        replicas=pool.replicas,
        rate_per_s=rate_per_s,
        now=found.now,
        then=found.then,
        rate_within_now_per_s=model.rate_within(found.now),
        rate_within_per_s=within,
        latency_now=at_now,
        latency_then=at_then,
        admissions=found.admissions,
        surest=found.surest,
        sensitivity=sensitivity(model, gate, [replace(gate, watermark=mark) for mark in sorted(marks)]),
        missed=_missed(model, found.then, within, rate_per_s),
        flags=engine_flags(found.then, found.admissions),
        plan_engine=plan_engine(found.then.engine),
        notes=_notes(found, model.classes),
    )


def _latencies(model: PoolModel, found: Found, rate_per_s: float) -> tuple[PoolLatency, PoolLatency]:
    """Latency of the pool at its rate, now and then."""
    engines = dict.fromkeys((found.now.engine, found.then.engine))
    pools = [replace(model.pool_with(engine), name=str(i), weight=1.0) for i, engine in enumerate(engines)]
    at = latency(Fleet(pools), model.workload(rate_per_s * len(pools))).pools
    return replace(at[0], name=model.pool.name), replace(at[-1], name=model.pool.name)


def _missed(model: PoolModel, then: Setting, within_per_s: float, rate_per_s: float) -> str:
    """How near the best setting comes to targets that it misses, and what binds; empty if it meets them."""
    if model.targets == Targets() or within_per_s >= rate_per_s:
        return ""
    reach = f"the best settings allow {rate(within_per_s)} of the {rate(rate_per_s)} that arrive"
    spare = 1 - (model.targets.headroom or 0.0)
    if within_per_s >= spare * then.capacity_per_s * (1 - 2 * LIGHT):
        left = f", {100 * (1 - spare):g} % of it to stay free" if spare < 1 else ""
        return f"{reach}; capacity binds ({rate(then.capacity_per_s)}{left}, bottleneck {then.bottleneck})"
    light = within_per_s == 0
    shown = LIGHT * then.capacity_per_s if light else min(rate_per_s, then.capacity_per_s * (1 - LIGHT))
    at = latency(Fleet([model.pool_with(then.engine)]), model.workload(shown))
    names = {"itl_s": "ITL", "ttft_mean_s": "mean TTFT", "ttft_p99_s": "TTFT 99 %"}
    over = [
        f"{word} {seconds(getattr(at, name))} against {seconds(getattr(model.targets, name))}"
        for name, word in names.items()
        if getattr(model.targets, name) is not None and getattr(at, name) > getattr(model.targets, name)
    ]
    return f"{reach}; {', '.join(over)} at {'a light load' if light else rate(shown)}"


def _notes(found: Found, classes: Sequence[RequestClass]) -> tuple[str, ...]:
    notes = []
    now, then, surest = found.now, found.then, found.surest
    if now.doubt and now.doubt != then.doubt:
        notes.append(f"the present capacity is approximate: {now.doubt}")
    if then.doubt:
        notes.append(f"the recommended capacity is approximate: {then.doubt}")
    if surest.stable_below_per_s > then.stable_below_per_s * (1 + WORTH):
        notes.append(f"greatest certain rate, {rate(surest.stable_below_per_s)}: {plan_engine(surest.engine)}")
    reserves = then.engine.admission == "reserve" or any(s.engine.admission == "reserve" for s in found.admissions)
    if reserves and any(item.max_output_tokens is None for item in classes):
        notes.append(
            "reserve is judged as if each request's output were known; engines set aside its limit: state max_output_tokens"
        )
    if then.engine.max_num_batched_tokens > now.engine.max_num_batched_tokens:
        notes.append(
            "a larger token budget takes GPU memory for activations, which leaves less KV cache than assumed here"
        )
    if then.engine.max_num_seqs > now.engine.max_num_seqs:
        notes.append(
            "more slots may take GPU memory for CUDA graphs; step times are the law's, also beyond measured batches"
        )
    if math.isclose(then.engine.watermark, 0.0):
        notes.append("no headroom: memory does not bind, or evicted requests cost less than the memory kept free")
    return tuple(notes)
