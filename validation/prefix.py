"""Prefix caches: what is found, and whether a backlog stays, in theory and in simulation.

Hit rates are compared at the rate at which turns came in the run itself, as so many sessions leave their number uncertain by some percent.
A run starts with no session and no prefix: what comes before
sessions have lived out, a thousand seconds with think times of 120 s, is left out. Simulated capacity with a cold cache: what is completed of
turns that are sessions of their own, behind the same system prompts, when more come than can be served. The same rate is served from an
empty system and after a burst of sessions, which has gone or not after `AFTER_S`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import stability as st
from stability import lengths as L

from . import measurements
from .cells import Cell, Status, Task, claim, measured, shown

LAW = st.IterationTime(base_s=0.02, per_prefill_token_s=1e-4, per_decode_token_s=5e-5, per_kv_token_s=5e-8)
CHAT = st.Sessions(
    L.Geometric(8.0),
    L.Uniform(50, 350),
    L.Uniform(20, 100),
    think_s=30.0,
    system_prompt_tokens=[1000] * 4,
    popularity=1.0,
    limit_tokens=16_000,
)
SYSTEM = 1000 // 16 * 16
"""Whole blocks of a system prompt, tokens."""

HIT_TOLERANCE, CAPACITY_TOLERANCE = 0.05, 0.03

BURST_AT_S, BURST_FOR_S, AFTER_S, UNTIL_S = 500.0, 10.0, 2_000.0, 3_000.0
"""When the burst comes, how long it lasts, and the stretch over which its end is judged."""

STANDING = 10.0
"""Requests waiting, on average, above which a backlog has stayed."""


def replica(kv_capacity_tokens: int) -> st.Replica:
    """The replica of all cases."""
    engine = st.Engine(prefix_caching=True)
    return st.Replica(iteration=LAW, kv_capacity_tokens=kv_capacity_tokens, engine=engine)


def sessions(**changes: object) -> st.Sessions:
    """`CHAT` with some of its parameters changed."""
    values = {
        "think_s": CHAT.think_s,
        "system_prompt_tokens": list(CHAT.system_prompt_tokens),
        "popularity": 1.0,
        "limit_tokens": CHAT.limit_tokens,
        **changes,
    }
    return st.Sessions(CHAT.turns, CHAT.new_tokens, CHAT.output, **values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison of hit rates; `load` is the rate over the capacity with a cold cache."""

    name: str
    sessions: st.Sessions
    kv_capacity_tokens: int
    load: float
    replicas: int = 1
    router: str = "prefix_affinity"
    requests: int = 8_000
    warmup: float = 0.2


def cases(size: str) -> Iterator[Case]:
    """The cases of a run of this size."""
    if size == "quick":
        yield Case("think time 5 s, 60k tokens", sessions(think_s=5.0), 60_000, 0.8, requests=4_000, warmup=0.5)
        return
    for tokens, load in ((120_000, 0.5), (120_000, 0.8), (240_000, 0.9), (480_000, 0.9)):
        yield Case(f"{tokens // 1000}k tokens, load {load:g}", CHAT, tokens, load)
    yield Case("think time cv 2", sessions(think_cv=2.0), 240_000, 0.8)
    yield Case("think time cv 0.3", sessions(think_cv=0.3), 120_000, 0.8, requests=16_000, warmup=0.5)
    yield Case("think time 120 s", sessions(think_s=120.0), 240_000, 0.7, requests=16_000, warmup=0.5)
    yield Case("20 system prompts of 2000", sessions(system_prompt_tokens=[2000] * 20), 240_000, 0.7)
    for router in ("prefix_affinity", "random", "join_shortest_kv"):
        yield Case(f"4 replicas, {router}", CHAT, 120_000, 0.7, 4, router, 16_000, 0.5)


def hit_rate(case: Case) -> list[Cell]:
    """Share of the prompt tokens found."""
    fleet = st.Fleet.of(replica(case.kv_capacity_tokens), case.replicas)
    one = st.Workload.sessions(1.0, case.sessions)
    cold = st.prefix_equilibria(fleet, one, router=case.router).pools[0].cold_capacity_per_s
    workload = one.scaled(rate_per_s=case.load * cold)
    run = st.simulate(fleet, workload, requests=case.requests, router=case.router, rng=2026, warmup=case.warmup)
    at = st.prefix_equilibria(fleet, one.scaled(rate_per_s=run.throughput_per_s), router=case.router).pools[0].at
    assert at is not None
    return [
        measured(
            "prefix hits",
            case.name,
            predicted=at.hit_rate,
            observed=run.prefix_hit_rate,
            tolerance=HIT_TOLERANCE,
            note=f"unused prefixes stay {at.residence_s:.0f} s",
        )
    ]


