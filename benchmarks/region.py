"""How long the capacity region takes: `python benchmarks/region.py`, from the checkout or with the package installed.

The fleet of `benchmarks/analysis.py`: 1000 pools that all differ and 50 classes, each of which fits everywhere; nothing can be merged.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np

import stability as st
from stability.control.balance import least_load

POOLS, CLASSES = 1000, 50


def fleet() -> st.Fleet:
    """Pools that differ in law, KV cache and engine."""
    pools = []
    for i in range(POOLS):
        law = st.IterationTime(
            base_s=0.008 + 1e-5 * i, per_prefill_token_s=5e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8
        )
        engine = st.Engine(
            max_num_seqs=128 + i % 128, max_num_batched_tokens=(2048, 4096, 8192)[i % 3], admission="reserve"
        )
        pools.append(
            st.Pool(f"p{i}", st.Replica(iteration=law, kv_capacity_tokens=300_000 + 100 * i, engine=engine), 4)
        )
    return st.Fleet(pools)


def workload() -> st.Workload:
    """Lognormal lengths, a mean of its own for each class."""
    classes = []
    for k in range(CLASSES):
        prompt = st.lengths.LogNormal(500 + 20 * k, 1.0, limit=16_000)
        output = st.lengths.LogNormal(150 + 5 * k, 0.8, limit=2_000)
        classes.append(st.RequestClass(f"c{k}", 10.0, st.lengths.Independent(prompt, output)))
    return st.Workload(classes)


def row(name: str, wall: list[float], cpu: list[float], budget_s: float) -> None:
    """One line: medians."""
    middle = statistics.median(wall)
    verdict = "within" if middle < budget_s else "ABOVE"
    print(f"{name:<58} {middle:>7.2f} s {statistics.median(cpu):>7.2f} s {budget_s:>6.1f} s  {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7, help="repetitions (default 7)")
    parser.add_argument("--highs", action="store_true", help="also time HiGHS on the same program, once")
    arguments = parser.parse_args()
    repeats: int = arguments.repeats
    print(f"numpy {np.__version__}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<58} {'wall':>9} {'CPU':>9} {'budget':>8}")
    pools, mix = fleet(), workload()
    times: dict[str, list[float]] = {name: [] for name in ("wall", "cpu", "again", "again cpu")}
    gaps = []
    rng = np.random.default_rng(1)
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        region = st.capacity_region(pools, mix)
        times["wall"].append(time.perf_counter() - wall)
        times["cpu"].append(time.process_time() - cpu)
        rates = region.rates_per_s * rng.uniform(0.5, 1.5, CLASSES)
        wall, cpu = time.perf_counter(), time.process_time()
        other = region.contains(rates)
        times["again"].append(time.perf_counter() - wall)
        times["again cpu"].append(time.process_time() - cpu)
        gaps += [region.gap, other.balance.gap]
    row(f"region, {POOLS} pools x {CLASSES} classes: rows, factor and prices", times["wall"], times["cpu"], 2.0)
    row("the same rows, a new vector of rates", times["again"], times["again cpu"], 0.3)
    print(f"largest certified gap {max(gaps):.1e}")
    if arguments.highs:
        system = region.system
        wall, cpu = time.perf_counter(), time.process_time()
        found = least_load(system.seconds, system.replicas, system.rates_per_s, system.fits, solver="HIGHS")
        print(f"HiGHS: {time.perf_counter() - wall:.1f} s, CPU {time.process_time() - cpu:.1f} s, gap {found.gap:.1e}")


if __name__ == "__main__":
    main()
