"""`stability watch` on recorded scrapes: overload called early on two real overloaded servers, never on stable ones.

The scrapes of the real runs are synthesised from their published time series, one a second, exactly in vLLM's exposition format
(`stability/io/metrics/writing.py`), written to a file and read back: running, waiting and KV as the server logged them, counters
and histograms from the requests' own times. Requests in the server are those of the log, arrivals what the counters say.

*Doubling.* The queue is established at the first scrape from which on it never empties again until arrivals end; it has doubled at the
first scrape that shows twice as many waiting. That is as early as it can be put: both queues double within a second or three.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import stability as st
from stability.io.metrics.writing import ServerRecord, record_of, recording
from stability.monitor.capacity import KnownCapacity, dispersion_of
from stability.monitor.result import WatchReport
from stability.sim.engine import simulate

from .cells import Cell, Status, Task, claim
from .measurements import FOLDER, absent, columns
from .real_runs import RUNS, Run

OVERLOADED = tuple(run for run in RUNS if run.file in ("RTX4090_Llama-3.1-8B", "RTXPRO6000_Llama-3.1-8B"))

ALPHA = 0.01
"""Chance of ever calling overload at load <= 1, as stated by default."""

BETA = 0.005
"""Chance of ever calling a load >= 1 stable, as stated by default."""

LOADS = (0.5, 0.7, 0.9)
CRITICAL = 1.0
WATCHED_S = 1_800.0


def real_record(run: Run) -> ServerRecord:
    """What the server of a real run counted, from its log and its requests' times."""
    series = columns(f"llmservingsim/vllm_timeseries_{run.file}.csv")
    requests = columns(f"llmservingsim/vllm_run_{run.file}.csv")
    return ServerRecord(
        time_s=series["t"],
        running=series["running"],
        waiting=series["waiting"],
        kv_occupancy=series["kv_cache_pct"] / 100,
        preemptions=np.full(len(series["t"]), math.nan),
        generated_tokens=np.cumsum(series["gen_throughput"]),
        arrival_s=requests["queued_s"],
        first_token_s=requests["first_token_s"],
        finish_s=requests["last_token_s"],
        prompt_tokens=requests["prompt_tokens"],
        output_tokens=requests["output_tokens"],
        kv_blocks=(run.kv_capacity_tokens or 0) // 16,
        model_name=run.model,
        longest=8192,
    )


def through_file(record: ServerRecord, *, old_names: bool = False) -> st.MetricsSeries:
    """The record written as scrapes and read back."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "recording.prom")
        file.write_text(recording(record, old_names=old_names, start_s=1_767_225_600.0), encoding="utf-8")
        return st.read_metrics(file)


def known_capacity(run: Run) -> KnownCapacity:
    """Capacity of a real run's server by theory, at the lengths of its requests, Poisson arrivals."""
    requests = columns(f"llmservingsim/vllm_run_{run.file}.csv")
    lengths = st.lengths.Empirical(requests["prompt_tokens"].astype(int), requests["output_tokens"].astype(int))
    workload = st.Workload.poisson(10.0, lengths)
    report = st.analyze(st.Fleet.of(run.build(), run.replicas), workload)
    return KnownCapacity(
        capacity_per_s=report.capacity_per_s,
        stable_below_per_s=report.stable_below_per_s,
        unstable_above_per_s=report.unstable_above_per_s,
        dispersion=dispersion_of(workload),
        arrival_dispersion=1.0,
        ttft_s=None,
        source="catalog law",
    )


@dataclass(frozen=True, slots=True)
class Doubling:
    """When the queue was established and doubled, s since the first scrape, and how many waited."""

    established_s: float
    waiting: float
    doubled_s: float


def doubling(series: st.MetricsSeries, end_s: float) -> Doubling:
    """As the module defines it, with arrivals until `end_s` after the first scrape."""
    time_s = series.time_s - series.time_s[0]
    rows = time_s <= end_s
    empty = np.flatnonzero(rows & (series.waiting == 0))
    first = int(empty[-1]) + 1 if len(empty) else 0
    level = float(series.waiting[first])
    doubled = np.flatnonzero((np.arange(len(time_s)) > first) & (series.waiting >= 2 * level))
    return Doubling(float(time_s[first]), level, float(time_s[doubled[0]]))


