"""Three runs of a real vLLM server, replayed request by request.

300 ShareGPT-like requests each, about 10 a second, vLLM 0.19. Arrivals are the engine's own time stamps (`queued_s`), so that every
time is on one clock. The first run had prefix caching on: its requests share nothing, but an evicted one finds its blocks
again, which `Engine.prefix_caching` models. The third had two ranks that step together for their experts; here they are
independent replicas. Waiting and running are compared second by second over the run.

Each replay is repeated with the step-time law scaled so that the mean gap between tokens is the measured one: what deviates
then is the scheduler or the shape of the law, not its level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import stability as st
from stability.model import catalog
from stability.sim.engine import simulate
from stability.sim.result import SimulationResult

from .cells import Cell, Status, Task, claim, measured, shown
from .measurements import FOLDER, absent, columns

CAPACITY, RATE, TIMES, STATE = 0.10, 0.10, 0.10, 0.10
"""Tolerances: capacity; throughput and makespan; mean times of requests; time averages of the queue, of the batch and of KV."""

SEED = 2026

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run and its limits."""

    file: str
    gpu: str
    model: str
    max_num_seqs: int
    kv_capacity_tokens: int | None
    """As the engine printed it; None: from the memory formula, and never near its limit."""
    replicas: int
    prefix_caching: bool

    @property
    def name(self) -> str:
        """For cells."""
        return f"{self.gpu} {self.model}" + (f" x{self.replicas}" if self.replicas > 1 else "")

    def build(self) -> st.Replica:
        """One replica with the law of the catalog."""
        engine = st.Engine(
            max_num_seqs=self.max_num_seqs, max_num_batched_tokens=2048, prefix_caching=self.prefix_caching
        )
        return st.replica(self.gpu, self.model, engine=engine, kv_capacity_tokens=self.kv_capacity_tokens)

    @property
    def has_law(self) -> bool:
        """Whether the catalog has a measured law: without one nothing is claimed."""
        return catalog.find_law(self.gpu, self.model) is not None


RUNS = (
    Run(
        file="RTX4090_Llama-3.1-8B",
        gpu="RTX4090",
        model="Llama-3.1-8B",
        max_num_seqs=256,
        kv_capacity_tokens=41_408,
        replicas=1,
        prefix_caching=True,
    ),
    Run(
        file="RTXPRO6000_Llama-3.1-8B",
        gpu="RTX-PRO-6000-Server",
        model="Llama-3.1-8B",
        max_num_seqs=128,
        kv_capacity_tokens=None,
        replicas=1,
        prefix_caching=False,
    ),
    Run(
        file="RTXPRO6000_Qwen3-30B-A3B-Instruct-2507",
        gpu="RTX-PRO-6000-Server",
        model="Qwen3-30B-A3B",
        max_num_seqs=128,
        kv_capacity_tokens=None,
        replicas=2,
        prefix_caching=False,
    ),
)


@claim("real runs")
def tasks(size: str) -> Iterator[Task]:  # noqa: ARG001 - three short replays in either size
    """One task per run."""
    for run in RUNS:
        yield Task(run.name, cells_of, (run,))


def cells_of(run: Run) -> list[Cell]:
    """Capacity by theory; the replay; the replay with the measured level of the step time."""
    if not FOLDER.is_dir():
        return [absent("real runs")]
    requests = columns(f"llmservingsim/vllm_run_{run.file}.csv")
    order = np.argsort(requests["queued_s"], kind="stable")
    requests = {name: column[order] for name, column in requests.items()}
    seconds = columns(f"llmservingsim/vllm_timeseries_{run.file}.csv")
    replica = run.build()
    result = _replay(run, replica, requests)
    found = [*_capacity(run, replica, requests, seconds), *_compare(run, result, requests, seconds)]
    factor = _itl_s(_measured_times(requests)) / _itl_s(_simulated_times(result))
    level = replace(replica, iteration=replica.iteration.scaled(factor))
    note = f"step-time law times {factor:.3f}, so that the mean gap between tokens is the measured one"
    again = _replay(run, level, requests)
    found.append(
        shown(
            "real runs",
            f"{run.name}: makespan with the measured step time",
            predicted=float(np.max(_simulated_times(again)["last_token_s"])),
            observed=float(np.max(requests["last_token_s"])),
            note=note,
        )
    )
    found.append(_errors(f"{run.name}: finish times with the measured step time", again, requests, note))
    found += [
        replace(cell, case=f"{cell.case} with the measured step time", status=Status.SHOWN, tolerance=math.nan)
        for cell in _capacity(run, level, requests, seconds)
    ]
    return found


