"""Capacity against headroom: what the branches are, and the closed form."""

from __future__ import annotations

import numpy as np
import pytest

import stability as st
from stability import lengths as L
from stability.control.sensitivity import Sensitivity

from .cases import LOGNORMAL, UNIFORM, load, pool


def curve(fleet: st.Fleet, lengths: L.Lengths) -> Sensitivity:
    return st.tune(fleet, load(lengths), vary=["watermark"], latencies=False).pools[0].sensitivity


@pytest.mark.parametrize("lengths", [UNIFORM, LOGNORMAL], ids=["uniform", "lognormal"])
def test_time_per_request_is_the_ideal_and_both_losses(lengths: L.Lengths) -> None:
    found = curve(pool(), lengths)
    ideal = 1 / found.memory_branch_per_s[0]
    headroom = 1 / found.memory_branch_per_s - ideal
    eviction = 1 / found.eviction_branch_per_s - ideal
    np.testing.assert_allclose(1 / found.capacity_per_s, ideal + headroom + eviction, rtol=1e-9)
    falls = np.diff(found.memory_branch_per_s) / found.memory_branch_per_s[0]
    assert np.all(falls <= 5e-5)  # memory left by victims falls with h, too, where h is short
    assert np.all(falls[len(falls) // 8 :] <= 0)
    assert np.all(np.diff(found.eviction_branch_per_s) >= -1e-6)
    assert np.all(np.diff(found.evictions_per_request) <= 1e-9)
    assert found.eviction_branch_per_s[0] == pytest.approx(found.capacity_per_s[0])
    assert found.capacity_per_s[-1] == pytest.approx(found.memory_branch_per_s[-1], rel=2e-3)  # no evictions left


@pytest.mark.parametrize("lengths", [UNIFORM, LOGNORMAL], ids=["uniform", "lognormal"])
def test_the_curve_is_the_analysis_of_each_headroom(lengths: L.Lengths) -> None:
    found = curve(pool(), lengths)
    for place in (0, 20, 60):
        at = st.analyze(pool(watermark=float(found.watermark[place])), load(lengths))
        assert found.capacity_per_s[place] == pytest.approx(at.capacity_per_s, rel=1e-6)
        assert (
            found.headroom_tokens[place]
            == pool(watermark=float(found.watermark[place])).pools[0].replica.watermark_tokens
        )


@pytest.mark.parametrize(("lengths", "error"), [(UNIFORM, 0.15), (LOGNORMAL, 0.4)], ids=["uniform", "lognormal"])
def test_the_closed_form_is_near_the_optimum(lengths: L.Lengths, error: float) -> None:
    """And what it misses costs little: the optimum is flat."""
    found = curve(pool(), lengths)
    assert found.closed_form_watermark == pytest.approx(found.best_watermark, rel=error)
    there = np.interp(found.closed_form_watermark, found.watermark, found.capacity_per_s)
    assert there > 0.998 * found.capacity_per_s.max()


def test_memory_that_never_binds_needs_no_headroom() -> None:
    found = curve(pool(10_000_000, max_num_seqs=64), UNIFORM)
    assert found.closed_form_watermark == 0
    assert found.best_watermark == 0
    np.testing.assert_allclose(found.capacity_per_s, found.capacity_per_s[0])


def test_tangents_between_nodes_are_near_the_analysis() -> None:
    """A law that is not affine: solved at the nodes, interpolated between."""
    replica = st.replica("H100-SXM", "Llama-3.1-8B", engine=st.Engine(max_num_seqs=1024, max_num_batched_tokens=4096))
    small = st.Replica(iteration=replica.iteration, kv_capacity_tokens=97_000, engine=replica.engine)
    found = curve(st.Fleet.of(small), UNIFORM)
    place = len(found.watermark) // 3
    engine = st.Engine(max_num_seqs=1024, max_num_batched_tokens=4096, watermark=float(found.watermark[place]))
    there = st.Replica(iteration=replica.iteration, kv_capacity_tokens=97_000, engine=engine)
    exact = st.analyze(st.Fleet.of(there), load()).capacity_per_s
    assert found.capacity_per_s[place] == pytest.approx(exact, rel=2e-3)


def test_arrays_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        curve(pool(), UNIFORM).capacity_per_s[0] = 1.0


def test_the_picture_holds_the_branches_and_the_marks() -> None:
    pytest.importorskip("matplotlib")
    result = st.tune(pool(), load(), latencies=False)
    ax = result.plot()
    assert [line.get_label().partition(":")[0] for line in ax.get_lines()] == [
        "memory branch",
        "eviction branch",
        "capacity",
        "present",
        "recommended",
    ]
    recommended = ax.get_lines()[-1]
    then = result.pools[0].then
    assert recommended.get_xdata()[0] == pytest.approx(100 * then.engine.watermark)
    assert recommended.get_ydata()[0] == pytest.approx(then.capacity_per_s)
    assert "requests/s" in ax.get_ylabel()
    assert result.pools[0].plot(ax) is ax
