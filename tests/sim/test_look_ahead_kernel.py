"""Compiled look-ahead against the oracle: the same decisions, the same times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stability as stb
from stability.model.engine import Scheduler
from stability.policies import (
    AMax,
    AMin,
    HindsightShortestFirst,
    Interval,
    Noisy,
    ShortestFirst,
    SortedF,
)
from tests.sim.test_kernel import AFFINE, assert_same, cases

POLICIES: list[Scheduler] = [
    ShortestFirst(),
    ShortestFirst("volume", residency="engine"),
    ShortestFirst(predictor=Noisy(0.9)),
    ShortestFirst("volume", predictor=Noisy(1.5, "lognormal")),
    ShortestFirst(predictor=Interval(0.2, 1.0, "lower"), residency="engine"),
    HindsightShortestFirst(),
    AMax(30),
    AMax(Interval(1.0, 2.5)),
    AMin(1),
    AMin(4, residency="engine"),
    AMin(Noisy(0.9)),
    SortedF("prefix", predictor=Noisy(0.5)),
]


def under(policy: Scheduler, fleet: stb.Fleet, budget: int = 90) -> stb.Fleet:
    """The fleet with `policy` and a token budget that holds every prompt."""
    pools = []
    for pool in fleet.pools:
        engine = replace(
            pool.replica.engine, scheduler=policy, prefix_caching=False, watermark=0.0, max_num_batched_tokens=budget
        )
        capacity = pool.replica.kv_capacity_tokens + engine.block_size
        pools.append(replace(pool, replica=replace(pool.replica, engine=engine, kv_capacity_tokens=capacity)))
    return stb.Fleet(pools)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=60)
@given(case=cases(), budget=st.integers(61, 200))
def test_one_replica(policy: Scheduler, case: tuple[stb.Fleet, stb.Workload], budget: int) -> None:
    fleet, workload = case
    assert_same(under(policy, fleet, budget), workload)