def _replay(run: Run, replica: st.Replica, requests: Columns) -> SimulationResult:
    workload = st.Workload.from_requests(
        requests["queued_s"] - requests["queued_s"][0],
        requests["prompt_tokens"].astype(int),
        requests["output_tokens"].astype(int),
    )
    fleet = st.Fleet.of(replica, run.replicas)
    return simulate(fleet, workload, router="join_shortest_queue", rng=SEED, resolution_s=1.0)


def _capacity(run: Run, replica: st.Replica, requests: Columns, seconds: Columns) -> list[Cell]:
    """Theory's capacity, and a saturated simulation's, against the rate while requests wait: output tokens per second over the mean output."""
    rate, length_s = saturated_rate(run, requests, seconds)
    lengths = _lengths(requests)
    fleet, workload = st.Fleet.of(replica, run.replicas), st.Workload.poisson(10.0, lengths)
    report = st.analyze(fleet, workload)
    saturated = simulate(fleet, workload, requests=5_000, saturated=True, router="round_robin", rng=SEED)
    case = f"{run.name}: capacity"
    note = f"{report.bottleneck} binds; measured over {length_s} s with requests waiting"
    theory = _judged(run, case, report.capacity_per_s, rate, CAPACITY, f"theory, {note}")
    again = f"saturated simulator, {saturated.preemptions / 5_000:.2f} evictions per request, prefix caching {'on' if run.prefix_caching else 'off'}"
    return [
        theory,
        shown("real runs", f"{case}, simulated", predicted=saturated.throughput_per_s, observed=rate, note=again),
    ]


def _lengths(requests: Columns) -> st.lengths.Empirical:
    return st.lengths.Empirical(requests["prompt_tokens"].astype(int), requests["output_tokens"].astype(int))


def saturated_rate(run: Run, requests: Columns, seconds: Columns) -> tuple[float, int]:
    """Requests a second while requests waited and the run was full, and for how many seconds that was."""
    # Prompts flood in while arrivals last; the KV-limited run is full once its cache is.
    waiting = seconds["waiting"] > 0
    full = (
        seconds["kv_cache_pct"] >= 97
        if run.kv_capacity_tokens
        else seconds["running"] >= 0.99 * seconds["running"].max()
    )
    inside = np.flatnonzero(waiting & full)
    window = slice(inside[0], inside[-1] + 1)
    rate = float(seconds["gen_throughput"][window].mean() / _lengths(requests).output_mean_tokens)
    return rate, int(window.stop - window.start)


def _judged(run: Run, case: str, predicted: float, observed: float, tolerance: float, note: str) -> Cell:
    """A claim where the catalog has a measured law."""
    if not run.has_law:
        return shown("real runs", case, predicted=predicted, observed=observed, note=f"{note}; {NO_LAW}")
    return measured("real runs", case, predicted=predicted, observed=observed, tolerance=tolerance, note=note)


NO_LAW = "roofline: the catalog has no measured law, so nothing is claimed"


def _measured_times(requests: Columns) -> Columns:
    return {name: requests[name] for name in ("queued_s", "first_token_s", "last_token_s", "output_tokens")}


def _simulated_times(result: SimulationResult) -> Columns:
    records = result.requests
    assert records is not None
    return {
        "queued_s": records.arrival_s,
        "first_token_s": records.first_token_s,
        "last_token_s": records.finish_s,
        "output_tokens": records.output_tokens,
    }


