"""WAIT's thresholds against brute force, its latency bound against the paper's own event rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import stability as st
from stability import lengths as L
from stability.errors import InputError
from stability.theory.wait import (
    WaitModel,
    candidate_thresholds,
    engine_model,
    fluid,
    latency_bound_s,
    mean_latency_s,
    paper_model,
)
from stability.theory.wait_thresholds import check_thresholds, wait_thresholds


def wait_run(model: WaitModel, thresholds: list[int], arrivals: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """The paper's rule, event by event: mean latency and TTFT of each type, and the most KV ever resident (d1 > 0 law)."""
    rng = np.random.default_rng(seed)
    types = len(thresholds)
    times = [np.cumsum(rng.exponential(1 / rate, arrivals)) for rate in model.rates_per_s]
    horizon = min(column[-1] for column in times)
    external: list[list[float]] = [[] for _ in range(types)]
    inside: list[list[list[float]]] = [[[] for _ in range(int(o))] for o in model.stages]
    heads, now, latency, ttft, most = [0] * types, 0.0, [[] for _ in range(types)], [[] for _ in range(types)], 0.0
    while True:
        for j in range(types):
            while heads[j] < arrivals and times[j][heads[j]] <= now:
                external[j].append(float(times[j][heads[j]]))
                heads[j] += 1
        ready = [j for j in range(types) if len(external[j]) >= thresholds[j]]
        if not ready:
            now = min(float(times[j][heads[j]]) if heads[j] < arrivals else np.inf for j in range(types))
            if now > horizon:
                break
            continue
        moved, work = [], model.law.base_s
        for j in ready:
            batch = [external[j][: thresholds[j]]]
            external[j] = external[j][thresholds[j] :]
            for s in range(1, int(model.stages[j])):
                batch.append(inside[j][s][: thresholds[j]])
                inside[j][s] = inside[j][s][thresholds[j] :]
            moved.append((j, batch))
            work += sum(len(rows) * stage_cost(model, j, s) for s, rows in enumerate(batch))
        now += work
        for j, batch in moved:
            for s, rows in enumerate(batch):
                if s == 0:
                    ttft[j] += [now - a for a in rows]
                if s + 1 < int(model.stages[j]):
                    inside[j][s + 1] += rows
                else:
                    latency[j] += [now - a for a in rows]
        most = max(
            most, sum(stage_kv(model, j, s) * len(rows) for j in range(types) for s, rows in enumerate(inside[j]))
        )
        assert all(len(rows) <= thresholds[j] for j in range(types) for rows in inside[j])
    cut = arrivals // 10
    return (
        np.array([np.mean(values[cut:]) for values in latency]),
        np.array([np.mean(values[cut:]) for values in ttft]),
        most,
    )


def stage_kv(model: WaitModel, j: int, s: int) -> float:
    """KV at stage s: l + s, with l from the volume o l + o (o - 1)/2."""
    o = int(model.stages[j])
    return float((model.volume_tokens[j] - o * (o - 1) / 2) / o + s)


def stage_cost(model: WaitModel, j: int, s: int) -> float:
    """Iteration time of one request at stage s under the paper's law."""
    return model.law.per_kv_token_s * stage_kv(model, j, s)


def two_types(**changes: object) -> WaitModel:
    given_ = {"base_s": 0.5, "per_kv_token_s": 0.004, "rates_per_s": [2.0, 1.0], "prompt_tokens": [5, 10]}
    return paper_model(**{**given_, "output_tokens": [4, 7], "kv_capacity_tokens": 400, **changes})


def test_fluid_balances_arrivals_and_memory() -> None:
    found = fluid(two_types())
    w = np.array([4 * 5 + 6, 7 * 10 + 21])
    rho = 0.004 * (2 * w[0] + w[1])
    assert found.iteration_s == pytest.approx(0.5 / (1 - rho))
    assert found.per_stage == pytest.approx(np.array([2.0, 1.0]) * found.iteration_s)
    assert found.memory_tokens == pytest.approx(0.5 * (2 * w[0] + w[1]) / (1 - rho))
    assert found.iteration_s == pytest.approx(0.5 + 0.004 * found.memory_tokens)
    assert found.decode_tokens_per_s == pytest.approx(2 * 3 + 6)


