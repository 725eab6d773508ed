"""The cheapest fleet: hand numbers, every fleet enumerated, failures, windows, targets."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import stability as st
from stability import lengths as L

CHAT = L.Independent(L.Constant(100), L.Constant(80))
"""On `kind(slots=8)`: 1/(0.01 + 0.01*80/8) = 9.09 requests/s, 9 of them certain."""

LONG = L.Independent(L.Constant(400), L.Constant(40))


def kind(
    slots: int = 8, per_token_s: float = 1e-4, base_s: float = 0.01, memory: int = 1_000_000, **given
) -> st.Replica:
    law = st.IterationTime(base_s=base_s, per_prefill_token_s=per_token_s)
    engine = st.Engine(max_num_seqs=slots, max_num_batched_tokens=4096, admission="reserve", block_size=1)
    return st.Replica(iteration=law, kv_capacity_tokens=memory, engine=engine, **given)


def two_classes(chat: float, long: float) -> st.Workload:
    return st.Workload([st.RequestClass("chat", chat, CHAT), st.RequestClass("long", long, LONG)])


def certain(replica: st.Replica, lengths: L.Lengths) -> float:
    """Rate of one class alone below which one replica is stable."""
    return st.analyze(st.Fleet.of(replica), st.Workload.poisson(1.0, lengths)).stable_below_per_s


def serves(times: np.ndarray, counts: tuple[int, ...], rates: np.ndarray) -> bool:
    """Whether `counts` replicas serve two classes, by comparative advantage: times[i, k] seconds a request.

    Kinds take class 0 in the order of times[:, 0]/times[:, 1]; what is left of them takes class 1.
    """
    need = rates[0]
    room = 0.0
    for i in np.argsort(times[:, 0] / times[:, 1]):
        taken = min(need, counts[i] / times[i, 0])
        need -= taken
        room += (counts[i] - taken * times[i, 0]) / times[i, 1]
    return need <= 1e-9 * rates[0] and room * (1 - 1e-9) > rates[1]


def cheapest_enumerated(times, prices, rates, most: int, spares: int = 0) -> float:
    """Price of the cheapest of all fleets of up to `most` replicas a kind."""
    best = math.inf
    for counts in itertools.product(range(most + 1), repeat=len(prices)):
        price = float(np.dot(prices, counts))
        if price >= best or not sum(counts):
            continue
        lost = [
            np.bincount(choice, minlength=len(counts)) if choice else np.zeros(len(counts), dtype=int)
            for choice in itertools.combinations_with_replacement(range(len(counts)), spares)
        ]
        if all(serves(times, tuple(np.maximum(np.array(counts) - f, 0)), rates) for f in lost):
            best = price
    return best


@pytest.mark.parametrize("seed", range(20))
def test_no_enumerated_fleet_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    replicas = [
        kind(int(rng.integers(4, 40)), float(rng.uniform(2e-5, 2e-4)), float(rng.uniform(0.005, 0.03)))
        for _ in range(3)
    ]
    prices = np.round(rng.uniform(1, 6, 3), 2)
    rates = rng.uniform(5, 40, 2)
    headroom = float(rng.choice([0.0, 0.1, 0.25]))
    spares = int(rng.choice([0, 0, 1, 2]))
    candidates = [
        st.Candidate(f"k{i}", st.Replica(**{**fields(r), "price_per_hour": float(p)}), at_most=5)
        for i, (r, p) in enumerate(zip(replicas, prices, strict=True))
    ]
    found = st.cheapest_fleet(candidates, two_classes(*rates), targets=st.Targets(headroom=headroom), spares=spares)
    times = np.array([[1 / certain(r, CHAT), 1 / certain(r, LONG)] for r in replicas])
    best = cheapest_enumerated(times, prices, rates / (1 - headroom), 5)
    if spares:
        # Both conditions hold for one fleet: enumerate those that serve with headroom, and without it once some are lost.
        best = math.inf
        for counts in itertools.product(range(6), repeat=3):
            price = float(prices @ counts)
            if price < best and serves(times, counts, rates / (1 - headroom)):
                losses = itertools.combinations_with_replacement(range(3), spares)
                left = [np.maximum(np.array(counts) - np.bincount(f, minlength=3), 0) for f in losses]
                if all(serves(times, tuple(n), rates) for n in left):
                    best = price
    if math.isinf(best):
        assert not found.feasible
        return
    assert found.cost_per_hour == pytest.approx(best, rel=1e-9)
    assert found.lower_bound_per_hour == pytest.approx(best, rel=1e-7)
    assert found.gap <= 1e-7
    assert found.verdict is st.Verdict.STABLE
    assert found.violation <= 1e-6


def fields(replica: st.Replica) -> dict[str, object]:
    return {name: getattr(replica, name) for name in replica.__slots__}


def test_the_certificate_in_plain_arithmetic() -> None:
    """The split adds up, and each pool's own `analyze` says that it is stable with the headroom."""
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0)), st.Candidate("b", kind(32, 3e-5, price_per_hour=2.9))]
    found = st.cheapest_fleet(kinds, two_classes(30.0, 12.0), targets=st.Targets(headroom=0.1))
    assert found.rates_per_s.sum(axis=(0, 1)) == pytest.approx([30.0, 12.0])
    assert found.cost_per_hour == float(found.replicas[0] @ [1.0, 2.9])
    for pool in found.pools:
        i = [item.name for item in kinds].index(pool.name)
        rates = found.rates_per_s[0, i]
        own = st.Workload(
            [st.RequestClass(n, r, s) for n, r, s in zip("cl", rates, (CHAT, LONG), strict=True) if r > 0]
        )
        report = st.analyze(st.Fleet.of(kinds[i].replica, pool.replicas), own)
        assert report.verdict is st.Verdict.STABLE
        assert report.rate_per_s < 0.9 * report.stable_below_per_s
        assert report.rate_per_s / report.stable_below_per_s == pytest.approx(pool.load)
    assert found.headroom == pytest.approx(1 - max(pool.load for pool in found.pools))


