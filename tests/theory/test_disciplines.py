"""Regions of batching disciplines against hand numbers and a ten-line simulation of rounds."""

import pytest

import stability as st
from stability.errors import InputError, NotModelledError
from stability.model.iteration import Hinge, Staircase
from stability.theory.disciplines import (
    backlog_bound_tokens,
    batch_times_s,
    decode_first_rate,
    prefill_first_rates,
    token_region,
)

LAW = Staircase(base_s=11.28e-3, per_step_s=35.47e-3, step_tokens=128)


def test_a_smaller_batch_can_be_the_best() -> None:
    """c + a max(0, b - b0) with a b0 > c: 512 tokens take 10 + 412 = 422 s, 100 take 10."""
    law = Hinge(base_s=10.0, per_token_s=1.0, threshold_tokens=100)
    found = token_region(law, 512, prefill_tokens=50, decode_tokens=50)
    assert found.best_batch == 100
    assert found.rate_per_s == pytest.approx(10 / 100)
    assert found.batch_s == pytest.approx(422)


def test_backlog_grows_by_the_difference() -> None:
    found = token_region(LAW, 512, prefill_tokens=100, decode_tokens=100)
    assert found.backlog_tokens_per_s(1.1 * found.rate_per_s, 200) == pytest.approx(0.1 * found.tokens_per_s)
    assert found.backlog_tokens_per_s(0.9 * found.rate_per_s, 200) == 0
    assert backlog_bound_tokens(512, 100, 100) == 513 * 200


def test_decode_first_in_rounds() -> None:
    """B = 10, prompts of 3: three a round in one batch of 9, then four batches of 3 decodes; t(b) = 1 + b/10."""
    law = st.IterationTime(base_s=1.0, per_prefill_token_s=0.1, per_decode_token_s=0.1)
    assert decode_first_rate(law, 10, prefill_tokens=3, decode_tokens=4) == pytest.approx(3 / (1.9 + 4 * 1.3))
    # A prompt of 24 goes alone, in chunks of 10, 10 and 4.
    assert decode_first_rate(law, 10, prefill_tokens=24, decode_tokens=4) == pytest.approx(1 / (2 + 2 + 1.4 + 4 * 1.1))


def test_prefill_first_bracket() -> None:
    """Prompts alone 1.3 s, by threes 1.9/3; a decode 2/10 s in a full batch."""
    law = st.IterationTime(base_s=1.0, per_prefill_token_s=0.1, per_decode_token_s=0.1)
    low, high = prefill_first_rates(law, 10, prefill_tokens=3, decode_tokens=4)
    assert low == pytest.approx(1 / (1.3 + 0.8))
    assert high == pytest.approx(1 / (1.9 / 3 + 0.8))
    best = token_region(law, 10, prefill_tokens=3, decode_tokens=4).rate_per_s
    assert low < high <= best
    with pytest.raises(InputError, match="freeze"):
        prefill_first_rates(law, 10, prefill_tokens=11, decode_tokens=4)


def test_laws_that_look_at_more_than_tokens_are_refused() -> None:
    with pytest.raises(NotModelledError, match="more than the tokens"):
        batch_times_s(st.IterationTime(base_s=1.0, per_kv_token_s=1e-6), 8)
    with pytest.raises(NotModelledError, match="more than the tokens"):
        batch_times_s(st.IterationTime(base_s=1.0, per_prefill_token_s=1e-6), 8)
