"""Capacity as a saturated simulation measures it: requests per second while the queue never empties."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._result import Tabular
from .._types import FloatArray, read_only
from ..errors import InputError, check_integer, check_number
from ..evidence.intervals import Interval, batch_means_interval
from ..model.arrivals import Poisson
from ..model.checks import check_no_sessions
from ..model.fleet import Fleet
from ..model.streams import RandomState, seed_sequence
from ..model.workload import Workload
from .engine import simulate


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredCapacity(Tabular):
    """Capacity of a fleet, measured.

    Attributes
    ----------
    capacity_per_s : float
        Requests per second over all replicas.
    interval : Interval
        Confidence interval over the replications.
    pools_per_s : (n_pools,) array
        Of each pool, all its replicas together.
    preemptions_per_request : (n_pools,) array
        Evictions per completed request.
    replications_per_s : (replications,) array
        The fleet's capacity in each replication.
    seed : int

    Examples
    --------
    See :func:`stability.measured_capacity`.
    """

    schema = "stability/measured-capacity/1"

    capacity_per_s: float
    interval: Interval
    pools_per_s: FloatArray
    preemptions_per_request: FloatArray
    replications_per_s: FloatArray
    seed: int

    def __repr__(self) -> str:
        return (
            f"MeasuredCapacity({self.capacity_per_s:.5g}/s, "
            f"{100 * self.interval.level:.0f} % interval {self.interval.low:.5g} to {self.interval.high:.5g})"
        )

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        return [
            ("capacity", f"{self.capacity_per_s:.5g} requests/s"),
            ("interval", f"{self.interval.low:.5g} to {self.interval.high:.5g} ({100 * self.interval.level:.0f} %)"),
            ("by pool", ", ".join(f"{rate:.5g}" for rate in self.pools_per_s)),
            ("preemptions", ", ".join(f"{count:.3g}" for count in self.preemptions_per_request) + " per request"),
            ("seed", f"{self.seed}"),
        ]


def measured_capacity(
    fleet: Fleet,
    workload: Workload,
    *,
    requests: int = 10_000,
    replications: int = 5,
    rng: RandomState = None,
    level: float = 0.95,
) -> MeasuredCapacity:
    """Saturated throughput of every pool at the workload's mix of requests, summed.

    One replica of each pool is simulated with all requests waiting at time 0. What counts are the completions between the
    first admission that memory or slots refuse and the moment the queue empties, over that span: neither filling up nor
    draining. Independent replications give the interval. A replay is resampled.

    Valid for a fleet whose replicas all see the mix of the workload, in proportion to their capacity.

    Parameters
    ----------
    fleet, workload
        Rates and arrival times do not matter, the shares of the classes do.
    requests : int >= 2
        Requests per replication and replica. Those that fill the batch at the start still count in part, so let it be
        many times the requests that run together.
    replications : int >= 2
        Independent runs.
    rng : int, SeedSequence, Generator or None
        Seed.
    level : float in (0, 1)
        Confidence level.

    Returns
    -------
    MeasuredCapacity
        With an interval from Student's t over the replications.

    Raises
    ------
    InputError
        If `requests` are too few to fill a replica.
    NotModelledError
        If the workload has sessions.

    Examples
    --------
    Eight slots, and eighty iterations of 10 ms a request: ten requests/s.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=1024, block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.measured_capacity(fleet, st.Workload.poisson(1.0, lengths), requests=800, replications=2, rng=1)
    >>> round(found.capacity_per_s, 2)
    10.0
    """
    check_no_sessions(workload, "measured_capacity()")
    requests = check_integer("requests", requests, at_least=2)
    replications = check_integer("replications", replications, at_least=2)
    level = check_number("level", level, above=0, below=1)
    root = seed_sequence(rng)
    mix = Workload(workload.averaged().classes, Poisson())
    rates: FloatArray = np.empty((replications, len(fleet.pools)))
    evictions = np.zeros(len(fleet.pools))
    for index, pool in enumerate(fleet.pools):
        alone = Fleet.of(pool.replica)
        for replication in range(replications):
            seed = np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, index, replication))
            result = simulate(alone, mix, requests=requests, saturated=True, keep="summary", rng=seed)
            begin, end = result.saturated_s
            if not result.throughput_per_s * (end - begin) > requests / 2:
                raise InputError(
                    f"requests = {requests} hardly fill a replica of pool {pool.name!r}, must be many times those that "
                    "run together. Ask for more."
                )
            rates[replication, index] = result.throughput_per_s * pool.replicas
            evictions[index] += result.preemptions / result.completed / replications
    totals = rates.sum(axis=1)
    return MeasuredCapacity(
        capacity_per_s=float(totals.mean()),
        interval=batch_means_interval(totals, batches=replications, level=level),
        pools_per_s=read_only(rates.mean(axis=0)),
        preemptions_per_request=read_only(evictions),
        replications_per_s=read_only(totals),
        seed=int(root.entropy) if isinstance(root.entropy, int) else 0,
    )