def _itl_s(times: Columns) -> float:
    """Mean gap between tokens, weighted by tokens, s."""
    return float((times["last_token_s"] - times["first_token_s"]).sum() / (times["output_tokens"] - 1).sum())


def _compare(run: Run, result: SimulationResult, requests: Columns, seconds: Columns) -> list[Cell]:
    ours, theirs = _simulated_times(result), _measured_times(requests)
    count, series = len(requests["queued_s"]), result.series
    pairs = [
        ("makespan, s", ours["last_token_s"].max(), theirs["last_token_s"].max(), RATE),
        ("throughput, 1/s", count / ours["last_token_s"].max(), count / theirs["last_token_s"].max(), RATE),
        ("mean gap between tokens, s", _itl_s(ours), _itl_s(theirs), TIMES),
        (
            "mean TTFT, s",
            (ours["first_token_s"] - ours["queued_s"]).mean(),
            (theirs["first_token_s"] - theirs["queued_s"]).mean(),
            TIMES,
        ),
        ("most waiting", series["waiting"].max(), seconds["waiting"].max(), STATE),
        ("request-seconds waiting", series["waiting"].sum(), seconds["waiting"].sum(), STATE),
        ("request-seconds running", series["running"].sum(), seconds["running"].sum(), STATE),
    ]
    if run.kv_capacity_tokens:
        occupancy = 100 * series["kv_tokens"] / run.kv_capacity_tokens
        pairs.append(("percent-seconds of KV", occupancy.sum(), seconds["kv_cache_pct"].sum(), STATE))
    note = f"{result.preemptions} evictions in the replay"
    cells = [
        _judged(run, f"{run.name}: {what}", float(predicted), float(observed), tolerance, note)
        for what, predicted, observed, tolerance in pairs
    ]
    cells += [_path(run, name, series[name], seconds[name]) for name in ("waiting", "running")]
    if run.kv_capacity_tokens:
        cells.append(
            _path(run, "kv_percent", 100 * series["kv_tokens"] / run.kv_capacity_tokens, seconds["kv_cache_pct"])
        )
    cells.append(_errors(f"{run.name}: finish times", result, requests, "replay"))
    return cells


def _path(run: Run, name: str, ours: np.ndarray, theirs: np.ndarray) -> Cell:
    """Mean absolute distance of two time series over the measured run."""
    # The log's rows are the ends of seconds 1, 2, ...; ours are instants 0, 1, ...
    predicted = np.zeros(len(theirs))
    shared = min(len(ours) - 1, len(theirs))
    predicted[:shared] = ours[1 : shared + 1]
    distance = float(np.abs(predicted - theirs).mean())
    return shown(
        "real runs",
        f"{run.name}: {name} over time",
        predicted=float(predicted.mean()),
        observed=float(theirs.mean()),
        note=f"mean absolute distance second by second {distance:.1f}, of a greatest value {theirs.max():.0f}",
    )


def _errors(case: str, result: SimulationResult, requests: Columns, note: str) -> Cell:
    """Per-request relative errors; the figures of the cell are the mean finish times."""
    ours, theirs = _simulated_times(result), _measured_times(requests)
    finish = np.abs(ours["last_token_s"] / theirs["last_token_s"] - 1)
    wait = (ours["first_token_s"] - ours["queued_s"]) / (theirs["first_token_s"] - theirs["queued_s"])
    ttft = np.abs(wait - 1)
    figures = (
        f"relative error per request: finish median {100 * np.median(finish):.1f} %, mean {100 * finish.mean():.1f} %; "
        f"TTFT median {100 * np.median(ttft):.1f} %, mean {100 * ttft.mean():.1f} %"
    )
    return shown(
        "real runs",
        case,
        predicted=float(ours["last_token_s"].mean()),
        observed=float(theirs["last_token_s"].mean()),
        note=f"{figures}; {note}",
    )
