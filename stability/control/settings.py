"""Engine settings of one pool and what the theory says of each: the raw material of tuning.

A fleet of candidate engines is one vectorised `solve`; each distinct engine is solved once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .._types import FloatArray
from ..errors import NotModelledError, UnservableError
from ..model.engine import Engine
from ..model.fleet import Fleet, Pool
from ..model.lengths import Lengths
from ..model.targets import Targets
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from ..theory.analyze import analyze
from ..theory.conditions import BOTTLENECKS, binding
from ..theory.latency import latency, rate_within
from ..theory.solve import Solution, largest_footprint, solve

SETTINGS = ("admission", "watermark", "max_num_seqs", "max_num_batched_tokens")
"""What tuning may change."""

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One engine in a pool, as predicted. Rates are of the whole pool.

    Attributes
    ----------
    engine : Engine
    capacity_per_s : float
        Predicted capacity.
    stable_below_per_s : float
        Rate below which stability is certain: proved, or validated less its measured error.
    doubt : str
        Why the capacity is outside every validated regime; empty where it is inside.
    bottleneck : str
    evictions_per_request : float
        At capacity.
    """

    engine: Engine
    capacity_per_s: float
    stable_below_per_s: float
    doubt: str
    bottleneck: str
    evictions_per_request: float

    @property
    def standing(self) -> str:
        """Whether the capacity is "validated", inside the regime in which the formula was measured, or "approximate"."""
        return "approximate" if self.doubt else "validated"


class PoolModel:
    """One pool's engine settings under a mix of classes; remembers what it has solved.

    Parameters
    ----------
    pool : Pool
        What is tuned.
    classes : sequence of RequestClass
        With positive rates.
    mix : (n_classes,) ndarray
        Their shares.
    targets : Targets
        What settings have to meet besides stability.
    """

    def __init__(self, pool: Pool, classes: Sequence[RequestClass], mix: FloatArray, targets: Targets) -> None:
        self.pool, self.classes, self.mix, self.targets = pool, tuple(classes), mix, targets
        self.laws: tuple[Lengths, ...] = tuple(item.lengths for item in classes)
        self.shares: tuple[float, ...] = tuple(mix.tolist())
        self._rows: dict[Engine, tuple[Solution, int]] = {}
        self._within: dict[Engine, float] = {}
        self.headrooms: dict[Engine, list[Engine]] = {}
        """Engines with the watermarks looked at, by their engine without one."""

    def pool_with(self, engine: Engine) -> Pool:
        """The pool with another engine."""
        return replace(self.pool, replica=replace(self.pool.replica, engine=engine), weight=None)

    def solved(self, engine: Engine) -> tuple[Solution, int]:
        """The solution of one replica with this engine: columns and the row that is its own."""
        self.settings([engine])
        return self._rows[engine]

    def settings(self, engines: Iterable[Engine]) -> list[Setting]:
        """What the theory says of each engine."""
        wanted = list(engines)
        new = [engine for engine in dict.fromkeys(wanted) if engine not in self._rows]
        if new:
            found = solve([self.pool_with(engine).replica for engine in new], self.classes, self.mix, CONFIDENCE)
            self._rows |= {engine: (found, row) for row, engine in enumerate(new)}
        return [self._setting(engine) for engine in wanted]

    def known(self) -> list[Setting]:
        """Every setting solved so far."""
        return [self._setting(engine) for engine in self._rows]

    def _setting(self, engine: Engine) -> Setting:
        found, row = self._rows[engine]
        count = self.pool.replicas
        return Setting(
            engine=engine,
            capacity_per_s=count * float(found.capacity[row]),
            stable_below_per_s=count * float(found.stable_below[row]),
            doubt=found.doubts[row],
            bottleneck=BOTTLENECKS[int(binding(found.coefficients[row], found.demand[row], found.shares[row]))],
            evictions_per_request=float(found.evictions_per_request[row]),
        )

    @property
    def limits(self) -> dict[str, float]:
        """The latency targets that are stated, s."""
        names = ("itl_s", "ttft_mean_s", "ttft_p99_s")
        return {name: value for name in names if (value := getattr(self.targets, name)) is not None}

    @property
    def smaller_budgets(self) -> int:
        """The part of the present token budget down to which others are looked at.

        Smaller ones spread prefill over more iterations: a little capacity under some laws, for a later first token. So
        they are looked at only where a target says how late it may be.
        """
        return 4 if {"ttft_mean_s", "ttft_p99_s"} & set(self.limits) else 1

    def spare_capacity(self, setting: Setting) -> float:
        """The capacity less the share that is to stay free, 1/s."""
        return (1 - (self.targets.headroom or 0.0)) * setting.capacity_per_s

    def meets(self, setting: Setting, rate_per_s: float) -> bool:
        """Whether the targets are met at a rate: one evaluation, where `rate_within` takes many."""
        if rate_per_s > self.spare_capacity(setting) * (1 + 1e-12):
            return False
        if not self.limits or rate_per_s <= 0:
            return True
        fleet, workload = Fleet([self.pool_with(setting.engine)]), self.workload(rate_per_s)
        at = analyze(fleet, workload) if set(self.limits) == {"itl_s"} else latency(fleet, workload)
        return all(getattr(at, name) <= limit for name, limit in self.limits.items())

    def rate_within(self, setting: Setting) -> float:
        """Largest rate of the pool that is below capacity and meets the targets, 1/s."""
        most = self.spare_capacity(setting)
        if not self.limits:
            return most
        if setting.engine not in self._within:
            if self.targets.headroom and self.meets(setting, most):
                self._within[setting.engine] = most
            else:
                fleet = Fleet([self.pool_with(setting.engine)])
                self._within[setting.engine] = min(rate_within(fleet, self.workload(1.0), **self.limits), most)
        return self._within[setting.engine]

    def can_reserve(self) -> bool:
        """Whether every request's reservation fits in a replica, as reservation admission needs."""
        longest = max(largest_footprint(item, False) for item in self.classes)
        engine = replace(plain(self.pool.replica.engine, self.pool.name), admission="reserve", watermark=0.0)
        if longest <= self.pool.replica.usable_kv_tokens:
            return True
        try:  # unbounded laws may have a few requests that do not fit
            analyze(Fleet([self.pool_with(engine)]), self.workload(1.0))
        except UnservableError:
            return False
        return True

    def workload(self, rate_per_s: float) -> Workload:
        """The classes in their proportions at a total rate."""
        rates = zip(self.classes, self.shares, strict=True)
        return Workload([item.with_rate(share * rate_per_s) for item, share in rates])


def plain(engine: Engine, pool: str) -> Engine:
    """The engine with its first-come-first-served scheduler spelt as `admission` and `watermark`."""
    policy = scheduler_of(engine)
    if not isinstance(policy, Fcfs):
        raise NotModelledError(f"pool {pool!r}: scheduler {policy!r} has no settings that tuning knows.")
    return replace(engine, admission=policy.admission, watermark=policy.watermark, scheduler=None)


def solved_columns(solution: Solution, row: int) -> tuple[FloatArray, FloatArray]:
    """Tangent step-time law (5,) and mean demand (15,) of one row."""
    return np.array(solution.coefficients[row]), np.array(solution.demand[row])
