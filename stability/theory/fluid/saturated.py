r"""Throughput of a replica with an endless queue: the equilibrium, or the limit cycle where completions synchronise.

The recursion is run from an empty replica, as a saturated simulation starts, until two successive averages agree. Where the
eviction-free equilibrium K = M is stable, this is y/tau(y) of flow balance; where it is not (few distinct lengths, see
`stability.theory.synchrony`), the cycle that the recursion settles into, evictions included. The limit of many requests:
evictions that chance alone causes vanish in it. **Approximation** for a finite replica, exact for the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..._types import FloatArray
from ...errors import check_number
from ...model.replica import Replica
from ...model.workload import Workload
from .replica import FluidReplica, kinds_of, limits_of, steady_rates, tables_of

TOLERANCE = 5e-4
"""Relative difference of two successive averages at which a run is called stationary."""

MOST_LIVES = 512
"""Longest lives of a request after which a run ends in any case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturated:
    """Long-run averages of one replica that always has requests waiting.

    Attributes
    ----------
    throughput_per_s : float
        Completed requests.
    per_iteration : float
        Completed requests per iteration (y).
    evictions_per_request : float
    kv_tokens : float
        Time-average KV held.
    running : float
        Time-average requests resident.
    iteration_s : float
        Mean iteration time.
    swing : float
        Standard deviation over mean of the KV held, step by step: 0 at an equilibrium, positive in a cycle.
    accuracy : float
        Relative difference between the last two averages of the throughput.
    """

    throughput_per_s: float
    per_iteration: float
    evictions_per_request: float
    kv_tokens: float
    running: float
    iteration_s: float
    swing: float
    accuracy: float


def saturated(
    replica: Replica,
    workload: Workload,
    *,
    chunk_tokens: int | None = None,
    admissions: float = math.inf,
    grain: float | None = None,
    tolerance: float = TOLERANCE,
) -> Saturated:
    """Run one replica with an endless queue until its averages no longer change.

    Parameters
    ----------
    replica : Replica
        First come, first served: reservation, gates with headroom, slot limits.
    workload : Workload
        Whose mix of requests waits; its rates matter only by their ratios.
    chunk_tokens : int >= 1, optional
        Most prompt tokens of one request in an iteration; the token budget if omitted.
    admissions : float > 0
        Most requests admitted in an iteration.
    grain : float > 0, optional
        See `limits_of`.
    tolerance : float > 0
        Relative difference of successive averages at which to stop.

    Examples
    --------
    One slot row, hence 100 requests of 50 iterations at 10 ms: 200 requests/s.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=100, admission="reserve", block_size=1)
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine)
    >>> lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Constant(50))
    >>> round(saturated(replica, st.Workload.poisson(1.0, lengths)).throughput_per_s, 6)
    200.0
    """
    from .kernels import state as s

    check_number("tolerance", tolerance, above=0)
    classes = [item for item in workload.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    chunk = chunk_tokens or replica.engine.max_num_batched_tokens
    tables = tables_of(replica, classes, 1, chunk)
    one = tables[0].mixed_with(tables[1:], rates / rates.sum())
    limits = limits_of(replica, chunk_tokens=chunk, admissions=admissions, grain=grain)
    run = FluidReplica.empty(limits, kinds_of([one], np.ones((1, 1))), 1)
    run.queue(math.inf, 0)
    none = steady_rates(0.0)
    life = max(64, len(one))
    done, before = 0, math.nan
    window = 8 * life
    while True:
        done += window
        start = run.totals.copy()
        samples = run.advance(none, until_steps=done, rows=window)
        found = _averages(run.totals - start, window, samples, s)
        change = abs(found.throughput_per_s - before) / found.throughput_per_s
        before = found.throughput_per_s
        if change < tolerance or done > MOST_LIVES * life:
            return Saturated(
                **{name: getattr(found, name) for name in Saturated.__slots__ if name != "accuracy"}, accuracy=change
            )
        window = done


def _averages(over: FloatArray, steps: int, samples: FloatArray, s: object) -> Saturated:
    """Averages over a stretch of the run from the growth of its totals."""
    totals = {name: float(over[getattr(s, name)]) for name in ("NOW", "COMPLETED", "EVICTIONS", "KV_AREA", "RUN_AREA")}
    completed = totals["COMPLETED"]
    held = samples[:, 3]
    return Saturated(
        throughput_per_s=completed / totals["NOW"],
        per_iteration=completed / steps,
        evictions_per_request=totals["EVICTIONS"] / completed if completed > 0 else math.inf,
        kv_tokens=totals["KV_AREA"] / totals["NOW"],
        running=totals["RUN_AREA"] / totals["NOW"],
        iteration_s=totals["NOW"] / steps,
        swing=float(held.std() / held.mean()),
        accuracy=math.nan,
    )
