"""Step-type averaging: the law of the prompt tokens in an iteration, and the tangent law."""

import numpy as np
import pytest

import stability as st
from stability import iteration as it
from stability import lengths as L
from stability.theory.moments import moments
from stability.theory.steps import composition, effective_law, prompt_law, step_mix

UNIFORM = L.Independent(L.Uniform(10, 1600), L.Uniform(10, 1600))


@pytest.mark.parametrize(
    ("per_iteration", "room"), [(0.15, 400), (0.45, 400), (1.0, 2000), (2.0, 2000), (0.01, 300), (2.4, 2000)]
)
def test_prefill_per_iteration_follows_the_recursion(per_iteration: float, room: int) -> None:
    prompts = prompt_law((UNIFORM,), (1.0,))
    mix = step_mix(prompts, per_iteration, room)
    assert mix.probabilities.sum() == pytest.approx(1)
    assert mix.probabilities @ mix.prefill_tokens == pytest.approx(per_iteration * 805, rel=1e-9)

    rng = np.random.default_rng(1)
    arrivals = [int(rng.integers(10, 1601, count).sum()) for count in rng.poisson(per_iteration, 200_000)]
    waiting, carried = 0, []
    for tokens in arrivals:
        waiting += tokens
        carried.append(min(waiting, room))
        waiting -= carried[-1]
    share, full = np.mean(np.array(carried) > 0), np.mean(np.array(carried) == room)
    assert mix.mixed_share == pytest.approx(share, abs=0.01)
    assert mix.probabilities[mix.prefill_tokens > 0.999 * mix.prefill_tokens[-1]].sum() == pytest.approx(full, abs=0.01)


def test_more_prompts_than_room_fill_every_iteration() -> None:
    mix = step_mix(prompt_law((UNIFORM,), (1.0,)), 1.0, 500)
    assert mix.mixed_share == 1
    assert mix.prefill_tokens.tolist() == [500]


def test_tangent_of_an_affine_law_is_itself_and_of_two_phases_in_between() -> None:
    demand = moments(UNIFORM, 2048).mean
    over = composition(demand, prompt_law((UNIFORM,), (1.0,)), 0.3, 2048)
    np.testing.assert_allclose(
        over.probabilities @ np.column_stack([over.prefill_tokens, over.decode_tokens, over.kv_tokens]),
        over.mean[:3],
        rtol=1e-9,
    )
    decode = st.IterationTime(base_s=0.009, per_decode_token_s=9e-6, per_kv_token_s=4e-8)
    mixed = st.IterationTime(
        base_s=0.02,
        per_prefill_token_s=1.5e-5,
        per_decode_token_s=9e-6,
        per_kv_token_s=8e-8,
        per_prefill_context_s=3e-9,
    )
    np.testing.assert_allclose(effective_law(mixed, over), mixed.coefficients)
    np.testing.assert_allclose(
        effective_law(it.TwoPhase(decode=mixed, mixed=mixed), over), mixed.coefficients, rtol=1e-6
    )
    share = over.probabilities[over.prefill_tokens > 0].sum()
    tangent = effective_law(it.TwoPhase(decode=decode, mixed=mixed), over)
    assert tangent[3] == pytest.approx(4e-8 * (1 - share) + 8e-8 * share, rel=1e-9)
    assert tangent[1] == pytest.approx(1.5e-5, rel=1e-9)
