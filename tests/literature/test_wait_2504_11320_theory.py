"""arXiv 2504.11320 (Ao, Luo, Simchi-Levi, Wang), the theory: fluid model, thresholds, buffers. Statements of the paper itself.

Decode lengths l' of the paper are output lengths l' + 1 here: the prefill gives a token.
"""

import math

import numpy as np
import pytest

from stability.theory.nested_thresholds import check_nested
from stability.theory.nested_wait import decay_rate, nested_paper_model
from stability.theory.wait import fluid, paper_model
from stability.theory.wait_thresholds import REGIMES, check_thresholds, wait_thresholds


def single(rate: float, *, d0: float = 1.0, d1: float = 0.01, l: int = 10, decode: int = 2, capacity: float = 1e6):  # noqa: E741
    return paper_model(
        base_s=d0,
        per_kv_token_s=d1,
        rates_per_s=[rate],
        prompt_tokens=[l],
        output_tokens=[decode + 1],
        kv_capacity_tokens=capacity,
    )


def test_single_type_formulas() -> None:
    """n* = d0 lambda/(1 - d1 lambda W), M* = n* W, W = (l' + 1)(l + l'/2) (section 2)."""
    w = 3 * (10 + 1.0)
    found = fluid(single(2.0))
    assert found.per_stage[0] == pytest.approx(2.0 / (1 - 0.01 * 2 * w))
    assert found.memory_tokens == pytest.approx(found.per_stage[0] * w)
    assert found.decode_tokens_per_s == 2.0 * 2


def test_proposition_1_the_pole() -> None:
    """lambda d1 W >= 1, equality included: no equilibrium."""
    w = 33
    assert fluid(single(0.999 / (0.01 * w))).exists
    assert not fluid(single(1 / (0.01 * w))).exists
    assert not fluid(single(1.2 / (0.01 * w))).inside


@pytest.mark.parametrize("d1", [0.01, 0.05, 0.1, 0.11])
def test_proposition_3_instance(d1: float) -> None:
    """(l, l') = (1, 1), (1, 2) at rate 1, d0 = 1 - 9 d1, d1 < 1/9: n* = (1, 1), M* = 9 = C."""
    model = paper_model(
        base_s=1 - 9 * d1,
        per_kv_token_s=d1,
        rates_per_s=[1, 1],
        prompt_tokens=[1, 1],
        output_tokens=[2, 3],
        kv_capacity_tokens=9,
    )
    found = fluid(model)
    assert found.per_stage == pytest.approx([1, 1])
    assert found.memory_tokens == pytest.approx(9)
    assert found.inside
    # Theorem 1's weaker case: thresholds n* meet both conditions with equality.
    assert check_thresholds(model, [1, 1]).regime == "boundary"


def test_toy_cascade_balance() -> None:
    """l = l' = 1, C = 12, 4 arrivals per iteration: 4 in prefill (1 token) and 4 in decode (2 tokens) fill 12."""
    model = paper_model(
        base_s=1.0, per_kv_token_s=0.0, rates_per_s=[4.0], prompt_tokens=[1], output_tokens=[2], kv_capacity_tokens=12
    )
    found = fluid(model)
    assert found.per_stage[0] == 4
    assert found.memory_tokens == 12
    assert found.inside
    assert check_thresholds(model, [4]).regime == "boundary"


def test_theorem_1_cases() -> None:
    model = single(1.0, capacity=100)  # W = 33: DT(n) = 1 + 0.33 n
    assert check_thresholds(model, [1]).regime == "none"  # 1.33 > 1
    assert check_thresholds(model, [2]).regime == "strict"  # 1.66 < 2
    assert check_thresholds(model, [4]).regime == "none"  # 132 tokens
    assert "O(1)" in REGIMES["strict"]
    assert wait_thresholds(model).regime == "strict"


def test_theta_check_value_and_its_lower_bound() -> None:
    """n_1 = 10, n_2 = 4, p = 0.3: theta = 0.87106, at least 8 (n_2 - n_1 p)/n_1 = 0.8."""
    theta = decay_rate(10, 4, 0.3)
    assert theta == pytest.approx(0.87106, abs=5e-6)
    assert theta >= 8 * (4 - 3) / 10
    assert math.exp(-theta * 4) * (0.7 + 0.3 * math.exp(theta)) ** 10 == pytest.approx(1)


def test_theorem_2_memory_of_two_types() -> None:
    """M^pi = sum n_k (l + sbar_k) delta_k, and (l + l'_1)(n_2 + ln(m (1 + T/d0)/delta)/theta_2) of buffer."""
    model = nested_paper_model(
        base_s=0.05,
        per_kv_token_s=1e-6,
        rates_per_s=[7.0, 3.0],
        prompt_tokens=512,
        decode_tokens=[20, 50],
        kv_capacity_tokens=1e6,
    )
    found = check_nested(model, [20, 50], [10, 4], horizon_s=2000, overflow=0.1)
    assert found.shares[1] == pytest.approx(0.3)
    assert found.memory_tokens == pytest.approx(10 * (512 + 10) * 21 + 4 * (512 + (21 + 50) / 2) * 30)
    buffer = 532 * (4 + math.log(2 * (1 + 2000 / 0.05) / 0.1) / decay_rate(10, 4, 0.3))
    assert found.required_tokens == pytest.approx(found.memory_tokens + buffer)


def test_early_thresholds_are_the_zero_drift_boundary() -> None:
    """The rule of early versions, n_k/n_{k-1} = p_k exactly, fails the later condition; eta = 0.05 meets it."""
    model = nested_paper_model(
        base_s=0.5,
        per_kv_token_s=1e-6,
        rates_per_s=[7.0, 3.0],
        prompt_tokens=512,
        decode_tokens=[20, 50],
        kv_capacity_tokens=1e9,
    )
    assert not check_nested(model, [20, 50], [20, 6]).holds
    assert check_nested(model, [20, 50], [20, 7]).holds


def test_buffers_grow_with_the_logarithm() -> None:
    """Ten times smaller delta, or ten times the horizon, adds (l + l')/theta ln 10 per boundary."""
    model = nested_paper_model(
        base_s=0.5, per_kv_token_s=0, rates_per_s=[7, 3], prompt_tokens=10, decode_tokens=[2, 4], kv_capacity_tokens=1e9
    )
    need = [check_nested(model, [2, 4], [10, 4], overflow=delta).required_tokens for delta in (1e-2, 1e-3, 1e-4)]
    step = 12 * math.log(10) / decay_rate(10, 4, 0.3)
    assert np.diff(need) == pytest.approx([step, step])


def test_long_outputs_need_a_million_tokens_for_one_request_per_stage() -> None:
    """p512d1000: W = 1000 * 512 + 999 * 1000/2 tokens, far above the 137 000 of the experiment: no integer threshold fits."""
    model = single(4.5, d0=0.01, d1=1e-8, l=512, decode=999, capacity=137_000)
    assert model.memory_tokens([1]) == 1_011_500
    assert not model.fits([1])


def test_long_outputs_at_four_a_second_exceed_the_bandwidth_of_the_gpu() -> None:
    """Llama-2-7B holds 524 288 bytes per token: p512d1000 reads 0.26 s of an A100's 2039 GB/s, so at most 3.85 a second.

    The paper reports latencies at 4.0 and 4.5; scripts of its code name Llama-3-8B, whose KV is a quarter of that.
    """
    reads = 999 * 512 + 999 * 1000 / 2
    assert 1 / (reads * 524_288 / 2039e9) == pytest.approx(3.85, abs=0.005)