@pytest.mark.parametrize("admission", ["prompt_gate", "reserve"])
def test_one_class_against_every_fleet_that_analyze_accepts(admission: str) -> None:
    """Memory binds, capacity has eviction waste or packing slack: for one class rows are exact all the same."""
    lengths = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 400))
    engine = st.Engine(admission=admission, watermark=0.02)
    law = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
    small, big = (
        st.Replica(iteration=law, kv_capacity_tokens=m, engine=engine, price_per_hour=p)
        for m, p in ((60_000, 1.0), (131_000, 1.9))
    )
    workload = st.Workload.poisson(31.0, lengths)
    found = st.cheapest_fleet(
        [st.Candidate("small", small), st.Candidate("big", big)], workload, targets=st.Targets(headroom=0.1)
    )
    best = math.inf
    for few, many in itertools.product(range(8), range(8)):
        pools = [st.Pool(n, r, k) for n, r, k in (("s", small, few), ("b", big, many)) if k]
        if not pools:
            continue
        report = st.analyze(st.Fleet(pools), workload)
        if report.verdict is st.Verdict.STABLE and report.rate_per_s < 0.9 * report.stable_below_per_s:
            best = min(best, few * 1.0 + many * 1.9)
    assert found.cost_per_hour == pytest.approx(best)


@pytest.mark.parametrize("seed", [3, 7, 10])
def test_curved_loads_against_a_grid_of_fleets_and_splits(seed: int) -> None:
    """Eviction waste, packing slack and two-phase laws: loads depend on the mix; every fleet with a grid of splits."""
    rng = np.random.default_rng(seed)
    kinds = []
    for name in ("a", "b"):
        c = rng.uniform(0.5, 2, 5)
        laws = [
            st.IterationTime(
                base_s=0.012 * c[0],
                per_prefill_token_s=2e-5 * c[1],
                per_decode_token_s=2e-5 * c[2],
                per_kv_token_s=8e-8 * c[3] * slower,
            )
            for slower in (1, 2)
        ]
        law = laws[0] if seed % 3 else st.iteration.TwoPhase(decode=laws[0], mixed=laws[1])
        engine = st.Engine(admission=("prompt_gate", "reserve")[seed % 2], watermark=0.02)
        memory, price = int(rng.integers(50_000, 250_000)), float(np.round(rng.uniform(1, 4), 2))
        replica = st.Replica(iteration=law, kv_capacity_tokens=memory, engine=engine, price_per_hour=price)
        kinds.append(st.Candidate(name, replica))
    lengths = [
        L.Independent(L.Uniform(50, 300), L.Uniform(100, 900)),
        L.Independent(L.Uniform(500, 4000), L.Uniform(10, 150)),
    ]
    rates = rng.uniform(80, 250, 2)
    workload = st.Workload([st.RequestClass(*given) for given in zip("xy", rates, lengths, strict=True)])
    found = st.cheapest_fleet(kinds, workload, targets=st.Targets(headroom=0.05))

    def seconds(kind: st.Candidate, share: float) -> float:
        """Of a replica per request, at a share of class x."""
        mix = [c.with_rate(r) for c, r in zip(workload.classes, (share, 1 - share), strict=True) if r > 0]
        return 1 / st.analyze(st.Fleet.of(kind.replica), st.Workload(mix)).stable_below_per_s

    grid, parts = np.linspace(0, 1, 41), np.linspace(0, 1, 201)
    x, y = (rates[:, None, None] * np.array(np.meshgrid(parts, parts)))[:, :, :]
    loads = []
    for kind, (mine, other) in zip(kinds, ((x, y), (rates[0] - x, rates[1] - y)), strict=True):
        total = mine + other
        share = np.divide(mine, total, out=np.zeros_like(total), where=total > 0)
        loads.append(total / 0.95 * np.interp(share, grid, [seconds(kind, m) for m in grid]))
    prices = [kind.replica.price_per_hour for kind in kinds]
    best = min(
        float(np.dot(prices, counts))
        for counts in itertools.product(range(80), repeat=2)
        if counts[0] >= loads[0].min() and ((loads[0] < counts[0]) & (loads[1] < counts[1])).any()
    )
    assert found.verdict is st.Verdict.STABLE
    assert found.cost_per_hour <= best + 1e-9  # the grid may miss the best split
    # Nor does it take the first rows' word that there is no fleet.
    quota = [
        st.Candidate(kind.name, kind.replica, at_most=int(n)) for kind, n in zip(kinds, found.replicas[0], strict=True)
    ]
    again = st.cheapest_fleet(quota, workload, targets=st.Targets(headroom=0.05))
    assert again.cost_per_hour == pytest.approx(found.cost_per_hour)