@given(factor=some.floats(0.05, 3.0))
@settings(max_examples=40)
def test_the_region_is_where_the_equilibrium_fits(factor: float) -> None:
    """sum lambda W <= C/(d0 + d1 C), the form without DT*."""
    model = two_types(rates_per_s=[2 * factor, factor])
    demand = float(model.rates_per_s @ model.volume_tokens)
    inside = demand <= 400 / (0.5 + 0.004 * 400)
    assert fluid(model).inside == inside
    assert (model.least_gap_s <= model.largest_gap_s) == inside


def test_chosen_thresholds_are_the_best_on_the_line_and_feasible() -> None:
    model = two_types()
    chosen = wait_thresholds(model)
    assert chosen.regime == "strict"
    assert chosen.memory_tokens <= 400
    assert chosen.memory_tokens >= chosen.fluid.memory_tokens
    assert (chosen.gap_s > chosen.iteration_s).all()
    share = model.rates_per_s / model.rates_per_s.sum()
    best = np.inf
    for gap in np.linspace(0.01, 10, 4000):
        n = np.ceil(model.rates_per_s * gap)
        if model.fits(n) and (model.iteration_s(n) < n / model.rates_per_s).all():
            best = min(best, float(share @ latency_bound_s(model, n)[0]))
    assert float(share @ chosen.latency_bound_s) == pytest.approx(best)


def test_regimes_at_below_and_above_the_boundary() -> None:
    """Proposition 3's instance: n* = (1, 1) meets the conditions with equality and fills the memory of 9."""
    at = paper_model(
        base_s=0.1,
        per_kv_token_s=0.1,
        rates_per_s=[1, 1],
        prompt_tokens=[1, 1],
        output_tokens=[2, 3],
        kv_capacity_tokens=9,
    )
    assert check_thresholds(at, [1, 1]).regime == "boundary"
    assert check_thresholds(at, [1, 2]).regime == "none"  # does not fit
    with pytest.raises(InputError, match="no thresholds"):
        wait_thresholds(at)  # n = (1, 1) is the only one, and only just


@pytest.mark.parametrize("thresholds", [[3], [4], [8]])
def test_the_bound_is_close_for_one_type(thresholds: list[int]) -> None:
    """Everything but Kingman's term is exact, so the bound exceeds the simulated mean by at most that term."""
    model = paper_model(
        base_s=0.5,
        per_kv_token_s=0.005,
        rates_per_s=[3.0],
        prompt_tokens=[5],
        output_tokens=[4],
        kv_capacity_tokens=500,
    )
    latency, ttft, most = wait_run(model, thresholds, 20_000, seed=5)
    bound, bound_ttft = latency_bound_s(model, thresholds)
    kingman = 1 / (2 * 3 * (1 - 3 * model.iteration_s(thresholds) / thresholds[0]))
    assert bound[0] - kingman - 0.05 < latency[0] < bound[0] + 0.05
    exact, exact_ttft = mean_latency_s(model, thresholds[0])
    # Standard errors of the mean wait over 20 000 arrivals at loads 0.89, 0.77 and 0.58: about 0.1, 0.02 and 0.01 s.
    error = {3: 0.6, 4: 0.12, 8: 0.06}[thresholds[0]]
    assert ttft[0] == pytest.approx(exact_ttft, abs=error)
    assert latency[0] == pytest.approx(exact, abs=error + 0.05)
    assert bound[0] - kingman <= exact <= bound[0]
    assert ttft[0] < bound_ttft[0] + 0.05
    assert most <= model.memory_tokens(thresholds)


