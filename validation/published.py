"""Published measurements and closed forms: figures other people printed, beside ours.

The figures live in the literature tests, which say where each was printed; here they become cells of the table.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

import stability as st
from stability import lengths as L
from stability.model import catalog
from stability.sim.engine import simulate
from stability.theory import conditions, footprint
from stability.theory.moments import N_DEMANDS, moments
from tests.literature import test_kv_capacities as blocks
from tests.literature import test_nie_si_zhou_2026 as paper
from tests.literature import test_vllm_pr_44594 as pr

from .cells import Cell, Status, Task, claim, measured, shown

FOOTPRINT, KV_CAPACITY, PREEMPTIONS, RATE_RATIO = 2e-4, 1e-3, 0.15, 0.03
"""Tolerances: a printed rate from its own batch time (4 digits); KV blocks; preemptions; ratios of rates between settings."""

QUEUE_PLOTS = {1.0: "STABLE", 3.0: "STABLE", 5.0: "UNSTABLE", 20.0: "UNSTABLE", 50.0: "UNSTABLE"}
"""Whether the queue of 2605.04595 stays bounded, by requests/s per GPU, mix 1:1."""

ORDERS = {"quick": 24, "full": 64}
"""Orders of the first 128 requests averaged in pull request 44594."""

SEED = 2026


@claim("published")
def tasks(size: str) -> Iterator[Task]:
    """One task per source."""
    for mix in paper.WORKLOADS:
        yield Task(f"2605.04595 {mix}", rates_of_2605_04595, (mix, size))
    yield Task("2605.04595 queues", queues_of_2605_04595, ())
    yield Task("vLLM PR 44594", pull_request_44594, (size,))
    yield Task("closed forms", closed_forms, ())
    yield Task("KV blocks", kv_blocks, ())


def rates_of_2605_04595(mix: str, size: str) -> list[Cell]:
    """Service rates of Llama-3-8B on an A100 with 40 GB; gates with evictions and no measured law of that card."""
    unit = st.Workload.poisson(1.0, paper.WORKLOADS[mix])
    engine = st.Engine(max_num_batched_tokens=paper.CHUNK)
    scaled = st.Fleet.of(_replica(paper.kernel_law_of_the_40_gb_card(), engine))
    capacity = st.analyze(scaled, unit).capacity_per_s
    requests = {"quick": 5_000, "full": 40_000}[size]
    run = simulate(scaled, unit, requests=requests, saturated=True, rng=SEED, keep="summary")
    law = "law of the 80 GB card scaled to its bandwidth"
    return [
        measured(
            "published",
            f"2605.04595 {mix}: its predicted rate",
            predicted=_memory_row_per_s(mix),
            observed=paper.PREDICTED[mix],
            tolerance=FOOTPRINT,
            note="batch time implied by the printed rate: tests footprint and memory row, not the batch time",
        ),
        shown(
            "published",
            f"2605.04595 {mix}: measured rate",
            predicted=capacity,
            observed=paper.MEASURED[mix],
            note=f"theory, {law}; the paper, with measured batch times, predicts {paper.PREDICTED[mix]}",
        ),
        shown(
            "published",
            f"2605.04595 {mix}: measured rate, simulated",
            predicted=run.throughput_per_s,
            observed=paper.MEASURED[mix],
            note=f"simulator, {law}; {run.preemptions / requests:.2f} evictions per request",
        ),
    ]


def _memory_row_per_s(mix: str) -> float:
    """M/(b E[g]) of a gate without evictions, tokens counted one by one; b is implied by the printed rate."""
    demand = moments(paper.WORKLOADS[mix], paper.CHUNK).mean
    law = np.array([paper.BATCH_TIME_S[mix], 0, 0, 0, 0])
    limits = np.array([paper.M, np.inf, np.inf])
    return float(conditions.affine_capacity(law, demand, conditions.occupancy(demand, conditions.GATE_ROWS, limits)))


def _replica(law: st.iteration.IterationLaw, engine: st.Engine) -> st.Replica:
    return st.Replica(iteration=law, kv_capacity_tokens=paper.M, engine=engine)


def queues_of_2605_04595() -> list[Cell]:
    """Verdicts at the rates of its queue plots."""
    replica = _replica(paper.kernel_law_of_the_40_gb_card(), st.Engine(max_num_batched_tokens=paper.CHUNK))
    found = []
    for rate, truth in QUEUE_PLOTS.items():
        report = st.analyze(st.Fleet.of(replica), st.Workload.poisson(rate, paper.WORKLOADS["1:1"]))
        if report.verdict is st.Verdict.UNDETERMINED:
            status = Status.UNDETERMINED
        else:
            status = Status.PASS if report.verdict.name == truth else Status.FAIL
        found.append(
            Cell(
                claim="published",
                case=f"2605.04595 1:1: queue at {rate:g}/s",
                predicted=report.verdict.name,
                observed=truth,
                status=status,
                note=f"load {report.load:.2f} with a step-time law scaled from another card; measured capacity {paper.MEASURED['1:1']}/s",
            )
        )
    return found


def pull_request_44594(size: str) -> list[Cell]:
    """Preemptions and ratios of rates at five watermarks; the simulator alone.

    Lengths of +-20 % synchronise completions: outside the regime of the eviction law, which predicts nothing here.
    """
    runs = pr.orders(ORDERS[size], None)
    preemptions, rates = runs.mean(axis=0).T
    errors = 1.96 * runs[:, :, 0].std(axis=0, ddof=1)
    best = pr.WATERMARKS.index(0.05)
    found = []
    for row, watermark in enumerate(pr.WATERMARKS):
        case = f"vLLM PR 44594, watermark {watermark:g}"
        counted = float(pr.PREEMPTIONS[row])
        found += [
            measured(
                "published",
                f"{case}: preemptions",
                predicted=float(preemptions[row]),
                observed=counted,
                half_width=float(errors[row]),
                tolerance=PREEMPTIONS,
                note=f"mean of {len(runs)} orders of the first {pr.IN_FLIGHT} requests; the interval is one run's",
            ),
            measured(
                "published",
                f"{case}: rate over that at watermark 0.05",
                predicted=float(rates[row] / rates[best]),
                observed=float(pr.REQUESTS_PER_S[row] / pr.REQUESTS_PER_S[best]),
                tolerance=RATE_RATIO,
            ),
            shown(
                "published",
                f"{case}: requests/s",
                predicted=float(rates[row]),
                observed=float(pr.REQUESTS_PER_S[row]),
                note="roofline with 2.7 ms host time per step, which asynchronous scheduling hides in part",
            ),
        ]
    return found


def closed_forms() -> list[Cell]:
    """Published stability conditions as special cases of the load formula."""
    staircase = st.iteration.Staircase(base_s=0.01128, per_step_s=0.03547, step_tokens=128)
    engine = st.Engine(max_num_seqs=512, max_num_batched_tokens=512, admission="reserve", block_size=1)
    fleet = st.Fleet.of(st.Replica(iteration=staircase, kv_capacity_tokens=10**9, engine=engine))
    found = []
    for prompt, decode, printed, digit in ((100, 100, 16.71, 0.01), (129, 112, 13.9, 0.1)):
        # Decode tokens after the prompt: one less than our output tokens.
        workload = st.Workload.poisson(1.0, L.Independent(L.Constant(prompt), L.Constant(decode + 1)))
        found.append(
            measured(
                "published",
                f"2504.07347 theorem 2: ({prompt}, {decode})",
                predicted=st.analyze(fleet, workload).upper_bound_per_s,
                observed=printed,
                tolerance=digit / 2 / printed,
            )
        )
    memory = sum(float(footprint.volume(10, o, 10**6, residency="slots")) for o in (20, 40, 60)) / 16_492
    one_step, no_work = np.array([1.0, 0, 0, 0, 0]), np.zeros(N_DEMANDS)
    found.append(
        measured(
            "published",
            "2604.11001 proposition 3.2: rate per class",
            predicted=float(conditions.affine_capacity(one_step, no_work, np.array([memory]))),
            observed=4.0621,
            tolerance=1e-4 / 2 / 4.0621,
        )
    )
    return found


def kv_blocks() -> list[Cell]:
    """KV blocks that an engine reported on H100s, against the memory formula without a reserve."""
    found = []
    for model, degree, count in blocks.BLOCKS:
        capacity = catalog.kv_capacity(
            catalog.gpu("H100-SXM"), catalog.model(model), tensor_parallel=degree, activation_reserve_bytes=0
        )
        found.append(
            measured(
                "published",
                f"KV blocks, {model} on {degree} x H100",
                predicted=capacity / 16,
                observed=count / degree,
                tolerance=KV_CAPACITY,
            )
        )
    return found