def test_any_k_replicas_may_fail() -> None:
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0)), st.Candidate("b", kind(32, 3e-5, price_per_hour=2.9))]
    workload = st.Workload.poisson(30.0, CHAT)
    costs = []
    for spares in (0, 1, 2):
        found = st.cheapest_fleet(kinds, workload, spares=spares)
        costs.append(found.cost_per_hour)
        each = [certain(item.replica, CHAT) for item in kinds]
        counts = found.replicas[0]
        for lost in itertools.combinations_with_replacement(range(2), spares):
            left = np.maximum(counts - np.bincount(lost, minlength=2), 0)
            assert left @ each > 30.0
    assert costs == sorted(costs)
    # 30/9 needs 4 small ones; any k lost need k more, and a big one (36/s) never pays.
    assert costs == [2.9, 5.0, 6.0]


def test_a_day_with_one_fleet_and_with_a_changing_one() -> None:
    """9 certain requests/s each: 1 replica at night, 5 by day."""
    schedule = st.RateSchedule([0, 43_200], [8.0, 44.0], end_s=86_400)
    workload = st.Workload.scheduled(schedule, CHAT)
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0))]
    fixed = st.cheapest_fleet(kinds, workload)
    assert fixed.replicas.tolist() == [[5], [5]]
    assert fixed.cost_per_hour == 5.0
    moving = st.cheapest_fleet(kinds, workload, switching_cost=6.0)
    assert moving.replicas.tolist() == [[1], [5]]
    assert moving.cost_per_hour == pytest.approx((1 + 5) / 2 + 6.0 * 4 / 24)  # four starts a day
    assert moving.lower_bound_per_hour == pytest.approx(moving.cost_per_hour)
    # A start that costs more than the 12 hours it saves is not worth it.
    assert st.cheapest_fleet(kinds, workload, switching_cost=12.1).replicas.tolist() == [[5], [5]]
    assert "of it starts" in moving.summary()
    once = st.RateSchedule([0, 43_200], [44.0, 8.0], end_s=86_400, repeat=False)
    assert st.cheapest_fleet(kinds, st.Workload.scheduled(once, CHAT), switching_cost=99.0).replicas.tolist() == [
        [5],
        [1],
    ]


def test_scenarios_share_a_fleet() -> None:
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0)), st.Candidate("b", kind(32, 3e-5, price_per_hour=2.9))]
    scenarios = [two_classes(30.0, 2.0), two_classes(3.0, 20.0), two_classes(2.0, 1.0)]
    together = st.cheapest_fleet(kinds, scenarios)
    alone = [st.cheapest_fleet(kinds, scenario) for scenario in scenarios]
    assert together.cost_per_hour >= max(one.cost_per_hour for one in alone)
    assert (together.replicas == together.replicas[0]).all()
    assert together.rates_per_s.sum(axis=1) == pytest.approx(np.array([[30, 2], [3, 20], [2, 1]]))
    assert "scenario 3" in together.summary()


def test_candidates_that_are_there_already_and_quotas() -> None:
    a, b = kind(8, price_per_hour=1.0), kind(8, price_per_hour=2.0)
    workload = st.Workload.poisson(40.0, CHAT)  # five of them
    counts = lambda *kinds: st.cheapest_fleet(list(kinds), workload).replicas[0].tolist()  # noqa: E731
    assert counts(st.Candidate("a", a), st.Candidate("b", b)) == [5, 0]
    assert counts(st.Candidate("a", a, at_most=3), st.Candidate("b", b)) == [3, 2]
    assert counts(st.Candidate("a", a), st.Candidate("b", b, at_least=1)) == [4, 1]


