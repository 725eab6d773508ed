"""The search for the best engine settings of one pool: headroom continuously, slots and token budget on a ladder.

Settings interact: with few slots memory never fills and headroom does nothing; with many, headroom decides. So the search goes
up one setting at a time, from the present ones and from slots that never bind, for each admission policy, and keeps
the best. What it keeps of the present settings, it keeps because changing them gains less than a stated threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace

from ..model.engine import Engine
from ..theory.conditions import capacities
from ..theory.moments import Demand
from .sensitivity import best_watermark, longest_watermark
from .settings import SETTINGS, PoolModel, Setting

SLOTS = (16, 1024)
"""Slots looked at; engines prepare CUDA graphs for batches up to about the larger."""

BUDGETS = (512, 16_384)
"""Token budgets looked at; the larger is the largest that an engine takes by default."""

EXTRA_SLOTS = 1.5
"""Slots over the number that fills memory from which they never bind."""

FLAT = 1e-3
"""Gain of the best power of two under which budgets between are not looked at."""

PASSES = 3
"""Passes over the settings; the search ends when one changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Outcome of a search in one pool.

    Attributes
    ----------
    now, then : Setting
        Present and recommended.
    admissions : tuple of Setting
        The best of each admission policy, with the policy's own best other settings.
    surest : Setting
        The setting with the greatest rate below which stability is certain.
    """

    now: Setting
    then: Setting
    admissions: tuple[Setting, ...]
    surest: Setting


def search(model: PoolModel, present: Engine, vary: Collection[str], worth: float) -> Found:
    """The best setting of a pool.

    Parameters
    ----------
    model : PoolModel
    present : Engine
        Today's settings.
    vary : collection of str
        Settings that may change.
    worth : float
        Relative gain that a change must bring.
    """
    now = model.settings([present])[0]
    policies = ["prompt_gate", "reserve"] if "admission" in vary else [present.admission]
    best_of: dict[str, Setting] = {}
    for policy in policies:
        starts = [_with_policy(present, policy)]
        free = set(vary)
        if "max_num_seqs" in vary:
            starts.append(_unbound(model, starts[0]))
            if policy == "reserve":  # what never evicts gains nothing from fewer slots
                starts, free = starts[1:], free - {"max_num_seqs"}
        ascents = [_ascend(model, start, free) for start in starts]
        best_of[policy] = max(ascents, key=lambda s: s.capacity_per_s)
    eligible = _eligibility(now)
    chosen = _choose(model, now, [s for s in model.known() if eligible(s)])
    then = _keep_present(model, now, chosen, vary, worth, eligible)
    if "admission" in vary:  # for comparison only: what recomputation does to it, no formula tells
        chunk = replace(best_of["prompt_gate"].engine, admission="chunk_gate")
        best_of["chunk_gate"] = model.settings([chunk])[0]
    best_of.setdefault(present.admission, now)
    return Found(
        now=now,
        then=then,
        admissions=tuple(best_of.values()),
        surest=max(model.known(), key=lambda s: s.stable_below_per_s),
    )


def ladder(low: float, high: float, parts: int) -> list[int]:
    """Whole numbers from `low` to `high` that double in `parts` equal steps.

    Examples
    --------
    >>> ladder(64, 256, 2)
    [64, 96, 128, 192, 256]
    """
    found = []
    for power in range(max(0, math.floor(math.log2(max(low, 1)))), math.ceil(math.log2(max(high, 1))) + 1):
        found += [(1 << power) * (parts + part) // parts for part in range(parts)]
    return sorted({value for value in found if low <= value <= high})


def _with_policy(engine: Engine, admission: str) -> Engine:
    """The engine under an admission policy; headroom does nothing for one that never evicts."""
    if admission == engine.admission:
        return engine
    return replace(engine, admission=admission, watermark=0.0 if admission == "reserve" else engine.watermark)


def _filling(model: PoolModel, engine: Engine) -> float:
    """Requests that fill the memory of a replica."""
    solution, row = model.solved(engine)
    demand = solution.demand[row]
    held = Demand.RESERVED if engine.admission == "reserve" else Demand.VOLUME
    memory = capacities(model.pool_with(engine).replica)[0]
    return float(memory * demand[Demand.ITERATIONS] / demand[held])


def _unbound(model: PoolModel, engine: Engine) -> Engine:
    """The engine with slots that do not bind before memory does, as far as slots are looked at."""
    enough = EXTRA_SLOTS * _filling(model, engine)
    most = max(SLOTS[1], engine.max_num_seqs)
    steps = ladder(min(enough, most), max(2 * enough, SLOTS[0]), 1)
    slots = max(engine.max_num_seqs, min([most, *steps]))
    return _with_slots(engine, slots)


def _with_slots(engine: Engine, slots: int) -> Engine:
    """The engine with other slots, its token budget raised where it must hold them."""
    return replace(engine, max_num_seqs=slots, max_num_batched_tokens=max(slots, engine.max_num_batched_tokens))


def _ascend(model: PoolModel, start: Engine, vary: Collection[str]) -> Setting:
    """Up one setting at a time until none gains."""
    best = model.settings([start])[0]
    for _ in range(PASSES):
        before = best
        for name in ("watermark", "max_num_seqs", "max_num_batched_tokens"):
            if name in vary:
                line = _line(model, best.engine, name)
                best = max([best, *model.settings(line)], key=lambda s: s.capacity_per_s)
        if best.capacity_per_s <= before.capacity_per_s * (1 + 1e-6):
            break
    return best


def _line(model: PoolModel, engine: Engine, name: str) -> list[Engine]:
    """Candidates that differ from `engine` in one setting."""
    if name == "watermark":
        return _watermarks(model, engine)
    if name == "max_num_seqs":
        filling = _filling(model, engine)
        top = min(max(EXTRA_SLOTS * filling, SLOTS[0]), max(SLOTS[1], engine.max_num_seqs))
        slots = [n for n in ladder(SLOTS[0], top, 4) if n >= filling / 2]
        slots = [n for n in slots if n <= engine.max_num_batched_tokens]
        return [replace(engine, max_num_seqs=n) for n in slots]
    least = max(BUDGETS[0], engine.max_num_seqs)
    powers = ladder(least, BUDGETS[1], 1)
    best = max(model.settings([replace(engine, max_num_batched_tokens=b) for b in powers] or [engine]), key=_capacity)
    near = best.engine.max_num_batched_tokens
    if best.capacity_per_s < model.settings([engine])[0].capacity_per_s * (1 + FLAT):
        return [best.engine]
    between = [b for b in ladder(max(least, near / 2), min(BUDGETS[1], 2 * near), 2) if b not in powers]
    return [best.engine, *(replace(engine, max_num_batched_tokens=b) for b in between)]


def _capacity(setting: Setting) -> float:
    return setting.capacity_per_s


def _watermarks(model: PoolModel, engine: Engine) -> list[Engine]:
    """None, and the best under tangent laws: first at the present watermark, then at what that finds."""
    if engine.admission != "prompt_gate":
        return []
    found = [engine, replace(engine, watermark=0.0)]
    for _ in range(2):
        best = rounded(best_watermark(model, engine, found))
        best = min(best, longest_watermark(model, engine))
        found.append(replace(engine, watermark=best))
    return found


def rounded(watermark: float) -> float:
    """A watermark with two digits, and no more than four decimals: what anyone would paste."""
    return round(watermark, 3 if watermark >= 0.01 else 4)


def _eligibility(now: Setting) -> Callable[[Setting], bool]:
    """What may be recommended.

    Nothing doubtful where the present setting is not; never a chunk gate outside its regime.
    """
    if not now.doubt:
        return lambda s: not s.doubt
    return lambda s: not (s.doubt and s.engine.admission == "chunk_gate")


def _choose(model: PoolModel, now: Setting, settings: Iterable[Setting]) -> Setting:
    """The setting that serves the most, latency targets included; the present one where nothing else may be recommended."""
    ordered = sorted(settings, key=_capacity, reverse=True)
    if now.doubt and now.engine.admission == "chunk_gate":  # it can collapse: anything certain comes first
        ordered = [s for s in ordered if not s.doubt] or ordered
    if not ordered:
        return now
    if not _has_latency_target(model):
        return ordered[0]
    best, most = now, -1.0
    for setting in _shortlist(ordered, now):
        if setting.capacity_per_s <= most:  # capacity bounds the rate within the targets
            break
        within = model.rate_within(setting)
        if within > most:
            best, most = setting, within
    return best


def _has_latency_target(model: PoolModel) -> bool:
    return any(getattr(model.targets, name) is not None for name in ("itl_s", "ttft_mean_s", "ttft_p99_s"))


def _shortlist(ordered: list[Setting], now: Setting) -> list[Setting]:
    """The best of each token budget, of fewer slots and of each admission policy, by capacity: latency depends on little else."""
    kept: dict[object, Setting] = {}
    for setting in ordered:
        engine = setting.engine
        kept.setdefault(("budget", engine.max_num_batched_tokens), setting)
        kept.setdefault(("admission", engine.admission), setting)
    top = ordered[0]
    found = {s.engine: s for s in (*kept.values(), *(s for s in ordered if s.engine == now.engine), top)}
    return sorted(found.values(), key=_capacity, reverse=True)


def _keep_present(
    model: PoolModel,
    now: Setting,
    chosen: Setting,
    vary: Collection[str],
    worth: float,
    eligible: Callable[[Setting], bool],
) -> Setting:
    """The chosen setting with every present value put back that costs less than `worth`."""
    collapsing = bool(now.doubt) and now.engine.admission == "chunk_gate"
    least = model.rate_within(chosen) * (1 - worth)

    def good(setting: Setting) -> bool:
        return eligible(setting) and not (setting.doubt and not chosen.doubt) and model.rate_within(setting) >= least

    if not collapsing and good(now):
        return now
    for name in SETTINGS:
        value = getattr(now.engine, name)
        if name not in vary or value == getattr(chosen.engine, name):
            continue
        if name == "max_num_seqs" and value > chosen.engine.max_num_batched_tokens:
            continue
        if name == "max_num_batched_tokens" and value < chosen.engine.max_num_seqs:
            continue
        back = model.settings([replace(chosen.engine, **{name: value})])[0]
        if good(back):
            chosen = back
    return chosen
