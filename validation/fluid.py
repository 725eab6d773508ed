"""Fluid limit against the token-level simulator: law of large numbers, overload, drain, limit cycles, waits near saturation.

`python -m validation --only fluid` is the quick subset, `--full` the rest; `python -m validation.fluid_figure` draws the law of
large numbers for the docs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

import stability as st
from stability import lengths as L
from stability.model import catalog
from stability.sim.engine import simulate
from stability.theory.fluid.saturated import saturated

from .cells import Cell, Status, Task, claim, measured, shown
from .fluid_scenarios import SCENARIOS, Scenario, cycles, drain_s, growth_per_s, scaled

SCALES = {
    "quick": ((1, 24), (4, 16), (16, 12), (64, 8)),
    "full": ((1, 64), (4, 48), (16, 32), (64, 16), (256, 8)),
}
"""Scale R and seeds: larger systems fluctuate less."""

EXPONENT = (-0.6, -0.4)
GROWTH, CYCLE, TTFT, TRANSIENT = 0.03, 0.05, 0.25, 0.1
SEED = 31

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))
LOGNORMAL = L.Independent(L.LogNormal.from_sigma(400, 1.0, limit=16_000), L.LogNormal.from_sigma(200, 1.0, limit=8_000))
WAITS: dict[str, tuple[L.Lengths, int, dict[str, object]]] = {
    "uniform, reserve": (UNIFORM, 100_000, {"admission": "reserve"}),
    "uniform, gate h=5%": (UNIFORM, 100_000, {"watermark": 0.05}),
    "lognormal, reserve": (LOGNORMAL, 60_000, {"admission": "reserve"}),
    "geometric, 48 slots": (
        L.Independent(L.Geometric(500, limit=16_000), L.Geometric(300, limit=8_000)),
        60_000,
        {"max_num_seqs": 48},
    ),
    "azure conv, reserve": (catalog.lengths("azure-conv-2023"), 90_000, {"admission": "reserve"}),
    "uniform, gate h=0": (UNIFORM, 100_000, {}),
}
"""Workloads, KV tokens and engine settings under which waits near saturation are compared."""


def _eight(**settings: object) -> tuple[st.Fleet, L.Lengths]:
    engine = st.Engine(**{"max_num_seqs": 256, **settings})  # type: ignore[arg-type]
    return st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=100_000, engine=engine), 8), UNIFORM


def _example() -> tuple[st.Fleet, L.Lengths]:
    plan = st.example_plan()
    return plan.fleet, plan.workload.lengths


FLEETS: dict[str, Callable[[], tuple[st.Fleet, L.Lengths]]] = {
    "bundled example": _example,
    "8 replicas, uniform, reserve": lambda: _eight(admission="reserve"),
    "8 replicas, uniform, gate h=5%": lambda: _eight(watermark=0.05),
    "8 replicas, uniform, gate h=0": _eight,
}
"""Fleets as they are, whose way through a burst is compared."""

LOADS = {"quick": (0.8, 0.9), "full": (0.8, 0.9, 0.95)}
"""Their loads; at 0.95 it takes many long runs to know the simulated mean."""


@claim("fluid")
def tasks(size: str) -> Iterator[Task]:
    """One task per scenario, limit cycle and workload."""
    chosen = SCENARIOS if size == "full" else {name: SCENARIOS[name] for name in ("burst", "two classes")}
    for name in chosen:
        yield Task(f"law of large numbers, {name}", law_of_large_numbers, (name, size))
    yield Task("overload", overload, ())
    for name in cycles():
        yield Task(f"limit cycle, {name}", limit_cycle, (name,))
    for name in FLEETS:
        yield Task(f"transient, {name}", transients, (name,))
    for name in WAITS if size == "full" else list(WAITS)[:4]:
        yield Task(f"wait, {name}", waits, (name, size))


def distances(scenario: Scenario, scales: tuple[tuple[int, int], ...]) -> list[tuple[int, float, float]]:
    """(R, root mean square over seeds of the sup-norm distance of waiting and running in requests/R, the same of KV in its
    largest value) for each scale.
    """
    path = scenario.path()
    most = float(path.kv_tokens.sum(axis=1).max())
    limit = np.stack([path.waiting.sum(axis=1), path.running.sum(axis=1)])
    found = []
    for scale, seeds in scales:
        square, kv_square = 0.0, 0.0
        for seed in range(seeds):
            requests, kv = scenario.simulated(scale, SEED + seed)
            square += float(np.abs(requests - limit).max()) ** 2
            kv_square += (float(np.abs(kv - path.kv_tokens.sum(axis=1)).max()) / most) ** 2
        found.append((scale, float(np.sqrt(square / seeds)), float(np.sqrt(kv_square / seeds))))
    return found


def exponent(scales: list[int], values: list[float]) -> float:
    """Slope of log distance over log R."""
    return float(np.polyfit(np.log(scales), np.log(values), 1)[0])


def law_of_large_numbers(name: str, size: str) -> list[Cell]:
    """Exponent with which the distance to the limit falls: -1/2."""
    found = distances(SCENARIOS[name], SCALES[size])
    scales = [scale for scale, _, _ in found]
    slope = exponent(scales, [d for _, d, _ in found])
    note = "sup distance, requests/R: " + ", ".join(f"{d:.3g} at R = {scale}" for scale, d, _ in found)
    kv_note = "sup distance over the largest KV: " + ", ".join(f"{d:.2g} at R = {scale}" for scale, _, d in found)
    good = EXPONENT[0] <= slope <= EXPONENT[1]
    return [
        Cell(
            claim="fluid exponent",
            case=name,
            predicted=-0.5,
            observed=slope,
            status=Status.PASS if good else Status.FAIL,
            note=note,
        ),
        shown(
            "fluid exponent",
            f"{name}, KV alone",
            predicted=-0.5,
            observed=exponent(scales, [d for _, _, d in found]),
            note=kv_note,
        ),
    ]


def overload() -> list[Cell]:
    """Growth in overload and drain time after a burst, at R = 64."""
    scale, found = 64, []
    for name, scenario in SCENARIOS.items():
        path = scenario.path()
        times, backlog = path.time_s, path.waiting.sum(axis=1)
        runs = [scenario.simulated(scale, SEED + seed)[0][0] for seed in range(16)]
        window = scenario.overload_s
        found.append(
            measured(
                "fluid growth",
                name,
                predicted=growth_per_s(times, backlog, window),
                observed=float(np.mean([growth_per_s(times, run, window) for run in runs])),
                tolerance=GROWTH,
            )
        )
        found.append(
            measured(
                "fluid drain",
                name,
                predicted=drain_s(times, backlog),
                observed=float(np.mean([drain_s(times, run) for run in runs])),
                tolerance=GROWTH,
            )
        )
    return found


def limit_cycle(name: str) -> list[Cell]:
    """Throughput of synchronised lengths: of the limit against R = 64, and against one replica as it is."""
    replica, lengths = cycles()[name]
    workload = st.Workload.poisson(1.0, lengths)
    limit = saturated(replica, workload)
    found = []
    for scale, requests in ((64, 300_000), (1, 40_000)):
        run = simulate(
            st.Fleet.of(scaled(replica, scale)), workload, requests=requests, saturated=True, keep="summary", rng=SEED
        )
        tolerance = CYCLE if scale > 1 else None
        observed = run.throughput_per_s / scale
        note = (
            f"evictions per request {limit.evictions_per_request:.3f}, simulated {run.preemptions / run.completed:.3f}"
        )
        case = f"{name}, R = {scale}"
        if tolerance is None:
            note += "; chance evictions, which vanish in the limit, included"
            found.append(shown("fluid cycle", case, predicted=limit.throughput_per_s, observed=observed, note=note))
        else:
            found.append(
                measured(
                    "fluid cycle",
                    case,
                    predicted=limit.throughput_per_s,
                    observed=observed,
                    tolerance=tolerance,
                    note=note,
                )
            )
    return found


def transients(name: str) -> list[Cell]:
    """A fleet as it is through ten minutes of twice its rate, at load 0.75 before: peak, and time until a hundredth is left."""
    fleet, lengths = FLEETS[name]()
    unit = st.Workload.poisson(1.0, lengths)
    workload = unit.scaled(rate_per_s=0.75 * st.analyze(fleet, unit).capacity_per_s)
    burst, span_s = st.Burst(factor=2.0, duration_s=600.0, at_s=120.0), 2700.0
    rate = workload.rate_per_s
    schedule = st.RateSchedule([0.0, burst.at_s, burst.end_s], [rate, 2 * rate, rate], end_s=span_s, repeat=False)
    path = st.transient(fleet, workload, burst=burst, horizon_s=span_s, points=int(span_s) + 1).path
    runs = [
        simulate(
            fleet,
            st.Workload.scheduled(schedule, lengths),
            horizon_s=span_s,
            resolution_s=1.0,
            router="random",
            keep="summary",
            rng=SEED + seed,
        )
        .series["waiting"]
        .astype(float)
        for seed in range(4)
    ]
    times = path.time_s
    found = []
    for what, predicted, observed in (
        ("peak backlog", path.peak_backlog, [float(run.max()) for run in runs]),
        ("drain", drain_s(times, path.backlog), [drain_s(times[: len(run)], run) for run in runs]),
    ):
        case = f"{name}, {what}"
        found.append(
            measured(
                "fluid transient", case, predicted=predicted, observed=float(np.mean(observed)), tolerance=TRANSIENT
            )
        )
    return found


def waits(name: str, size: str) -> list[Cell]:
    """Time to first token near saturation, mean and 99th percentile, with the Gaussian estimate beside it."""
    lengths, memory, settings = WAITS[name]
    engine = st.Engine(**{"max_num_seqs": 1024, "max_num_batched_tokens": 2048, **settings})  # type: ignore[arg-type]
    fleet = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=memory, engine=engine))
    unit = st.Workload.poisson(1.0, lengths)
    capacity = simulate(fleet, unit, requests=200_000, saturated=True, keep="summary", rng=SEED).throughput_per_s
    found = []
    for load in LOADS[size]:
        workload = unit.scaled(rate_per_s=load * capacity)
        runs = 4 if load < 0.95 else 12
        results = [simulate(fleet, workload, requests=200_000, keep="summary", rng=SEED + seed) for seed in range(runs)]
        ours, baseline = st.latency(fleet, workload), st.latency(fleet, workload, wait="gaussian")
        for what, attribute, values in (
            ("mean", "ttft_mean_s", [r.ttft_mean_s for r in results]),
            ("99 %", "ttft_p99_s", [r.ttft_quantile_s(0.99) for r in results]),
        ):
            note = f"Gaussian baseline {getattr(baseline, attribute) / np.mean(values) - 1:+.0%}"
            found.append(
                measured(
                    "fluid ttft",
                    f"{name}, load {load}, {what}",
                    predicted=float(getattr(ours, attribute)),
                    observed=float(np.mean(values)),
                    half_width=1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5,
                    tolerance=TTFT,
                    note=note,
                )
            )
    return found
