"""Footprints against sums over single iterations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from stability import lengths as L
from stability.errors import InputError
from stability.theory import footprint
from stability.theory.moments import Demand, demands, moments, tail_probability


def rounded(tokens: int, block: int) -> int:
    return -(-tokens // block) * block


def summed_volume(s: int, o: int, budget: int, block: int, *, least: bool) -> int:
    """KV held, iteration by iteration."""
    chunks = -(-s // budget)
    prefill = [s - (chunks - j) * budget if least else min(j * budget, s) for j in range(1, chunks + 1)]
    return sum(rounded(held, block) for held in prefill) + sum(rounded(s + j, block) for j in range(1, o))


sizes = some.integers(1, 400)


@given(s=sizes, o=sizes, budget=some.integers(1, 150), block=some.integers(1, 40), least=some.booleans())
def test_volume_is_the_sum_over_iterations(s: int, o: int, budget: int, block: int, least: bool) -> None:
    assert footprint.volume(s, o, budget, block, least=least) == summed_volume(s, o, budget, block, least=least)


@given(s=sizes, o=sizes, budget=some.integers(1, 150), block=some.integers(1, 40))
def test_least_volume_is_least(s: int, o: int, budget: int, block: int) -> None:
    assert footprint.volume(s, o, budget, block, least=True) <= footprint.volume(s, o, budget, block)


def test_hand_numbers() -> None:
    # 600 tokens in chunks of 256: 256 + 512 + 600, then 601 and 602.
    assert footprint.volume(600, 3, 256) == 256 + 512 + 600 + 601 + 602
    assert footprint.volume(600, 3, 256, least=True) == 88 + 344 + 600 + 601 + 602
    assert footprint.iterations(600, 3, 256) == 5
    assert footprint.reads(600, 3) == 601 + 602
    assert footprint.volume(5, 2, 64, 4) == 8 + 8  # 5 and 6 tokens, two blocks of 4
    assert footprint.reservation(5, 2, 4, 64, 4) == 12 * 2


def test_conventions_of_papers() -> None:
    # Flow control: 10 prompt tokens, 20 slots: 11 + ... + 30.
    assert footprint.volume(10, 20, 2048, residency="slots") == sum(range(11, 31)) == 410
    assert footprint.iterations(10, 20, 2048, "slots") == 20
    # WAIT: prompt l, decode length l' = o - 1, (l' + 1)(l + l'/2), all of it read.
    assert footprint.volume(512, 21, 512, residency="wait") == 21 * (512 + 10) == 10_962
    assert footprint.reads(512, 21, "wait") == 10_962


def test_unknown_convention_is_refused() -> None:
    with pytest.raises(InputError, match=r"residency = 'engin', must be one of .* Did you mean 'engine'\?"):
        footprint.volume(1, 1, 1, residency="engin")


products = some.builds(
    L.Independent,
    some.one_of(
        some.tuples(some.integers(1, 60), some.integers(0, 90)).map(lambda t: L.Uniform(t[0], t[0] + t[1])),
        some.floats(1, 30).map(lambda m: L.Geometric(m, limit=120)),
        some.sets(some.integers(1, 200), min_size=1, max_size=4).map(lambda v: L.Discrete(sorted(v))),
    ),
    some.one_of(
        some.tuples(some.integers(1, 60), some.integers(0, 90)).map(lambda t: L.Uniform(t[0], t[0] + t[1])),
        some.integers(1, 150).map(L.Constant),
    ),
)


@given(
    lengths=products,
    budget=some.integers(1, 130),
    block=some.integers(1, 33),
    limit=some.one_of(some.none(), some.just(500)),
)
def test_means_of_product_laws_equal_the_sum_over_all_pairs(
    lengths: L.Independent, budget: int, block: int, limit: int | None
) -> None:
    found = moments(lengths, budget, block, limit).mean
    for entry in Demand:
        brute = lengths.expect(
            lambda s, o, entry=entry: demands(s.ravel(), o.ravel(), budget, block, limit)[entry].reshape(s.shape)
        )
        assert found[entry] == pytest.approx(brute, rel=1e-11)


def test_means_of_mixtures_and_observed_pairs() -> None:
    rng = np.random.default_rng(5)
    pairs = L.Empirical(rng.integers(1, 900, 300), rng.integers(1, 500, 300))
    table = demands(pairs.prompt_tokens, pairs.output_tokens, 256, 16)
    observed = moments(pairs, 256, 16)
    np.testing.assert_allclose(observed.mean, table.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(observed.covariance, np.cov(table, bias=True), rtol=1e-6)
    assert observed.samples == 300

    uniform = L.Independent(L.Uniform(1, 90), L.Uniform(1, 50))
    mixed = moments(L.Mixture([pairs, uniform], [1, 3]), 256, 16)
    np.testing.assert_allclose(mixed.mean, 0.25 * observed.mean + 0.75 * moments(uniform, 256, 16).mean, rtol=1e-12)
    assert mixed.covariance is None


def test_share_of_requests_that_never_fit() -> None:
    law = L.Independent(L.Constant(10), L.Geometric(20))
    assert tail_probability(law, 100) == pytest.approx((1 - 1 / 20) ** 91, rel=1e-9)  # o > 91
    assert tail_probability(L.Empirical([10, 60], [10, 50]), 60) == 0.5
