"""Classical queues as limits: a slot is a server, an output token a fixed slice of service.

With prompts of one token and a step of d seconds, a request holds its slot for output * d seconds. One slot is then an
exact M/D/1 or M/Geo/1 queue: an idle replica starts at once, a busy one changes hands at a step boundary, which is when
its only request leaves. Geometric outputs of mean m differ from exponential service by a factor 1 - 1/(2m) in the mean wait
(Pollaczek-Khinchine with E[S^2] = d^2 (2m^2 - m)). With c slots an arrival may find a free slot but waits for the running
step to end, d/2 on average: that delay is part of the tolerance below.

Tolerances are five standard deviations of the mean wait of n customers, from the asymptotic variance of the M/M/1 wait
(Daley 1968), rho (2 + 5 rho - 4 rho^2 + rho^3) / (1 - rho)^4 per customer in units of the service time; M/D/1 and M/M/c
have less. False alarms: below 1e-6.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

import stability as st
from stability.sim.engine import simulate

MEAN_TOKENS = 400
SERVICE_S = 1.0
STEP_S = SERVICE_S / MEAN_TOKENS


def mean_wait_s(output: st.lengths.Length, *, servers: int, load: float, requests: int) -> float:
    engine = st.Engine(max_num_seqs=servers, max_num_batched_tokens=max(servers, 8), block_size=1)
    replica = st.Replica(iteration=st.IterationTime(base_s=STEP_S), kv_capacity_tokens=10**9, engine=engine)
    lengths = st.lengths.Independent(prompt=st.lengths.Constant(1), output=output)
    workload = st.Workload.poisson(load * servers / SERVICE_S, lengths)
    result = simulate(st.Fleet.of(replica), workload, requests=requests, rng=11)
    assert result.requests is not None
    warm = requests // 20
    return float((result.requests.admitted_s - result.requests.arrival_s)[warm:].mean())


def deviation_s(load: float, requests: int) -> float:
    """Standard deviation of the mean M/M/1 wait of many customers."""
    variance = load * (2 + 5 * load - 4 * load**2 + load**3) / (1 - load) ** 4
    return SERVICE_S * math.sqrt(variance / requests)


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_constant_outputs_are_m_d_1(load: float) -> None:
    wait = mean_wait_s(st.lengths.Constant(MEAN_TOKENS), servers=1, load=load, requests=400_000)
    assert wait == pytest.approx(load / (2 * (1 - load)) * SERVICE_S, abs=5 * deviation_s(load, 400_000))


@pytest.mark.parametrize("load", [0.3, 0.7])
def test_geometric_outputs_are_m_m_1(load: float) -> None:
    wait = mean_wait_s(st.lengths.Geometric(MEAN_TOKENS), servers=1, load=load, requests=400_000)
    exact = load / (1 - load) * SERVICE_S
    assert wait == pytest.approx(exact * (1 - 1 / (2 * MEAN_TOKENS)), abs=5 * deviation_s(load, 400_000))


def test_geometric_outputs_in_slots_are_m_m_c() -> None:
    servers, load, requests = 3, 0.7, 400_000
    offered = load * servers
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - load)
    erlang_c = last / (sum(terms) + last)
    exact = erlang_c / (servers * (1 - load)) * SERVICE_S
    wait = mean_wait_s(st.lengths.Geometric(MEAN_TOKENS), servers=servers, load=load, requests=requests)
    assert exact - 5 * deviation_s(load, requests) < wait < exact + STEP_S + 5 * deviation_s(load, requests)


def test_a_fleet_under_random_routing_is_separate_queues() -> None:
    engine = st.Engine(max_num_seqs=1, max_num_batched_tokens=8, block_size=1)
    replica = st.Replica(iteration=st.IterationTime(base_s=STEP_S), kv_capacity_tokens=10**9, engine=engine)
    lengths = st.lengths.Independent(prompt=st.lengths.Constant(1), output=st.lengths.Constant(MEAN_TOKENS))
    load, requests = 0.5, 400_000
    waits = {}
    for router in ("random", "power_of_two", "join_shortest_queue"):
        workload = st.Workload.poisson(4 * load / SERVICE_S, lengths)
        result = simulate(st.Fleet.of(replica, 4), workload, requests=requests, rng=5, router=router)
        assert result.requests is not None
        waits[router] = float(np.mean(result.requests.admitted_s - result.requests.arrival_s))
    assert waits["random"] == pytest.approx(load / (2 * (1 - load)), abs=5 * deviation_s(load, requests // 4))
    assert waits["join_shortest_queue"] < waits["power_of_two"] < waits["random"]
