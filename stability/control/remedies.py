"""Why a fleet cannot do what is asked, in one sentence, and the least change that makes it possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .._result import seconds
from .._types import FloatArray
from ..model.fleet import Fleet
from ..model.targets import Targets
from ..model.workload import Workload
from ..theory.conditions import COMPUTE_GAIN, RESOURCE_NAMES
from .balance import least_load
from .rows import FleetRows

MOST_DOUBLINGS = 20


def remedy(
    fleet: Fleet,
    workload: Workload,
    targets: Targets,
    system: FleetRows,
    caps: FloatArray,
    factor: float,
    reach: Callable[[FleetRows], float],
) -> str:
    """The sentence.

    Parameters
    ----------
    fleet, workload, targets
        What was asked.
    system : FleetRows
    caps : (n,) ndarray
        Largest loads that the targets allow; 0 where no load meets them.
    factor : float
        Largest factor on the rates under the caps.
    reach : callable
        The same for other rows.
    """
    stated = [
        f"{name[:-2].upper().replace('_', ' ')} {seconds(value)}"
        for name in ("itl_s", "ttft_mean_s", "ttft_p99_s")
        if (value := getattr(targets, name)) is not None
    ]
    if targets.headroom:
        stated.append(f"headroom {100 * targets.headroom:g} %")
    usable = caps > 0
    for k in np.flatnonzero(system.rates_per_s > 0).tolist():
        if not (system.fits[:, k] & usable).any():
            return (
                f"the target {' and '.join(stated)} is missed by every pool that class {system.classes[k]!r} fits, at any load: "
                f"{_lightest(fleet, workload, system, targets, k)}"
            )
    capped = system.replicas * np.where(usable, caps, 1.0)
    fits = system.fits & usable[:, None]
    found = least_load(system.seconds, capped, system.rates_per_s, fits)
    spent = (found.prices.sum(axis=1) * capped)[usable]
    i = int(np.flatnonzero(usable)[spent.argmax()])
    rates = found.shares[i] * system.rates_per_s
    row = int(found.prices[i].argmax())
    parts = system.occupancy[i, row] @ rates
    whole = float(system.seconds[i, row] @ rates)
    scarce = RESOURCE_NAMES[int(parts.argmax())]
    if whole < (1 + COMPUTE_GAIN) * (whole - float(parts.sum())):
        scarce = "compute"
    under = f" within {' and '.join(stated)}" if stated else ""
    return (
        f"the fleet serves at most {factor:.4f} of these rates{under}, {scarce} of pool {system.names_of(i)!r} binds first of all; "
        f"least change: rates times {math.floor(factor * 1e4) / 1e4:.4f}{_more(system, caps, reach)}."
    )


def _more(system: FleetRows, caps: FloatArray, reach: Callable[[FleetRows], float]) -> str:
    """Fewest replicas of one type that would do, by GPUs."""
    best: tuple[int, int, int] | None = None
    for i in np.flatnonzero(caps > 0).tolist():
        count = _replicas(system, reach, i)
        if count is not None:
            gpus = count * system.types[i].gpus
            if best is None or gpus < best[0]:
                best = gpus, count, i
    if best is None:
        return ""
    _, count, i = best
    kind = f" ({system.types[i].gpu})" if system.types[i].gpu else ""
    return f", or {count} more replica{'s' * (count > 1)} in pool {system.names_of(i)!r}{kind}"


def _replicas(system: FleetRows, reach: Callable[[FleetRows], float], i: int) -> int | None:
    """Replicas to add to type i for a factor above 1; None if no number does."""

    def enough(count: int) -> bool:
        replicas = system.replicas.copy()
        replicas[i] += count
        return reach(replace(system, replicas=replicas)) > 1

    high = 1
    while not enough(high):
        high *= 2
        if high > 1 << MOST_DOUBLINGS:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _lightest(fleet: Fleet, workload: Workload, system: FleetRows, targets: Targets, k: int) -> str:
    """What a class gets at next to no load, on the pool where that is least."""
    from ..theory.latency import latency

    alone = Workload([workload.classes[k].with_rate(1.0)])
    least: list[tuple[float, str, str]] = []
    for i in np.flatnonzero(system.fits[:, k]).tolist():
        name = system.names_of(i)
        light = latency(Fleet.of(system.types[i]), alone.scaled(rate_per_s=1e-3 / float(system.seconds[i, :, k].max())))
        for field in ("itl_s", "ttft_mean_s", "ttft_p99_s"):
            limit = getattr(targets, field)
            if limit is not None and getattr(light, field) > limit:
                least.append((getattr(light, field) / limit, name, f"{field[:-2]} {seconds(getattr(light, field))}"))
    del fleet
    if not least:
        return "lower the targets or use faster replicas."
    ratio, name, value = min(least)
    return f"the best, pool {name!r}, has {value} when idle; least change: a target {ratio:.3f} times as long."
