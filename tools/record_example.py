"""Record the scrapes that `stability watch` and `stability fit metrics` run on without a file, from simulated servers.

    python tools/record_example.py        writes stability/monitor/examples/overload.prom.gz
                                          and stability/io/measurements/examples/metrics.prom.gz

The second: a server of the law `LAW`, at loads from 0.35 to 0.9, scraped every half minute. The first: one RTX 4090 with Llama-3.1-8B, at 80 % of its capacity for five minutes and then at 160 %, scraped every ten seconds.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

import stability as st
from stability.io.metrics.writing import record_of, recording

PACKAGE = Path(__file__).resolve().parent.parent / "stability"
FILE = PACKAGE / "monitor" / "examples" / "overload.prom.gz"
STEADY_FILE = PACKAGE / "io" / "measurements" / "examples" / "metrics.prom.gz"
TURN_S, END_S, EVERY_S, START_S = 300.0, 900.0, 10.0, 1_767_225_600.0


def text() -> str:
    """The recording."""
    replica = st.replica("RTX4090", "Llama-3.1-8B", kv_capacity_tokens=41_408)
    lengths = st.lengths.Independent(
        prompt=st.lengths.LogNormal(700, 0.8, limit=4096), output=st.lengths.LogNormal(250, 0.6, limit=1024)
    )
    fleet = st.Fleet.of(replica)
    capacity = st.analyze(fleet, st.Workload.poisson(1.0, lengths)).capacity_per_s
    rates = st.RateSchedule([0, TURN_S], [0.8 * capacity, 1.6 * capacity], end_s=END_S, repeat=False)
    result = st.simulate(
        fleet, st.Workload([st.RequestClass("chat", rates, lengths)]), horizon_s=END_S, rng=1, resolution_s=EVERY_S
    )
    record = record_of(
        result, kv_capacity_tokens=replica.kv_capacity_tokens, model_name="meta-llama/Llama-3.1-8B-Instruct"
    )
    rows = record.time_s <= END_S
    names = ("time_s", "running", "waiting", "kv_occupancy", "preemptions", "generated_tokens")
    record = replace(record, longest=8192, **{name: np.asarray(getattr(record, name))[rows] for name in names})
    return recording(record, start_s=START_S)


LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
"""What the server behind `STEADY_FILE` follows."""

KV_TOKENS, LOADS, LEG_S, SCRAPE_S = 131_072, (0.35, 0.6, 0.8, 0.9), 600.0, 30.0


def steady_text() -> str:
    """The recording for the fit: steps counted, never overloaded."""
    engine = st.Engine(max_num_seqs=128, max_num_batched_tokens=2048, watermark=0.02)
    fleet = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=KV_TOKENS, engine=engine))
    lengths = st.lengths.Independent(
        prompt=st.lengths.LogNormal(700, cv=1.0, limit=8000), output=st.lengths.LogNormal(300, cv=0.8, limit=4000)
    )
    capacity = st.analyze(fleet, st.Workload.poisson(1.0, lengths)).capacity_per_s
    legs, end_s = LEG_S * np.arange(len(LOADS)), LEG_S * len(LOADS)
    rates = st.RateSchedule(legs, capacity * np.array(LOADS), end_s=end_s, repeat=False)
    result = st.simulate(
        fleet,
        st.Workload.scheduled(rates, lengths),
        horizon_s=end_s,
        rng=1,
        resolution_s=SCRAPE_S,
        record_steps=True,
    )
    record = record_of(result, kv_capacity_tokens=KV_TOKENS)
    rows = record.time_s <= end_s
    names = ("time_s", "running", "waiting", "kv_occupancy", "preemptions", "generated_tokens")
    record = replace(record, longest=8192, **{name: np.asarray(getattr(record, name))[rows] for name in names})
    return recording(record, start_s=START_S)


def main() -> None:
    """Write the files; their bytes depend on nothing but the texts."""
    for file, made in ((FILE, text), (STEADY_FILE, steady_text)):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(gzip.compress(made().encode(), 9, mtime=0))
        print(f"{file}: {file.stat().st_size} bytes")


if __name__ == "__main__":
    main()
