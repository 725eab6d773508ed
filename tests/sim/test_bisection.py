"""Capacity by bisection against saturated throughput and against hand figures."""

from __future__ import annotations

import json

import pytest

import stability as st
from stability.errors import InputError
from stability.sim.bisection import BisectedCapacity, capacity_by_bisection
from stability.sim.capacity import measured_capacity

LAW = st.IterationTime(base_s=0.01)
LENGTHS = st.lengths.Independent(prompt=st.lengths.Uniform(10, 100), output=st.lengths.Uniform(1, 63))
WORKLOAD = st.Workload.poisson(1.0, LENGTHS)
SLOTS = st.Replica(iteration=LAW, kv_capacity_tokens=10**6, engine=st.Engine(max_num_seqs=8))
RESERVE = st.Replica(iteration=LAW, kv_capacity_tokens=1000, engine=st.Engine(admission="reserve"))


def bisect(replica: st.Replica, **options: object) -> BisectedCapacity:
    settings: dict[str, object] = {"tolerance": 0.05, "requests_per_run": 2000, "most_requests": 64_000, "rng": 3}
    return capacity_by_bisection(st.Fleet.of(replica), WORKLOAD, **settings | options)  # type: ignore[arg-type]


@pytest.mark.parametrize("replica", [SLOTS, RESERVE], ids=["slots", "reserve"])
def test_the_bracket_contains_saturated_throughput(replica: st.Replica) -> None:
    found = bisect(replica)
    saturated = measured_capacity(st.Fleet.of(replica), WORKLOAD, requests=20_000, replications=3, rng=1)
    assert found.stable_per_s <= 1.03 * saturated.interval.high
    assert found.unstable_per_s >= 0.97 * saturated.interval.low
    assert found.unstable_per_s < 1.2 * found.stable_per_s
    verdicts = {t.rate_per_s: t.verdict for t in found.trials}
    assert verdicts[found.stable_per_s] is st.Verdict.STABLE
    assert verdicts[found.unstable_per_s] is st.Verdict.UNSTABLE
    assert len(verdicts) == len(found.trials)


def test_a_start_far_off_is_widened_and_repeats() -> None:
    exact = 8 / (0.01 * 32)  # slots over the mean residence of 32 steps
    far = {"low": 2 * exact, "high": 2.1 * exact, "tolerance": 0.2}
    found = bisect(SLOTS, **far)
    assert 0.8 * exact < found.stable_per_s < exact < found.unstable_per_s < 1.25 * exact
    assert found == bisect(SLOTS, **far)
    assert json.loads(json.dumps(found.to_dict()))["stable_per_s"] == found.stable_per_s
    assert f"{found.unstable_per_s:.5g}" in found.summary()


def test_rates_that_stay_open_are_named() -> None:
    found = bisect(SLOTS, tolerance=0.01, most_requests=2000)
    assert "stay undetermined within 2000 requests" in found.reason
    assert found.stable_per_s < 25 < found.unstable_per_s


def test_bad_input() -> None:
    for options in ({"low": 3.0, "high": 2.0}, {"tolerance": 0.0}, {"requests_per_run": 511}, {"most_requests": 1999}):
        with pytest.raises(InputError):
            bisect(SLOTS, **options)
