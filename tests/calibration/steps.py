"""Synthetic steps of a known law."""

from __future__ import annotations

import numpy as np

import stability as st

LAW = st.IterationTime(
    base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8, per_prefill_context_s=5e-9
)
TWO = st.iteration.TwoPhase(
    decode=st.IterationTime(base_s=0.008, per_decode_token_s=2e-5, per_kv_token_s=5e-8),
    mixed=st.IterationTime(base_s=0.012, per_prefill_token_s=8e-5, per_decode_token_s=4e-5, per_kv_token_s=1.5e-7),
)


def steps(
    law: st.iteration.IterationLaw, rows: int, *, seed: int = 0, noise: float = 0.03, mixed: float = 0.4
) -> st.StepObservations:
    """Steps that follow `law` up to normal relative noise."""
    rng = np.random.default_rng(seed)
    p = np.where(rng.random(rows) < mixed, rng.integers(16, 2048, rows), 0)
    d = rng.integers(1, 128, rows)
    k = d * rng.integers(100, 2000, rows)
    times = law.time_s(p, d, k, p * p / 2) * (1 + noise * rng.standard_normal(rows))
    return st.StepObservations(prefill_tokens=p, decode_tokens=d, kv_tokens=k, time_s=times)
