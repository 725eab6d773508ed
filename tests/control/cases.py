"""Pools that the tuning tests share."""

from __future__ import annotations

import stability as st
from stability import lengths as L

LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))
LOGNORMAL = L.Independent(L.LogNormal.from_sigma(400, 1.0, limit=16_000), L.LogNormal.from_sigma(200, 1.0, limit=8_000))
CONSTANT = L.Independent(L.Constant(500), L.Constant(200))


def pool(memory: int = 97_000, count: int = 1, law: st.IterationTime = LAW, **settings: object) -> st.Fleet:
    """A fleet of one pool; by default memory binds and slots do not."""
    engine = st.Engine(**{"max_num_seqs": 1024, "max_num_batched_tokens": 2048, **settings})  # type: ignore[arg-type]
    return st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=memory, engine=engine), count)


def load(lengths: L.Lengths = UNIFORM, rate_per_s: float = 1.0) -> st.Workload:
    return st.Workload.poisson(rate_per_s, lengths)
