"""Speed of the simulator under each scheduler against first come, first served, side by side: `python benchmarks/schedulers.py`."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import stability as st
from stability.model.engine import Scheduler
from stability.policies import (
    AMax,
    AMin,
    ClassBudgets,
    DecodeFirst,
    HindsightShortestFirst,
    NestedWait,
    Orca,
    PrefillFirst,
    Priority,
    RandomBudget,
    Sarathi,
    ShortestFirst,
    SortedF,
    Wait,
)
from stability.sim.domain import INTERPRETED, limits_of
from stability.sim.engine import simulate

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
LENGTHS = st.lengths.Independent(prompt=st.lengths.Constant(512), output=st.lengths.Constant(128))
SCHEDULERS: tuple[Scheduler, ...] = (
    Sarathi(),
    Orca(),
    PrefillFirst(),
    DecodeFirst(),
    Priority(),
    Wait((1,)),
    NestedWait((63, 127), (1, 1)),
    ClassBudgets((4,), residency="engine"),
    RandomBudget(0, 4, residency="engine"),
    ShortestFirst(residency="engine"),
    ShortestFirst("volume", residency="engine"),
    HindsightShortestFirst(residency="engine"),
    AMax(128, residency="engine"),
    AMin(128, residency="engine"),
    SortedF("prefix", residency="engine"),
)


def replica(scheduler: Scheduler | None) -> st.Replica:
    engine = st.Engine(max_num_batched_tokens=8192, scheduler=scheduler)
    return st.Replica(iteration=LAW, kv_capacity_tokens=131_000, engine=engine)


def seconds(scheduler: Scheduler | None, rate_per_s: float, requests: int) -> float:
    """Processor time of one run."""
    fleet = st.Fleet.of(replica(scheduler))
    workload = st.Workload.poisson(rate_per_s, LENGTHS)
    start = time.process_time()
    simulate(fleet, workload, requests=requests, rng=1)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000, help="under schedulers the reference runs")
    parser.add_argument("--compiled", type=int, default=500_000, help="under compiled ones")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rate", type=float, default=8.0, help="requests/s")
    parser.add_argument("--only", default="", help="schedulers whose name begins so")
    options = parser.parse_args()
    print(f"{'scheduler':60}{'requests/s':>12}{'times slower':>14}{'least':>8}{'most':>8}")
    for scheduler in SCHEDULERS:
        if not type(scheduler).__name__.startswith(options.only):
            continue
        compiled = limits_of(replica(scheduler)).discipline != INTERPRETED
        requests = options.compiled if compiled else options.requests
        seconds(None, options.rate, 1000)
        seconds(scheduler, options.rate, 1000)
        # Side by side: every run beside one of first come, first served, so that both have the machine as it is then.
        ratios, speeds = [], []
        for _ in range(options.repeats):
            base = seconds(None, options.rate, options.compiled) / options.compiled
            own = seconds(scheduler, options.rate, requests) / requests
            ratios.append(own / base)
            speeds.append(1 / own)
        note = "" if compiled else "  reference"
        print(
            f"{scheduler!r:60.58}{statistics.median(speeds):12.0f}{statistics.median(ratios):14.2f}"
            f"{min(ratios):8.2f}{max(ratios):8.2f}{note}"
        )


if __name__ == "__main__":
    main()
