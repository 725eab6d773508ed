"""Splits by objective against brute force, their bounds, targets and remedies."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

import stability as st
from stability import lengths as L
from stability.control.balance import least_load
from stability.control.congestion import least_congestion
from stability.control.cost import least_cost
from stability.control.itl import bases, least_itl
from stability.control.robust import robust_load
from stability.control.rows import fleet_rows
from stability.control.waiting import second_moments
from stability.errors import InputError

from .fleets import constant, mixed_fleet, mixed_workload, random_rows, slots_replica, two_classes

GRID = np.linspace(0, 1, 41)


def two_pools(fast: float = 0.01, slow: float = 0.02, **options: object) -> st.Fleet:
    return st.Fleet([st.Pool("fast", slots_replica(fast, **options)), st.Pool("slow", slots_replica(slow, **options))])  # type: ignore[arg-type]


def grid_best(value: object) -> float:
    """Least value over splits of two classes over two pools."""
    return min(value(np.array([[a, b], [1 - a, 1 - b]])) for a, b in itertools.product(GRID, GRID))  # type: ignore[operator]


def loads(system: object, rates: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return np.einsum("irk,ik->ir", system.seconds, shares * rates).max(axis=1) / system.replicas  # type: ignore[attr-defined]


def test_slack_by_hand_and_by_grid() -> None:
    fleet, workload = two_pools(), two_classes(4.0, 2.0)
    split = st.optimal_split(fleet, workload, rows="bound")
    assert split.load == split.value == pytest.approx(0.5, rel=1e-9)
    assert split.lower_bound == pytest.approx(split.value, rel=1e-7)
    assert split.certificate.worst <= 1e-7
    system = fleet_rows(fleet, workload, rows="bound")
    assert split.value <= grid_best(lambda z: loads(system, workload.rates_per_s, z).max()) + 1e-12


def test_congestion_is_least_and_bounded() -> None:
    fleet, workload = two_pools(), two_classes(4.0, 2.0)
    split = st.optimal_split(fleet, workload, objective="congestion", rows="bound")
    system = fleet_rows(fleet, workload, rows="bound")

    def congestion(z: np.ndarray) -> float:
        load = loads(system, workload.rates_per_s, z)
        return float((system.replicas * load / (1 - load)).sum()) if (load < 1).all() else np.inf

    assert split.value == pytest.approx(congestion(split.shares), rel=1e-9)
    assert split.lower_bound <= split.value <= grid_best(congestion) * (1 + 1e-9)
    assert split.gap <= 1e-7
    # Two queues of rates 16 and 8: least sum of load/(1 - load) at spare capacities in proportion to the roots.
    x = 16 - (24 - 12) / (np.sqrt(16) + np.sqrt(8)) * np.sqrt(16)
    assert split.value == pytest.approx(x / (16 - x) + (12 - x) / (8 - 12 + x), rel=1e-5)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0, 4.2])
def test_congestion_of_mixed_fleets_is_proved(factor: float) -> None:
    for kind in ("bound", "policy"):
        split = st.optimal_split(mixed_fleet(), mixed_workload(factor), objective="congestion", rows=kind)
        assert 0 <= split.value - split.lower_bound <= 1e-7 * split.value + 1e-12


@pytest.mark.parametrize("seed", range(6))
def test_congestion_where_rows_tie(seed: int) -> None:
    """Random rows, several binding in one type at the optimum."""
    seconds, replicas, rates, fits = random_rows(seed, 3, 3, 4)
    system = fleet_rows(mixed_fleet(), mixed_workload())
    load = 1 / least_load(seconds, replicas, rates, fits).lower
    system = replace(system, seconds=seconds, replicas=replicas, rates_per_s=0.8 * rates / load, fits=fits)
    shares, value, lower = least_congestion(system, np.ones(3))
    assert lower <= value * (1 + 1e-12)
    assert value - lower <= 1e-7 * value
    rng = np.random.default_rng(seed)
    for _ in range(200):  # no neighbour is better
        other = shares + 0.02 * rng.standard_normal(shares.shape) * fits
        other = np.maximum(other, 0) * fits
        other = other / other.sum(axis=0)
        used = np.einsum("irk,ik->ir", seconds, other * system.rates_per_s).max(axis=1) / replicas
        if (used < 1).all():
            assert (replicas * used / (1 - used)).sum() >= value * (1 - 1e-9)


def test_itl_uses_the_slow_pool_only_when_that_helps() -> None:
    engine = st.Engine(max_num_seqs=100_000, max_num_batched_tokens=100_000, admission="reserve", block_size=1)
    pools = [
        st.Pool(
            name,
            st.Replica(
                iteration=st.IterationTime(base_s=base, per_prefill_token_s=1e-4),
                kv_capacity_tokens=10**9,
                engine=engine,
            ),
        )
        for name, base in (("fast", 0.01), ("slow", 0.02))
    ]
    fleet = st.Fleet(pools)
    workload = st.Workload.poisson(1.0, constant(100, 50))  # 10 ms of work a request: W rate < 1 a pool
    for rate in (10.0, 40.0, 60.0, 80.0, 120.0):
        system = fleet_rows(fleet, workload.scaled(rate_per_s=rate), rows="bound")
        assert bases(system) == pytest.approx([0.01, 0.02])
        shares, _, found = least_itl(system, np.ones(2))
        best = min(
            max(base / (1 - 0.01 * rate * z) if z > 0 else 0 for base, z in ((0.01, a), (0.02, 1 - a)))
            for a in np.linspace(0, 1, 20_001)
            if 0.01 * rate * max(a, 1 - a) < 1
        )
        worst = 0.01 / -found.value
        assert worst == pytest.approx(best, rel=2e-4)
        assert found.certificate.worst <= 1e-7
        other = least_itl(system, np.ones(2), solver="CLARABEL")[2]
        assert other.value == pytest.approx(found.value, rel=1e-6)
        # 10 ms/(1 - x/100) reaches the slow pool's 20 ms at 50/s.
        assert (shares[1, 0] > 0) == (rate > 50)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.0, 3.5])
def test_least_itl_over_every_choice_of_pools(factor: float) -> None:
    """Largest s for each set of pools that may be used, by scipy alone; the best set is no better."""
    extra = replace(mixed_fleet().pools[1], name="d", replicas=1)
    slower = replace(extra, replica=replace(extra.replica, iteration=extra.replica.iteration.scaled(1.4)))
    system = fleet_rows(st.Fleet([*mixed_fleet().pools, slower]), mixed_workload(factor), rows="bound")
    base, rates = bases(system), system.rates_per_s
    best = 0.0
    for used in itertools.chain.from_iterable(itertools.combinations(range(4), size) for size in (1, 2, 3, 4)):
        rows, right = [], []
        for i in used:
            for need in (*system.seconds[i], system.work_s[i]):
                row = np.zeros(13)
                row[3 * i : 3 * i + 3] = need * rates / system.replicas[i]
                rows.append(row)
                right.append(1.0)
            rows[-1][-1] = base[i]
        for i in set(range(4)) - set(used):
            row = np.zeros(13)
            row[3 * i : 3 * i + 3] = 1.0
            rows.append(row)
            right.append(0.0)
        once = np.hstack([np.tile(np.eye(3), 4), np.zeros((3, 1))])
        found = linprog(-np.eye(13)[-1], A_ub=np.array(rows), b_ub=right, A_eq=once, b_eq=np.ones(3))
        if found.status == 0:
            best = max(best, -found.fun)
    got = least_itl(system, np.ones(4))[2]
    assert -got.value / base.min() == pytest.approx(best, rel=1e-6)


def test_cost_is_least() -> None:
    fleet = st.Fleet(
        [
            st.Pool("fast", slots_replica(0.01, price_per_hour=3.0), 2),
            st.Pool("slow", slots_replica(0.02, price_per_hour=1.0), 2),
        ]
    )
    # A short request a second takes 1/16 of a fast replica (3/16 an hour), 1/8 of a slow one (1/8): the slow pool first.
    whole = st.Targets(headroom=0.0)
    split = st.optimal_split(fleet, two_classes(20.0, 0.0), whole, objective="cost", rows="bound")
    assert split.shares[:, 0] == pytest.approx([4 / 20, 16 / 20], abs=1e-7)
    assert split.value == pytest.approx(2 * 1.0 + 4 * 3 / 16, rel=1e-7)
    assert [pool.replicas_used for pool in split.pools] == pytest.approx([0.25, 2.0], abs=1e-7)
    spared = st.optimal_split(fleet, two_classes(20.0, 0.0), objective="cost", rows="bound")  # 10 % of each kept free
    assert spared.value == pytest.approx(2 * 1.0 + (20 - 0.9 * 16) / (0.9 * 16) * 3, rel=1e-7)
    system = fleet_rows(fleet, two_classes(20.0, 1.0), rows="bound")
    values = [least_cost(fleet, system, np.ones(2), solver=solver)[2].value for solver in ("HIGHS", "CLARABEL")]
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    with pytest.raises(InputError, match="no price_per_hour"):
        st.optimal_split(two_pools(), two_classes(1.0, 1.0), objective="cost")


def test_mean_waiting_is_not_convex_and_the_search_finds_the_specialised_split() -> None:
    """Two equal replicas, requests of 1 and 4 units: a replica for each class waits (1 + 4)^2/(4*1*4) = 25/16 times less."""
    fleet = st.Fleet([st.Pool("one", slots_replica()), st.Pool("two", slots_replica())])
    workload = two_classes(12.8, 3.2)  # 0.8 of a replica each
    split = st.optimal_split(fleet, workload, objective="waiting", rows="bound")
    service = np.array([1 / 16, 4 / 16])

    def waiting(shares: np.ndarray) -> float:
        x = shares * workload.rates_per_s
        spare = 1 - x @ service
        return float((x.sum(axis=1) * (x @ service**2) / 2 / spare).sum()) if (spare > 0).all() else np.inf

    even, specialised = waiting(np.full((2, 2), 0.5)), waiting(np.eye(2))
    assert specialised == pytest.approx(2 * 0.8**2 / (2 * 0.2), rel=1e-12)
    assert even == pytest.approx(specialised * 25 / 16, rel=1e-12)
    # Not convex: the even split lies between two better ones.
    assert even > (waiting(np.eye(2)) + waiting(np.eye(2)[::-1])) / 2
    assert split.value == pytest.approx(waiting(split.shares), rel=1e-6)
    assert split.value <= grid_best(waiting) * (1 + 1e-6)
    assert split.lower_bound <= split.value
    assert split.gap == pytest.approx(0, abs=1e-4)  # here the bound is met
    # Least load is content with any balanced split.
    assert st.optimal_split(fleet, workload, rows="bound").load == pytest.approx(0.8)


@pytest.mark.parametrize(("short", "long"), [(6.0, 3.0), (14.0, 0.5), (3.0, 3.5)])
def test_waiting_against_the_grid(short: float, long: float) -> None:
    fleet, workload = two_pools(), two_classes(short, long)
    split = st.optimal_split(fleet, workload, objective="waiting", rows="bound")
    service = np.array([[1 / 16, 4 / 16], [1 / 8, 4 / 8]])

    def waiting(shares: np.ndarray) -> float:
        x = shares * workload.rates_per_s
        spare = 1 - (x * service).sum(axis=1)
        return float((x.sum(axis=1) * (x * service**2).sum(axis=1) / 2 / spare).sum()) if (spare > 0).all() else np.inf

    assert split.lower_bound <= split.value <= grid_best(waiting) * (1 + 1e-6)


def test_second_moments_are_those_of_the_lengths() -> None:
    output = L.Uniform(1, 99)  # n = o, so S = o/800: E[S^2] = E[o^2]/640000
    fleet = st.Fleet.of(slots_replica())
    workload = st.Workload.poisson(1.0, L.Independent(L.Constant(100), output))
    system = fleet_rows(fleet, workload, rows="bound", merged=False)
    rows = np.array([1])
    found = second_moments(system, workload, rows, system.seconds[[0], rows])
    assert found[0, 0] == pytest.approx(np.mean(np.arange(1, 100) ** 2) / 800**2, rel=1e-9)
    wide = st.Workload.poisson(1.0, L.Independent(L.Constant(100), L.LogNormal(300, 1.0, limit=8000)))
    system = fleet_rows(fleet, wide, rows="bound", merged=False)
    law = wide.classes[0].lengths.output
    exact = float(law.probabilities @ law.values.astype(float) ** 2) / 800**2
    assert second_moments(system, wide, rows, system.seconds[[0], rows])[0, 0] == pytest.approx(exact, rel=0.02)


def test_robust_splits_against_their_definitions() -> None:
    fleet, workload = mixed_fleet(), mixed_workload()
    system, caps = fleet_rows(fleet, workload), np.ones(3)
    rates = system.rates_per_s

    def worst(shares: np.ndarray, spread: float, classes: int) -> float:
        chosen = itertools.combinations(range(3), classes)
        ups = [np.array([1 + spread * (k in up) for k in range(3)]) for up in chosen]
        return max(float(loads(system, rates * up, shares).max()) for up in ups)

    for uncertainty, classes in (
        (st.uncertainty.Box(spread=0.3), 3),
        (st.uncertainty.Budget(spread=0.3, classes=1), 1),
        (st.uncertainty.Budget(spread=0.3, classes=2), 2),
    ):
        shares, found = robust_load(system, caps, uncertainty)
        assert found.certificate.worst <= 1e-7
        assert found.value == pytest.approx(worst(shares, 0.3, classes), rel=1e-7)
        assert robust_load(system, caps, uncertainty, solver="CLARABEL")[1].value == pytest.approx(
            found.value, rel=1e-6
        )
        nominal = st.optimal_split(fleet, workload)
        types = nominal.shares  # one pool a type
        assert found.value <= worst(types, 0.3, classes) * (1 + 1e-3)
    box, one, none = (
        robust_load(system, caps, u)[1].value
        for u in (
            st.uncertainty.Box(spread=0.3),
            st.uncertainty.Budget(spread=0.3, classes=1),
            st.uncertainty.Budget(spread=0.3, classes=0),
        )
    )
    assert none < one < box == pytest.approx(1.3 * none, rel=1e-9)


def test_scenarios_by_their_definition() -> None:
    system, caps = fleet_rows(mixed_fleet(), mixed_workload()), np.ones(3)
    rng = np.random.default_rng(4)
    rates = system.rates_per_s * rng.uniform(0.3, 1.7, (10, 3))
    values = {}
    for level in (0.0, 0.8, 0.95):
        shares, found = robust_load(system, caps, st.uncertainty.Scenarios(rates_per_s=rates.tolist(), level=level))
        assert found.certificate.worst <= 1e-7
        each = np.sort([float(loads(system, row, shares).max()) for row in rates])[::-1]
        tail = max(10 * (1 - level), 1e-9)  # scenarios that count, the last of them in part
        weights = np.clip(tail - np.arange(10), 0, 1)
        assert found.value == pytest.approx(float(weights @ each) / tail, rel=1e-7)
        values[level] = found.value
    assert values[0.0] < values[0.8] < values[0.95]
    other = robust_load(
        system, caps, st.uncertainty.Scenarios(rates_per_s=rates.tolist(), level=0.8), solver="CLARABEL"
    )[1]
    assert other.value == pytest.approx(values[0.8], rel=1e-6)
    with pytest.raises(InputError, match="must be \\(scenarios, 3\\)"):
        robust_load(system, caps, st.uncertainty.Scenarios(rates_per_s=[[1.0]]))


def test_uncertain_rates_through_the_front_door() -> None:
    nominal = st.optimal_split(mixed_fleet(), mixed_workload())
    robust = st.optimal_split(mixed_fleet(), mixed_workload(), uncertainty=st.uncertainty.Box(spread=0.2))
    assert robust.load == pytest.approx(1.2 * nominal.load, rel=1e-3)
    with pytest.raises(InputError, match="must be with 'slack'"):
        st.optimal_split(mixed_fleet(), mixed_workload(), objective="itl", uncertainty=st.uncertainty.Box(spread=0.2))


@pytest.mark.parametrize("objective", ["slack", "itl", "congestion", "cost"])
def test_targets_are_kept(objective: str) -> None:
    targets = st.Targets(itl_s=0.025, headroom=0.2)
    split = st.optimal_split(mixed_fleet(), mixed_workload(), targets, objective=objective)
    assert split.feasible, split.reason
    for pool in split.pools:
        if pool.rate_per_s > 0:
            assert pool.itl_s <= 0.025 * 1.005
            assert pool.load <= 0.8 * 1.01


def test_ttft_targets_are_kept() -> None:
    fleet = st.Fleet(mixed_fleet().pools[:2])
    split = st.optimal_split(fleet, mixed_workload(0.6), st.Targets(ttft_p99_s=1.5))
    assert split.feasible, split.reason
    assert all(pool.ttft_p99_s <= 1.5 * 1.005 for pool in split.pools if pool.rate_per_s > 0)


def test_overload_names_the_constraint_and_the_least_change() -> None:
    fleet, workload = mixed_fleet(), mixed_workload(4.0)
    split = st.optimal_split(fleet, workload)
    assert not split.feasible
    found = re.fullmatch(
        r"the fleet serves at most ([\d.]+) of these rates, (\w+) of pool '(\w)' binds first of all; "
        r"least change: rates times ([\d.]+), or (\d+) more replicas? in pool '(\w)' \(\w\)\.",
        split.reason,
    )
    assert found, split.reason
    assert found[2] in ("kv_memory", "batch_slots", "token_budget", "compute")
    assert st.optimal_split(fleet, workload.scaled(factor=0.999 * float(found[4]))).feasible
    assert not st.optimal_split(fleet, workload.scaled(factor=1.002 * float(found[4]))).feasible

    def with_more(count: int) -> st.Fleet:
        return st.Fleet([replace(p, replicas=p.replicas + count * (p.name == found[6])) for p in fleet.pools])

    assert st.capacity_region(with_more(int(found[5])), workload).factor > 1 - 1e-3
    assert st.capacity_region(with_more(int(found[5]) - 1), workload).factor < 1


def test_overload_under_uncertain_rates() -> None:
    fleet, spread = mixed_fleet(), st.uncertainty.Budget(spread=0.5, classes=1)
    factor = 1 / st.optimal_split(fleet, mixed_workload(), uncertainty=spread).load
    workload = mixed_workload(1.1 * factor)
    assert st.optimal_split(fleet, workload).feasible
    split = st.optimal_split(fleet, workload, uncertainty=spread)
    found = re.search(r"rates times ([\d.]+), or (\d+) more replicas? in pool '(\w)'", split.reason)
    assert found, split.reason
    assert float(found[1]) == pytest.approx(1 / 1.1, rel=2e-3)
    more = st.Fleet([replace(p, replicas=p.replicas + int(found[2]) * (p.name == found[3])) for p in fleet.pools])
    assert st.optimal_split(more, workload, uncertainty=spread).load < 1 + 1e-3


def test_a_target_beyond_reach_says_how_far() -> None:
    split = st.optimal_split(mixed_fleet(), mixed_workload(), st.Targets(itl_s=0.005))
    assert not split.feasible
    found = re.search(r"the target ITL 5 ms is missed by every pool.*a target ([\d.]+) times as long", split.reason)
    assert found, split.reason
    eased = st.optimal_split(mixed_fleet(), mixed_workload(0.01), st.Targets(itl_s=0.005 * float(found[1]) * 1.1))
    assert eased.feasible, eased.reason


def test_headroom_beyond_reach() -> None:
    factor = st.capacity_region(mixed_fleet(), mixed_workload()).factor
    assert factor > 1
    split = st.optimal_split(mixed_fleet(), mixed_workload(), st.Targets(headroom=1 - 0.9 / factor))
    assert "within headroom" in split.reason


def test_the_result_prints_and_serialises() -> None:
    split = st.optimal_split(mixed_fleet(), mixed_workload())
    assert "greatest load" in split.summary()
    assert "of document" in split.summary()
    found = json.loads(json.dumps(split.to_dict(), allow_nan=False))
    assert found["schema"] == "stability/split/1"
    assert len(split.to_frame()) == 9
    assert split.to_frame()["share"].sum() == pytest.approx(3)
    assert isinstance(split.router, st.policies.WeightedSplit)
    assert split.plot().get_xlabel() == "requests/s"
    with pytest.raises(TypeError, match="no truth value"):
        bool(split)


def test_the_split_is_a_router_for_the_simulator() -> None:
    split = st.optimal_split(mixed_fleet(), mixed_workload())
    run = st.simulate(mixed_fleet(), mixed_workload(), requests=3000, router=split.router, rng=1)
    replicas = np.array([0, 0, 1, 2, 2, 2])[run.requests.replica]
    for k in range(3):
        own = replicas[run.requests.request_class == k]
        share = np.bincount(own, minlength=3) / len(own)
        assert np.abs(share - split.shares[:, k]).max() < 5 * np.sqrt(0.25 / len(own))
