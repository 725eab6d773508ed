"""Joint laws of prompt and output: expectations against brute force, samples, correlation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import InputError
from stability._types import FloatArray, IntArray
from stability.model.lengths import (
    Constant,
    Discrete,
    Empirical,
    GaussianCopula,
    Independent,
    Length,
    Lengths,
    LogNormal,
    Mixture,
    Quantiles,
    Uniform,
)

discrete = st.dictionaries(st.integers(1, 60), st.integers(1, 9), min_size=1, max_size=5).map(
    lambda d: Discrete(list(d), [float(w) for w in d.values()])
)


def footprint(s: IntArray, o: IntArray) -> FloatArray:
    return np.asarray(np.ceil(s / 7) + (o - 1.0) * s + o * (o - 1.0) / 2)


def brute_force(prompt: Length, output: Length) -> float:
    rows = itertools.product(
        zip(prompt.values.tolist(), prompt.probabilities.tolist(), strict=True),
        zip(output.values.tolist(), output.probabilities.tolist(), strict=True),
    )
    return math.fsum(p * q * (math.ceil(s / 7) + (o - 1) * s + o * (o - 1) / 2) for (s, p), (o, q) in rows)


@given(discrete, discrete)
def test_expectation_of_independent_lengths_visits_every_pair(prompt: Discrete, output: Discrete) -> None:
    law = Independent(prompt=prompt, output=output)
    assert math.isclose(law.expect(footprint), brute_force(prompt, output), rel_tol=1e-12)
    assert law.correlation == pytest.approx(0, abs=1e-6)
    assert law.max_total_tokens == prompt.max_tokens + output.max_tokens


def test_expectation_in_several_chunks() -> None:
    """1591**2 pairs, more than one chunk. E[s*o] = 805**2 and E[o(o-1)/2] by the moments of the uniform."""
    law = Independent(prompt=Uniform(10, 1600), output=Uniform(10, 1600))
    second = (1591**2 - 1) / 12 + 805**2
    exact = 805 * 804 + (second - 805) / 2
    assert math.isclose(law.expect(lambda s, o: (o - 1.0) * s + o * (o - 1.0) / 2), exact, rel_tol=1e-12)


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=30))
def test_empirical(pairs: list[tuple[int, int]]) -> None:
    s, o = np.array(pairs).T
    law = Empirical(s, o)
    assert len(law) == len(pairs)
    assert math.isclose(law.prompt_mean_tokens, s.mean(), rel_tol=1e-12)
    assert math.isclose(law.output_mean_tokens, o.mean(), rel_tol=1e-12)
    assert math.isclose(law.expect(footprint), footprint(s, o).mean(), rel_tol=1e-12)
    assert (law.max_prompt_tokens, law.max_output_tokens) == (s.max(), o.max())
    assert law.max_total_tokens == (s + o).max()
    if s.std() > 0 and o.std() > 0:
        assert law.correlation == pytest.approx(np.corrcoef(s, o)[0, 1], abs=1e-6)


def test_empirical_samples_keep_pairs_together() -> None:
    law = Empirical([1, 2, 3], [10, 20, 30])
    s, o = law.sample(1000, np.random.default_rng(1))
    np.testing.assert_array_equal(o, 10 * s)
    assert set(s.tolist()) == {1, 2, 3}


def test_empirical_copies_its_input() -> None:
    mine = np.array([1, 2, 3])
    law = Empirical(mine, [1, 1, 1])
    mine[0] = 99
    assert law.max_prompt_tokens == 3
    with pytest.raises(ValueError, match="read-only"):
        law.prompt_tokens[0] = 5


def test_mixture_by_hand() -> None:
    """1/4 of (100, 10), 3/4 of (20, 50)."""
    short, long = (Independent(prompt=Constant(s), output=Constant(o)) for s, o in ((100, 10), (20, 50)))
    law = Mixture([short, long], [1, 3])
    assert law.prompt_mean_tokens == pytest.approx(40)
    assert law.output_mean_tokens == pytest.approx(40)
    assert law.expect(lambda s, o: s.astype(np.float64) * o) == pytest.approx(1000)
    assert law.correlation == pytest.approx(-1)
    assert law.max_total_tokens == 110
    s, o = law.sample(40_000, np.random.default_rng(2))
    assert set(zip(s.tolist(), o.tolist(), strict=True)) == {(100, 10), (20, 50)}
    # Binomial(40 000, 1/4) lies within 5 standard deviations with a false alarm of 6e-7.
    assert abs((s == 100).sum() - 10_000) < 5 * math.sqrt(40_000 * 3 / 16)


@given(st.lists(st.floats(0.01, 10), min_size=2, max_size=3))
def test_mixture_expectation_is_linear(weights: list[float]) -> None:
    parts: list[Lengths] = [
        Independent(prompt=Uniform(1, 9), output=Uniform(2, 5)),
        Empirical([3, 8], [4, 1]),
        GaussianCopula(Uniform(1, 20), Uniform(1, 20), 0.4),
    ][: len(weights)]
    law = Mixture(parts, weights)
    expected = sum(w * part.expect(footprint) for w, part in zip(weights, parts, strict=True)) / sum(weights)
    assert math.isclose(law.expect(footprint), expected, rel_tol=1e-12)
    nested = Mixture([law, parts[0]], [1, 0])
    assert math.isclose(nested.expect(footprint), expected, rel_tol=1e-12)


@pytest.mark.parametrize("spearman", [-0.6, 0.0, 0.3, 0.8])
def test_copula_samples_have_the_rank_correlation_and_the_marginals(spearman: float) -> None:
    """The rank correlation of 40 000 pairs has a standard error below 1/200: 5 of them, false alarm below 1e-6."""
    from scipy.stats import spearmanr

    law = GaussianCopula(LogNormal(500, cv=1.0, limit=8192), Quantiles([0, 0.5, 1], [1, 100, 1000]), spearman)
    s, o = law.sample(40_000, np.random.default_rng(3))
    assert spearmanr(s, o).statistic == pytest.approx(spearman, abs=0.025)
    for sample, marginal in ((s, law.prompt), (o, law.output)):
        for level in (0.1, 0.5, 0.9):  # Binomial: 5 standard deviations, false alarm 6e-7
            share = (sample <= marginal.quantile(level)).mean()
            exact = marginal.probabilities[marginal.values <= marginal.quantile(level)].sum()
            assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / 40_000)


@pytest.mark.parametrize("spearman", [-0.5, 0.2, 0.7])
@pytest.mark.parametrize("cv", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("order", [1, 2])
def test_copula_expectations_are_those_of_the_marginals(order: int, cv: float, spearman: float) -> None:
    """The grid reproduces marginal moments, heavy tails included, to 0.1 %."""
    law = GaussianCopula(LogNormal(500, cv=cv, limit=32_768), LogNormal(300, cv=cv, limit=32_768), spearman)
    prompt = law.expect(lambda s, o: s.astype(np.float64) ** order)
    output = law.expect(lambda s, o: o.astype(np.float64) ** order)
    assert prompt == pytest.approx(law.prompt.moment(order), rel=1e-3)
    assert output == pytest.approx(law.output.moment(order), rel=1e-3)


def test_copula_product_moment_of_lognormals() -> None:
    """E[s*o] = E[s]*E[o]*exp(r*sigma_s*sigma_o) for lognormals whose logarithms have correlation r."""
    law = GaussianCopula(LogNormal(800, cv=1.0), LogNormal(400, cv=0.7), 0.5)
    sigmas = math.sqrt(math.log1p(1.0) * math.log1p(0.49))
    exact = 800 * 400 * math.exp(law.normal_correlation * sigmas)
    assert law.expect(lambda s, o: s.astype(np.float64) * o) == pytest.approx(exact, rel=1e-3)


def test_copula_without_correlation_is_independent() -> None:
    law = GaussianCopula(Uniform(1, 40), Uniform(1, 30), 0.0)
    assert law.expect(footprint) == pytest.approx(Independent(law.prompt, law.output).expect(footprint), rel=1e-12)


@pytest.mark.parametrize(
    "law",
    [
        Independent(prompt=Uniform(1, 9), output=Constant(4)),
        Empirical([1, 2], [3, 4]),
        Mixture([Empirical([1, 2], [3, 4])], [1.0]),
        GaussianCopula(Uniform(1, 9), Uniform(1, 9), 0.5),
    ],
    ids=lambda law: type(law).__name__,
)
def test_samples_are_reproducible_and_in_range(law: Lengths) -> None:
    s, o = law.sample(500, np.random.default_rng(7))
    again = law.sample(500, np.random.default_rng(7))
    np.testing.assert_array_equal(s, again[0])
    np.testing.assert_array_equal(o, again[1])
    assert s.dtype == o.dtype == np.int64
    assert 1 <= s.min() <= s.max() <= law.max_prompt_tokens
    assert 1 <= o.min() <= o.max() <= law.max_output_tokens
    assert (s + o).max() <= law.max_total_tokens
    assert len(repr(law)) < 200


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Independent(prompt=100, output=Constant(1)), "prompt = 100, must be a length distribution"),  # type: ignore[arg-type]
        (lambda: GaussianCopula(Constant(1), 5, 0.1), "output = 5, must be a length distribution"),  # type: ignore[arg-type]
        (lambda: GaussianCopula(Constant(1), Constant(1), 1.0), "spearman = 1.0"),
        (lambda: Empirical([], []), "the trace is empty"),
        (lambda: Empirical([1, 2], [1]), "2 prompt_tokens but 1 output_tokens"),
        (lambda: Empirical([1, -2], [1, 1]), r"prompt_tokens\[1\] = -2, must be between 1 and"),
        (lambda: Empirical([1, 2], [1, 0]), r"output_tokens\[1\] = 0, must be between 1 and"),
        (lambda: Empirical([1, math.nan], [1, 1]), r"prompt_tokens\[1\] = nan, must be a whole number"),
        (lambda: Empirical([1.5], [1]), r"prompt_tokens\[0\] = 1.5, must be a whole number"),
        (lambda: Empirical([1e30], [1]), r"prompt_tokens\[0\] = 1e\+30, must be between"),
        (lambda: Empirical(["a"], [1]), "must be one-dimensional and numeric"),
        (lambda: Empirical([[1]], [1]), "must be one-dimensional and numeric"),
        (lambda: Empirical([[1], [1, 2]], [1]), "ragged"),
        (lambda: Mixture([], []), "at least one"),
        (lambda: Mixture([Empirical([1], [1])], [0]), "weights sum to 0"),
        (lambda: Mixture([Empirical([1], [1])], [-1]), r"weights\[0\] = -1"),
    ],
)
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
