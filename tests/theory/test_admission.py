"""The wait for admission: queues with known waits, and the token-level simulator near saturation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as hyp

import stability as st
from stability.theory.admission import Wait, admission_wait, demand_moments, erlang_c, safety_buffer
from stability.theory.moments import Demand

L = st.lengths


def erlang_c_of_whole(places: int, offered: float) -> float:
    """The textbook sum."""
    terms = [offered**k / math.factorial(k) for k in range(places + 1)]
    last = terms[-1] / (1 - offered / places)
    return last / (sum(terms[:-1]) + last)


@given(places=hyp.integers(1, 60), share=hyp.floats(0.01, 0.99))
def test_erlang_c_of_whole_places(places: int, share: float) -> None:
    assert erlang_c(places, share * places) == pytest.approx(erlang_c_of_whole(places, share * places), rel=1e-9)


def test_no_wait_where_the_offered_load_is_too_small_for_floating_point() -> None:
    found = admission_wait(room=100, mean=1e-200, variance=1e-200, load=1e-202, demand_mean_s=1.0, demand_square=1.0)
    assert (found.probability, found.mean_s) == (0.0, 0.5)
    assert erlang_c(3, 0.0) == 0.0


@given(places=hyp.floats(0.5, 300.0), share=hyp.floats(0.05, 0.95), more=hyp.floats(0.01, 5.0))
def test_erlang_c_falls_with_places(places: float, share: float, more: float) -> None:
    found = erlang_c(places, share * places)
    assert 0 <= erlang_c(places + more, share * places) <= found <= 1


def test_halfin_whitt() -> None:
    """With places = a + beta sqrt(a), C tends to 1/(1 + beta Phi(beta)/phi(beta))."""
    beta = 0.8
    cdf, density = 0.5 * (1 + math.erf(beta / math.sqrt(2))), math.exp(-beta * beta / 2) / math.sqrt(2 * math.pi)
    limit = 1 / (1 + beta * cdf / density)
    assert erlang_c(1e6 + beta * 1e3, 1e6) == pytest.approx(limit, rel=2e-3)


def test_the_wait_of_one_server_is_pollaczek_khinchine() -> None:
    """M/D/1: P = rho, E[wait | wait] = D/(2 (1 - rho)); E[wait] = rho D/(2 (1 - rho))."""
    wait = admission_wait(room=1, mean=0.8, variance=0.8, load=0.8, demand_mean_s=2.0, demand_square=4.0)
    assert wait.probability == pytest.approx(0.8)
    assert wait.mean_s == pytest.approx(2.0 / (2 * 0.2))


def test_buffers_grow_with_the_logarithm_of_the_chance() -> None:
    found = [safety_buffer(mean=1000.0, variance=9000.0, overflow=10.0**-k) for k in (2, 4, 8)]
    assert found[0] < found[1] < found[2] < 3 * found[0]
    # In units of 9 a Poisson mean of 111: at the buffer, the chance is the one asked for.
    assert erlang_c((1000 + found[1]) / 9, 1000 / 9) == pytest.approx(1e-4, rel=1e-6)


def test_sums_of_waits() -> None:
    rng = np.random.default_rng(2)
    a, b = Wait(probability=0.7, mean_s=2.0), Wait(probability=0.4, mean_s=5.0)
    drawn = sum(np.where(rng.random(200_000) < w.probability, rng.exponential(w.mean_s, 200_000), 0.0) for w in (a, b))
    at = np.array([0.5, 3.0, 12.0])
    assert a.then_tail(b, at) == pytest.approx([(drawn > t).mean() for t in at], abs=0.006)  # five standard errors
    assert a.then_tail(a, at) == pytest.approx(a.then_tail(Wait(probability=0.7, mean_s=2.0 + 1e-4), at), rel=1e-3)
    assert a.tail(np.array([-1.0, 0.0]))[0] == 1.0


@pytest.mark.parametrize(
    "lengths",
    [
        L.Independent(L.Uniform(10, 60), L.Uniform(10, 50)),
        L.Empirical(np.arange(1, 400), np.arange(400, 1, -1)),
    ],
)
def test_second_moments_against_every_pair(lengths: st.lengths.Lengths) -> None:
    coefficients = np.array([0.01, 2e-5, 3e-5, 1e-7, 1e-9])
    found = demand_moments(
        [st.RequestClass("c", 1.0, lengths)],
        np.ones(1),
        coefficients=coefficients,
        row=Demand.VOLUME,
        capacity_per_s=4.0,
        budget=128,
        block_size=1,
    )

    def work(s: np.ndarray, o: np.ndarray) -> np.ndarray:
        d = o - 1.0
        return 2e-5 * s + 3e-5 * d + 1e-7 * (d * s + o * d / 2) + 1e-9 * s * s / 2

    def volume(s: np.ndarray, o: np.ndarray) -> np.ndarray:
        whole = s // 128
        prefill = 128 * whole * (whole + 1) / 2 + np.where(s % 128 > 0, s, 0)
        return prefill + (o - 1.0) * s + o * (o - 1.0) / 2

    worth = (0.25 - lengths.expect(work)) / lengths.expect(volume)
    square = lengths.expect(lambda s, o: (work(s, o) + worth * volume(s, o)) ** 2)
    assert found.mean_s == pytest.approx(0.25, rel=1e-9)
    assert found.square == pytest.approx(square, rel=2e-3)
    assert found.own_s == pytest.approx(lengths.expect(work), rel=2e-3)


LAW = st.IterationTime(base_s=0.012, per_prefill_token_s=2e-5, per_decode_token_s=2e-5, per_kv_token_s=8e-8)


@pytest.mark.parametrize(
    ("lengths", "memory", "engine"),
    [
        (L.Independent(L.Uniform(10, 800), L.Uniform(10, 800)), 50_000, {"admission": "reserve"}),
        (L.Independent(L.Geometric(250, limit=8000), L.Geometric(150, limit=4000)), 60_000, {"max_num_seqs": 48}),
    ],
)
def test_waits_near_saturation(lengths: st.lengths.Lengths, memory: int, engine: dict[str, object]) -> None:
    """At load 0.9 of the simulated capacity, 25 %; the standard error of five runs is 3 %, so a false alarm takes five of them
    beyond the 10 % by which the theory is off."""
    settings = st.Engine(**{"max_num_seqs": 1024, **engine})  # type: ignore[arg-type]
    fleet = st.Fleet.of(st.Replica(iteration=LAW, kv_capacity_tokens=memory, engine=settings))
    unit = st.Workload.poisson(1.0, lengths)
    capacity = st.simulate(fleet, unit, requests=100_000, saturated=True, keep="summary", rng=1).throughput_per_s
    workload = unit.scaled(rate_per_s=0.9 * capacity)
    runs = [st.simulate(fleet, workload, requests=200_000, keep="summary", rng=seed) for seed in range(5)]
    found = st.latency(fleet, workload)
    assert found.ttft_mean_s == pytest.approx(float(np.mean([run.ttft_mean_s for run in runs])), rel=0.25)
    assert found.ttft_p99_s == pytest.approx(float(np.mean([run.ttft_quantile_s(0.99) for run in runs])), rel=0.25)
    baseline = st.latency(fleet, workload, wait="gaussian")
    assert baseline.ttft_mean_s < 0.7 * found.ttft_mean_s
    with pytest.raises(st.InputError, match="wait"):
        st.latency(fleet, workload, wait="poisson")


@given(places=hyp.floats(0.01, 1e5), share=hyp.floats(0.01, 0.9999))
def test_erlang_c_is_that_of_the_incomplete_gamma_function(places: float, share: float) -> None:
    from scipy.special import gammaincc

    offered = share * places
    last = math.exp(places * math.log(offered) - offered - math.lgamma(places + 1))
    blocked = last / float(gammaincc(places + 1, offered))
    assert erlang_c(places, offered) == pytest.approx(blocked / (1 - share * (1 - blocked)), rel=1e-9, abs=1e-200)
