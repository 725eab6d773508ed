"""Write the example measurements that `stability fit` runs without a file: synthetic, drawn from a known law.

    python -m tools.build_measurements

The law: decode-only and mixed steps of an 8B model on one accelerator, 3 % noise, and one step in a hundred that stalls.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import stability as st
from stability.theory.closed_loop import loop_steps

FOLDER = Path(__file__).resolve().parents[1] / "stability" / "io" / "measurements" / "examples"

LAW = st.iteration.TwoPhase(
    decode=st.IterationTime(base_s=8e-3, per_decode_token_s=2e-5, per_kv_token_s=4e-8),
    mixed=st.IterationTime(
        base_s=7e-3,
        per_prefill_token_s=5e-5,
        per_decode_token_s=3e-5,
        per_kv_token_s=8e-8,
        per_prefill_context_s=2e-9,
    ),
)
"""What the examples follow."""

STEPS, NOISE, STALLS, STALL = 400, 0.03, 0.01, 3.0
BOUNDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


def steps(rng: np.random.Generator) -> str:
    """Steps of an engine."""
    mixed = rng.random(STEPS) < 0.35
    decode = rng.integers(1, 129, STEPS)
    context = rng.integers(200, 2000, STEPS)
    chunk = np.where(mixed, rng.integers(16, 2049, STEPS), 0)
    past = np.where(mixed, rng.integers(0, 4, STEPS) * 2048, 0)
    work = chunk * (past + chunk / 2)
    time = LAW.time_s(chunk, decode, decode * context, work) * (1 + NOISE * rng.standard_normal(STEPS))
    time[rng.random(STEPS) < STALLS] *= STALL
    lines = ["prefill_tokens,decode_tokens,kv_tokens,prefill_context,time_ms"]
    rows = zip(chunk, decode, decode * context, work, 1e3 * time, strict=True)
    return "\n".join(lines + [f"{p},{d},{k},{a:.0f},{t:.3f}" for p, d, k, a, t in rows]) + "\n"


def benchmark(rng: np.random.Generator) -> str:
    """Closed-loop points."""
    lines = ["concurrency,isl,osl,ttft_ms,tpot_ms"]
    for s, o in ((128, 1024), (128, 128), (1024, 1024), (1024, 128), (4096, 128), (8192, 1024)):
        for n in (1, 2, 4, 8, 16, 32, 64):
            point = loop_steps(s, o, n, max_num_batched_tokens=8192)
            tpot = float(point.time_s(LAW)) * (1 + 0.01 * rng.standard_normal())
            ttft = float(LAW.time_s(s, point.decode_tokens - 1, point.kv_tokens, s * s / 2)) + tpot / 2
            lines.append(f"{n},{s},{o},{1e3 * ttft:.2f},{1e3 * tpot:.3f}")
    return "\n".join(lines) + "\n"


def lengths(rng: np.random.Generator) -> str:
    """Histograms with the buckets of vLLM."""
    lines = ["quantity,le_tokens,cumulative_count"]
    for name, law in (("prompt", st.lengths.LogNormal(900, 1.1)), ("output", st.lengths.Gamma(300, 0.9))):
        drawn = law.sample(2000, rng)
        lines += [f"{name},{bound},{int((drawn <= bound).sum())}" for bound in BOUNDS]
        lines.append(f"{name},+Inf,{len(drawn)}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in (("steps", steps), ("benchmark", benchmark), ("lengths", lengths)):
        (FOLDER / f"{name}.csv").write_text(text(np.random.default_rng(2026)), encoding="utf-8")


if __name__ == "__main__":
    main()
