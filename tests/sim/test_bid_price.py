"""Admission by bid prices: who is let in, the same in kernel, interpreted run and reference, and what it earns."""

from __future__ import annotations

import math

import numpy as np
import pytest

import stability as st
from stability import lengths as L
from stability.errors import InputError, NotModelledError
from stability.model.requests import draw
from stability.model.streams import Stream, generator, seed_sequence
from stability.policies import BidPrice, Orca, WeightedSplit
from stability.sim.domain import limits_of
from stability.sim.reference.fleet import run_reference

LAW = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4)
ENGINE = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, admission="reserve", block_size=1)
REPLICA = st.Replica(iteration=LAW, kv_capacity_tokens=100_000, engine=ENGINE)
FLEET = st.Fleet([st.Pool("a", REPLICA, 2), st.Pool("b", REPLICA, 1)])
LENGTHS = L.Independent(L.Constant(100), L.Constant(80))
WORKLOAD = st.Workload(
    [st.RequestClass(name, 12.0, LENGTHS, value=value) for name, value in (("cheap", 1.0), ("dear", 3.0), ("odd", 2.0))]
)
ROUTER = BidPrice((1.0, 3.0, 2.0), ((2.0, 2.0), (2.0, 2.0), (5.0, 2.0)), fractions=(1.0, 1.0, 0.5))
"""Cheap ones never; dear ones anywhere; the odd ones half of the time, in pool b only."""


def test_shares_by_hand() -> None:
    assert ROUTER.shares(FLEET, 3).tolist() == [[0, 0, 0], [0.25, 0.5, 1.0], [0, 0, 0.5]]
    weighted = BidPrice((3.0,), ((2.0, 2.0),), weights=((3.0, 1.0),))
    assert weighted.shares(FLEET, 1).tolist() == [[0.375, 0.75, 1.0]]


@pytest.mark.parametrize("scheduler", [None, Orca()], ids=["kernel", "interpreted"])
def test_every_run_turns_the_same_requests_away(scheduler: st.policies.Orca | None) -> None:
    engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, block_size=1, scheduler=scheduler)
    replica = st.Replica(iteration=LAW, kv_capacity_tokens=100_000, engine=engine)
    fleet = st.Fleet([st.Pool("a", replica, 2), st.Pool("b", replica, 1)])
    found = st.simulate(fleet, WORKLOAD, router=ROUTER, requests=400, rng=3)
    records = found.requests
    assert records is not None
    requests = draw(WORKLOAD, requests=400, rng=3)
    uniforms = generator(seed_sequence(3), Stream.ROUTING).random((400, 1))
    run = run_reference(
        [(limits_of(replica), LAW)] * 3, requests, router=ROUTER, shares=ROUTER.shares(fleet, 3), uniforms=uniforms
    )
    assert np.array_equal(records.replica, run.replica)
    assert np.array_equal(records.finish_s, [job.finish_s for job in run.requests], equal_nan=True)
    away = records.replica < 0
    assert found.rejected == away.sum()
    assert found.arrived == 400
    assert away[records.request_class == 0].all()
    assert not away[records.request_class == 1].any()
    assert set(records.replica[records.request_class == 2]) == {-1, 2}
    # Half of about 133 odd ones: six standard deviations are 35.
    odd = away[records.request_class == 2]
    assert abs(odd.mean() - 0.5) < 6 * 0.5 / math.sqrt(len(odd))


def test_the_fluid_prices_earn_most_of_the_optimum_and_first_come_does_not() -> None:
    """27.3 requests/s of 36: dear and odd ones pass, a third of the cheap ones, so 12*3 + 12*2 + 3.3 of value a second."""
    plan = st.admission_control(FLEET, WORKLOAD, headroom=0.02)
    router = plan.bid_price_router
    values = np.array([item.value for item in WORKLOAD.classes])
    earned = {}
    for name, policy in {"bid prices": router, "all": WeightedSplit([2.0, 1.0])}.items():
        records = st.simulate(FLEET, WORKLOAD, router=policy, requests=20_000, rng=1).requests
        assert records is not None
        end = float(records.arrival_s[-1])
        earned[name] = float(values[records.request_class[records.finish_s <= end]].sum()) / end
    assert earned["bid prices"] == pytest.approx(plan.value_per_s, rel=0.03)
    assert earned["all"] < 0.93 * earned["bid prices"]
    found = st.compare_routers(FLEET, WORKLOAD, routers=["round_robin", router], requests=3000)
    shares = {outcome.router.split("(")[0]: outcome.rejected for outcome in found.outcomes}
    assert shares["round_robin"] == 0
    assert shares["BidPrice"] == pytest.approx(1 - sum(c.admitted_per_s for c in plan.classes) / 36, abs=0.05)


def test_refusals() -> None:
    with pytest.raises(InputError, match="open loop"):
        st.simulate(FLEET, WORKLOAD, router=ROUTER, requests=10, saturated=True)
    with pytest.raises(InputError, match="3 classes and 2 pools"):
        st.simulate(st.Fleet.of(REPLICA), WORKLOAD, router=ROUTER, requests=10)
    group = st.Fleet([st.Pool("g", REPLICA, 2, coupling=st.Barrier(2))])
    with pytest.raises(NotModelledError, match="barrier"):
        st.simulate_barrier(group, WORKLOAD, router=BidPrice((1.0,), ((1.0,),)), requests=10)
    for build in (
        lambda: BidPrice((), ()),
        lambda: BidPrice((1.0,), ((1.0,), (1.0,))),
        lambda: BidPrice((-1.0,), ((1.0,),)),
        lambda: BidPrice((1.0,), ((1.0,),), fractions=(1.5,)),
    ):
        with pytest.raises(InputError):
            build()
