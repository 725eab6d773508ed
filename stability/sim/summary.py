"""From the totals of a run to its result: the measured window, means, intervals, the overload flag."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .._result import Verdict
from .._types import AnyArray, FloatArray, IntArray, read_only
from ..evidence.drift import stability_test
from ..evidence.intervals import Interval, ratio_interval
from .kernels.state import LOG_COLUMNS, LOGGED, SAMPLE_COLUMNS
from .result import ReplicaRecords, RequestRecords, SimulationResult
from .run import TOTALS, Checkpoint, Run


class Window(NamedTuple):
    """The measured part of a run: the checkpoints in it, at least two."""

    checkpoints: list[Checkpoint]

    @property
    def begin_s(self) -> float:
        """Where it begins."""
        return self.checkpoints[0].time_s

    @property
    def end_s(self) -> float:
        """Where it ends."""
        return self.checkpoints[-1].time_s

    def increments(self, name: str) -> FloatArray:
        """What a total gained from each checkpoint to the next, over the fleet."""
        column = TOTALS.index(name)
        return np.diff([c.totals[:, column].sum() for c in self.checkpoints])

    def gained(self, name: str) -> FloatArray:
        """What a total gained over the window, by replica."""
        column = TOTALS.index(name)
        return np.asarray(self.checkpoints[-1].totals[:, column] - self.checkpoints[0].totals[:, column])


def summarise(
    run: Run,
    *,
    pools: IntArray,
    mode: str,
    router: str,
    root: np.random.SeedSequence,
    complete: bool,
    class_names: tuple[str, ...],
) -> SimulationResult:
    """The result of a finished or interrupted run."""
    replicas = run.machine.replicas
    end_s = float(replicas.ended_s.max())
    window = _window(run, mode)
    seconds = np.diff([c.time_s for c in window.checkpoints])
    intervals = {
        "throughput_per_s": ratio_interval(window.increments("completed"), seconds),
        "itl_mean_s": ratio_interval(window.increments("itl_area"), window.increments("itl_tokens")),
        "iteration_mean_s": ratio_interval(window.increments("busy_s"), window.increments("steps")),
        "ttft_mean_s": ratio_interval(window.increments("ttft_area"), window.increments("completed")),
    }
    records = _replica_records(run, window, pools)
    span = window.end_s - window.begin_s
    completed = int(replicas.completed.sum())
    throughput = _ratio(window.gained("completed").sum(), span)
    if mode == "saturated":
        throughput, intervals["throughput_per_s"] = _saturated_throughput(
            run, throughput, intervals["throughput_per_s"]
        )
    overloaded, reason = _overload(run, window) if mode == "open loop" else (False, "")
    if not complete:
        reason = f"interrupted after {run.arrived} arrivals; figures cover what was done by then. {reason}".strip()
    capacity = replicas.capacity_blocks
    return SimulationResult(
        throughput_per_s=throughput,
        makespan_throughput_per_s=_ratio(completed, end_s - run.first_arrival_s),
        itl_mean_s=_ratio(window.gained("itl_area").sum(), window.gained("itl_tokens").sum()),
        iteration_mean_s=_ratio(window.gained("busy_s").sum(), window.gained("steps").sum()),
        ttft_mean_s=_ratio(window.gained("ttft_area").sum(), window.gained("completed").sum()),
        running_mean=_ratio(window.gained("running_area").sum(), span),
        waiting_mean=_ratio(window.gained("waiting_area").sum(), span),
        kv_occupancy=_ratio(window.gained("blocks_area").sum(), span * capacity.sum()),
        preemptions=int(replicas.preemptions.sum()),
        arrived=run.arrived,
        completed=completed,
        rejected=int(replicas.rejected.sum()),
        generated_tokens=int(replicas.generated_tokens.sum()),
        computed_prompt_tokens=int(replicas.computed_prompt_tokens.sum()),
        window_s=(window.begin_s, window.end_s),
        saturated_s=_saturation(run) if mode == "saturated" else (math.nan, math.nan),
        end_s=end_s,
        complete=complete,
        overloaded=overloaded,
        reason=reason,
        intervals=intervals,
        requests=_request_records(run) if run.keep_requests else None,
        replicas=records,
        steps=_steps(run) if run.record_steps else {},
        series=_series(run, end_s) if run.resolution_s else {},
        seed=root.entropy if isinstance(root.entropy, int) else 0,
        spawn_key=tuple(root.spawn_key),
        mode=mode,
        router=router,
        class_names=class_names,
        ttft_counts=read_only(run.machine.ttft_counts),
    )


def _ratio(a: float, b: float) -> float:
    return float(a / b) if b > 0 else math.nan


def _window(run: Run, mode: str) -> Window:
    begin, end = run.warm_s or 0.0, run.last_arrival_s
    if mode == "saturated":
        begin, end = _saturation(run)
    elif mode == "open loop" and math.isfinite(run.horizon_s):
        end = run.horizon_s
    inside = [c for c in run.checkpoints if begin <= c.time_s <= end]
    if len(inside) < 2 or inside[-1].totals[:, 0].sum() == inside[0].totals[:, 0].sum():
        inside = run.checkpoints if len(run.checkpoints) > 1 else run.checkpoints * 2
    return Window(inside)


def _saturation(run: Run) -> tuple[float, float]:
    """Begin and end of the time in which every replica has refused an admission and none has emptied its queue."""
    begin, end = float(_first_refusal_s(run).max()), float(run.machine.replicas.emptied_s.min())
    return (begin, end) if begin < end else (math.nan, math.nan)


def _first_refusal_s(run: Run) -> FloatArray:
    """When memory or slots first refused each replica an admission; its start where only the token budget ever did."""
    replicas = run.machine.replicas
    return np.where(np.isnan(replicas.blocked_s) & (replicas.emptied_s > 0), 0.0, replicas.blocked_s)


def _saturated_throughput(run: Run, otherwise: float, interval: Interval) -> tuple[float, Interval]:
    """Completions from the first refused admission until the queue empties, over that span, summed over the replicas."""
    replicas = run.machine.replicas
    span = replicas.emptied_s - _first_refusal_s(run)
    done = replicas.emptied_completed - replicas.blocked_completed
    if not (span > 0).all() or not (done > 0).all():
        return otherwise, interval
    throughput = float((done / span).sum())
    half = interval.half_width  # from checkpoints inside the span, which need not touch its ends
    return throughput, Interval(
        low=throughput - half, high=throughput + half, level=interval.level, batches=interval.batches
    )


def _overload(run: Run, window: Window) -> tuple[bool, str]:
    """Whether the waiting grew as at no load <= 1, by the stability test on samples of the backlog as requests arrived."""
    evidence = stability_test(*run.backlog.series())
    if evidence.verdict is not Verdict.UNSTABLE:
        return False, ""
    done = _ratio(float(window.gained("completed").sum()), window.end_s - window.begin_s)
    return True, (
        f"{evidence.reason} The fleet completes about {done:.4g} requests/s and more arrive: "
        "latencies depend on the length of the run."
    )


def _replica_records(run: Run, window: Window, pools: IntArray) -> ReplicaRecords:
    replicas = run.machine.replicas
    span = window.end_s - window.begin_s
    per_span = 1 / span if span > 0 else math.nan
    blocks = window.gained("blocks_area") * per_span
    steps = window.gained("steps")
    iteration = np.full(len(steps), math.nan)
    np.divide(window.gained("busy_s"), steps, out=iteration, where=steps > 0)
    return ReplicaRecords(
        pool=read_only(pools),
        running_mean=read_only(window.gained("running_area") * per_span),
        waiting_mean=read_only(window.gained("waiting_area") * per_span),
        kv_tokens_mean=read_only(blocks * replicas.block_size),
        kv_occupancy=read_only(blocks / replicas.capacity_blocks),
        iteration_mean_s=read_only(iteration),
        busy_share=read_only(window.gained("busy_s") * per_span),
        completed=read_only(window.gained("completed").astype(np.int64)),
        preemptions=read_only(window.gained("preemptions").astype(np.int64)),
        steps=read_only(steps.astype(np.int64)),
    )


def _request_records(run: Run) -> RequestRecords:
    outcome, rows = run.machine.outcome, run.arrived
    run.record_live()
    columns = [np.concatenate(column)[:rows] for column in zip(*run.kept, strict=True)] or [np.empty(0)] * 5
    run.kept.clear()
    arrival_s, prompt_tokens, output_tokens, request_class, cached = columns
    return RequestRecords(
        arrival_s=read_only(outcome.arrival_s[:rows] if run.concurrency else arrival_s),
        prompt_tokens=read_only(prompt_tokens),
        output_tokens=read_only(output_tokens),
        request_class=read_only(request_class),
        cached_prefix_tokens=read_only(cached),
        admitted_s=read_only(outcome.admitted_s[:rows]),
        first_token_s=read_only(outcome.first_token_s[:rows]),
        finish_s=read_only(outcome.finish_s[:rows]),
        preemptions=read_only(outcome.preemptions[:rows]),
        replica=read_only(outcome.replica[:rows]),
    )


def _steps(run: Run) -> Mapping[str, AnyArray]:
    log, rows = run.machine.log, int(run.machine.registers[LOGGED])
    columns: dict[str, AnyArray] = {"start_s": log.start_s[:rows], "end_s": log.end_s[:rows]}
    columns |= {name: log.integers[:rows, k] for k, name in enumerate(LOG_COLUMNS)}
    order = np.lexsort((columns["start_s"], columns["replica"]))
    return {name: read_only(column[order]) for name, column in columns.items()}


def _series(run: Run, end_s: float) -> Mapping[str, AnyArray]:
    assert run.resolution_s is not None
    samples = run.machine.log.samples
    rows = min(len(samples), math.floor(end_s / run.resolution_s) + 1)
    state: dict[str, AnyArray] = dict(zip(SAMPLE_COLUMNS, samples[:rows].T.copy(), strict=True))
    busy = state.pop("busy")
    # The step under way at each instant, averaged over the replicas that have one.
    total = state["iteration_s"].copy()
    state["iteration_s"][:] = math.nan
    np.divide(total, busy, out=state["iteration_s"], where=busy > 0)
    state["time_s"] = np.arange(rows) * run.resolution_s
    return {name: read_only(column) for name, column in state.items()}
