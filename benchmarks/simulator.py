"""Speed and memory of the simulator: `python benchmarks/simulator.py`.

Event loop: everything but drawing the requests and building the result. Whole: `simulate` with every request kept.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

import stability as st
from stability.model.requests import draw_blocks
from stability.policies.routers import router_of
from stability.sim.capacity import measured_capacity
from stability.sim.domain import replicas_of
from stability.sim.engine import simulate

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
FIXED = st.lengths.Independent(prompt=st.lengths.Constant(512), output=st.lengths.Constant(128))
UNIFORM = st.lengths.Independent(prompt=st.lengths.Uniform(10, 1600), output=st.lengths.Uniform(10, 1600))
REPLICA = st.Replica(iteration=LAW, kv_capacity_tokens=131_000)

TINY = """
import time; start = time.perf_counter()
import sys; sys.path.insert(0, {root!r})
import stability as st
from stability.sim.engine import simulate
law = st.IterationTime(base_s=0.01)
lengths = st.lengths.Independent(prompt=st.lengths.Constant(512), output=st.lengths.Constant(128))
fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=131_000))
simulate(fleet, st.Workload.poisson(8.0, lengths), requests=100, rng=1)
print(time.perf_counter() - start)
"""


def event_loop_s(fleet: st.Fleet, workload: st.Workload, requests: int, router: str) -> float:
    from stability.sim.run import Run

    blocks = list(draw_blocks(workload, requests=requests, rng=1))
    policy = router_of(router, fleet)
    run = Run(
        replicas=replicas_of(fleet)[0],
        router=policy,
        shares=policy.shares(fleet, 1),
        uniforms=np.random.default_rng(1),
        concurrency=0,
        horizon_s=np.inf,
        expected=requests,
        warmup=0.1,
        keep_requests=True,
        record_steps=False,
        resolution_s=None,
        report=lambda _: None,
    )
    start = time.perf_counter()
    run.open_loop(iter(blocks))
    return time.perf_counter() - start


def median_of(repeats: int, measure: Callable[[], float]) -> tuple[float, float, float]:
    values = sorted(measure() for _ in range(repeats))
    return statistics.median(values), values[0], values[-1]


def speed(requests: int, repeats: int) -> None:
    capacity = measured_capacity(st.Fleet.of(REPLICA), st.Workload.poisson(1.0, UNIFORM), requests=20_000, rng=1)
    busy = 0.9 * capacity.capacity_per_s
    cases = [
        ("1 replica, 0.5 req/s", 1, 0.5, FIXED, "round_robin", 0.0),
        ("1 replica, 8 req/s", 1, 8.0, FIXED, "round_robin", 2.0),
        ("1 replica, 10 req/s", 1, 10.0, FIXED, "round_robin", 0.0),
        ("16 replicas, 128 req/s, join-shortest-kv", 16, 128.0, FIXED, "join_shortest_kv", 1.0),
        ("1000 replicas, 8000 req/s, round robin", 1000, 8000.0, FIXED, "round_robin", 0.5),
        (f"U(10,1600)^2, {busy:.2f} req/s = 90 % load", 1, busy, UNIFORM, "round_robin", 2.0),
    ]
    print(
        f"{'million requests/s':44}{'event loop':>11}{'slowest':>9}{'fastest':>9}{'whole':>8}{'steps/req':>11}{'asked':>7}"
    )
    for name, count, rate, lengths, router, asked in cases:
        fleet, workload = st.Fleet.of(REPLICA, count), st.Workload.poisson(rate, lengths)
        simulate(fleet, workload, requests=1000, router=router, rng=1)
        loop, low, high = median_of(repeats, lambda: event_loop_s(fleet, workload, requests, router))  # noqa: B023
        wall: list[float] = []
        for _ in range(repeats):
            start = time.perf_counter()
            result = simulate(fleet, workload, requests=requests, router=router, rng=1)
            wall.append(time.perf_counter() - start)
        share = (result.window_s[1] - result.window_s[0]) / result.end_s
        steps = result.replicas.steps.sum() / share / requests
        print(
            f"{name:44}{requests / loop / 1e6:11.2f}{requests / high / 1e6:9.2f}{requests / low / 1e6:9.2f}"
            f"{requests / statistics.median(wall) / 1e6:8.2f}{steps:11.2f}{asked or '':>7}"
        )


def start_up(repeats: int) -> None:
    script = TINY.format(root=str(Path(__file__).resolve().parent.parent))

    def process(cache: str) -> float:
        environment = os.environ | {"NUMBA_CACHE_DIR": cache}
        out = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        return float(out.stdout)

    with tempfile.TemporaryDirectory() as cache:
        print(f"first run with an empty cache (compiles): {process(cache):.2f} s")
        print(f"a later process, import and 100 requests: {median_of(repeats, lambda: process(cache))[0]:.2f} s")


def memory(requests: int, keep: str) -> None:
    workload = st.Workload.poisson(8.0, FIXED)
    start = time.perf_counter()
    simulate(st.Fleet.of(REPLICA), workload, requests=requests, rng=1, keep=keep)
    elapsed = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"{requests:.3g} requests, keep={keep!r}: peak {peak:.2f} GB, {elapsed:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", nargs=2, metavar=("REQUESTS", "KEEP"), help="only measure memory, in this process")
    options = parser.parse_args()
    if options.memory:
        memory(int(options.memory[0]), options.memory[1])
        return
    speed(options.requests, options.repeats)
    start_up(options.repeats)
    for requests, keep in ((10_000_000, "requests"), (10_000_000, "summary"), (100_000_000, "summary")):
        subprocess.run([sys.executable, __file__, "--memory", str(requests), keep], check=True)


if __name__ == "__main__":
    main()
