"""Compiled steps of one kind against the oracle: the same decisions, the same times."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stability as stb
from stability.policies import DecodeFirst, PrefillFirst
from tests.sim.test_kernel import assert_same, cases

POLICIES = [PrefillFirst(), DecodeFirst(), PrefillFirst(gate=False), DecodeFirst(gate=False)]


def under(policy: object, fleet: stb.Fleet, budget: int) -> stb.Fleet:
    """The fleet with `policy` and a token budget that holds every request."""
    pools = []
    for pool in fleet.pools:
        engine = replace(
            pool.replica.engine, scheduler=policy, prefix_caching=False, watermark=0.0, max_num_batched_tokens=budget
        )
        pools.append(replace(pool, replica=replace(pool.replica, engine=engine)))
    return stb.Fleet(pools)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=60)
@given(case=cases(), budget=st.integers(90, 200))
def test_one_replica(policy: object, case: tuple[stb.Fleet, stb.Workload], budget: int) -> None:
    fleet, workload = case
    assert_same(under(policy, fleet, budget), workload)


@pytest.mark.parametrize("policy", [DecodeFirst(), DecodeFirst(gate=False)], ids=repr)
@settings(max_examples=60)
@given(case=cases(), budget=st.integers(3, 40))
def test_prompts_beyond_the_budget_are_computed_alone(
    policy: object, case: tuple[stb.Fleet, stb.Workload], budget: int
) -> None:
    fleet, workload = case
    most = max(pool.replica.engine.max_num_seqs for pool in fleet.pools)
    assert_same(under(policy, fleet, max(budget, most)), workload)


@pytest.mark.parametrize("policy", POLICIES[:2], ids=repr)
@settings(max_examples=25)
@given(case=cases(replicas=2), concurrency=st.integers(1, 12))
def test_closed_loop_and_routers(policy: object, case: tuple[stb.Fleet, stb.Workload], concurrency: int) -> None:
    fleet, workload = case
    assert_same(under(policy, fleet, 90), workload, router="join_shortest_kv", concurrency=concurrency)
    assert_same(under(policy, fleet, 90), workload, router="power_of_two")