def cold_capacity(kv_capacity_tokens: int) -> list[Cell]:
    """Capacity of turns that find their system prompt only: each a session of its own, more than can be served."""
    fleet = st.Fleet.of(replica(kv_capacity_tokens))
    predicted = st.analyze(fleet, st.Workload.sessions(0.5, CHAT)).capacity_per_s
    prompts = CHAT.lengths.prompt
    shared = list(CHAT.system_prompt_tokens)
    private = L.Discrete((prompts.values - shared[0]).tolist(), prompts.probabilities.tolist())
    turns = st.Sessions(L.Constant(1), private, CHAT.output, think_s=0, system_prompt_tokens=shared, popularity=1.0)
    run = st.simulate(fleet, st.Workload.sessions(1.4 * predicted, turns), requests=8_000, rng=2026, warmup=0.3)
    return [
        measured(
            "prefix capacity",
            f"cold cache, {kv_capacity_tokens // 1000}k tokens",
            predicted=predicted,
            observed=run.throughput_per_s,
            half_width=run.intervals["throughput_per_s"].half_width,
            tolerance=CAPACITY_TOLERANCE,
            note=f"{run.preemptions / run.completed:.2f} evictions per request",
        )
    ]


def burst(load: float, extra: int) -> list[Cell]:
    """Whether a backlog stays after `extra` sessions in a burst, at a load of the capacity with a cold cache."""
    fleet = st.Fleet.of(replica(240_000))
    pool = st.prefix_equilibria(fleet, st.Workload.sessions(1.0, CHAT)).pools[0]
    per_s = load * pool.cold_capacity_per_s / CHAT.turns_mean
    starts, rates = [0.0, BURST_AT_S, BURST_AT_S + BURST_FOR_S], [per_s, per_s + extra / BURST_FOR_S, per_s]
    schedule = st.RateSchedule(starts, rates, end_s=1e9, repeat=False)
    run = st.simulate(
        fleet, st.Workload.sessions(schedule, CHAT), horizon_s=UNTIL_S, rng=2026, warmup=AFTER_S / UNTIL_S
    )
    warm = load * pool.cold_capacity_per_s < pool.warm_capacity_per_s
    stays = not warm or (extra > 0 and load > 1)
    observed = "backlog" if run.waiting_mean > STANDING else "none"
    predicted = "backlog" if stays else "none"
    return [
        Cell(
            claim="prefix metastable",
            case=f"load {load:g} of the cold capacity, {'after a burst' if extra else 'from empty'}",
            predicted=predicted,
            observed=observed,
            status=Status.PASS if predicted == observed else Status.FAIL,
            note=f"{run.throughput_per_s:.2f} turns/s, {run.prefix_hit_rate:.0%} found, {run.waiting_mean:.0f} waiting; "
            f"capacity {pool.cold_capacity_per_s:.2f} cold, {pool.warm_capacity_per_s:.2f} warm",
        )
    ]


def mooncake() -> list[Cell]:
    """Capacity under Mooncake's conversations, computing every prompt token and with the hits of an unbounded cache."""
    path = measurements.FOLDER / "mooncake" / "mooncake_conversation.csv"
    if not path.exists():
        return [measurements.absent("prefix capacity")]
    trace = st.read_trace(path)
    engine = st.Engine(max_num_batched_tokens=8192, admission="reserve")
    fleet = st.Fleet.of(st.replica("H100-SXM", "Llama-3.1-8B", engine=engine))
    cells, gained = [], []
    for hits in (False, True):
        workload = trace.workload(prefix_hits=hits).resampled()
        predicted = st.analyze(fleet, workload).capacity_per_s
        run = st.measured_capacity(fleet, workload, requests=12_000, rng=2026)
        gained.append((predicted, run.capacity_per_s))
        name = "Mooncake conversations, " + ("known hits found" if hits else "every token computed")
        cells.append(
            measured(
                "prefix capacity",
                name,
                predicted=predicted,
                observed=run.capacity_per_s,
                tolerance=2 * CAPACITY_TOLERANCE,
            )
        )
    factors = [after / before for before, after in zip(*gained, strict=True)]
    cells.append(
        shown("prefix capacity", "Mooncake conversations, gain of the hits", predicted=factors[0], observed=factors[1])
    )
    return cells


@claim("prefix")
def prefix(size: str) -> Iterator[Task]:
    """Prefix caches."""
    for case in cases(size):
        yield Task(f"prefix hits: {case.name}", hit_rate, (case,))
    if size == "quick":
        return
    for tokens in (120_000, 240_000):
        yield Task(f"prefix capacity: {tokens}", cold_capacity, (tokens,))
    for load, extra in ((0.9, 300), (1.2, 0), (1.2, 300), (1.55, 0)):
        yield Task(f"prefix metastable: {load} {extra}", burst, (load, extra))
    yield Task("prefix capacity: Mooncake", mooncake, ())
