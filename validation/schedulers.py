"""WAIT on the workloads of arXiv 2504.11320: its theory against simulation, and its order against the engines' schedulers.

`python -m validation --full --only schedulers` is the claim; `python -m validation.schedulers` prints the table of docs/guides/schedulers.md.

Setting: one A100 80 GB with Llama-2-7B as the catalog's roofline has it (no kernel timings are known for it), 137 000 tokens of KV.
"vLLM" is prefill-only first in whole prompts (token budget 4096), "Sarathi" decodes first in chunks of 512, as in the paper's simulator.
Everything scheduler by scheduler on the same requests.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

import stability as st
from stability._result import text_table
from stability.compare.candidates import named_policies, with_scheduler
from stability.compare.schedulers import run_metrics
from stability.evidence.intervals import batch_means_interval
from stability.model.engine import Scheduler
from stability.policies import EngineState, Fcfs, NestedWait, Plan, PrefillFirst, UserScheduler, Wait
from stability.theory.wait import engine_model, mean_latency_s

from .cells import Cell, Status, Task, claim, measured, shown

KV_TOKENS = 137_000

WORKLOADS = {"p512d20": (512, 20), "p512d1000": (512, 1000), "memory": (200, 40)}
"""Prompt and output tokens: the paper's two, and one whose memory binds where WAIT can run."""

MEMORY_LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
MEMORY_TOKENS = 20_000
"""Of "memory": 2.3 requests per stage fill it."""

RATES = {
    "quick": {"p512d20": (22.0,), "memory": (78.0,)},
    "full": {
        "p512d20": (12.0, 16.0, 20.0, 22.0, 23.0, 24.0),
        "p512d1000": (1.0, 1.5, 1.8, 2.0),
        "memory": (64.0, 73.0, 78.0, 83.0),
    },
}
"""The paper's grid; the long outputs as far as this law serves them; 70 to 90 % of the bound."""

REQUESTS = {
    "p512d20": {"quick": 800, "full": 3000},
    "p512d1000": {"quick": 300, "full": 600},
    "memory": {"quick": 800, "full": 3000},
}

REPLICATIONS = {"quick": 4, "full": 6}

PAPER = ("WAIT", "Sarathi", "vLLM")
"""Order of mean latencies in the paper, at every rate of its grids and most clearly near saturation."""

TOLERANCE = 0.06
"""On WAIT's mean latency, whose formula is exact: the sampling error."""

JUDGED_LOAD = 0.92
"""Share of the time in batches above which that error is larger."""

NESTED_LAW = st.IterationTime(base_s=0.013, per_prefill_token_s=5e-6, per_decode_token_s=2e-6, per_kv_token_s=5e-8)
NESTED = {
    "two segments": (
        st.lengths.Independent(st.lengths.Constant(50), st.lengths.Discrete([21, 51], [0.7, 0.3])),
        NestedWait((20, 50), (4, 2)),
    ),
    "one segment": (
        st.lengths.Independent(st.lengths.Constant(50), st.lengths.Discrete([21, 51], [0.7, 0.3])),
        NestedWait((50,), (3,)),
    ),
    "three segments": (
        st.lengths.Independent(st.lengths.Constant(30), st.lengths.Discrete([6, 16, 31], [0.5, 0.3, 0.2])),
        NestedWait((5, 15, 30), (8, 5, 3)),
    ),
}
"""Lengths and scheduler, in 20 000 tokens of KV."""

NESTED_ERROR = 0.01
"""Of a flooded run's throughput, which counts its start and its end."""

SEED = 2026

Table = dict[str, dict[str, np.ndarray]]
"""Metrics of every scheduler, one figure a replication."""


@dataclass(frozen=True, slots=True)
class Booking(UserScheduler):
    """What the authors' released code does for one type: admission in groups, and all requests under way in every batch.

    A batch starts when min(group, cap - under way) prompts wait, and takes so many; else the engine waits, decodes included.
    """

    group: int
    cap: int

    def plan(self, state: EngineState) -> Plan:
        """See the class."""
        needed = max(0, min(self.group, self.cap - len(state.running)))
        if len(state.waiting) < needed:
            return Plan()
        batch = [(request, request.known_tokens - request.computed) for request in state.running]
        return Plan(batch + [(request, request.prompt_tokens) for request in list(state.waiting)[:needed]])


MEMORY_NAMES = {
    "prompt-gate": "gate",
    "headroom": "gate, headroom",
    "reserve": "reserve",
    "class-budgets": "budgets",
    "wait": "WAIT",
}
"""Schedulers of "memory", by their names in `compare_schedulers`."""


