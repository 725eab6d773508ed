"""Scenarios of the law of large numbers: what is offered, its fluid path, and the simulation scaled by R."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

import stability as st
from stability import lengths as L
from stability.model.requests import draw_blocks
from stability.sim.engine import simulate
from stability.sim.result import SimulationResult

Array = npt.NDArray[np.float64]

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
SHORT = L.Independent(L.Uniform(10, 100), L.Uniform(10, 100))
MIDDLE = L.Independent(L.Uniform(10, 400), L.Uniform(10, 400))
LONG = L.Independent(L.Uniform(200, 1000), L.Uniform(200, 600))
SPAN_S = 240.0


def scaled(replica: st.Replica, by: int) -> st.Replica:
    """The replica with memory, slots and budget times `by` and the slopes of its law over it."""
    law = replica.iteration
    assert isinstance(law, st.IterationTime)
    engine = replace(
        replica.engine,
        max_num_seqs=by * replica.engine.max_num_seqs,
        max_num_batched_tokens=by * replica.engine.max_num_batched_tokens,
    )
    slopes = {name: getattr(law, name) / by for name in law.__slots__ if name != "base_s"}
    return replace(
        replica,
        iteration=st.IterationTime(base_s=law.base_s, **slopes),
        kv_capacity_tokens=by * replica.kv_capacity_tokens,
        engine=engine,
    )


def replica(memory: int = 30_000, **settings: object) -> st.Replica:
    """A replica whose memory binds; every prompt fits in one chunk, so the fixed chunk of one request does not matter."""
    engine = st.Engine(**{"max_num_seqs": 512, "max_num_batched_tokens": 2048, "admission": "reserve", **settings})  # type: ignore[arg-type]
    return st.Replica(iteration=LAW, kv_capacity_tokens=memory, engine=engine)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A replica under rates that change; with `outage` two of them, one of which is lost and returns.

    Attributes
    ----------
    classes : tuple
        (lengths, loads in the windows) of each class, in units of the capacity for that class alone.
    starts_s : tuple of float
        Windows.
    overload_s : (float, float)
        A stretch of steady overload.
    """

    classes: tuple[tuple[L.Lengths, tuple[float, ...]], ...]
    starts_s: tuple[float, ...]
    overload_s: tuple[float, float]
    outage: tuple[float, float] | None = None
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def replica(self) -> st.Replica:
        """One replica."""
        return replica(**dict(self.settings))

    def workload(self) -> st.Workload:
        """What one replica is offered."""
        found = []
        for k, (lengths, loads) in enumerate(self.classes):
            alone = st.analyze(st.Fleet.of(self.replica), st.Workload.poisson(1.0, lengths)).capacity_per_s
            rates = [load * alone for load in loads]
            schedule = st.RateSchedule(self.starts_s, rates, end_s=SPAN_S, repeat=False)
            found.append(st.RequestClass(f"class {k}", schedule, lengths))
        return st.Workload(found)

    def path(self) -> st.FluidPath:
        """The limit, at whole seconds."""
        points = int(SPAN_S) + 1
        if self.outage is None:
            return st.fluid_path(st.Fleet.of(self.replica), self.workload(), horizon_s=SPAN_S, points=points, width=1)
        lost = st.Outage(replicas=1, at_s=self.outage[0], until_s=self.outage[1])
        both = self.workload().scaled(factor=2.0)
        return st.fluid_path(
            st.Fleet.of(self.replica, 2), both, horizon_s=SPAN_S, outages=[lost], points=points, width=1
        )

    def simulated(self, scale: int, seed: int) -> tuple[Array, Array]:
        """((waiting, running) / R, KV / R) at whole seconds, shapes (2, n) and (n,)."""
        fleet = st.Fleet.of(scaled(self.replica, scale))
        workload = self.workload()
        workload = workload.scaled(factor=float(scale)) if scale > 1 else workload
        if self.outage is None:
            run = simulate(fleet, workload, horizon_s=SPAN_S, resolution_s=1.0, keep="summary", rng=seed)
            return _series([(run, 0, int(SPAN_S) + 1)], scale)
        return _series(_through_outage(fleet, workload, self.outage, seed), scale)


def _series(runs: list[tuple[SimulationResult, int, int]], scale: int) -> tuple[Array, Array]:
    """Sums of the runs' series, each from one whole second to before another."""
    points = int(SPAN_S) + 1
    total = {name: np.zeros(points) for name in ("waiting", "running", "kv_tokens")}
    for run, begin, end in runs:
        for name, column in total.items():
            values = run.series[name][: end - begin]
            column[begin : begin + len(values)] += values
    return np.stack([total["waiting"], total["running"]]) / scale, total["kv_tokens"] / scale


