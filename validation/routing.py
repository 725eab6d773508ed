"""The capacity region against the simulator: splits on mixed fleets at 0.97 and 1.03 of its boundary, and admission in overload.

The optimal split must be stable at 0.97 of the boundary that policy rows draw, splits blind to the fleet's differences must not be, and at
1.03 nothing must be, routers that look at queues included. Verdicts are those of the stability test on the simulated backlog
(`stability.sim.bisection.rate_trial`, alpha = beta = 0.5 %): a run is doubled until decided.

Admission at 1.3 times the boundary: value earned per second of bid prices, first come first served, and queues of bounded length.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import stability as st
from stability import lengths as L
from stability.control.admission import AdmissionPlan
from stability.model import catalog
from stability.model.iteration import IterationTime, TwoPhase
from stability.model.requests import draw_blocks
from stability.model.streams import Stream, generator, seed_sequence
from stability.policies import WeightedSplit
from stability.sim.bisection import rate_trial

from .cells import Cell, Status, Task, claim

MODEL = "Llama-3.1-8B"

INSIDE, OUTSIDE = 0.97, 1.03

NEAR = 1.01
"""Where the optimal split must be unstable already: the boundary is no looser than that."""

SEED = 2026

QUICK = "2+1+2 gate"
"""Fleet of the quick run: decided soonest."""

FIRST, MOST = 64_000, 65_536_000
"""Requests of a first run, and those beyond which a run is not doubled."""

OVERLOAD = 1.3
EARNED = 0.03
"""Largest share of the fluid optimum that bid prices may leave."""

ADMISSION_REQUESTS = {"quick": 40_000, "full": 200_000}
MAX_WAITING = 4
"""Requests that may wait at a replica when full queues turn arrivals away."""

CHAT = L.Independent(L.LogNormal(400, 1.0, limit=8_000), L.LogNormal(200, 0.8, limit=1_000))
CODE = L.Independent(L.LogNormal(1500, 0.6, limit=8_000), L.LogNormal(60, 0.8, limit=400))
DOCUMENT = L.Independent(L.LogNormal(3000, 0.6, limit=12_000), L.LogNormal(250, 0.6, limit=1_000))
REASONING = L.Independent(L.Uniform(50, 300), L.LogNormal(1000, 0.6, limit=4_000))


@dataclass(frozen=True, slots=True)
class MixedFleet:
    """A fleet of A100, H100 and L40S, by figures.

    Attributes
    ----------
    name : str
    counts : (int, int, int)
        Replicas of A100, H100 and L40S.
    engine : Engine
    classes : tuple of (str, Lengths, float)
        Name, lengths and share of the requests.
    affine : bool
        Whether the catalog's two-phase laws are replaced by affine ones with the decode-only base and the mixed slopes.
    parallel : int
        GPUs of an L40S replica; on more than one its law is the roofline.
    """

    name: str
    counts: tuple[int, int, int]
    engine: st.Engine
    classes: tuple[tuple[str, L.Lengths, float], ...]
    affine: bool
    parallel: int = 1

    def build(self) -> st.Fleet:
        """The fleet."""
        pools = []
        for gpu, count in zip(("A100-80GB-SXM", "H100-SXM", "L40S"), self.counts, strict=True):
            replica = catalog.replica(
                gpu, MODEL, tensor_parallel=self.parallel if gpu == "L40S" else 1, engine=self.engine
            )
            if self.affine:
                replica = replace(replica, iteration=_affine(replica.iteration))
            pools.append(st.Pool(gpu.split("-")[0], replica, count))
        return st.Fleet(pools)

    def workload(self) -> st.Workload:
        """Its traffic, at one request per second."""
        return st.Workload([st.RequestClass(name, share, lengths) for name, lengths, share in self.classes])


def _affine(law: st.iteration.IterationLaw) -> IterationTime:
    assert isinstance(law, TwoPhase)
    return IterationTime(
        base_s=law.decode.base_s,
        per_prefill_token_s=law.mixed.per_prefill_token_s,
        per_decode_token_s=law.decode.per_decode_token_s,
        per_kv_token_s=law.mixed.per_kv_token_s,
        per_prefill_context_s=law.mixed.per_prefill_context_s,
    )


RESERVE = st.Engine(max_num_seqs=256, max_num_batched_tokens=4096, admission="reserve")
GATE = st.Engine(max_num_seqs=512, max_num_batched_tokens=4096, admission="prompt_gate", watermark=0.03)


def fleets() -> list[MixedFleet]:
    """Five: both admission rules, two to three classes, affine and two-phase laws."""
    chat_document = (("chat", CHAT, 0.8), ("document", DOCUMENT, 0.2))
    return [
        MixedFleet("2+2+3 reserve", (2, 2, 3), RESERVE, chat_document, True),
        MixedFleet(
            "1+2+4 reserve, three classes",
            (1, 2, 4),
            RESERVE,
            (("chat", CHAT, 0.5), ("code", CODE, 0.3), ("document", DOCUMENT, 0.2)),
            True,
        ),
        MixedFleet(
            "3+1+2 reserve, reasoning", (3, 1, 2), RESERVE, (("reasoning", REASONING, 0.4), ("code", CODE, 0.6)), True
        ),
        MixedFleet("2+1+2 gate", (2, 1, 2), GATE, (("reasoning", REASONING, 0.3), ("document", DOCUMENT, 0.7)), True),
        MixedFleet("2+2+2x2 reserve, catalog laws", (2, 2, 2), RESERVE, chat_document, False, parallel=2),
    ]


def blind_splits(fleet: st.Fleet) -> dict[str, str | WeightedSplit]:
    """Routers that know nothing of speeds and memory."""
    by_gpus = WeightedSplit([float(pool.replicas * pool.replica.gpus) for pool in fleet.pools])
    return {"round robin": "round_robin", "random": "random", "by GPUs": by_gpus}


WATCHING = ("join_shortest_queue", "join_shortest_kv", "power_of_two")


@claim("routing")
def tasks(size: str) -> Iterator[Task]:
    """Each fleet with each router at each load; then admission."""
    for item in fleets():
        if size == "quick" and item.name != QUICK:
            continue
        fleet = item.build()
        routers = ["optimal split", *blind_splits(fleet)]
        for router in routers:
            yield Task(f"{item.name} / {router} / {INSIDE}", split_cell, (item, router, INSIDE))
        if size == "full":
            yield Task(f"{item.name} / optimal split / {NEAR}", split_cell, (item, "optimal split", NEAR))
        for router in ("optimal split",) if size == "quick" else (*routers, *WATCHING):
            yield Task(f"{item.name} / {router} / {OUTSIDE}", split_cell, (item, router, OUTSIDE))
    for item in fleets()[: 1 if size == "quick" else 3]:
        yield Task(f"{item.name} / admission", admission_cells, (item, size))


def split_cell(item: MixedFleet, router: str, load: float) -> list[Cell]:
    """The verdict of the stability test beside what the region says."""
    fleet, unit = item.build(), item.workload()
    region = st.capacity_region(fleet, unit)
    workload = unit.scaled(rate_per_s=load * region.rate_per_s)
    policies: dict[str, str | WeightedSplit] = {
        "optimal split": region.router,
        **blind_splits(fleet),
        **{name: name for name in WATCHING},
    }
    trial = rate_trial(
        fleet,
        workload,
        requests_per_run=FIRST,
        most_requests=MOST,
        router=policies[router],
        correlation_samples=1,
        root=seed_sequence(SEED),
    )
    wanted = st.Verdict.STABLE if load < 1 and router == "optimal split" else st.Verdict.UNSTABLE
    loads = _loads(fleet, region, policies[router], load)
    note = f"{trial.requests} requests; load of the fullest pool {loads:.3f}" if loads else f"{trial.requests} requests"
    return [
        Cell(
            claim="split",
            case=f"{item.name} / {router} / {load}",
            predicted=str(wanted),
            observed=str(trial.verdict),
            status=Status.PASS if trial.verdict is wanted else Status.FAIL,
            note=note,
        )
    ]


def _loads(fleet: st.Fleet, region: st.CapacityRegion, router: str | WeightedSplit, load: float) -> float:
    """Greatest load of a row under a static split; 0 for routers that look."""
    counts = np.array([float(pool.replicas) for pool in fleet.pools])
    if isinstance(router, str) and router not in ("round_robin", "random"):
        return 0.0
    weights = np.array(router.weights) if isinstance(router, WeightedSplit) else counts[None, :]
    shares = (weights / weights.sum(axis=1, keepdims=True)).T * np.ones(len(region.classes))
    rates = load * region.factor * region.rates_per_s * shares
    rows = np.einsum("irk,ik->ir", region.system.seconds, rates)
    return float((rows / counts[:, None]).max())


def admission_cells(item: MixedFleet, size: str) -> list[Cell]:
    """Value per second of three ways to admit, beside the fluid optimum."""
    fleet = item.build()
    unit = item.workload()
    costs = st.capacity_region(fleet, unit).class_prices
    values = [1.0, 2.0, 0.7][: len(unit.classes)]
    classes = [
        replace(one, value=float(value * cost / costs[0]))  # worth per cost differs by class
        for one, value, cost in zip(unit.classes, values, costs, strict=True)
    ]
    rate = OVERLOAD * st.capacity_region(fleet, st.Workload(classes)).rate_per_s
    workload = st.Workload(classes).scaled(rate_per_s=rate)
    plan = st.admission_control(fleet, workload)
    fluid = st.admission_control(fleet, workload, headroom=0.0).value_per_s
    requests = ADMISSION_REQUESTS[size]
    priced = _bid_prices(fleet, workload, plan, requests)
    blind = st.optimal_split(fleet, workload).router
    first_come = _earned(fleet, workload, blind, requests, None)
    bounded = _earned(fleet, workload, blind, requests, MAX_WAITING)
    name = f"{item.name} / {OVERLOAD}"
    return [
        Cell(
            claim="admission",
            case=f"{name} / bid prices",
            predicted=fluid,
            observed=priced,
            tolerance=EARNED,
            status=Status.PASS if priced >= (1 - EARNED) * fluid else Status.FAIL,
            note="value per second, fluid optimum and earned",
        ),
        *(
            Cell(
                claim="admission",
                case=f"{name} / more than {what}",
                predicted=priced,
                observed=earned,
                status=Status.PASS if priced > earned else Status.FAIL,
                note=f"{100 * (priced / earned - 1):.1f} % more",
            )
            for what, earned in (("first come, first served", first_come), ("rejecting when full", bounded))
        ),
    ]


def _bid_prices(fleet: st.Fleet, workload: st.Workload, plan: AdmissionPlan, requests: int) -> float:
    """Value of what completes per second when the plan's thresholds thin the arrivals before the fleet.

    Exact: the controller looks at arrivals only, and a static split makes the pools independent of each other.
    """
    root = seed_sequence(SEED)
    blocks = list(draw_blocks(workload, requests=requests, rng=root))
    arrival, kind, prompt, output = (
        np.concatenate([getattr(block, name) for block in blocks])
        for name in ("arrival_s", "request_class", "prompt_tokens", "output_tokens")
    )
    chosen = plan.admit(arrival, kind, generator(root, Stream.ROUTING).random(len(arrival)))
    values = np.array([item.value for item in workload.classes])[kind]
    begin, end = _window(float(arrival[-1]))
    earned = 0.0
    for index, pool in enumerate(fleet.pools):
        own = chosen == index
        if not own.any():
            continue
        replay = st.Workload.from_requests(arrival[own], prompt[own], output[own])
        done = st.simulate(st.Fleet([pool]), replay, router="random", rng=SEED).requests
        assert done is not None
        earned += float(values[own][(done.finish_s >= begin) & (done.finish_s < end)].sum())
    return earned / (end - begin)


def _earned(
    fleet: st.Fleet, workload: st.Workload, router: WeightedSplit, requests: int, max_waiting: int | None
) -> float:
    """Value of what completes per second under a split of all arrivals."""
    run = st.simulate(fleet, workload, requests=requests, router=router, rng=SEED, max_waiting=max_waiting)
    assert run.requests is not None
    begin, end = _window(float(run.requests.arrival_s[-1]))
    values = np.array([item.value for item in workload.classes])[run.requests.request_class]
    inside = (run.requests.finish_s >= begin) & (run.requests.finish_s < end)
    return float(values[inside].sum()) / (end - begin)


def _window(last_s: float) -> tuple[float, float]:
    """The measured part of a run: its first fifth fills the fleet."""
    return 0.2 * last_s, last_s