def real(run: Run) -> list[Cell]:
    """One real run: with a plan before the queue doubles; without one, when and at which queue."""
    if not FOLDER.is_dir():
        return [absent("watch, called")]
    record = real_record(run)
    series = through_file(record)
    found = doubling(series, float(record.arrival_s.max()))
    known = known_capacity(run)
    return [
        _called(f"{run.name}, with a plan", st.watch(series, capacity=known), found, known),
        _called(f"{run.name}, metrics alone", st.watch(series), found, None),
    ]


def _called(case: str, report: WatchReport, found: Doubling, known: KnownCapacity | None) -> Cell:
    doubled = (
        f"queue established at {found.established_s:.0f} s with {found.waiting:.0f}, doubled at {found.doubled_s:.0f} s"
    )
    if not report.overloads:
        status = Status.SHOWN if known is None else Status.FAIL
        return Cell(claim="watch, called", case=case, predicted="never", observed=doubled, status=status)
    first = report.overloads[0]
    called_s = first.called_s - report.begun_s
    peak = max(point.waiting for point in report.points)
    note = f"{first.waiting:.0f} waiting then, {peak:.0f} at most; by the {first.test} test"
    if known is not None:
        note += f", capacity {known.capacity_per_s:.3g}/s, unstable above {known.unstable_above_per_s:.3g}/s"
    early = called_s < found.doubled_s
    status = Status.PASS if early else (Status.FAIL if known is not None else Status.SHOWN)
    return Cell(
        claim="watch, called", case=case, predicted=f"at {called_s:.0f} s", observed=doubled, status=status, note=note
    )


@dataclass(frozen=True, slots=True)
class Server:
    """A simulated server to watch."""

    name: str
    kv_capacity_tokens: int
    max_num_seqs: int
    lengths: st.lengths.Lengths
    every_s: float


SERVERS = (
    Server(
        "64 slots, uniform lengths",
        1_000_000,
        64,
        st.lengths.Independent(prompt=st.lengths.Uniform(10, 1000), output=st.lengths.Uniform(10, 1000)),
        5.0,
    ),
    Server(
        "KV cache full, evicting, uniform lengths",
        40_000,
        256,
        st.lengths.Independent(prompt=st.lengths.Uniform(10, 1600), output=st.lengths.Uniform(10, 1600)),
        2.0,
    ),
    Server(
        "KV cache full, heavy tails",
        100_000,
        256,
        st.lengths.Independent(
            prompt=st.lengths.LogNormal(700, 1.5, limit=8000), output=st.lengths.LogNormal(300, 1.5, limit=4000)
        ),
        5.0,
    ),
    Server(
        "64 slots, one length",
        1_000_000,
        64,
        st.lengths.Independent(prompt=st.lengths.Constant(500), output=st.lengths.Constant(500)),
        15.0,
    ),
)


def simulated(server: Server, load: float, runs: int) -> list[Cell]:
    """How often overload is called, with the default settings, in `runs` runs of half an hour from an empty start."""
    law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
    engine = st.Engine(max_num_seqs=server.max_num_seqs, max_num_batched_tokens=2048)
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=server.kv_capacity_tokens, engine=engine))
    unit = st.Workload.poisson(1.0, server.lengths)
    capacity = simulate(fleet, unit, requests=20_000, saturated=True, rng=0, keep="summary").throughput_per_s
    workload = st.Workload.poisson(load * capacity, server.lengths)
    waits: list[float] = []
    stable = 0
    for seed in range(runs):
        result = simulate(
            fleet, workload, requests=math.ceil(load * capacity * WATCHED_S), rng=seed, resolution_s=server.every_s
        )
        report = st.watch(simulated_series(result, server.kv_capacity_tokens), alpha=ALPHA, beta=BETA)
        waits += [report.overloads[0].called_s] if report.overloads else []
        stable += any(point.verdict is st.Verdict.STABLE for point in report.points)
    case = f"{server.name}, load {load:g}, every {server.every_s:g} s"
    cells = []
    if load <= 1:
        cells.append(_rare("watch, false alarms", case, len(waits), runs, ALPHA))
    if load >= 1:
        cells.append(_rare("watch, false stable", case, stable, runs, BETA))
    if load > 1:
        note = f"half of the calls within {np.median(waits):.0f} s" if waits else ""
        cells.append(_share("watch, called in simulation", case, len(waits), runs, note))
    if load < 1:
        cells.append(_share("watch, stable within half an hour", case, stable, runs))
    return cells


