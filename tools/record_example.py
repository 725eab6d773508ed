"""Record the scrapes that `stability watch` runs on without an argument, from a simulated server.

    python tools/record_example.py        writes stability/monitor/examples/overload.prom.gz

One RTX 4090 with Llama-3.1-8B, at 80 % of its capacity for five minutes and then at 160 %, scraped every ten seconds.
"""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np

import stability as st
from stability.io.metrics.writing import record_of, recording

FILE = Path(__file__).resolve().parent.parent / "stability" / "monitor" / "examples" / "overload.prom.gz"
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


def main() -> None:
    """Write the file; its bytes depend on nothing but the text."""
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(gzip.compress(text().encode(), 9, mtime=0))
    print(f"{FILE}: {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
