"""How long the analysis takes: `python benchmarks/analysis.py`, from the checkout or with the package installed.

Every time is a median over repetitions: wall clock, and processor time, which a busy machine stretches less. Whole processes are
measured from outside, start of the interpreter included; their peak memory is the kernel's figure.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import stability as st

ROOT = Path(__file__).resolve().parent.parent
IMPORT = [sys.executable, "-c", "import stability"]
CLI = [sys.executable, "-c", "from stability.cli import main; main()"]
POOLS, CLASSES = 1000, 50

PLAN = """\
schema: stability/plan/1
workload:
  rate_per_s: 40
  lengths: {trace: trace.csv}
fleet:
  - {pool: chat, gpu: H100-SXM, model: Llama-3.1-8B, replicas: 8}
"""


@dataclass(frozen=True)
class Cost:
    """What a run took."""

    wall_s: float
    cpu_s: float
    peak_bytes: float = 0.0


def median(runs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(run.wall_s for run in runs),
        statistics.median(run.cpu_s for run in runs),
        max(run.peak_bytes for run in runs),
    )


def process(command: list[str]) -> Cost:
    """Cost of a process that must end well."""
    started = time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    wall_s = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {child.returncode}, must exit with 0.")
    unit = 1 if sys.platform == "darwin" else 1024
    return Cost(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit)


def call(function: Callable[[], object]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def fleet() -> st.Fleet:
    """Pools that differ in law, KV cache and engine."""
    pools = []
    for i in range(POOLS):
        law = st.IterationTime(
            base_s=0.008 + 1e-5 * i, per_prefill_token_s=5e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8
        )
        engine = st.Engine(max_num_seqs=128 + i % 128, max_num_batched_tokens=(2048, 4096, 8192)[i % 3])
        pools.append(
            st.Pool(f"p{i}", st.Replica(iteration=law, kv_capacity_tokens=300_000 + 100 * i, engine=engine), 4)
        )
    return st.Fleet(pools)


def workload(variant: int) -> st.Workload:
    """Classes with length laws that no earlier variant has."""
    classes = []
    for k in range(CLASSES):
        prompt = st.lengths.LogNormal(500 + 20 * k + variant / 8, 1.0, limit=16_000)
        output = st.lengths.LogNormal(150 + 5 * k + variant / 8, 0.8, limit=2_000)
        classes.append(st.RequestClass(f"c{k}", 10.0, st.lengths.Independent(prompt, output)))
    return st.Workload(classes)


def analyze_costs(repeats: int) -> tuple[Cost, Cost]:
    """`analyze` with length laws seen for the first time, whose tables it computes, and with known ones."""
    pools = fleet()
    st.analyze(pools, workload(0))
    fresh, known = [], []
    for variant in range(1, repeats + 1):
        mix = workload(variant)
        fresh.append(call(partial(st.analyze, pools, mix)))
        known.append(call(partial(st.analyze, pools, mix)))
    return median(fresh), median(known)


def write_trace(path: Path, rows: int) -> None:
    """Poisson arrivals at 100/s with lognormal lengths."""
    rng = np.random.default_rng(1)
    arrival, block = 0.0, 500_000
    with path.open("w", encoding="ascii") as file:
        file.write("arrival_s,prompt_tokens,output_tokens\n")
        for start in range(0, rows, block):
            n = min(block, rows - start)
            times = arrival + rng.exponential(0.01, n).cumsum()
            arrival = float(times[-1])
            prompts = np.clip(rng.lognormal(6.5, 1.0, n), 1, 16_000).astype(int)
            outputs = np.clip(rng.lognormal(5.0, 0.8, n), 1, 2_000).astype(int)
            columns = zip(times.tolist(), prompts.tolist(), outputs.tolist(), strict=True)
            file.writelines(f"{t:.4f},{s},{o}\n" for t, s, o in columns)


def row(name: str, cost: Cost, budget_s: float) -> None:
    verdict = "within" if cost.wall_s < budget_s else "ABOVE"
    print(f"{name:<62} {_time(cost.wall_s):>8} {_time(cost.cpu_s):>8} {_time(budget_s):>8}  {verdict}", flush=True)


def _time(value_s: float) -> str:
    return f"{1e3 * value_s:.0f} ms" if value_s < 1 else f"{value_s:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of the short measurements (default 9)")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the long trace (default 10 million)")
    arguments = parser.parse_args()
    repeats: int = arguments.repeats
    load = os.getloadavg()[0]
    print(f"python {sys.version.split()[0]}, numpy {np.__version__}, {os.cpu_count()} cores, load average {load:.1f}\n")
    print(f"{'':<62} {'wall':>8} {'CPU':>8} {'budget':>8}")

    row("import stability, whole process", median([process(IMPORT) for _ in range(repeats)]), 0.3)
    row("stability check, whole process", median([process([*CLI, "check"]) for _ in range(repeats)]), 1.0)

    fresh, known = analyze_costs(repeats)
    row(f"analyze, {POOLS} pools x {CLASSES} classes, known length laws", known, 0.05)
    row(f"analyze, {POOLS} pools x {CLASSES} classes, {2 * CLASSES} new lognormal laws", fresh, 0.05)

    with tempfile.TemporaryDirectory() as folder:
        trace, plan = Path(folder) / "trace.csv", Path(folder) / "plan.yaml"
        write_trace(trace, arguments.rows)
        plan.write_text(PLAN, encoding="utf-8")
        size = f"{arguments.rows / 1e6:g} million rows ({trace.stat().st_size / 1e6:.0f} MB)"
        for name, command in (("trace", ["trace", str(trace)]), ("check", ["check", str(plan)])):
            cost = median([process([*CLI, *command]) for _ in range(min(repeats, 3))])
            row(f"stability {name}, {size}, whole process", cost, 15.0)
            peak = cost.peak_bytes / 1e9
            print(f"{'  peak memory':<62} {peak:>5.2f} GB {'':>8} {'3 GB':>8}  {'within' if peak < 3 else 'ABOVE'}")


if __name__ == "__main__":
    main()
