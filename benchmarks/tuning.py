"""How long tuning takes: `python benchmarks/tuning.py`, from the checkout or with the package installed.

Every time is a median over repetitions: wall clock, and processor time, which a busy machine stretches less. Calls are timed
after the import; "new lengths" are laws that no earlier call has seen, whose tables are computed. Whole processes are
measured from outside, start of the interpreter included.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial

import numpy as np
from analysis import CLI, call, median, process, row

import stability as st
from stability.model.catalog import roofline

BUDGET_S = 0.2
"""Tuning one pool."""


def affine(variant: int) -> tuple[st.Fleet, st.Workload]:
    """One pool whose memory binds, U(10, 1600) prompts and outputs."""
    law = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
    engine = st.Engine(max_num_seqs=1024, max_num_batched_tokens=2048)
    lengths = st.lengths.Independent(st.lengths.Uniform(10, 1600 + variant), st.lengths.Uniform(10, 1600))
    fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=97_000, engine=engine))
    return fleet, st.Workload.poisson(1.0, lengths)


def gb200(variant: int) -> tuple[st.Fleet, st.Workload]:
    """The pool of vLLM pull request 44594, under a roofline law."""
    engine = st.Engine(max_num_seqs=256, max_num_batched_tokens=8192)
    replica = st.Replica(iteration=roofline("GB200", "Qwen2.5-7B"), kv_capacity_tokens=299_584, engine=engine)
    lengths = st.lengths.Independent(st.lengths.Uniform(800, 1200 + variant), st.lengths.Uniform(4000, 6000))
    return st.Fleet.of(replica), st.Workload.poisson(1.0, lengths)


def example(_: int) -> tuple[st.Fleet, st.Workload]:
    """The bundled example: Azure's lengths, a two-phase law."""
    plan = st.example_plan()
    return plan.fleet, plan.workload


CASES: dict[str, Callable[[int], tuple[st.Fleet, st.Workload]]] = {
    "affine law, U(10, 1600)": affine,
    "roofline law, GB200 of vLLM PR 44594": gb200,
    "two-phase law, the bundled example": example,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9, help="repetitions of each measurement (default 9)")
    repeats: int = parser.parse_args().repeats
    print(f"numpy {np.__version__}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}\n")
    print(f"{'':<62} {'wall':>8} {'CPU':>8} {'budget':>8}")
    for name, build in CASES.items():
        st.tune(*build(0))
        settings = partial(st.tune, *build(0), latencies=False)
        row(f"tune, {name}", median([call(settings) for _ in range(repeats)]), BUDGET_S)
        row(
            "  with latencies now and then",
            median([call(partial(st.tune, *build(0))) for _ in range(repeats)]),
            BUDGET_S,
        )
        if build is not example:
            fresh = [call(partial(st.tune, *build(v), latencies=False)) for v in range(1, repeats + 1)]
            row("  with new lengths", median(fresh), BUDGET_S)
    plan = st.example_plan()
    limited = partial(st.tune, plan.fleet, plan.workload, targets=plan.targets)
    row("  within the example's targets, with latencies", median([call(limited) for _ in range(repeats)]), BUDGET_S)
    row("stability tune, whole process", median([process([*CLI, "tune"]) for _ in range(repeats)]), 1.5)


if __name__ == "__main__":
    main()
