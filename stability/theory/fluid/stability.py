"""Fluid stability: whether the limit empties its queue from every initial state in finite time.

The queue of the limit empties in finite time from every state iff the load is below 1 (Dai 1995: then the system itself is
positive recurrent for disciplines whose limit is this recursion). Here it is tried from states that differ most: an idle
replica, one full of requests that have just begun and will grow, one full of requests about to end, each with a long queue.
**Approximation**: a trial, not a proof; for greedy gates and synchronised lengths it finds the limit cycle and its throughput,
where no formula for the capacity holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..._result import Tabular, Verdict, no_truth, percent, seconds
from ...errors import check_number
from ...model.fleet import Fleet, Pool
from ...model.workload import Workload
from ..analyze import analyze
from .replica import FluidReplica, kinds_of, limits_of, steady_rates, tables_of
from .samples import AT
from .saturated import saturated

BINS = 256
"""Bins of ages for a request's longest life."""

STATES = ("idle", "young", "old")

PATIENCE = 6
"""Expected drain times after which a trial ends."""

CLOSE = 2e-3
"""Relative distance of the rate from the throughput of the saturated limit within which nothing is claimed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FluidStability(Tabular):
    """Whether the fluid limit of a fleet empties its queues.

    Attributes
    ----------
    verdict : Verdict
        STABLE if it does from every state tried, UNSTABLE if from none, else UNDETERMINED.
    reason : str
    load : float
        Rate over the throughput of the saturated limit, of the busiest pool.
    drain_s : tuple of tuple of float
        Time until everyone who came has been admitted, for each pool from each of the states idle, young and old; infinite
        if that does not come by the end of the trial, s.
    """

    schema: ClassVar[str] = "stability/fluid-stability/1"

    verdict: Verdict
    reason: str
    load: float
    drain_s: tuple[tuple[float, float, float], ...]

    def __bool__(self) -> bool:
        raise no_truth("FluidStability")

    def rows(self) -> Sequence[tuple[str, str]]:
        """The main figures by name, for people."""
        return [
            ("verdict", str(self.verdict)),
            ("because", self.reason),
            ("load", percent(self.load)),
            *(
                (f"queue gone from {state}", ", ".join(seconds(pool[i]) for pool in self.drain_s))
                for i, state in enumerate(STATES)
            ),
        ]


def fluid_stability(fleet: Fleet, workload: Workload, *, queue: float = 10.0) -> FluidStability:
    """Try whether the fluid limit empties its queue from several initial states.

    Parameters
    ----------
    fleet, workload
        As `analyze`; a schedule is taken at its mean.
    queue : float > 0
        Requests waiting at first, over those that run together when the replica is full.

    Returns
    -------
    FluidStability
        The verdict and the drain times.

    Examples
    --------
    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=100, block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Uniform(20, 80))
    >>> [str(fluid_stability(fleet, st.Workload.poisson(rate, lengths)).verdict) for rate in (190.0, 210.0)]
    ['STABLE', 'UNSTABLE']
    """
    check_number("queue", queue, above=0)
    report = analyze(fleet, workload.averaged())
    loads, drains = [], []
    for pool, at in zip(fleet.pools, report.pools, strict=True):
        if at.rate_per_s > 0:
            load, drain = _pool(pool, workload.averaged(), at.rate_per_s / pool.replicas, queue)
            loads.append(load)
            drains.append(drain)
    load = max(loads)
    gone = [all(math.isfinite(time) for time in drain) for drain in drains]
    if abs(load - 1) < CLOSE:
        verdict, reason = Verdict.UNDETERMINED, f"the rate is within {percent(CLOSE)} of the limit's throughput"
    elif all(gone) and load < 1:
        verdict, reason = Verdict.STABLE, "the queue empties from every state tried"
    elif load > 1 and any(all(math.isinf(time) for time in drain) for drain in drains):
        verdict, reason = Verdict.UNSTABLE, "a queue does not empty from any state tried"
    else:
        verdict, reason = Verdict.UNDETERMINED, f"at load {load:.3f} the trial ended before it was clear"
    return FluidStability(verdict=verdict, reason=reason, load=load, drain_s=tuple(drains))


def _pool(pool: Pool, workload: Workload, rate_per_s: float, queue: float) -> tuple[float, tuple[float, float, float]]:
    """Load against the saturated limit, and drain time from each state."""
    full = saturated(pool.replica, workload)
    classes = [item for item in workload.classes if item.mean_rate_per_s > 0]
    shares = np.array([item.mean_rate_per_s for item in classes])
    chunk = pool.replica.engine.max_num_batched_tokens
    exact = tables_of(pool.replica, classes, 1, chunk)
    width = max(1, max(len(table) for table in exact) // BINS)
    tables = tables_of(pool.replica, classes, width, chunk)
    one = tables[0].mixed_with(tables[1:], shares / shares.sum())
    limits, kinds = limits_of(pool.replica), kinds_of([one], np.ones((1, 1)))
    spare = full.throughput_per_s - rate_per_s
    waiting = queue * full.running
    expected_s = (waiting + full.running) / max(abs(spare), 1e-2 * full.throughput_per_s)
    found = []
    for state in STATES:
        run = FluidReplica.empty(limits, kinds, 1)
        if state != "idle":
            age = 1 if state == "young" else max(1, int(np.searchsorted(-one.columns[:, 0], -0.05)) - 1)
            run.place(min(age, len(one) - 1), fill=0.999)
        run.queue(waiting, 0)
        found.append(_drain_s(run, rate_per_s, waiting, expected_s + 4 * len(one) * width * full.iteration_s))
    return rate_per_s / full.throughput_per_s, (found[0], found[1], found[2])


def _drain_s(run: FluidReplica, rate_per_s: float, waiting: float, expected_s: float) -> float:
    """When everyone who came has been admitted, for the first time; infinite if not in `PATIENCE` times the time expected.

    In a limit cycle evicted requests wait again and again, below capacity, too.
    """
    rates = steady_rates(rate_per_s)
    for part in range(PATIENCE):
        samples = run.advance(rates, until_s=(part + 1) * expected_s, spacing_s=expected_s / 2000, rows=5000)
        behind = samples[:, AT["arrived"]] - samples[:, AT["admitted"]]
        gone = np.flatnonzero(behind <= 1e-3 * waiting)
        if len(gone):
            return float(samples[gone[0], 0])
    return math.inf