def _through_outage(
    fleet: st.Fleet, workload: st.Workload, outage: tuple[float, float], seed: int
) -> list[tuple[SimulationResult, int, int]]:
    """One replica that stops, one that takes over what it had and its arrivals, and the empty one that returns.

    What ran on the lost one goes on at the other as requests of its prompt and the tokens generated so far.
    """
    at_s, until_s = outage
    roots = [np.random.SeedSequence(seed, spawn_key=(part,)) for part in range(3)]
    lost = simulate(fleet, workload, horizon_s=at_s, resolution_s=1.0, record_steps=True, rng=roots[0])
    records = lost.requests
    assert records is not None
    left = np.flatnonzero(np.isnan(records.finish_s))
    first_step = np.searchsorted(lost.steps["start_s"], records.admitted_s[left] - 1e-9)
    done = np.where(np.isnan(records.admitted_s[left]), 0, len(lost.steps["start_s"]) - first_step)
    done = np.minimum(done, records.output_tokens[left] - 1).astype(np.int64)
    order = np.argsort(np.nan_to_num(records.admitted_s[left], nan=np.inf), kind="stable")

    base, more = (list(draw_blocks(workload, horizon_s=SPAN_S, rng=root)) for root in (roots[1], roots[2]))
    arrivals = [(b.arrival_s, b.prompt_tokens, b.output_tokens) for b in base]
    for b in more:  # what the lost one would have been sent
        during = (b.arrival_s >= at_s) & (b.arrival_s < until_s)
        arrivals.append((b.arrival_s[during], b.prompt_tokens[during], b.output_tokens[during]))
    moved = left[order]
    arrivals.append(
        (
            np.full(len(moved), at_s),
            records.prompt_tokens[moved] + done[order],
            records.output_tokens[moved] - done[order],
        )
    )
    columns = [np.concatenate(parts) for parts in zip(*arrivals, strict=True)]
    by_time = np.argsort(columns[0], kind="stable")
    survivor = simulate(
        fleet,
        st.Workload.from_requests(*(column[by_time] for column in columns)),
        horizon_s=SPAN_S,
        resolution_s=1.0,
        keep="summary",
        rng=seed,
    )
    after = _from(workload, until_s)
    returned = simulate(
        fleet, after, horizon_s=SPAN_S - until_s, resolution_s=1.0, keep="summary", rng=roots[2].spawn(1)[0]
    )
    end = int(SPAN_S) + 1
    return [(lost, 0, int(at_s)), (survivor, 0, end), (returned, int(until_s), end)]


def _from(workload: st.Workload, at_s: float) -> st.Workload:
    """The workload from `at_s` on, at the rate that holds then."""
    return st.Workload([item.with_rate(float(item.rate_at(at_s))) for item in workload.classes])


def growth_per_s(times: Array, backlog: Array, window: tuple[float, float]) -> float:
    """Slope of the backlog in a stretch of steady overload, 1/s."""
    inside = (times >= window[0]) & (times <= window[1])
    return float(np.polyfit(times[inside], backlog[inside], 1)[0])


def drain_s(times: Array, backlog: Array) -> float:
    """Time from the peak of the backlog until it is down to a hundredth of it, s."""
    peak = int(np.argmax(backlog))
    level = 0.01 * backlog[peak]
    last = int(np.flatnonzero(backlog > level)[-1])
    if last + 1 >= len(times):
        return float("nan")
    part = (backlog[last] - level) / (backlog[last] - backlog[last + 1])
    return float(times[last] + part * (times[last + 1] - times[last]) - times[peak])


RAMP = tuple(0.5 + 0.9 * float(np.sin(np.pi * t / 180.0) ** 2) if t < 180 else 0.4 for t in range(0, 240, 10))
SCENARIOS: dict[str, Scenario] = {
    "ramp": Scenario(((MIDDLE, RAMP),), tuple(float(t) for t in range(0, 240, 10)), (80.0, 110.0)),
    "burst": Scenario(
        ((MIDDLE, (0.7, 1.6, 0.6)),),
        (0.0, 60.0, 90.0),
        (70.0, 90.0),
        None,
        (("admission", "prompt_gate"), ("watermark", 0.05)),
    ),
    "outage": Scenario(((MIDDLE, (0.65,)),), (0.0,), (70.0, 100.0), (60.0, 100.0)),
    "two classes": Scenario(((SHORT, (0.3, 0.9, 0.2)), (LONG, (0.4, 0.4, 0.4))), (0.0, 60.0, 90.0), (72.0, 90.0)),
}


def cycles() -> dict[str, tuple[st.Replica, L.Lengths]]:
    """Lengths whose completions synchronise, each with a saturated replica."""

    def of(lengths: L.Lengths, **settings: object) -> tuple[st.Replica, L.Lengths]:
        return replica(60_000, **{"max_num_seqs": 1024, "admission": "prompt_gate", **settings}), lengths

    both = L.Independent(L.Constant(100), L.Constant(500))
    return {
        "constant 100/500": of(both),
        "constant 100/500, h=20%": of(both, watermark=0.2),
        "constant 100/500, 120 slots": of(both, max_num_seqs=120),
        "constant 100/500, reserve": of(both, admission="reserve"),
        "10/{100,500}": of(L.Independent(L.Constant(10), L.Discrete([100, 500]))),
        "100 +-20 %/500 +-20 %": of(L.Independent(L.Uniform(80, 120), L.Uniform(400, 600))),
    }
