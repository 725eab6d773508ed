"""How long sizing takes: `python benchmarks/sizing.py`, from the checkout or with the package installed.

Twelve kinds of replica from the catalog, six classes with day curves of their own in 24 hourly windows, headroom and an
inter-token latency target: one fleet for the day, the same with a spare, and a fleet that follows the hours.
"""

from __future__ import annotations

import argparse
import math
import time

import stability as st

GPUS = (
    ("A100-40GB-SXM", 1, 1.3),
    ("A100-80GB-SXM", 1, 1.7),
    ("A100-80GB-SXM", 2, 3.4),
    ("A10G", 2, 1.6),
    ("L40S", 1, 1.1),
    ("L40S", 2, 2.2),
    ("RTX-PRO-6000-Server", 1, 1.9),
    ("H100-SXM", 1, 3.2),
    ("H100-SXM", 2, 6.4),
    ("H200-SXM", 1, 3.9),
    ("B200-SXM", 1, 5.8),
    ("MI300X", 1, 3.4),
)
"""GPU, tensor parallelism and an invented price per hour."""

CLASSES = (
    ("chat", 60.0, 600, 250, 14),
    ("code", 25.0, 2000, 60, 11),
    ("search", 30.0, 3000, 150, 15),
    ("summary", 8.0, 6000, 400, 9),
    ("agent", 12.0, 4000, 600, 17),
    ("batch", 10.0, 1000, 1000, 3),
)
"""Name, mean rate per second, mean prompt and output tokens, busiest hour."""


def candidates() -> list[st.Candidate]:
    engine = st.Engine(max_num_batched_tokens=8192, watermark=0.02)
    return [
        st.Candidate(
            f"{gpu} TP{tp}",
            st.replica(gpu, "Llama-3.1-8B", tensor_parallel=tp, engine=engine, price_per_hour=price),
        )
        for gpu, tp, price in GPUS
    ]


def workload() -> st.Workload:
    classes = []
    for name, rate, prompt, output, peak in CLASSES:
        curve = [rate * (1 + 0.6 * math.cos(2 * math.pi * (hour - peak) / 24)) for hour in range(24)]
        schedule = st.RateSchedule([3600.0 * hour for hour in range(24)], curve, end_s=86_400.0)
        lengths = st.lengths.Independent(
            st.lengths.LogNormal(prompt, cv=1.0, limit=16_000), st.lengths.LogNormal(output, cv=0.8, limit=4_000)
        )
        classes.append(st.RequestClass(name, schedule, lengths))
    return st.Workload(classes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ttft", action="store_true", help="with a target for the time to first token, too")
    parser.add_argument("--only", metavar="WORD", default="", help="cases whose name holds it")
    options = parser.parse_args()
    targets = st.Targets(headroom=0.1, itl_s=0.05, ttft_p99_s=2.0 if options.ttft else None)
    cases = {"one fleet": {}, "one fleet, N+1": {"spares": 1}, "by the hour, 0.5 a start": {"switching_cost": 0.5}}
    kinds, traffic = candidates(), workload()
    for name, settings in cases.items():
        if options.only not in name:
            continue
        started, processor = time.perf_counter(), time.process_time()
        found = st.cheapest_fleet(kinds, traffic, targets=targets, **settings)
        wall, cpu = time.perf_counter() - started, time.process_time() - processor
        print(f"{name}: {wall:.1f} s, {cpu:.1f} s of processor; {found}, gap {found.gap:.1e}, rounds {found.rounds}")


if __name__ == "__main__":
    main()
