"""How long fluid paths take, and how coarse ages change them: `python benchmarks/fluid.py`.

A day of 86 400 s over 8 pools and 10 classes, each with a rate of its own that follows the day; then the refinement study: the
same day in bins of ages of halving width.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import stability as st
from stability import lengths as L

DAY_S = 86_400.0


def day(pools: int = 8, classes: int = 10, load: float = 0.6) -> tuple[st.Fleet, st.Workload]:
    """A fleet of different pools and classes whose peaks come at different hours; overloaded for part of the day."""
    law = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
    fleet = st.Fleet(
        [
            st.Pool(
                f"pool {i}",
                st.Replica(
                    iteration=law.scaled(1 + 0.1 * i),
                    kv_capacity_tokens=60_000 + 10_000 * i,
                    engine=st.Engine(max_num_seqs=256, max_num_batched_tokens=4096, watermark=0.05),
                ),
                1 + i % 3,
            )
            for i in range(pools)
        ]
    )
    starts = np.arange(0.0, DAY_S, 600.0)
    found = []
    for k in range(classes):
        prompt, output = 100 + 80 * k, 100 + 40 * k
        lengths = L.Independent(L.Uniform(prompt // 2, 3 * prompt // 2), L.Uniform(output // 2, 3 * output // 2))
        rates = 1.0 + 0.9 * np.sin(2 * np.pi * (starts / DAY_S - k / 30))
        schedule = st.RateSchedule(starts.tolist(), rates.tolist(), end_s=DAY_S)
        found.append(st.RequestClass(f"class {k}", schedule, lengths))
    workload = st.Workload(found)
    capacity = st.analyze(fleet, workload.averaged()).capacity_per_s
    return fleet, workload.scaled(rate_per_s=load * capacity)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finest", type=int, default=16, help="narrowest bins of the refinement study, iterations")
    finest = parser.parse_args().finest
    fleet, workload = day()
    st.fluid_path(fleet, workload, horizon_s=600.0)  # compiles, or loads what is compiled
    for _ in range(2):
        begun = time.perf_counter()
        path = st.fluid_path(fleet, workload, horizon_s=DAY_S)
        wall = time.perf_counter() - begun
    print(
        f"day, 8 pools, 10 classes: {wall:.2f} s; bins of {path.width} iterations, error {path.error:.1e} (against bins twice"
    )
    print(f"as wide, both runs in the time); imbalance {path.imbalance:.0e}; {path!r}\n")
    print("width  time     peak backlog  drained after  largest change")
    before = None
    width = 512
    while width >= finest:
        begun = time.perf_counter()
        path = st.fluid_path(fleet, workload, horizon_s=DAY_S, width=width, estimate_error=False)
        wall = time.perf_counter() - begun
        total = path.backlog + path.running.sum(axis=1)
        change = "-" if before is None else f"{np.abs(total - before).max() / total.max():.1e}"
        print(f"{width:5d}  {wall:6.2f} s  {path.peak_backlog:12.1f}  {path.drain_time_s:11.1f} s  {change}")
        before, width = total, width // 2


if __name__ == "__main__":
    main()
