"""arXiv 2504.07347 (Li, Dai, Deng, Li, Peng), the theory: CodeLlama-34B on one A100, t(b) = 11.28 + 35.47 ceil(b/128) ms."""

import pytest

from stability.model.iteration import Staircase
from stability.theory.disciplines import decode_first_rate, prefill_first_rates, token_region

LAW = Staircase(base_s=11.28e-3, per_step_s=35.47e-3, step_tokens=128)


def test_boundary_of_512_tokens() -> None:
    found = token_region(LAW, 512, prefill_tokens=100, decode_tokens=100)
    assert found.batch_s == pytest.approx(153.16e-3)
    assert found.tokens_per_s == pytest.approx(3342.9, abs=0.05)
    assert found.best_batch == 512
    assert found.rate_per_s == pytest.approx(16.71, abs=0.005)
    assert token_region(LAW, 512, prefill_tokens=129, decode_tokens=112).rate_per_s == pytest.approx(13.9, abs=0.05)


def test_point_c_sits_on_the_boundary() -> None:
    """B = 128: 46.75 ms; a request (290, 990) every 467.5 ms."""
    found = token_region(LAW, 128, prefill_tokens=290, decode_tokens=990)
    assert found.batch_s == pytest.approx(46.75e-3)
    assert found.rate_per_s == pytest.approx(1 / 467.5e-3)


def test_slope_of_the_backlog_at_1_1() -> None:
    """0.3343 tokens/ms (the paper simulates 0.338 +- 0.046)."""
    found = token_region(LAW, 512, prefill_tokens=100, decode_tokens=100)
    assert found.backlog_tokens_per_s(1.1 * found.rate_per_s, 200) == pytest.approx(334.3, abs=0.05)


def test_disciplines_that_do_not_conserve_work_lose_capacity() -> None:
    """Decode-only first: 1.04 of 16.71 requests/s; prefill-only first: somewhere in 13.0 .. 16.5."""
    best = token_region(LAW, 512, prefill_tokens=100, decode_tokens=100).rate_per_s
    assert decode_first_rate(LAW, 512, prefill_tokens=100, decode_tokens=100) < 0.07 * best
    low, high = prefill_first_rates(LAW, 512, prefill_tokens=100, decode_tokens=100)
    assert low < high < best
