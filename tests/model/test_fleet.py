"""Engine, replica, pool and fleet: derived numbers and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import Barrier, Engine, Fleet, InputError, IterationTime, Link, Pool, Replica
from stability.policies import Fcfs, scheduler_of

LAW = IterationTime(base_s=0.01)
REPLICA = Replica(iteration=LAW, kv_capacity_tokens=131_000)


def test_engine_defaults_are_those_of_vllm() -> None:
    engine = Engine()
    assert (engine.max_num_seqs, engine.max_num_batched_tokens, engine.block_size) == (256, 2048, 16)
    assert (engine.admission, engine.watermark) == ("prompt_gate", 0.0)


def test_blocks_and_watermark_by_hand() -> None:
    """789 tokens are 49 blocks of 16; 2 % of 50 (one null block counts) is one block."""
    replica = Replica(iteration=LAW, kv_capacity_tokens=789, engine=Engine(watermark=0.02))
    assert (replica.capacity_blocks, replica.usable_kv_tokens, replica.watermark_tokens) == (49, 784, 16)


@given(st.integers(16, 10**7), st.sampled_from([1, 16, 64]), st.floats(0, 0.5))
def test_blocks_fit_and_watermark_leaves_some(capacity: int, block_size: int, watermark: float) -> None:
    engine = Engine(block_size=block_size, watermark=watermark)
    if capacity < block_size or engine.watermark_blocks(capacity) >= engine.capacity_blocks(capacity):
        return
    replica = Replica(iteration=LAW, kv_capacity_tokens=capacity, engine=engine)
    assert capacity - block_size < replica.usable_kv_tokens <= capacity
    assert 0 <= replica.watermark_tokens < replica.usable_kv_tokens
    assert replica.watermark_tokens <= watermark * (replica.usable_kv_tokens + block_size)


def test_admission_is_shorthand_for_a_scheduler() -> None:
    assert scheduler_of(Engine(admission="reserve", watermark=0.1)) == Fcfs("reserve", 0.1)
    assert scheduler_of(Engine(scheduler=Fcfs("chunk_gate"))) == Fcfs("chunk_gate")
    assert not Fcfs("reserve").evicts
    assert Fcfs("prompt_gate").evicts
    assert Fcfs("chunk_gate", 0.25).parameters().tolist() == [2.0, 0.25]


def test_fleet_counts() -> None:
    two_gpus = replace(REPLICA, gpus=2)
    fleet = Fleet([Pool("a", REPLICA, 3), Pool("b", two_gpus, 4)], links=[Link("a", "b", 1e9)])
    assert (fleet.replicas, fleet.gpus) == (7, 11)
    one = Fleet.of(REPLICA, count=8, name="chat")
    assert one.pools == (Pool("chat", REPLICA, 8),)
    assert one == Fleet([Pool("chat", REPLICA, 8)])


def test_barrier_groups() -> None:
    assert Pool("a", REPLICA, 16, coupling=Barrier(workers=8)).coupling == Barrier(8, 0.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Engine(max_num_seqs=0), "max_num_seqs = 0, must be an integer >= 1"),
        (lambda: Engine(max_num_seqs=1.5), "max_num_seqs = 1.5"),  # type: ignore[arg-type]
        (lambda: Engine(max_num_batched_tokens=100), "max_num_batched_tokens = 100, must be >= max_num_seqs = 256"),
        (lambda: Engine(block_size=0), "block_size = 0"),
        (lambda: Engine(admission="prompt"), "admission = 'prompt', must be one of .*Did you mean 'prompt_gate'"),
        (lambda: Engine(watermark=1.0), "watermark = 1.0"),
        (lambda: Engine(scheduler="fcfs"), "scheduler = 'fcfs', must be a policy object"),  # type: ignore[arg-type]
        (lambda: Fcfs("gate"), "admission = 'gate'"),
        (lambda: Fcfs("reserve", -0.1), "watermark = -0.1"),
        (lambda: Replica(iteration=0.01, kv_capacity_tokens=100), "iteration = 0.01, must be a step-time law"),  # type: ignore[arg-type]
        (lambda: replace(REPLICA, engine=None), "engine = None, must be an Engine"),  # type: ignore[arg-type]
        (lambda: replace(REPLICA, kv_capacity_tokens=15), "kv_capacity_tokens = 15, must be an integer >= 16"),
        (lambda: replace(REPLICA, kv_capacity_tokens=math.nan), "kv_capacity_tokens = nan"),  # type: ignore[arg-type]
        (lambda: replace(REPLICA, gpus=0), "gpus = 0"),
        (lambda: replace(REPLICA, kv_bytes_per_token=0), "kv_bytes_per_token = 0"),
        (lambda: replace(REPLICA, price_per_hour=-1), "price_per_hour = -1"),
        (
            lambda: replace(REPLICA, kv_capacity_tokens=16, engine=Engine(watermark=0.5)),
            "watermark = 0.5 keeps every block of 16 tokens free",
        ),
        (lambda: Barrier(1), "workers = 1, must be an integer >= 2"),
        (lambda: Barrier(2, -1), "sync_s = -1"),
        (lambda: Pool("", REPLICA), "name is empty"),
        (lambda: Pool("a", LAW), "must be a Replica"),  # type: ignore[arg-type]
        (lambda: Pool("a", REPLICA, 0), "replicas = 0, must be an integer >= 1. Remove the pool or give it a replica"),
        (lambda: Pool("a", REPLICA, role="both"), "role = 'both', must be one of mixed, prefill, decode"),
        (lambda: Pool("a", REPLICA, 9, coupling=Barrier(8)), "replicas = 9, must be a multiple of the barrier's 8"),
        (lambda: Pool("a", REPLICA, coupling="barrier"), "coupling = 'barrier'"),  # type: ignore[arg-type]
        (lambda: Pool("a", REPLICA, weight=-1), "weight = -1"),
        (lambda: Link("a", "b", 0), "bandwidth_bytes_per_s = 0"),
        (lambda: Link("a", "b", 1, -1), "latency_s = -1"),
        (lambda: Fleet([]), "pools is empty"),
        (lambda: Fleet([REPLICA]), r"pools\[0\] = .*must be a Pool"),  # type: ignore[list-item]
        (lambda: Fleet([Pool("a", REPLICA)] * 2), r"pool names \['a'\] repeat"),
        (
            lambda: Fleet([Pool("a", REPLICA)], [Link("a", "c", 1)]),
            r"links\[0\] names pool 'c', must be one of \['a'\]",
        ),
        (lambda: Fleet([Pool("a", REPLICA, weight=1), Pool("b", REPLICA)]), r"pools \['b'\] have no weight"),
        (lambda: Fleet([Pool("a", REPLICA, weight=0)]), "pool weights sum to 0"),
    ],
)
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
