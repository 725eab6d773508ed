"""The claim "peers": our simulator beside independent programs. Only in the full run, which may install them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import stability as st
from stability import lengths as L
from stability.evidence.intervals import Interval, batch_means_interval
from stability.sim.engine import simulate
from tests.sim.test_queues import MEAN_TOKENS, SERVICE_S, STEP_S

from ..cells import Cell, Status, Task, claim, measured, shown
from .environment import PeerUnavailableError, ask

CUSTOMERS = 200_000

SEEDS = {"ciw": 7, "simpy": 8, "line": 0}
"""Both draw from the generator of the standard library: one seed would give both the same arrivals."""

WIDTHS = 2.5
"""Half-widths (95 %, 100 batches) of the difference that pass: five standard errors, false alarms of a few in a million."""

QUEUES = {
    "M/D/1": (1, "constant"),
    "M/M/1": (1, "exponential"),
    "M/M/3": (3, "exponential"),
}
LOADS = (0.3, 0.7)

PROMPT, OUTPUT, BLOCK = 512, 128, 16
REQUESTS = 4_000

ENGINES = {
    # name: (slots, token budget, KV blocks, requests in flight)
    "64 slots bind": (64, 2048, 100_000, REQUESTS),
    "32 in flight": (64, 2048, 100_000, 32),
    "16 000 KV tokens bind": (256, 2048, 1_000, REQUESTS),
    "64 000 KV tokens bind": (256, 2048, 4_000, REQUESTS),
    "2048 tokens per step bind": (512, 2048, 100_000, REQUESTS),
}
STEPS_S = ((0.010, 0.0), (0.010, 0.015))
"""Time of a step that decodes, and what prompts in it add, s."""

SAME = 0.002
"""Tolerance between two simulators of one scheduler: a first step that only prefills takes decode_s less in the peer."""


@claim("peers")
def tasks(size: str) -> Iterator[Task]:
    """One task per peer, because a task may have to install it."""
    if size != "full":
        yield Task("peers", _skipped, ("every peer", "only in the full run, which may install them"))
        return
    for peer in ("ciw", "simpy", "line"):
        yield Task(peer, queue_cells, (peer,))
    yield Task("aisimulate", engine_cells, ())


def _skipped(peer: str, reason: str) -> list[Cell]:
    note = f"skipped: {reason}"
    return [Cell(claim="peers", case=peer, predicted="", observed="", status=Status.SHOWN, note=note)]


def queue_cells(peer: str) -> list[Cell]:
    """Mean waits of degenerate queues: a slot as a server, an output token as a slice of service."""
    found = []
    for name, (servers, service) in QUEUES.items():
        for load in LOADS:
            job = {"servers": servers, "service": service, "load": load, "customers": CUSTOMERS, "seed": SEEDS[peer]}
            try:
                theirs = ask(peer, f"{peer}_queue", job)["wait_mean_s"]
            except PeerUnavailableError as error:
                return _skipped(peer, str(error))
            ours = _wait(servers, service, load)
            # Theirs scatters like ours, but for LINE's, which is exact.
            chance = WIDTHS * ours.half_width * (1.0 if peer == "line" else math.sqrt(2))
            # Service in whole steps: an arrival at a free slot waits for the running step to end.
            steps = STEP_S if servers > 1 else 0.0
            found.append(
                measured(
                    "peers",
                    f"{peer}: {name} at load {load}, mean wait, s",
                    predicted=(ours.low + ours.high) / 2,
                    observed=theirs,
                    half_width=ours.half_width,
                    tolerance=(chance + steps) / theirs,
                    note="ours is the simulator, and so is the interval",
                )
            )
    return found


def _wait(servers: int, service: str, load: float) -> Interval:
    """Mean wait in our simulator, s, its interval by batch means."""
    engine = st.Engine(max_num_seqs=servers, max_num_batched_tokens=max(servers, 8), block_size=1)
    replica = st.Replica(iteration=st.IterationTime(base_s=STEP_S), kv_capacity_tokens=10**9, engine=engine)
    output = L.Constant(MEAN_TOKENS) if service == "constant" else L.Geometric(MEAN_TOKENS)
    workload = st.Workload.poisson(load * servers / SERVICE_S, L.Independent(L.Constant(1), output))
    records = simulate(st.Fleet.of(replica), workload, requests=CUSTOMERS, rng=11).requests
    assert records is not None
    return batch_means_interval((records.admitted_s - records.arrival_s)[CUSTOMERS // 20 :], batches=100)


def engine_cells() -> list[Cell]:
    """Capacity and ITL of one replica on 512 + 128 tokens: our simulator, and shown beside it the theory."""
    lengths = L.Independent(L.Constant(PROMPT), L.Constant(OUTPUT))
    workload = st.Workload.poisson(1.0, lengths)
    found = []
    for name, (slots, budget, blocks, in_flight) in ENGINES.items():
        for decode_s, prefill_s in STEPS_S:
            job = {
                "prompt_tokens": PROMPT,
                "output_tokens": OUTPUT,
                "requests": REQUESTS,
                "concurrency": in_flight,
                "max_num_seqs": slots,
                "max_num_batched_tokens": budget,
                "kv_blocks": blocks,
                "block_size": BLOCK,
                "prefill_s": prefill_s,
                "decode_s": decode_s,
            }
            try:
                theirs = ask("aisimulate", "aisimulate_capacity", job)
            except PeerUnavailableError as error:
                return _skipped("aisimulate", str(error))
            law = st.iteration.TwoPhase(
                decode=st.IterationTime(base_s=decode_s), mixed=st.IterationTime(base_s=decode_s + prefill_s)
            )
            engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=budget, block_size=BLOCK)
            fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=blocks * BLOCK, engine=engine))
            run = simulate(fleet, workload, requests=REQUESTS, concurrency=in_flight, rng=0)
            case = f"aisimulate: {name}, prompts add {1e3 * prefill_s:g} ms"
            note = f"ours is the simulator; {run.preemptions} evictions"
            rate = theirs["throughput_per_s"]
            found += [
                measured(
                    "peers",
                    f"{case}, requests/s",
                    predicted=run.makespan_throughput_per_s,
                    observed=rate,
                    tolerance=SAME,
                    note=note,
                ),
                measured(
                    "peers",
                    f"{case}, ITL, s",
                    predicted=_itl_s(run),
                    observed=theirs["itl_mean_s"],
                    tolerance=SAME,
                    note=note,
                ),
            ]
            if in_flight == REQUESTS:
                found.append(
                    shown(
                        "peers",
                        f"{case}, requests/s by theory",
                        predicted=st.analyze(fleet, workload).capacity_per_s,
                        observed=rate,
                        note="theory of mixed phases; equal lengths keep cohorts in step, and the makespan has a tail",
                    )
                )
    return found


def _itl_s(run: st.SimulationResult) -> float:
    """Mean gap between the tokens of all requests, which have equal outputs, s."""
    return float(run.itl_s.mean())
