"""Counts given as floats become integers; broken ones are refused."""

from __future__ import annotations

import pytest

import stability as st


def test_whole_floats_become_integers() -> None:
    engine = st.Engine(max_num_seqs=256.0, max_num_batched_tokens=2048.0, block_size=16.0)
    replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1e5, engine=engine, gpus=2.0)
    pool = st.Pool("a", replica, 4.0, coupling=st.Barrier(2.0))
    values = [
        engine.max_num_seqs,
        engine.max_num_batched_tokens,
        engine.block_size,
        replica.kv_capacity_tokens,
        replica.gpus,
        pool.replicas,
        pool.coupling.workers,
    ]
    assert values == [256, 2048, 16, 100_000, 2, 4, 2]
    assert {type(value) for value in values} == {int}
    assert engine == st.Engine()


@pytest.mark.parametrize("value", [256.5, "256", True, float("nan"), 0])
def test_others_are_refused(value: object) -> None:
    with pytest.raises(st.InputError, match=r"^max_num_seqs = .*, must be an integer >= 1"):
        st.Engine(max_num_seqs=value)  # type: ignore[arg-type]
