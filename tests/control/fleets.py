"""Fleets and workloads with numbers that can be checked by hand, and random ones."""

from __future__ import annotations

import numpy as np

import stability as st
from stability import lengths as L


def slots_replica(base_s: float = 0.01, *, slots: int = 8, memory: int = 100_000, **options: object) -> st.Replica:
    """Slots bind: a request of o output tokens takes base_s * o/slots seconds of it."""
    engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=512, admission="reserve", block_size=1)
    return st.Replica(iteration=st.IterationTime(base_s=base_s), kv_capacity_tokens=memory, engine=engine, **options)  # type: ignore[arg-type]


def constant(prompt: int, output: int) -> L.Lengths:
    return L.Independent(L.Constant(prompt), L.Constant(output))


def two_classes(short: float, long: float, /, **values: float) -> st.Workload:
    """Outputs of 50 and 200 tokens after prompts of 100."""
    return st.Workload(
        [
            st.RequestClass("short", short, constant(100, 50), value=values.get("short", 1.0)),
            st.RequestClass("long", long, constant(100, 200), value=values.get("long", 1.0)),
        ]
    )


CHAT = L.Independent(L.Uniform(50, 800), L.Uniform(50, 400))
DOCUMENT = L.Independent(L.Uniform(1000, 6000), L.Uniform(100, 500))
REASONING = L.Independent(L.Uniform(50, 300), L.Uniform(400, 2000))


def mixed_fleet(admission: str = "reserve", *, watermark: float = 0.0) -> st.Fleet:
    """Three pools that differ in law, memory and slots; every law is affine."""
    engine = st.Engine(
        max_num_seqs=96, max_num_batched_tokens=2048, admission=admission, block_size=16, watermark=watermark
    )
    figures = {
        "a": (0.014, 5e-5, 8e-8, 160_000, 2),
        "b": (0.009, 1.5e-5, 4e-8, 160_000, 1),
        "c": (0.025, 4e-5, 2e-7, 70_000, 3),
    }
    pools = []
    for name, (base, token, kv, memory, count) in figures.items():
        law = st.IterationTime(base_s=base, per_prefill_token_s=token, per_decode_token_s=token / 2, per_kv_token_s=kv)
        pools.append(
            st.Pool(
                name,
                st.Replica(
                    iteration=law,
                    kv_capacity_tokens=memory,
                    engine=engine,
                    kv_bytes_per_token=131_072.0,
                    gpu=name.upper(),
                    price_per_hour=1.0 / base / 50,
                ),
                count,
            )
        )
    return st.Fleet(pools)


def mixed_workload(factor: float = 1.0) -> st.Workload:
    return st.Workload(
        [
            st.RequestClass("chat", 8.0 * factor, CHAT, value=1.0),
            st.RequestClass("document", 2.0 * factor, DOCUMENT, value=6.0),
            st.RequestClass("reasoning", 1.0 * factor, REASONING, value=2.0),
        ]
    )


def random_rows(seed: int, n: int, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """seconds, replicas, rates, fits; every class fits somewhere."""
    rng = np.random.default_rng(seed)
    seconds = rng.lognormal(0, 1, (n, rows, classes))
    fits = rng.random((n, classes)) < 0.8
    fits[rng.integers(n, size=classes), np.arange(classes)] = True
    return seconds, rng.integers(1, 5, n).astype(float), rng.uniform(0.1, 1, classes), fits
