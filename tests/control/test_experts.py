"""Expert placement: Hall's condition as an oracle of the flow, every placement enumerated, a second solver."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import stability as st
from stability.control.experts import _flow
from stability.errors import NotModelledError


def level(loads: np.ndarray, placement: np.ndarray) -> float:
    """Least greatest GPU load of a placement: the largest load of a set of experts over the GPUs that hold any of it."""
    best = 0.0
    for size in range(1, len(loads) + 1):
        for chosen in itertools.combinations(range(len(loads)), size):
            reach = placement[list(chosen)].any(axis=0).sum()
            best = max(best, float(loads[list(chosen)].sum()) / reach if reach else np.inf)
    return best


@pytest.mark.parametrize("seed", range(10))
def test_the_flow_levels_a_placement_as_well_as_halls_condition_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    loads = rng.dirichlet(np.ones(6))
    placement = rng.uniform(size=(6, 4)) < 0.4
    placement[np.arange(6), rng.integers(0, 4, 6)] = True
    flow, gap = _flow(loads, placement)
    assert flow.sum(axis=1) == pytest.approx(loads)
    assert (flow[~placement] == 0).all()
    assert flow.sum(axis=0).max() == pytest.approx(level(loads, placement), abs=1e-9)
    assert gap == pytest.approx(0, abs=1e-7)


def test_the_flow_agrees_with_a_second_solver() -> None:
    import cvxpy as cp

    loads = st.zipf_loads(24, exponent=0.8)
    found = st.expert_balance(loads, gpus=6, slots_per_gpu=5)
    flow = cp.Variable(found.placement.shape, nonneg=True)
    rows = [cp.sum(flow, axis=1) == loads, flow <= np.outer(loads, np.ones(6)) * found.placement]
    other = cp.Problem(cp.Minimize(cp.max(cp.sum(flow, axis=0))), rows).solve(solver=cp.CLARABEL)
    assert found.imbalance == pytest.approx(6 * other, rel=1e-6)
    assert abs(found.flow_gap) <= 1e-7


@pytest.mark.parametrize("seed", range(6))
def test_no_enumerated_placement_is_more_even_than_the_exact_one(seed: int) -> None:
    loads = np.random.default_rng(seed).dirichlet(np.full(4, 0.7))
    gpus, slots = 3, 2
    best = np.inf
    for bits in itertools.product([False, True], repeat=4 * gpus):
        placement = np.array(bits).reshape(4, gpus)
        if placement.any(axis=1).all() and (placement.sum(axis=0) <= slots).all():
            best = min(best, level(loads, placement))
    exact = st.expert_balance(loads, gpus=gpus, slots_per_gpu=slots, method="exact")
    assert exact.imbalance == pytest.approx(gpus * best, abs=1e-7)
    assert exact.gap <= 1e-7
    greedy = st.expert_balance(loads, gpus=gpus, slots_per_gpu=slots)
    assert greedy.lower_bound - 1e-9 <= exact.imbalance <= greedy.imbalance + 1e-6


@given(some.integers(1, 60), some.integers(1, 10), some.integers(0, 4), some.floats(0, 2))
def test_what_every_placement_keeps(experts: int, gpus: int, spare: int, exponent: float) -> None:
    slots = -(-experts // gpus) + spare
    found = st.expert_balance(st.zipf_loads(experts, exponent=exponent), gpus=gpus, slots_per_gpu=slots)
    assert (found.placement.sum(axis=0) <= slots).all()
    assert found.placement.any(axis=1).all()
    assert found.flow.sum() == pytest.approx(1.0)
    assert 1 - 1e-9 <= found.lower_bound <= found.imbalance + 1e-12
    assert found.imbalance <= found.even_imbalance + 1e-9
    assert found.gpu_loads.max() == pytest.approx(found.imbalance)


def test_a_hot_expert_gets_copies() -> None:
    """256 experts on 32 GPUs with one redundant expert each, loads as uneven as Zipf 0.5."""
    loads = st.zipf_loads(256, exponent=0.5)
    found = st.expert_balance(loads, gpus=32, slots_per_gpu=9)
    assert found.placement.sum() == 288
    assert found.gap < 0.01
    without = st.expert_balance(loads, gpus=32, slots_per_gpu=8)
    assert without.imbalance > found.imbalance


def test_the_law_that_imbalance_stretches() -> None:
    """Loads 3 and 1 on two GPUs of one slot: imbalance 1.5; with 60 % of the token time in experts, 1 + 0.6 * 0.5 = 1.3."""
    found = st.expert_balance([3, 1], gpus=2, slots_per_gpu=1)
    assert found.imbalance == pytest.approx(1.5)
    law = st.IterationTime(
        base_s=1.0, per_prefill_token_s=2.0, per_decode_token_s=3.0, per_kv_token_s=4.0, per_prefill_context_s=5.0
    )
    assert found.inflated(law, expert_share=0.6).coefficients == pytest.approx((1.0, 2.6, 3.9, 4.0, 5.0))
    both = found.inflated(st.iteration.TwoPhase(decode=law, mixed=law), expert_share=1.0)
    assert both.mixed.coefficients == pytest.approx((1.0, 3.0, 4.5, 4.0, 5.0))
    with pytest.raises(NotModelledError):
        found.inflated(st.iteration.Staircase(base_s=0.1, per_step_s=0.1, step_tokens=8), expert_share=1.0)
    with pytest.raises(st.InputError, match="expert_share"):
        found.inflated(law, expert_share=1.5)


def test_what_the_result_carries() -> None:
    found = st.expert_balance(st.zipf_loads(8), gpus=4, slots_per_gpu=3)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["schema"] == "stability/expert-balance/1"
    assert found.to_frame().token_share.sum() == pytest.approx(1.0)
    assert found.plot().get_ylabel() == "load over the mean"
    assert "no placement below" in found.summary()
    with pytest.raises(TypeError):
        bool(found)


@pytest.mark.parametrize(
    ("loads", "given", "match"),
    [
        ([1, 1, 1], {"gpus": 1, "slots_per_gpu": 2}, "must be >= the 3 experts. Give each GPU 3 slots, or use 2 GPUs"),
        ([], {"gpus": 1, "slots_per_gpu": 2}, "loads must be one number"),
        ([0, 0], {"gpus": 1, "slots_per_gpu": 2}, "not all 0"),
        ([1, -1], {"gpus": 1, "slots_per_gpu": 2}, "loads must be one number >= 0"),
        ([1], {"gpus": 0, "slots_per_gpu": 2}, "gpus = 0"),
        ([1], {"gpus": 1, "slots_per_gpu": 1, "method": "best"}, "method = 'best'"),
    ],
)
def test_bad_input(loads: list[float], given: dict[str, object], match: str) -> None:
    with pytest.raises(st.InputError, match=match):
        st.expert_balance(loads, **given)