@given(load=some.floats(0.05, 0.97))
@settings(max_examples=20)
def test_one_request_per_stage_is_m_d_1(load: float) -> None:
    model = paper_model(
        base_s=load, per_kv_token_s=0.0, rates_per_s=[1.0], prompt_tokens=[1], output_tokens=[1], kv_capacity_tokens=9
    )
    assert mean_latency_s(model, 1)[0] == pytest.approx(load + load**2 / (2 * (1 - load)), rel=1e-9)


def test_an_overloaded_type_has_no_mean_latency() -> None:
    assert mean_latency_s(two_types(rates_per_s=[1.0], prompt_tokens=[5], output_tokens=[4]), 1)[0] < np.inf
    crowded = two_types(rates_per_s=[3.0], prompt_tokens=[5], output_tokens=[4])
    assert mean_latency_s(crowded, 1) == (np.inf, np.inf)
    with pytest.raises(InputError, match="must have one"):
        mean_latency_s(two_types(), 1)


def test_the_bound_holds_for_two_types() -> None:
    model = two_types()
    for thresholds in ([2, 1], [3, 2], [4, 1]):
        latency, ttft, most = wait_run(model, thresholds, 6_000, seed=7)
        bound, bound_ttft = latency_bound_s(model, thresholds)
        assert (latency <= bound * 1.02).all()
        assert (ttft <= bound_ttft * 1.02).all()
        assert most <= model.memory_tokens(thresholds)


def test_the_engine_model_charges_the_affine_law() -> None:
    law = st.IterationTime(
        base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=1e-7, per_prefill_context_s=1e-9
    )
    replica = st.Replica(iteration=law, kv_capacity_tokens=10_000, engine=st.Engine(block_size=16, max_num_seqs=64))
    model = engine_model(replica, st.Workload.poisson(2.0, L.Independent(L.Constant(100), L.Constant(3))))
    own = 1e-4 * 100 + 2e-5 * 2 + 1e-7 * (101 + 102) + 1e-9 * 5000
    assert model.iteration_s([3]) == pytest.approx(0.01 + 3 * own)
    assert model.least_gap_s == pytest.approx(0.01 / (1 - 2 * own))
    assert model.volume_tokens[0] == 3 * 112  # three whole blocks of 16 above 96
    assert model.slots == 64
    assert not model.fits([22])  # 66 slots
    with pytest.raises(InputError, match="several lengths"):
        engine_model(replica, st.Workload.poisson(2.0, L.Independent(L.Constant(100), L.Uniform(1, 3))))


def test_laws_that_are_not_affine() -> None:
    """A flat law up to 150 tokens, then 1 ms each: n = 1 takes 102 tokens and 10 ms, n = 2 takes 204 and 64 ms."""
    law = st.iteration.Hinge(base_s=0.01, per_token_s=1e-3, threshold_tokens=150)
    replica = st.Replica(iteration=law, kv_capacity_tokens=100_000, engine=st.Engine(block_size=1))
    model = engine_model(replica, st.Workload.poisson(5.0, L.Independent(L.Constant(100), L.Constant(3))))
    assert model.iteration_s([1]) == pytest.approx(0.01)
    assert model.iteration_s([2]) == pytest.approx(0.064)
    assert model.least_gap_s == pytest.approx(0.01)
    fast = engine_model(replica, st.Workload.poisson(20.0, L.Independent(L.Constant(100), L.Constant(3))))
    assert not fluid(fast).exists or fast.iteration_s(fluid(fast).per_stage) == pytest.approx(fluid(fast).iteration_s)
    assert check_thresholds(model, [1]).regime == "strict"


def test_candidates_hold_every_vector_on_the_line_once() -> None:
    model = two_types()
    rows = {tuple(row) for row in candidate_thresholds(model).tolist()}
    seen = {
        tuple(np.ceil(model.rates_per_s * gap).astype(int).tolist())
        for gap in np.linspace(1e-3, model.largest_gap_s, 5000)
    }
    assert seen <= rows
    assert len(rows) == len(candidate_thresholds(model))
