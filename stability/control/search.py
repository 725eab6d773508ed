"""The search for the best engine settings of one pool: headroom continuously, slots and token budget on a ladder.

Settings interact: with few slots memory never fills and headroom does nothing; with many, headroom decides. So the search goes
up one setting at a time, from the present ones and from slots that never bind, for each admission policy, and keeps
the best. What it keeps of the present settings, it keeps because changing them gains less than a stated threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..model.engine import Engine
from ..model.iteration import IterationTime
from ..theory.conditions import capacities
from ..theory.moments import Demand
from .sensitivity import best_watermark
from .settings import SETTINGS, PoolModel, Setting

SLOTS = (16, 1024)
"""Slots looked at; engines prepare CUDA graphs for batches up to about the larger."""

BUDGETS = (512, 16_384)
"""Token budgets looked at; the larger is the largest that an engine takes by default."""

EXTRA_SLOTS = 1.5
"""Slots over the number that fills memory from which they never bind."""

NEAR_FILLING = (0.6, 1.25)
"""Slots looked at one by one, over the number that fills memory: more never bind, fewer leave memory empty."""

FLAT = 1e-3
"""Largest gain that the search does not follow: slots and budgets that hardly matter."""

PASSES = 3
"""Passes over the settings; the search ends when one changes nothing."""


Score = Callable[[Setting], float]
"""What a search maximises."""


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
    score = _certain if not now.doubt else _capacity
    step = 1 + min(max(worth, 1e-6), FLAT)
    policies = [present.admission]
    if "admission" in vary:
        policies = ["prompt_gate", *(["reserve"] if model.can_reserve() else [])]
    best_of: dict[str, Setting] = {}
    for policy in policies:
        starts, free = [_with_policy(present, policy)], set(vary)
        if "max_num_seqs" in vary:
            starts.append(_unbound(model, starts[0], "max_num_batched_tokens" in vary))
        if policy == "reserve" and len(policies) > 1:  # fewer slots gain nothing; a token budget, what it gains a gate
            budget = best_of["prompt_gate"].engine.max_num_batched_tokens
            starts = [_with_budget(start, budget) for start in starts]
            free = set()
        best_of[policy] = max((_ascend(model, start, free, score, step) for start in starts), key=score)
    best_of = {policy: _simplest(model, now, best, vary, worth) for policy, best in best_of.items()}
    eligible = _eligibility(now)
    chosen = _choose(model, now, [s for s in model.known() if eligible(s)])
    then = _keep_present(model, now, chosen, vary, worth, eligible)
    if "admission" in vary:  # for comparison only: it can collapse
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


def _unbound(model: PoolModel, engine: Engine, widen: bool) -> Engine:
    """The engine with slots that do not bind before memory does, as far as slots are looked at and the budget holds them.

    With `widen` the budget is raised to hold them.
    """
    enough = EXTRA_SLOTS * _filling(model, engine)
    most = max(SLOTS[1], engine.max_num_seqs)
    if not widen:
        most = min(most, engine.max_num_batched_tokens)
    steps = ladder(min(enough, most), max(2 * enough, SLOTS[0]), 1)
    slots = max(engine.max_num_seqs, min([most, *steps]))
    return replace(engine, max_num_seqs=slots, max_num_batched_tokens=max(slots, engine.max_num_batched_tokens))


def _with_budget(engine: Engine, budget: int) -> Engine:
    """The engine with another token budget, as large as its slots need."""
    return replace(engine, max_num_batched_tokens=max(budget, engine.max_num_seqs))


def _ascend(model: PoolModel, start: Engine, vary: Collection[str], score: Score, step: float) -> Setting:
    """Up one setting at a time until none gains by the factor `step`."""
    best = model.settings([start])[0]
    for _ in range(PASSES):
        before = best
        for name in ("watermark", "max_num_seqs", "max_num_batched_tokens"):
            if name in vary:
                found = max(model.settings(_line(model, best.engine, name)), key=score, default=best)
                best = found if score(found) > score(best) * (step if name != "watermark" else 1) else best
        if score(best) <= score(before) * step:
            break
    return best


def _line(model: PoolModel, engine: Engine, name: str) -> list[Engine]:
    """Candidates that differ from `engine` in one setting."""
    if name == "watermark":
        return _watermarks(model, engine)
    if name == "max_num_seqs":
        least, most = (share * _filling(model, engine) for share in NEAR_FILLING)
        top = min(max(most, SLOTS[0]), max(SLOTS[1], engine.max_num_seqs), engine.max_num_batched_tokens)
        slots = ladder(max(SLOTS[0], min(least, SLOTS[1] / 2)), top, 4)
        return [replace(engine, max_num_seqs=n) for n in slots]
    return _budgets(model, engine)


def _budgets(model: PoolModel, engine: Engine) -> list[Engine]:
    """The best power of two, and the budgets between if it gains."""
    least = max(BUDGETS[0], engine.max_num_seqs, engine.max_num_batched_tokens // model.smaller_budgets)
    here = model.settings([engine])[0]

    def best_among(budgets: list[int]) -> Setting:
        found = model.settings([replace(engine, max_num_batched_tokens=b) for b in budgets])
        useful = [s for s in found if not _throttles(s, engine.max_num_batched_tokens)]
        return max([here, *useful], key=_capacity)

    best = best_among(ladder(least, BUDGETS[1], 1))
    if best.capacity_per_s < here.capacity_per_s * (1 + FLAT):
        return [best.engine]
    near = best.engine.max_num_batched_tokens
    return [best.engine, best_among(ladder(max(least, near / 2), min(BUDGETS[1], 2 * near), 2)).engine]


def _capacity(setting: Setting) -> float:
    return setting.capacity_per_s


def _certain(setting: Setting) -> float:
    """The capacity, or what is certain of it where it is in doubt."""
    return setting.stable_below_per_s if setting.doubt else setting.capacity_per_s


def _throttles(setting: Setting, budget: int) -> bool:
    """Whether a smaller token budget than `budget` binds: memory would not fill, but prompts would queue for the budget."""
    return setting.bottleneck == "token_budget" and setting.engine.max_num_batched_tokens < budget


def _watermarks(model: PoolModel, engine: Engine) -> list[Engine]:
    """None, and the best under tangent laws: first at the present watermark, then at what that finds."""
    bare = replace(engine, watermark=0.0)
    if engine.admission != "prompt_gate":
        return [bare] if engine.admission == "reserve" else []  # headroom only takes memory from reservations
    if bare not in model.headrooms:
        found = [engine, bare]
        exact = isinstance(model.pool.replica.iteration, IterationTime)  # one tangent everywhere
        for _ in range(1 if exact else 2):
            found.append(replace(engine, watermark=rounded(best_watermark(model, engine, found))))
        model.headrooms[bare] = found
    return model.headrooms[bare]


def rounded(watermark: float) -> float:
    """A watermark as anyone would paste it: to a tenth of a percent of the cache, small ones to a hundredth."""
    return round(watermark, 3 if watermark >= 0.01 else 4)


def _eligibility(now: Setting) -> Callable[[Setting], bool]:
    """What may be recommended.

    Nothing doubtful where the present setting is not; never a chunk gate outside its regime, nor a throttling budget.
    """
    budget = now.engine.max_num_batched_tokens
    if not now.doubt:
        return lambda s: not s.doubt and not _throttles(s, budget)
    return lambda s: not (s.doubt and s.engine.admission == "chunk_gate") and not _throttles(s, budget)


def _choose(model: PoolModel, now: Setting, settings: Iterable[Setting]) -> Setting:
    """The setting that serves the most, latency targets included; the present one where nothing else may be recommended."""
    ordered = sorted(settings, key=_capacity, reverse=True)
    if now.doubt and now.engine.admission == "chunk_gate":  # it can collapse: anything certain comes first
        ordered = [s for s in ordered if not s.doubt] or ordered
    if not ordered:
        return now
    if not model.limits:
        return ordered[0]
    best, most = now, -1.0
    for setting in _shortlist(ordered, now):
        if most < 0 or model.meets(setting, most * (1 + FLAT)):
            within = model.rate_within(setting)
            if within > most:
                best, most = setting, within
    return best if most > 0 else now


def _shortlist(ordered: list[Setting], now: Setting) -> list[Setting]:
    """The best of each token budget and admission policy, by capacity: latency depends on little else."""
    kept: dict[object, Setting] = {}
    for setting in ordered:
        kept.setdefault(setting.engine.max_num_batched_tokens, setting)
        kept.setdefault(setting.engine.admission, setting)
    found = {s.engine: s for s in (*kept.values(), *(s for s in ordered if s.engine == now.engine))}
    return sorted(found.values(), key=_capacity, reverse=True)


def _keep_present(
    model: PoolModel,
    now: Setting,
    chosen: Setting,
    vary: Collection[str],
    worth: float,
    eligible: Callable[[Setting], bool],
) -> Setting:
    """The chosen setting with every present value put back that costs less than `worth`, in the rate and in capacity."""
    collapsing = bool(now.doubt) and now.engine.admission == "chunk_gate"
    least = model.rate_within(chosen) * (1 - worth)

    def good(setting: Setting) -> bool:
        as_much = setting.capacity_per_s >= chosen.capacity_per_s * (1 - worth) and model.meets(setting, least)
        return as_much and eligible(setting) and not (setting.doubt and not chosen.doubt)

    if not collapsing and good(now):
        return now
    return _put_back(model, now.engine, chosen, [name for name in SETTINGS if name in vary], good)


def _simplest(model: PoolModel, now: Setting, best: Setting, vary: Collection[str], worth: float) -> Setting:
    """The best of an admission policy with present values put back that cost little capacity."""
    least = best.capacity_per_s * (1 - worth)

    def good(setting: Setting) -> bool:
        return setting.capacity_per_s >= least and not (setting.doubt and not best.doubt)

    return _put_back(model, now.engine, best, [name for name in SETTINGS[1:] if name in vary], good)


def _put_back(
    model: PoolModel, present: Engine, chosen: Setting, names: Iterable[str], good: Callable[[Setting], bool]
) -> Setting:
    """`chosen` with every setting as near to its present value as leaves it good."""
    for name in names:
        for value in _nearer(name, getattr(present, name), getattr(chosen.engine, name)):
            if name == "max_num_seqs" and value > chosen.engine.max_num_batched_tokens:
                continue
            if name == "max_num_batched_tokens" and value < chosen.engine.max_num_seqs:
                continue
            back = model.settings([replace(chosen.engine, **{name: value})])[0]
            if good(back):
                chosen = back
                break
    return chosen


def _nearer(name: str, present: Any, chosen: Any) -> list[Any]:
    """Values from the present one towards the chosen one, without it; slots go by steps."""
    if present == chosen:
        return []
    if name != "max_num_seqs":
        return [present]
    between = ladder(min(present, chosen), max(present, chosen), 2)
    return [present, *(n for n in (between if present < chosen else between[::-1]) if n not in (present, chosen))]