def _share(claim_name: str, case: str, count: int, runs: int, note: str = "") -> Cell:
    """How many runs were decided: power, which nothing is claimed of."""
    return Cell(
        claim=claim_name, case=case, predicted="", observed=f"{count} of {runs}", status=Status.SHOWN, note=note
    )


def _rare(claim_name: str, case: str, count: int, runs: int, chance: float) -> Cell:
    """Passes unless so many come with probability 1e-6 at most if each has the stated chance."""
    most = _most(runs, chance)
    return Cell(
        claim=claim_name,
        case=case,
        predicted=f"<= {100 * chance:g} %",
        observed=f"{count} of {runs}",
        status=Status.PASS if count <= most else Status.FAIL,
        note=f"more than {most} would refute the stated chance",
    )


def _most(runs: int, chance: float) -> int:
    from scipy.stats import binom

    return int(binom.isf(1e-6, runs, chance))


def simulated_series(result: st.SimulationResult, kv_capacity_tokens: int) -> st.MetricsSeries:
    """A simulated run as recorded metrics while requests arrive; through the text for none of it, which takes far longer.

    `tests/monitor` reads such a run through the text and finds the same series.
    """
    record = record_of(result, kv_capacity_tokens=kv_capacity_tokens)
    rows = record.time_s <= result.window_s[1]
    return direct_series(replace_rows(record, rows))


def replace_rows(record: ServerRecord, rows: np.ndarray) -> ServerRecord:
    """A record at some of its scrapes."""
    names = ("time_s", "running", "waiting", "kv_occupancy", "preemptions", "generated_tokens")
    return replace(record, **{name: getattr(record, name)[rows] for name in names})


def direct_series(record: ServerRecord) -> st.MetricsSeries:
    """The series a reader would make of the record's scrapes, without writing them; lengths as histograms."""
    from stability.io.metrics.writing import token_bounds

    ended = np.sort(record.finish_s)
    order = np.argsort(record.finish_s)
    done = np.searchsorted(ended, record.time_s, side="right")
    bounds = np.array([*token_bounds(record.longest), math.inf])
    histograms = {}
    for name, values in (("prompt_lengths", record.prompt_tokens), ("output_lengths", record.output_tokens)):
        which = np.searchsorted(bounds, values[order])
        counts = np.zeros((len(values) + 1, len(bounds)))
        counts[np.arange(1, len(values) + 1), which] = 1
        table = np.cumsum(counts, axis=0)[done]
        sums = np.concatenate([[0.0], np.cumsum(values[order])])[done]
        histograms[name] = st.MetricsHistogram(name=name, bounds=bounds, counts=table, sums=sums)
    blank = np.full(len(record.time_s), math.nan)
    return st.MetricsSeries(
        source="simulated",
        server="vllm",
        time_s=record.time_s,
        running=record.running,
        waiting=record.waiting,
        kv_occupancy=record.kv_occupancy,
        generation_tokens_per_s=blank,
        finished=done.astype(np.float64),
        preemptions=blank,
        prompt_tokens=blank,
        generated_tokens=record.generated_tokens,
        prefix_queries_tokens=blank,
        prefix_hits_tokens=blank,
        prefill_tokens=blank,
        restarted=np.zeros(len(record.time_s), dtype=np.bool_),
        kv_capacity_tokens=math.nan,
        histograms=histograms,
    )


@claim("watch")
def watch_claim(size: str) -> Iterator[Task]:
    """Real overloaded servers; stable simulated ones."""
    for run in OVERLOADED:
        yield Task(f"watch {run.name}", real, (run,))
    runs = 100 if size == "full" else 5
    for server in SERVERS if size == "full" else SERVERS[:2]:
        for load in (*LOADS, CRITICAL, 1.2) if size == "full" else (0.9, 1.2):
            yield Task(f"watch {server.name} {load}", simulated, (server, load, runs))
