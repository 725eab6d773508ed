"""What shortest first does to long requests: `python -m validation.starvation` prints the table of docs/theory/scheduler-theory.md.

Eight slots, 10 ms a step, nothing else binds: 95 % of the requests have 10 output tokens, the rest 40, so short ones are 83 % of the
work. The scheduler knows the class of a request and its mean output, no more.
"""

from __future__ import annotations

import sys

import numpy as np

import stability as st
from stability._result import text_table
from stability.model.engine import Scheduler
from stability.policies import ClassMean, Fcfs, Priority

SHARE, SHORT, LONG = 0.05, 10, 40
SLOTS, STEP_S = 8, 0.01

CAPACITY_PER_S = SLOTS / (STEP_S * ((1 - SHARE) * SHORT + SHARE * LONG))
"""All slots always full."""

DEADLINES_S = (1.0, 5.0)
"""Of short and long requests."""

RIVALS: dict[str, Scheduler] = {
    "first come": Fcfs("prompt_gate"),
    "shortest": Priority("shortest", predictor=ClassMean((float(SHORT), float(LONG)))),
    "deadline": Priority("deadline", deadlines_s=DEADLINES_S),
}


def run(policy: Scheduler, load: float, requests: int, seed: int = 1) -> tuple[float, float, float]:
    """(requests/s, 99 % latency of short requests, of long ones, s); those still there count up to the end of arrivals."""
    engine = st.Engine(max_num_seqs=SLOTS, block_size=1, scheduler=policy)
    fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=STEP_S), kv_capacity_tokens=10**6, engine=engine))
    one = st.lengths.Constant(1)
    rate = load * CAPACITY_PER_S
    classes = [
        st.RequestClass(name, share * rate, st.lengths.Independent(one, st.lengths.Constant(tokens)))
        for name, share, tokens in (("short", 1 - SHARE, SHORT), ("long", SHARE, LONG))
    ]
    records = st.simulate(fleet, st.Workload(classes), requests=requests, rng=seed).requests
    assert records is not None
    end = float(records.arrival_s[-1])
    latency = np.minimum(np.where(np.isnan(records.finish_s), end, records.finish_s), end) - records.arrival_s
    done = float((records.finish_s <= end).sum()) / end
    tails = [float(np.quantile(latency[records.request_class == k], 0.99)) for k in (0, 1)]
    return done, tails[0], tails[1]


def main() -> int:
    """Print the table."""
    rows = []
    for load in (0.8, 0.95, 1.0, 1.05):
        for requests in (5_000, 20_000) if load >= 1 else (20_000,):
            for name, policy in RIVALS.items():
                done, short, long = run(policy, load, requests)
                rows.append((f"{load:g}", f"{requests}", name, f"{done:.1f}", f"{short:.3g}", f"{long:.3g}"))
                print(rows[-1], file=sys.stderr, flush=True)
    header = ("load", "requests", "scheduler", "req/s", "short, 99 %, s", "long, 99 %, s")
    print(text_table(rows, header))
    return 0


if __name__ == "__main__":
    sys.exit(main())
