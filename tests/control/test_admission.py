"""The fluid knapsack, its prices, and the controller that follows them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

import stability as st
from stability.control.admission import knapsack
from stability.control.rows import fleet_rows
from stability.errors import InputError

from .fleets import mixed_fleet, mixed_workload, slots_replica, two_classes


def test_by_hand() -> None:
    # One replica of 16 short or 4 long requests/s. Worth per replica-second: short 16, long 4*6 = 24.
    fleet = st.Fleet.of(slots_replica())
    plan = st.admission_control(fleet, two_classes(10.0, 3.0, short=1.0, long=6.0), rows="bound", headroom=0.0)
    short, long = plan.classes
    assert (long.admitted_per_s, long.rule) == (pytest.approx(3.0), "always")
    assert (short.admitted_per_s, short.rule) == (pytest.approx(4.0), "below the threshold")
    assert (short.bid_price, long.bid_price) == pytest.approx((1.0, 4.0))
    assert plan.value_per_s == pytest.approx(4 + 18)
    assert plan.overload == pytest.approx(10 / 16 + 3 / 4)
    assert plan.fcfs_value_per_s == pytest.approx(28 / plan.overload)
    dear = st.admission_control(fleet, two_classes(10.0, 5.0, short=1.0, long=6.0), rows="bound", headroom=0.0)
    assert [item.rule for item in dear.classes] == ["never", "below the threshold"]
    light = st.admission_control(fleet, two_classes(1.0, 1.0), rows="bound")
    assert [item.rule for item in light.classes] == ["always", "always"]
    assert light.value_per_s == light.offered_value_per_s == light.fcfs_value_per_s == pytest.approx(2.0)


@pytest.mark.parametrize("seed", range(4))
def test_knapsack_is_optimal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fleet, workload = mixed_fleet(), mixed_workload(4.0)
    values = rng.uniform(0.5, 5, 3)
    system = fleet_rows(fleet, workload)
    variables, found = knapsack(system, values, 1.0)
    assert found.certificate.worst <= 1e-7
    assert knapsack(system, values, 1.0, solver="CLARABEL")[1].value == pytest.approx(found.value, rel=1e-6)
    # Complementary slackness, in plain arithmetic.
    sent = variables.matrix(found.point)
    admitted = sent.sum(axis=0)
    n, height = system.seconds.shape[:2]
    prices = found.below_duals[: n * height].reshape(n, height) / system.replicas[:, None]
    cost = np.einsum("ir,irk->ik", prices, system.seconds)
    assert (sent * (cost - cost.min(axis=0)) <= 1e-7).all()  # only where a class is cheapest
    for k in range(3):
        if values[k] > cost[:, k].min() * (1 + 1e-6):
            assert admitted[k] == pytest.approx(1, abs=1e-7)
        elif values[k] < cost[:, k].min() * (1 - 1e-6):
            assert admitted[k] == pytest.approx(0, abs=1e-7)
    # No admission on a grid earns more: what a grid point earns is feasible iff its rates are in the region.
    region = st.capacity_region(fleet, workload)
    best = 0.0
    for shares in itertools.product(np.linspace(0, 1, 6), repeat=3):
        rates = np.array(shares) * system.rates_per_s
        if rates.any() and rates @ region.class_prices <= 1 and region.contains(rates).inside:
            best = max(best, float(values @ rates))
    # The region's rows were laid around other mixes, so the two may differ a little.
    assert best <= -found.value * 1.01


def test_more_value_and_more_capacity_earn_more() -> None:
    fleet, workload = mixed_fleet(), mixed_workload(6.0)
    plan = st.admission_control(fleet, workload, rows="bound")
    assert plan.fcfs_value_per_s < plan.value_per_s < plan.offered_value_per_s
    assert plan.fcfs_value_per_s == pytest.approx(0.99 / plan.overload * plan.offered_value_per_s)
    more = st.Fleet([replace(pool, replicas=pool.replicas + 1) for pool in fleet.pools])
    assert st.admission_control(more, workload, rows="bound").value_per_s > plan.value_per_s
    dearer = st.Workload([replace(item, value=2 * item.value) for item in workload.classes])
    assert st.admission_control(fleet, dearer, rows="bound").value_per_s == pytest.approx(2 * plan.value_per_s)
    assert st.admission_control(fleet, workload, rows="bound", headroom=0.2).value_per_s < plan.value_per_s


def test_controller_admits_the_fluid_fractions() -> None:
    fleet, workload = mixed_fleet(), mixed_workload(6.0)
    plan = st.admission_control(fleet, workload, threshold_s=10.0)
    rng = np.random.default_rng(7)
    n = 60_000
    arrival = np.cumsum(rng.exponential(1 / workload.rate_per_s, n))
    kind = rng.choice(3, n, p=workload.rates_per_s / workload.rate_per_s)
    chosen = plan.admit(arrival, kind, rng.random(n))
    assert {item.rule for item in plan.classes} >= {"always", "below the threshold"}
    for k, item in enumerate(plan.classes):
        own = chosen[kind == k]
        assert (own >= 0).mean() == pytest.approx(item.admitted_per_s / item.rate_per_s, abs=0.03)
        if (own >= 0).any():
            share = np.bincount(own[own >= 0], minlength=3) / (own >= 0).sum()
            assert share == pytest.approx(plan.shares[:, k], abs=0.03)


def test_controller_keeps_its_promise_at_every_moment() -> None:
    """Accepted work never runs ahead of the pool by more than the threshold, but for classes that always pass."""
    fleet = st.Fleet.of(slots_replica())
    plan = st.admission_control(fleet, two_classes(40.0, 0.0), rows="bound", threshold_s=0.5)
    arrival = np.arange(2000) / 40.0
    chosen = plan.admit(arrival, np.zeros(2000, dtype=int), np.zeros(2000))
    times = arrival[chosen == 0]
    work = np.cumsum(np.full(len(times), 1 / 16))
    assert (work <= 0.99 * times + 0.99 * 0.5 + 1e-9).all()
    assert work[-1] >= 0.99 * times[-1]  # and none is wasted


def test_bounded_queues_and_thresholds_in_the_simulator() -> None:
    fleet = st.Fleet.of(slots_replica())
    workload = two_classes(20.0, 0.0)
    full = st.simulate(fleet, workload, requests=4000, rng=1, max_waiting=2)
    assert full.rejected > 0
    assert full.completed + full.rejected == full.arrived == 4000
    assert full.waiting_mean <= 2
    assert (full.requests.replica == -1).sum() == full.rejected
    assert np.isnan(full.requests.finish_s[full.requests.replica == -1]).all()
    assert "turned away" in full.summary()
    with pytest.raises(InputError, match="in an open loop only"):
        st.simulate(fleet, workload, requests=10, saturated=True, max_waiting=2)


def test_no_values_and_wrong_columns() -> None:
    with pytest.raises(InputError, match="no class that arrives has a value"):
        st.admission_control(mixed_fleet(), two_classes(1.0, 1.0, short=0.0, long=0.0))
    plan = st.admission_control(mixed_fleet(), mixed_workload())
    with pytest.raises(InputError, match="must be as many"):
        plan.admit([0.0, 1.0], [0], [0.5])


def test_the_result_prints_and_serialises() -> None:
    plan = st.admission_control(mixed_fleet(), mixed_workload(4.0))
    assert "bid price" in plan.summary()
    found = json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    assert found["schema"] == "stability/admission/1"
    assert list(plan.to_frame()["name"]) == ["chat", "document", "reasoning"]
    assert plan.plot().get_xlabel() == "requests/s"
    assert isinstance(plan.router, st.policies.WeightedSplit)
