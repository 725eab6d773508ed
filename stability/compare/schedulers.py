"""`compare_schedulers`: every scheduler on the same requests, replication by replication."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np

from .._types import FloatArray, read_only
from ..errors import InputError, StabilityError, check_integer, check_number
from ..evidence.comparison import comparison
from ..evidence.intervals import batch_means_interval
from ..model.arrivals import Replay
from ..model.engine import Scheduler
from ..model.fleet import Fleet
from ..model.iteration import IterationTime
from ..model.streams import RandomState, seed_sequence
from ..model.workload import Workload
from ..sim.domain import replicas_of
from ..sim.engine import simulate
from ..sim.result import RequestRecords, SimulationResult
from ..theory import conditions
from ..theory.analyze import analyze
from ..theory.moments import Demand, mean_over, moments
from .candidates import DEFAULT, named_policies, with_scheduler
from .hindsight import Floor, hindsight_floor
from .result import METRICS, PolicyOutcome, SchedulerComparison

EDGE = 0.1
"""Share of the requests at both ends of a run that is left out of latencies: warm-up, and those that wait for arrivals to come."""


def compare_schedulers(
    fleet: Fleet,
    workload: Workload,
    policies: Mapping[str, Scheduler] | Sequence[str] = DEFAULT,
    *,
    requests: int = 2000,
    replications: int = 5,
    rng: RandomState = None,
    level: float = 0.95,
    progress: bool = False,
) -> SchedulerComparison:
    """Schedulers against each other: the same fleet, the same requests, every figure with its confidence interval.

    Replication i of every scheduler sees the same arrivals and lengths (common random numbers), so that differences vary less than
    the figures do.

    Parameters
    ----------
    fleet : Fleet
        What serves; its engines run each scheduler in turn.
    workload : Workload
        What arrives; a replay is drawn anew from its requests.
    policies : mapping of str to Scheduler, or sequence of str
        Schedulers by a name of one's own, or names of `stability.compare.candidates`. The first one is the baseline.
    requests : int >= 100
        Per replication; the first and the last tenth are left out of latencies.
    replications : int >= 2
        Independent runs.
    rng : int, SeedSequence, Generator or None
        Seed of all of them.
    level : float in (0, 1)
        Confidence level: of each mean, and of all differences of a metric at once.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SchedulerComparison

    Raises
    ------
    InputError
        If no scheduler can run, or an argument breaks its rule.
    NotModelledError
        If a pool has a prefill/decode role or a barrier.
    KeyboardInterrupt
        If interrupted.

    Notes
    -----
    Schedulers that have no kernel run in the reference simulator, some hundred requests a second.

    Examples
    --------
    >>> import stability as st
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(5))
    >>> rivals = {"orca": st.policies.Orca(), "wait": st.policies.Wait((1,))}
    >>> found = compare_schedulers(fleet, st.Workload.poisson(20.0, lengths), rivals, requests=200, replications=2, rng=1)
    >>> found["orca"].samples["latency_mean_s"].round(3).tolist()  # five steps of 10 ms and what is left of one
    [0.053, 0.053]
    """
    count = check_integer("requests", requests, at_least=100)
    runs = check_integer("replications", replications, at_least=2)
    level = check_number("level", level, above=0, below=1)
    replicas_of(fleet)  # what no scheduler can run on is said once, before any is built
    if isinstance(workload.arrivals, Replay):
        workload = workload.resampled()
    if isinstance(policies, Mapping):
        candidates, skipped = dict(policies), dict[str, str]()
    else:
        candidates, skipped = named_policies(fleet, workload, policies)
    root = seed_sequence(rng)
    found: dict[str, list[dict[str, float]]] = {}
    grown: dict[str, int] = {}
    left: dict[str, int] = {}
    early: dict[str, str] = {}
    drawn: list[RequestRecords] = []  # the requests of each replication, the same for all
    with _bar(progress, len(candidates) * runs) as bar:
        for name, policy in candidates.items():
            bar.set_description(f"{name} (compiled on first use)")
            try:
                rows = [_run(fleet, workload, policy, count, _replication(root, run), bar) for run in range(runs)]
            except StabilityError as error:
                skipped[name] = str(error)
                continue
            found[name] = [run_metrics(result) for result in rows]
            grown[name] = sum(result.overloaded for result in rows)
            early[name] = next((row.reason for row in rows if row.reason and not row.overloaded), "")
            left[name] = sum(_unfinished(result) for result in rows)
            drawn = [result.requests for result in rows if result.requests is not None]
    if not found:
        # One reason often holds for many.
        names = {reason: [name for name, given in skipped.items() if given == reason] for reason in skipped.values()}
        reasons = "\n".join(f"  {', '.join(of)}: {reason}" for reason, of in names.items())
        raise InputError(f"none of the schedulers can run here, one must:\n{reasons}")
    samples = {
        name: {metric: read_only(np.array([row[metric] for row in rows])) for metric in METRICS}
        for name, rows in found.items()
    }
    outcomes = tuple(
        replace(
            _outcome(name, candidates[name], samples[name], grown[name], left[name], fleet, workload, level),
            start_note=early[name],
        )
        for name in found
    )
    baseline = outcomes[0].name
    differences = {
        metric: comparison(
            {name: columns[metric] for name, columns in samples.items()}, metric=metric, baseline=baseline, level=level
        )
        for metric in METRICS
        if len(samples) > 1 and all(np.isfinite(columns[metric]).all() for columns in samples.values())
    }
    floors = (
        [Floor(latency_s=None, method="", note="none: prompt tokens are found in the prefix cache")]
        if any(item.finds_prefixes for item in workload.classes)
        else _floors(fleet, [candidates[name] for name in found], drawn)
    )
    known = [floor.latency_s for floor in floors if floor.latency_s is not None]
    return SchedulerComparison(
        outcomes=outcomes,
        baseline=baseline,
        differences=differences,
        skipped=skipped,
        rate_per_s=workload.rate_per_s,
        requests=count,
        replications=runs,
        level=level,
        latency_floor_s=latency_floor_s(fleet, workload),
        hindsight_s=float(np.mean(known)) if len(known) == len(floors) else None,
        hindsight_method=", ".join(dict.fromkeys(floor.method for floor in floors if floor.method)),
        hindsight_note=next((floor.note for floor in floors if floor.note), ""),
        seed=root.entropy if isinstance(root.entropy, int) else 0,
    )


def _floors(fleet: Fleet, schedulers: Sequence[Scheduler], drawn: Sequence[RequestRecords]) -> list[Floor]:
    """The hindsight bound of every replication, for the requests whose latencies are measured."""
    return [
        hindsight_floor(
            fleet,
            schedulers,
            records.arrival_s[_middle(len(records))],
            records.prompt_tokens[_middle(len(records))],
            records.output_tokens[_middle(len(records))],
        )
        for records in drawn
    ]


def latency_floor_s(fleet: Fleet, workload: Workload) -> float | None:
    """Mean time a request takes alone on an empty replica, s: E[n] c0 + E[W]. **Necessary** for every scheduler.

    None where the pools differ, their law is not affine, or prompt tokens are found in the prefix cache.
    """
    replica = fleet.pools[0].replica
    law = replica.iteration
    found = any(item.finds_prefixes for item in workload.classes)
    if found or any(pool.replica != replica for pool in fleet.pools) or not isinstance(law, IterationTime):
        return None
    rates = workload.rates_per_s
    demand = mean_over(
        [moments(item.lengths, replica.engine.max_num_batched_tokens) for item in workload.classes], rates / rates.sum()
    )
    return float(demand[Demand.ITERATIONS] * law.base_s + conditions.work_s(np.array(law.coefficients), demand))


def _replication(root: np.random.SeedSequence, run: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, run))


def _run(
    fleet: Fleet,
    workload: Workload,
    policy: Scheduler,
    requests: int,
    seed: np.random.SeedSequence,
    bar: _Bar,
) -> SimulationResult:
    """One run with every request kept."""
    result = simulate(with_scheduler(fleet, policy), workload, requests=requests, rng=seed, warmup=EDGE)
    if not result.complete:  # the simulator returns what it has; here the rest is wanted, too
        raise KeyboardInterrupt
    bar.update(1)
    return result


def run_metrics(result: SimulationResult) -> dict[str, float]:
    """The figures of `METRICS` of one run with every request kept; latencies of all but the first and the last tenth."""
    records = result.requests
    assert records is not None
    rows = _middle(len(records))
    arrival = records.arrival_s[rows]
    # Those without a last token count up to the end of the run: too little, and said so.
    last = np.where(np.isnan(records.finish_s[rows]), result.end_s, records.finish_s[rows])
    first = np.where(np.isnan(records.first_token_s[rows]), result.end_s, records.first_token_s[rows])
    latency: FloatArray = np.maximum(last - arrival, 0.0)
    ttft: FloatArray = np.maximum(first - arrival, 0.0)
    return {
        "throughput_per_s": result.throughput_per_s,
        "latency_mean_s": float(latency.mean()),
        "latency_p99_s": float(np.quantile(latency, 0.99)),
        "ttft_mean_s": float(ttft.mean()),
        "ttft_p99_s": float(np.quantile(ttft, 0.99)),
        "itl_mean_s": result.itl_mean_s,
        "evictions_per_request": result.preemptions / result.arrived,
        "kv_occupancy": result.kv_occupancy,
    }


def _middle(count: int) -> slice:
    return slice(math.ceil(EDGE * count), count - math.ceil(EDGE * count))


def _unfinished(result: SimulationResult) -> int:
    assert result.requests is not None
    return int(np.isnan(result.requests.finish_s[_middle(len(result.requests))]).sum())


def _outcome(
    name: str,
    policy: Scheduler,
    samples: Mapping[str, FloatArray],
    overloaded: int,
    unfinished: int,
    fleet: Fleet,
    workload: Workload,
    level: float,
) -> PolicyOutcome:
    capacity: float | None = None
    try:
        report = analyze(with_scheduler(fleet, policy), workload)
        capacity, note = report.capacity_per_s, f"{report.verdict}: {report.reason}"
    except StabilityError as error:
        note = str(error)
    intervals = {
        metric: batch_means_interval(np.nan_to_num(values), batches=len(values), level=level)
        for metric, values in samples.items()
    }
    return PolicyOutcome(
        name=name,
        scheduler=repr(policy),
        samples=samples,
        intervals=intervals,
        overloaded=overloaded,
        unfinished=unfinished,
        capacity_per_s=capacity,
        capacity_note=note,
    )


class _Bar(Protocol):
    def update(self, n: int, /) -> object: ...
    def set_description(self, desc: str, /) -> object: ...


class _Silent:
    def update(self, n: int, /) -> None:
        """Nothing to show."""

    def set_description(self, desc: str, /) -> None:
        """Nothing to show."""


@contextmanager
def _bar(wanted: bool, total: int) -> Iterator[_Bar]:
    if not wanted:
        yield _Silent()
        return
    from tqdm import tqdm

    with tqdm(total=total, unit="run", leave=False) as bar:
        yield bar
