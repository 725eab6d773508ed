r"""Throughput of a replica with an endless queue: the equilibrium, or the limit cycle where completions synchronise.

The recursion is run from an empty replica, as a saturated simulation starts, until two successive averages agree. Where the
eviction-free equilibrium K = M is stable, this is y/tau(y) of flow balance; where it is not (few distinct lengths, see
`stability.theory.synchrony`), the cycle that the recursion settles into, evictions included. The limit of many requests:
evictions that chance alone causes vanish in it. **Approximation** for a finite replica, exact for the limit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..._types import FloatArray, dot, read_only
from ...errors import check_number
from ...model.replica import Replica
from ...model.workload import Workload
from .replica import FluidReplica, kinds_of, limits_of, steady_rates, tables_of
from .samples import SAMPLE_COLUMNS

TOLERANCE = 5e-4
"""Relative difference of two successive averages at which a run is called stationary."""

MOST_LIVES = 512
"""Longest lives of a request after which a run ends in any case."""

KEPT = 2048
"""About how many steps of the last average are kept in the result."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
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
        Standard deviation over mean of the KV held over time: 0 at an equilibrium, positive in a cycle.
    accuracy : float
        Relative difference between the last two averages of the throughput.
    kv_per_request : ndarray
        KV held over requests resident, tokens, at equally many steps of the last average.
    """

    throughput_per_s: float
    per_iteration: float
    evictions_per_request: float
    kv_tokens: float
    running: float
    iteration_s: float
    swing: float
    accuracy: float
    kv_per_request: FloatArray


def saturated(
    replica: Replica,
    workload: Workload,
    *,
    chunk_tokens: int | None = None,
    admissions: float = math.inf,
    grain: float | None = None,
    width: int = 1,
    tolerance: float = TOLERANCE,
    most_lives: int = MOST_LIVES,
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
    width : int >= 1
        Iterations in a bin of ages, and in a step.
    tolerance : float > 0
        Relative difference of successive averages at which to stop.
    most_lives : int
        Longest lives of a request after which to stop in any case.

    Examples
    --------
    One slot row, hence 100 requests of 50 iterations at 10 ms: 200 requests/s.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=100, admission="reserve", block_size=1)
    >>> replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine)
    >>> lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Constant(50))
    >>> round(saturated(replica, st.Workload.poisson(1.0, lengths)).throughput_per_s)
    200
    """
    check_number("tolerance", tolerance, above=0)
    classes = [item for item in workload.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    chunk = chunk_tokens or replica.engine.max_num_batched_tokens
    tables = tables_of(replica, classes, width, chunk)
    one = tables[0].mixed_with(tables[1:], rates / rates.sum())
    limits = limits_of(replica, chunk_tokens=chunk, admissions=admissions, grain=grain)
    run = FluidReplica.empty(limits, kinds_of([one], np.ones((1, 1))), 1)
    run.queue(math.inf, 0)
    none = steady_rates(0.0)
    life = max(64, len(one))
    done, before, steps = 0, math.nan, 8 * life
    while True:
        done += steps
        found = _averages(run.advance(none, until_steps=done, rows=steps), width)
        change = abs(found.throughput_per_s - before) / found.throughput_per_s
        if change < tolerance or done > most_lives * life:
            return replace(found, accuracy=change)
        before, steps = found.throughput_per_s, done


def _averages(samples: FloatArray, width: int) -> Saturated:
    """Averages over the steps sampled, one row each.

    Weighted by a Hann window: what is periodic cancels like the cube of its period, though the window is no multiple of it.
    """
    column = {name: samples[:, i] for i, name in enumerate(SAMPLE_COLUMNS)}
    took_s, completed, evicted = (np.diff(column[name]) for name in ("time_s", "completed", "evicted"))
    held, running = column["kv_tokens"][:-1], column["running"][:-1]
    weights = np.hanning(len(took_s))
    total_s = dot(weights, took_s)
    leaving = dot(weights, completed)
    kv = dot(weights, held * took_s) / total_s
    return Saturated(
        throughput_per_s=leaving / total_s,
        per_iteration=leaving / float(weights.sum()) / width,
        evictions_per_request=dot(weights, evicted) / leaving if leaving > 0 else math.inf,
        kv_tokens=kv,
        running=dot(weights, running * took_s) / total_s,
        iteration_s=total_s / float(weights.sum()) / width,
        swing=math.sqrt(max(0.0, dot(weights, (held - kv) ** 2 * took_s) / total_s)) / kv,
        accuracy=math.nan,
        kv_per_request=read_only((held / np.maximum(running, 1e-300))[:: max(1, len(held) // KEPT)]),
    )
