"""Rows, region and prices."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import stability as st
from stability import lengths as L
from stability.control.rows import fleet_rows, undominated
from stability.errors import InputError, NotModelledError, UnservableError
from stability.model import catalog

from .fleets import CHAT, DOCUMENT, constant, mixed_fleet, mixed_workload, slots_replica, two_classes


@pytest.mark.parametrize("admission", ["reserve", "prompt_gate"])
def test_rows_at_the_mix_are_the_analysis(admission: str) -> None:
    fleet, workload = mixed_fleet(admission, watermark=0.02 * (admission == "prompt_gate")), mixed_workload()
    report = st.analyze(fleet, workload)
    mix = workload.rates_per_s / workload.rate_per_s
    for kind, field in (
        ("policy", "capacity_per_s"),
        ("bound", "upper_bound_per_s"),
        ("proved", "proved_capacity_per_s"),
    ):
        if kind == "proved" and admission != "reserve":
            continue
        rows = fleet_rows(fleet, workload, rows=kind)
        found = rows.replicas / (rows.seconds @ mix).max(axis=1)
        assert found == pytest.approx([getattr(pool, field) for pool in report.pools], rel=1e-9)


@pytest.mark.parametrize(
    "law",
    [
        catalog.replica("H100-SXM", "Llama-3.1-8B").iteration,
        catalog.roofline("L4", "Llama-3.1-8B"),
        st.iteration.Hinge(base_s=0.0118, per_token_s=5.3e-5, threshold_tokens=96, per_kv_token_s=8e-8),
        st.iteration.Staircase(base_s=0.008, per_step_s=0.006, step_tokens=128, per_kv_token_s=4e-8),
    ],
    ids=lambda law: type(law).__name__,
)
def test_bound_rows_of_other_laws(law: st.iteration.IterationLaw) -> None:
    """At the mix the bound of `analyze`; at every other mix nowhere above it, where it is necessary."""
    replica = st.Replica(iteration=law, kv_capacity_tokens=120_000, engine=st.Engine(max_num_batched_tokens=4096))
    fleet = st.Fleet.of(replica)
    classes = mixed_workload().classes
    rows = fleet_rows(fleet, st.Workload(classes), rows="bound")
    for rates in ([8.0, 2.0, 1.0], [1.0, 0.0, 0.0], [1.0, 5.0, 0.0], [0.0, 1.0, 1.0]):
        workload = st.Workload([item.with_rate(rate) for item, rate in zip(classes, rates, strict=True)])
        time_s = float((rows.seconds[0] @ (np.array(rates) / sum(rates))).max())
        bound = st.analyze(fleet, workload).upper_bound_per_s
        assert 1 / time_s >= bound * (1 - 1e-9)
        if rates == [8.0, 2.0, 1.0]:
            assert 1 / time_s == pytest.approx(bound, rel=1e-6)


def test_equal_replicas_are_one_type() -> None:
    fleet = mixed_fleet()
    split = [replace(fleet.pools[0], name=f"a{j}", replicas=1) for j in range(2)]
    apart = st.Fleet([*split, *fleet.pools[1:]])
    one, two = (st.capacity_region(x, mixed_workload()) for x in (fleet, apart))
    assert two.factor == pytest.approx(one.factor, rel=1e-12)
    assert len(two.system.types) == 3
    assert two.shares[0] == pytest.approx(two.shares[1])
    assert two.shares[:2].sum(axis=0) == pytest.approx(one.shares[0])


def test_undominated_rows() -> None:
    rows = np.array([[1.0, 2.0], [1.0, 1.0], [2.0, 0.5], [1.0, 2.0]])
    assert undominated(rows).tolist() == [0, 2]


def test_two_slot_bound_pools_by_hand() -> None:
    # 0.01*50/8 = 1/16 s and 0.02*50/8 = 1/8 s a short request, four times as long a long one.
    fleet = st.Fleet([st.Pool("fast", slots_replica(0.01)), st.Pool("slow", slots_replica(0.02))])
    region = st.capacity_region(fleet, two_classes(4.0, 2.0), rows="bound")
    # 4 + 4*2 = 12 short ones' worth of 16 + 8 = 24.
    assert region.factor == pytest.approx(2.0, rel=1e-9)
    assert region.rate_per_s == pytest.approx(12.0, rel=1e-9)
    assert region.class_prices == pytest.approx([1 / 24, 4 / 24], rel=1e-9)
    fast, slow = region.pools
    assert (fast.per_replica, slow.per_replica) == pytest.approx((12 * 16 / 24, 12 * 8 / 24), rel=1e-9)
    assert fast.per_slot == pytest.approx(12 * 16 / 24 / 8, rel=1e-9)  # all its time is slots: one more of 8
    assert (fast.per_kv_token, fast.bottleneck) == (0, "batch_slots")
    corners = region.slice("short", "long")
    assert corners == pytest.approx(np.array([[0, 0], [24, 0], [0, 6]]), abs=1e-6)
    assert region.support([1.0, 3.9]) == pytest.approx([24, 0], abs=1e-6)
    assert region.support([1.0, 4.1]) == pytest.approx([0, 6], abs=1e-6)


@pytest.mark.parametrize("kind", ["bound", "proved"])
def test_prices_are_finite_differences(kind: str) -> None:
    fleet, workload = mixed_fleet(), mixed_workload()
    region = st.capacity_region(fleet, workload, rows=kind)

    def rate(place: int, change: dict[str, object]) -> float:
        pools = list(fleet.pools)
        pools[place] = replace(pools[place], **change)
        return st.capacity_region(st.Fleet(pools), workload, rows=kind).rate_per_s

    for place, pool in enumerate(region.pools):
        replica = fleet.pools[place].replica
        step = 160  # ten blocks
        more, fewer = (
            rate(place, {"replica": replace(replica, kv_capacity_tokens=replica.kv_capacity_tokens + sign * step)})
            for sign in (1, -1)
        )
        measured = (more - fewer) / (2 * step * pool.replicas)
        assert pool.per_kv_token == pytest.approx(measured, rel=0.02, abs=1e-9)
        assert pool.per_kv_gb == pytest.approx(pool.per_kv_token * 1e9 / 131_072, rel=1e-12)
        more, fewer = (
            rate(place, {"replica": replace(replica, engine=replace(replica.engine, max_num_seqs=96 + sign))})
            for sign in (1, -1)
        )
        assert pool.per_slot == pytest.approx((more - fewer) / (2 * pool.replicas), rel=0.02, abs=1e-6)
    # Replicas are whole: differences in a fleet a hundred times as large.
    large = st.Fleet([replace(pool, replicas=100 * pool.replicas) for pool in fleet.pools])
    whole = st.capacity_region(large, workload, rows=kind)
    for place, pool in enumerate(whole.pools):
        pools = list(large.pools)
        pools[place] = replace(pools[place], replicas=pools[place].replicas + 1)
        more_ = st.capacity_region(st.Fleet(pools), workload, rows=kind).rate_per_s
        assert pool.per_replica == pytest.approx(more_ - whole.rate_per_s, rel=0.02)
    assert whole.gpu_prices["B"] == pytest.approx(whole.pools[1].per_replica)


def test_some_memory_is_worth_something_and_the_dual_is_not_its_price() -> None:
    region = st.capacity_region(mixed_fleet(), mixed_workload(), rows="proved")
    assert max(pool.per_kv_token for pool in region.pools) > 0
    u = region.balance.prices[:, 0] * region.rate_per_s
    assert all(abs(pool.per_kv_token - price) > 0.1 * price for pool, price in zip(region.pools, u, strict=True))


@settings(max_examples=25)
@given(some.lists(some.floats(0.1, 30), min_size=3, max_size=3))
def test_membership_is_proved_either_way(rates: list[float]) -> None:
    region = REGION
    found = region.contains(rates)
    low, high = found.exact()
    assert low <= high <= low * (1 + Fraction(1, 10**7))
    if found.inside:
        assert low > 1
        # The routing keeps every row.
        own = found.balance.shares * np.array(rates)
        loads = np.einsum("irk,ik->ir", region.system.seconds, own)
        assert (loads < region.system.replicas[:, None]).all()
    elif high < 1:
        # The prices separate: rates cost more than 1, and no vertex of the region does.
        assert np.array(rates) @ found.class_prices > 1
        for direction in (found.class_prices, np.ones(3), np.array([1.0, 0, 0])):
            assert region.support(direction) @ found.class_prices <= 1 + 1e-7


REGION = st.capacity_region(mixed_fleet(), mixed_workload())


def test_slices_are_where_membership_turns() -> None:
    for first, second in (("chat", "document"), ("reasoning", "document")):
        corners = REGION.slice(first, second, others=0.5)
        f, s = REGION.classes.index(first), REGION.classes.index(second)
        assert len(corners) >= 4
        edges = np.roll(corners, -1, axis=0) - corners
        turns = edges[:, 0] * np.roll(edges, -1, axis=0)[:, 1] - edges[:, 1] * np.roll(edges, -1, axis=0)[:, 0]
        assert (turns > -1e-6).all()  # convex, counter-clockwise
        for a, b in itertools.pairwise(corners[1:]):
            for point in (a, (a + b) / 2):
                rates = 0.5 * REGION.rates_per_s
                rates[[f, s]] = point
                assert REGION.contains(np.maximum(rates * (1 - 1e-6), 0)).inside
                rates[[f, s]] = point * 1.001
                assert not REGION.contains(rates).inside


def test_boundary_is_where_the_analysis_says_load_one() -> None:
    """At the boundary every used pool is full at its own mix, by `analyze`, not by the rows.

    Rows of gates are linear around a mix, and what eviction leaves of memory is not: loads agree within 1.5 % there.
    """
    for admission, watermark, error in (("reserve", 0.0, 5e-3), ("prompt_gate", 0.03, 1.5e-2)):
        fleet, workload = mixed_fleet(admission, watermark=watermark), mixed_workload()
        region = st.capacity_region(fleet, workload)
        split = st.optimal_split(fleet, workload.scaled(factor=region.factor))
        assert [pool.load for pool in split.pools] == pytest.approx([1.0] * 3, rel=error)


@pytest.mark.parametrize("change", ["kv_capacity_tokens", "replicas"])
def test_more_is_never_worse(change: str) -> None:
    fleet, workload = mixed_fleet(), mixed_workload()
    for kind in ("bound", "proved"):
        before = st.capacity_region(fleet, workload, rows=kind).factor
        for place, pool in enumerate(fleet.pools):
            pools = list(fleet.pools)
            if change == "replicas":
                pools[place] = replace(pool, replicas=pool.replicas + 1)
            else:
                pools[place] = replace(pool, replica=replace(pool.replica, kv_capacity_tokens=200_000))
            assert st.capacity_region(st.Fleet(pools), workload, rows=kind).factor >= before * (1 - 1e-9)


def test_bound_policy_proved_are_in_order() -> None:
    factors = [
        st.capacity_region(mixed_fleet(), mixed_workload(), rows=kind).factor for kind in ("bound", "policy", "proved")
    ]
    assert factors == sorted(factors, reverse=True)


def test_classes_go_where_they_fit() -> None:
    small, large = slots_replica(memory=120), slots_replica(memory=100_000)
    fleet = st.Fleet([st.Pool("small", small, 3), st.Pool("large", large)])
    region = st.capacity_region(
        fleet,
        st.Workload([st.RequestClass("tiny", 1.0, constant(20, 50)), st.RequestClass("long", 1.0, constant(100, 200))]),
    )
    assert region.shares[0, 1] == 0
    assert region.shares[1, 1] == 1
    with pytest.raises(
        UnservableError, match=r"class 'short' has requests that take up to 150 KV tokens.*by 30 tokens"
    ):
        st.capacity_region(st.Fleet.of(small), two_classes(1.0, 1.0))


def test_a_pool_that_nothing_fits_gets_nothing() -> None:
    tiny = slots_replica(memory=20)
    fleet = st.Fleet([st.Pool("tiny", tiny, 3), st.Pool("large", slots_replica())])
    for kind in ("policy", "bound", "proved"):
        region = st.capacity_region(fleet, two_classes(1.0, 1.0), rows=kind)
        assert region.shares.tolist() == [[0.0, 0.0], [1.0, 1.0]]
        assert region.pools[0].per_replica == pytest.approx(0, abs=1e-12)
    two_phase = replace(tiny, iteration=catalog.replica("H100-SXM", "Llama-3.1-8B").iteration)
    fleet = st.Fleet([st.Pool("tiny", two_phase), st.Pool("large", slots_replica())])
    assert st.capacity_region(fleet, two_classes(1.0, 1.0), rows="bound").shares[0].tolist() == [0.0, 0.0]
    assert st.optimal_split(fleet, two_classes(1.0, 1.0)).feasible


def test_doubts_of_the_analysis_are_passed_on() -> None:
    region = st.capacity_region(mixed_fleet("chunk_gate"), mixed_workload())
    assert region.notes
    assert "chunk_gate" in region.summary()
    assert st.capacity_region(mixed_fleet("chunk_gate"), mixed_workload(), rows="bound").notes == ()


def test_what_has_no_region() -> None:
    with pytest.raises(InputError, match="nothing is proved for class 'chat'"):
        st.capacity_region(mixed_fleet("prompt_gate"), mixed_workload(), rows="proved")
    unbounded = st.Workload([st.RequestClass("chat", 1.0, L.Independent(L.Geometric(100), L.Geometric(100)))])
    with pytest.raises(InputError, match="lengths with a limit"):
        st.capacity_region(mixed_fleet(), unbounded, rows="proved")
    fleet = st.Fleet([replace(mixed_fleet().pools[0], role="prefill"), mixed_fleet().pools[1]])
    with pytest.raises(NotModelledError, match="pool 'a'"):
        st.capacity_region(fleet, mixed_workload())
    with pytest.raises(InputError, match="must be 3 finite numbers"):
        REGION.contains([1.0, 2.0])
    with pytest.raises(InputError, match="Lower `others`"):
        REGION.slice("chat", "document", others=1e3)
    with pytest.raises(TypeError, match="no truth value"):
        bool(REGION.contains([1.0, 1.0, 1.0]))


def test_order_of_classes_and_pools_does_not_matter() -> None:
    fleet, workload = mixed_fleet(), mixed_workload()
    turned = st.capacity_region(st.Fleet(fleet.pools[::-1]), st.Workload(workload.classes[::-1]))
    assert turned.factor == pytest.approx(REGION.factor, rel=1e-6)
    assert turned.shares[::-1, ::-1] == pytest.approx(REGION.shares, abs=1e-3)


@given(some.floats(0.2, 5.0))
@settings(max_examples=10)
def test_a_slower_clock_serves_less(pace: float) -> None:
    for kind in ("bound", "proved"):
        fleet = mixed_fleet()
        slower = st.Fleet(
            [replace(p, replica=replace(p.replica, iteration=p.replica.iteration.scaled(pace))) for p in fleet.pools]
        )
        found, base = (st.capacity_region(x, mixed_workload(), rows=kind).factor for x in (slower, fleet))
        assert found * pace == pytest.approx(base, rel=1e-6)


def test_necessary_rows_of_two_phase_laws_are_tangents_where_the_split_is() -> None:
    """At the boundary each type's rows give the bound of `analyze` at its own mix, which no affine row would."""
    engine = st.Engine(max_num_batched_tokens=4096, admission="reserve")
    fleet = st.Fleet(
        [st.Pool(gpu, catalog.replica(gpu, "Llama-3.1-8B", engine=engine)) for gpu in ("H100-SXM", "L40S")]
    )
    region = st.capacity_region(fleet, mixed_workload(), rows="bound")
    rates = region.factor * region.shares * region.rates_per_s
    for pool, row in zip(fleet.pools, rates, strict=True):
        own = st.Workload(
            [item.with_rate(float(x)) for item, x in zip(mixed_workload().classes, row, strict=True) if x > 1e-6]
        )
        report = st.analyze(st.Fleet([pool]), own)
        assert own.rate_per_s <= report.upper_bound_per_s * (1 + 1e-3)