def fleet(policy: Scheduler, budget: int) -> st.Fleet:
    """One replica under a scheduler."""
    engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=budget, scheduler=policy)
    return st.Fleet.of(replace(st.replica("A100-80GB-SXM", "Llama-2-7B", engine=engine), kv_capacity_tokens=KV_TOKENS))


def workload(name: str, rate_per_s: float) -> st.Workload:
    """Poisson arrivals of requests that are all alike."""
    prompt, output = (st.lengths.Constant(tokens) for tokens in WORKLOADS[name])
    return st.Workload.poisson(rate_per_s, st.lengths.Independent(prompt, output))


def rivals(name: str, rate_per_s: float) -> dict[str, st.Fleet]:
    """The schedulers, with what theory recommends for the rate."""
    load = workload(name, rate_per_s)
    if name == "memory":
        replica = st.Replica(iteration=MEMORY_LAW, kv_capacity_tokens=MEMORY_TOKENS, engine=st.Engine())
        chosen, _ = named_policies(st.Fleet.of(replica), load, tuple(MEMORY_NAMES))
        return {MEMORY_NAMES[key]: with_scheduler(st.Fleet.of(replica), policy) for key, policy in chosen.items()}
    gate = fleet(Fcfs("prompt_gate"), 2048)
    tuned = st.tune(gate, load, vary=("watermark",), latencies=False).pools[0].then.engine.watermark
    found = {
        "vLLM": fleet(PrefillFirst(), 4096),
        "Sarathi": fleet(Fcfs("prompt_gate", 0.01), 512),
        "gate, headroom": fleet(Fcfs("prompt_gate", tuned), 2048),
    }
    prompt, output = WORKLOADS[name]
    model = engine_model(fleet(Fcfs(), 4096).pools[0].replica, load)
    if model.fits([1]):
        group = 1
        while rate_per_s * model.iteration_s([group]) >= group and model.fits([group + 1]):
            group += 1  # the least that keeps up
        found["WAIT"] = fleet(Wait((group,)), 4096)
    else:  # one request per stage does not fit: the code's rule, with as many under way as never overflow
        found["WAIT"] = fleet(Booking(1, KV_TOKENS // (prompt + output)), 4096)
    return found


def simulated(name: str, rate_per_s: float, size: str) -> Table:
    """Every scheduler on the same requests."""
    load, found = workload(name, rate_per_s), {}
    for rival, servers in rivals(name, rate_per_s).items():
        rows = []
        for run in range(REPLICATIONS[size]):
            seed = np.random.SeedSequence(SEED, spawn_key=(run,))
            result = st.simulate(servers, load, requests=REQUESTS[name][size], rng=seed)
            rows.append({**run_metrics(result), "overloaded": float(result.overloaded)})
        found[rival] = {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}
    return found


def order(table: Table, names: tuple[str, ...] = PAPER) -> str:
    """The schedulers by mean latency, "<" where the paired 95 % interval of neighbours excludes 0, else "~"."""
    means = {name: table[name]["latency_mean_s"] for name in names}
    ranked = sorted(means, key=lambda name: float(means[name].mean()))
    text = ranked[0]
    for first, second in pairwise(ranked):
        gaps = means[second] - means[first]
        text += (" < " if batch_means_interval(gaps, batches=len(gaps)).low > 0 else " ~ ") + second
    return text


@claim("schedulers")
def tasks(size: str) -> Iterator[Task]:
    """One task per workload and rate."""
    for name, rates in RATES[size].items():
        for rate in rates:
            yield Task(f"schedulers {name} at {rate:g}/s", cells_of, (name, rate, size))
    for name in NESTED if size == "full" else ():  # a short run is mostly its start and its end
        yield Task(f"schedulers nested wait {name}", nested_cells, (name,))


def cells_of(name: str, rate_per_s: float, size: str) -> list[Cell]:
    """WAIT's latency against its formula, and the order of the schedulers against the paper's."""
    table = simulated(name, rate_per_s, size)
    case = f"{name} at {rate_per_s:g}/s"
    # What WAIT is meant for: memory binds, and it never evicts.
    names = ("WAIT", "gate, headroom") if name == "memory" else PAPER
    seen, words = order(table, names), " < ".join(names)
    found = [
        Cell(
            claim="scheduler order",
            case=case,
            predicted=words,
            observed=seen,
            status=Status.PASS if seen == words else Status.FAIL,
            note="; ".join(f"{rival} {columns['latency_mean_s'].mean():.4g} s" for rival, columns in table.items()),
        )
    ]
    replica = rivals(name, rate_per_s)["WAIT"].pools[0].replica
    policy = replica.engine.scheduler
    if not isinstance(policy, Wait):
        return found
    model, (threshold,) = engine_model(replica, workload(name, rate_per_s)), policy.thresholds
    columns = table["WAIT"]["latency_mean_s"]
    exact, observed = mean_latency_s(model, threshold)[0], float(columns.mean())
    if rate_per_s * model.iteration_s([threshold]) < JUDGED_LOAD * threshold:
        half = batch_means_interval(columns, batches=len(columns)).half_width
        found.append(
            measured("WAIT latency", case, predicted=exact, observed=observed, half_width=half, tolerance=TOLERANCE)
        )
    else:
        found.append(shown("WAIT latency", case, predicted=exact, observed=observed, note="sampling error too large"))
    evicted = float(table["WAIT"]["evictions_per_request"].sum())
    found.append(
        Cell(
            claim="WAIT evictions",
            case=case,
            predicted="none",
            observed="some" if evicted else "none",
            status=Status.FAIL if evicted else Status.PASS,
        )
    )
    return found


def nested_cells(name: str) -> list[Cell]:
    """Nested WAIT flooded serves what the theory says it can, between its sufficient and its necessary rate; below, nothing is evicted."""
    lengths, policy = NESTED[name]
    engine = st.Engine(max_num_seqs=2048, max_num_batched_tokens=16_384, block_size=1, scheduler=policy)
    servers = st.Fleet.of(st.Replica(iteration=NESTED_LAW, kv_capacity_tokens=20_000, engine=engine))
    report = st.analyze(servers, st.Workload.poisson(1.0, lengths))
    low, high = report.stable_below_per_s, report.unstable_above_per_s
    requests = 20_000
    flooded = st.simulate(servers, st.Workload.poisson(2 * high, lengths), requests=requests, rng=SEED)
    rate = flooded.throughput_per_s
    inside = (1 - NESTED_ERROR) * low <= rate <= (1 + NESTED_ERROR) * high
    below = st.simulate(servers, st.Workload.poisson(0.97 * low, lengths), requests=requests, rng=SEED)
    keeps = not below.overloaded and below.preemptions == 0
    return [
        Cell(
            claim="nested WAIT",
            case=f"{name}: flooded, requests/s",
            predicted=f"{low:.1f} to {high:.1f}",
            observed=f"{rate:.1f}",
            status=Status.PASS if inside else Status.FAIL,
            note="n_1/DT(n) under Theorem 2, n_1/(c0 + n_1 E[W]) for every batch",
        ),
        Cell(
            claim="nested WAIT",
            case=f"{name}: at 0.97 of the sufficient rate",
            predicted="keeps up, no evictions",
            observed=f"{'keeps up' if not below.overloaded else 'falls behind'}, {below.preemptions or 'no'} evictions",
            status=Status.PASS if keeps else Status.FAIL,
        ),
    ]


def saturated(name: str) -> tuple[str, ...]:
    """Completions per second of each scheduler with everything waiting at time 0."""
    requests = 600 if name == "p512d1000" else 3000
    found = rivals(name, RATES["full"][name][0]).values()
    runs = (st.simulate(each, workload(name, 1.0), requests=requests, saturated=True, rng=SEED) for each in found)
    return (name, "saturated", *(f"{run.throughput_per_s:.4g} req/s" for run in runs))


def main() -> int:
    """Print a table per workload, of all or of those named."""
    size = "quick" if "--quick" in sys.argv else "full"
    wanted = [name for name in RATES[size] if name in sys.argv] or list(RATES[size])
    for name in wanted:
        rows = []
        for rate in RATES[size][name]:
            table = simulated(name, rate, size)
            cells = [name, f"{rate:g}"]
            for columns in table.values():
                latency = columns["latency_mean_s"]
                half = batch_means_interval(latency, batches=len(latency)).half_width
                evictions, grows = columns["evictions_per_request"].mean(), columns["overloaded"].any()
                more = (f", {evictions:.3f} ev." if evictions else "") + (" (queue grows)" if grows else "")
                cells.append(f"{latency.mean():.3g} ± {half:.2g}{more}")
            rows.append((*cells, order(table, tuple(table))))
            print(rows[-1], file=sys.stderr, flush=True)
        rows.append(saturated(name))
        print(text_table(rows, ("workload", "rate", *rivals(name, RATES[size][name][0]), "order")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