@pytest.mark.parametrize(
    "target", [{"itl_s": 0.0138}, {"ttft_p99_s": 0.09}, {"ttft_mean_s": 0.029}, {"itl_s": 0.0145, "headroom": 0.3}]
)
def test_targets_are_met_and_one_replica_less_misses_them(target: dict[str, float]) -> None:
    replica = kind(64, 5e-5, price_per_hour=1.0)
    workload = st.Workload.poisson(120.0, L.Independent(L.Uniform(20, 400), L.Uniform(10, 200)))
    targets = st.Targets(**target)
    found = st.cheapest_fleet([st.Candidate("a", replica)], workload, targets=targets)
    (pool,) = found.pools
    assert found.verdict is st.Verdict.STABLE
    enough, fewer = (st.check(st.Fleet.of(replica, n), workload, targets) for n in (pool.replicas, pool.replicas - 1))
    assert enough.exit_code == 0
    certain_load = fewer.report.rate_per_s / fewer.report.stable_below_per_s
    assert fewer.exit_code != 0 or certain_load >= 1 - (targets.headroom or 0.0)
    assert pool.replicas > st.cheapest_fleet([st.Candidate("a", replica)], workload).pools[0].replicas


def test_classes_go_where_they_fit() -> None:
    """Long requests do not fit the cheap replica; it gets the others."""
    small, big = kind(8, memory=200, price_per_hour=1.0), kind(8, memory=10_000, price_per_hour=5.0)
    found = st.cheapest_fleet([st.Candidate("small", small), st.Candidate("big", big)], two_classes(20.0, 3.0))
    rates = dict(zip([c.name for c in found.candidates], found.rates_per_s[0], strict=True))
    assert rates["small"][1] == 0
    assert rates["big"][1] == pytest.approx(3.0)
    assert any("cannot hold the longest requests of class 'long'" in note for note in found.assumptions)


@settings(max_examples=12)
@given(some.floats(5.0, 60.0), some.floats(1.0, 1.6), some.floats(0.0, 0.3))
def test_more_traffic_or_headroom_never_costs_less(rate: float, more: float, headroom: float) -> None:
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0)), st.Candidate("b", kind(32, 3e-5, price_per_hour=2.9))]
    cost = lambda r, h: st.cheapest_fleet(kinds, two_classes(r, 3.0), targets=st.Targets(headroom=h)).cost_per_hour  # noqa: E731
    base = cost(rate, 0.0)
    assert cost(rate * more, 0.0) >= base - 1e-9
    assert cost(rate, headroom) >= base - 1e-9


def test_what_the_result_carries() -> None:
    schedule = st.RateSchedule([0, 43_200], [8.0, 44.0], end_s=86_400)
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0)), st.Candidate("b", kind(32, 3e-5, price_per_hour=2.9))]
    found = st.cheapest_fleet(kinds, st.Workload.scheduled(schedule, CHAT), switching_cost=0.1)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["schema"] == "stability/sizing/1"
    frame = found.to_frame()
    assert frame.groupby("start_s").rate_per_s.sum().tolist() == pytest.approx([8.0, 44.0])
    assert {"start_s", "candidate", "replicas", "price_per_hour", "request_class", "rate_per_s"} == set(frame.columns)
    assert found.plot().get_xlabel() == "time, h"
    assert st.cheapest_fleet(kinds, st.Workload.poisson(9.0, CHAT)).plot().get_xlabel() == "cost per hour"
    assert "<table>" in found._repr_html_()
    assert not found.replicas.flags.writeable
    with pytest.raises(TypeError, match="no truth value"):
        bool(found)
    fleet, split = found.fleet(1), found.split(1)
    assert fleet.replicas == found.replicas[1].sum()
    assert np.sum(split.weights) == pytest.approx(44.0)
    assert split.shares(fleet, 1).shape == (1, fleet.replicas)


def test_the_front_is_a_staircase() -> None:
    kinds = [st.Candidate("a", kind(8, price_per_hour=1.0))]
    workload = st.Workload.poisson(40.0, CHAT)
    front = st.cost_front(kinds, workload, against="headroom", values=[0.5, 0.0, 0.1, 0.2])
    assert front.values == (0.0, 0.1, 0.2, 0.5)
    # 40/(9 (1 - h)): 4.44, 4.94, 5.56, 8.89.
    assert [fleet.cost_per_hour for fleet in front.fleets] == [5, 5, 6, 9]
    assert front.to_frame().replicas_a.tolist() == [5, 5, 6, 9]
    assert front.plot().get_xlabel() == "headroom, %"
    assert json.loads(json.dumps(front.to_dict(), allow_nan=False))["schema"] == "stability/cost-front/1"
    slow = st.cost_front(kinds, workload, against="itl_s", values=[0.1, 0.0104])
    assert slow.values == (0.1, 0.0104)
    assert slow.fleets[1].cost_per_hour > slow.fleets[0].cost_per_hour