def test_requests_that_all_come_at_once_have_no_region() -> None:
    with pytest.raises(InputError, match="must come at a rate"):
        st.capacity_region(mixed_fleet(), st.Workload.from_requests([0.0, 0.0], [10, 10], [5, 5]))


def test_a_class_that_costs_nothing_has_no_bound() -> None:
    law = st.IterationTime(base_s=0.0, per_decode_token_s=1e-3)
    replica = st.Replica(iteration=law, kv_capacity_tokens=10_000, engine=st.Engine(admission="reserve"))
    free = st.Workload([st.RequestClass("free", 1.0, constant(10, 1)), st.RequestClass("paid", 1.0, constant(10, 5))])
    with pytest.raises(InputError, match=r"class 'free' takes no time under .*its rate would have no bound"):
        st.capacity_region(st.Fleet.of(replica), free)


def test_the_result_prints_and_serialises() -> None:
    text = REGION.summary()
    for word in ("largest factor", "kv_memory", "one GB of KV", "document", "to b"):
        assert word in text
    found = json.loads(json.dumps(REGION.to_dict(), allow_nan=False))
    assert found["schema"] == "stability/region/1"
    assert found["factor"] == REGION.factor
    frame = REGION.to_frame()
    assert frame["rate_chat_per_s"].sum() == pytest.approx(8.0 * REGION.factor)
    assert len(REGION._repr_html_()) > 500
    assert np.array(REGION.router.weights).sum(axis=1) == pytest.approx(1)
    axes = REGION.plot()
    assert axes.get_xlabel() == "chat, requests/s"
    single = st.capacity_region(mixed_fleet(), st.Workload([st.RequestClass("chat", 8.0, CHAT)]))
    assert "load at the boundary" in single.plot().get_xlabel()
    two = st.capacity_region(
        mixed_fleet(), st.Workload([st.RequestClass("chat", 8.0, CHAT), st.RequestClass("document", 1.0, DOCUMENT)])
    )
    assert two.plot(axes) is axes
