"""What a routing decision costs: `python benchmarks/routers.py`.

64 workers of 72 slots, 500 requests waiting. "decision" is one call of the compiled dispatch per placed request, from the projected
loads on; "with projection" is the time a simulated run spends on routing per request, the projection of all 4608
running requests included: the run less one that joins the shortest queue.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np

import stability as st
from stability.policies import BalanceFuture, BalanceRoute
from stability.policies.balance import BalanceRouter
from stability.sim.kernels.dispatch import Desk, desk_of, dispatch

WORKERS, SLOTS, WAITING = 64, 72, 500

LENGTHS = st.lengths.Independent(st.lengths.LogNormal(3197, cv=1.0), st.lengths.LogNormal(1185, cv=0.6))

POLICIES: dict[str, tuple[BalanceRouter, float]] = {
    "BR-0": (BalanceRoute(), 20e-6),
    "BR-H, H = 80": (BalanceRoute(horizon=80, predictor="oracle"), 200e-6),
    "BF-IO, H = 72": (BalanceFuture(), float("nan")),
}
"""Policies with the time a decision may take."""


def situation(policy: BalanceRouter, free: int, rng: np.random.Generator) -> tuple[Desk, Callable[[], None]]:
    """A desk, and what sets it up again: loads near balance that fall over the horizon, `free` slots on one worker each or shared."""
    desk = desk_of(policy, WORKERS, SLOTS)
    now = rng.normal(288_000, 5_000, WORKERS).astype(np.int64)
    steps = np.arange(policy.horizon + 1)[:, None]
    loads = (now * (1 - 0.001 * steps * rng.random(WORKERS))).astype(np.int64)
    prompts = LENGTHS.sample(WAITING, rng)[0]
    slots = np.bincount(rng.integers(0, WORKERS, free), minlength=WORKERS)
    if free <= 3:
        slots = np.zeros(WORKERS, dtype=np.int64)
        slots[int(now.argmin())] = free

    def reset() -> None:
        desk.loads[:], desk.free[:] = loads, slots
        desk.prompts[:WAITING] = prompts

    return desk, reset


def per_decision(policy: BalanceRouter, free: int, repeats: int) -> float:
    """Seconds per placed request, median over situations of the best of five calls."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(repeats):
        desk, reset = situation(policy, free, rng)
        took = []
        for _ in range(5):
            reset()
            begun = time.perf_counter()
            placed = dispatch(desk, WAITING)
            took.append((time.perf_counter() - begun) / placed)
        found.append(min(took))
    return median(found)


def run_s(router: str | BalanceRouter, requests: int) -> float:
    """Seconds of a simulated run."""
    law = st.IterationTime(base_s=4.8875e-3, per_kv_token_s=1.00525e-7)
    replica = st.Replica(iteration=law, kv_capacity_tokens=10**9, engine=st.Engine(max_num_seqs=SLOTS))
    fleet = st.Fleet([st.Pool("decode", replica, WORKERS, role="decode", coupling=st.Barrier(WORKERS))])
    begun = time.perf_counter()
    st.simulate_barrier(
        fleet,
        st.Workload.poisson(1.0, LENGTHS),
        router=router,
        assignment="central",
        requests=requests,
        concurrency=WORKERS * SLOTS + WAITING,
        rng=1,
    )
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=50, help="situations per figure (default 50)")
    parser.add_argument("--requests", type=int, default=20_000, help="requests of a run (default 20000)")
    options = parser.parse_args()
    print(f"numpy {np.__version__}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    print(
        f"{'us per request placed':<16} {'1 free':>8} {'2 on one':>8} {'3 on one':>8} {'7 free':>8} {'40 free':>8} {'budget':>8}"
    )
    for name, (policy, budget_s) in POLICIES.items():
        times = [per_decision(policy, free, options.repeats) for free in (1, 2, 3, 7, 40)]
        print(f"{name:<21} " + " ".join(f"{1e6 * t:8.1f}" for t in times) + f" {1e6 * budget_s:8.0f}")
    run_s("join_shortest_queue", 5000)
    base = min(run_s("join_shortest_queue", options.requests) for _ in range(3))
    print()
    for name, (policy, _) in POLICIES.items():
        run_s(policy, 5000)
        took = min(run_s(policy, options.requests) for _ in range(3))
        print(f"{name:<21} with projection {1e6 * (took - base) / options.requests:8.1f} us per request")


if __name__ == "__main__":
    main()
