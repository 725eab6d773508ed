"""Distributions of one length against hand numbers, each other and their own samples."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import InputError
from stability.model.lengths import (
    Constant,
    Discrete,
    Gamma,
    Geometric,
    Length,
    LogNormal,
    Pareto,
    Quantiles,
    Uniform,
    Weibull,
)

EXAMPLES: list[Length] = [
    Constant(7),
    Uniform(3, 9),
    Discrete([100, 500], [1, 3]),
    Geometric(20),
    Geometric(20, limit=15),
    LogNormal(200, cv=1.0),
    LogNormal(200, cv=1.0, limit=300),
    Gamma(50, cv=0.5),
    Weibull(50, shape=0.7),
    Pareto(10, 1.5, limit=5000),
    Quantiles([0, 0.5, 0.9, 1], [1, 100, 400, 1000]),
]
by_repr = pytest.mark.parametrize("law", EXAMPLES, ids=repr)


@by_repr
def test_mass_function_is_one(law: Length) -> None:
    assert math.isclose(law.probabilities.sum(), 1.0, rel_tol=1e-12)
    assert (law.probabilities > 0).all()
    assert law.values[0] >= 1
    assert (np.diff(law.values) > 0).all()
    assert law.values[-1] <= law.max_tokens
    assert not law.values.flags.writeable
    assert not law.probabilities.flags.writeable


@by_repr
def test_moments_are_sums_over_the_mass_function(law: Length) -> None:
    x, p = law.values.tolist(), law.probabilities.tolist()
    mean = math.fsum(a * b for a, b in zip(x, p, strict=True))
    assert math.isclose(law.mean, mean, rel_tol=1e-12)
    assert math.isclose(law.moment(3), math.fsum(a**3 * b for a, b in zip(x, p, strict=True)), rel_tol=1e-12)
    assert math.isclose(law.std**2, math.fsum((a - mean) ** 2 * b for a, b in zip(x, p, strict=True)), abs_tol=1e-6)


@by_repr
def test_samples_follow_the_mass_function(law: Length) -> None:
    """Pearson's chi-square over cells of at least 1 % probability; false alarm 1e-6 for each law."""
    from scipy.stats import chi2

    size = 40_000
    drawn = law.sample(size, np.random.default_rng(20_261))
    assert drawn.dtype == np.int64
    assert np.isin(drawn, law.values).all()
    cell_of = np.unique((np.cumsum(law.probabilities) * 100 - 1e-9).astype(int), return_inverse=True)[1]
    expected = np.bincount(cell_of, weights=law.probabilities) * size
    observed = np.bincount(cell_of[np.searchsorted(law.values, drawn)], minlength=len(expected))
    expected, observed = expected[expected > 5], observed[expected > 5]
    statistic = ((observed - expected) ** 2 / expected).sum()
    assert statistic <= chi2.isf(1e-6, max(1, len(expected) - 1))


@pytest.mark.parametrize(
    ("law", "mean", "variance"),
    [
        (Constant(7), 7, 0),
        (Uniform(10, 1600), 805, (1591**2 - 1) / 12),
        (Uniform(1, 3), 2, 2 / 3),
        (Discrete([100, 500]), 300, 200**2),
        (Discrete([500, 100], [1, 3]), 200, 0.75 * 100**2 + 0.25 * 300**2),
        (Geometric(200), 200, 200 * 199),
        (Geometric(1), 1, 0),
        (Geometric(2, limit=2), 4 / 3, 2 / 9),  # masses 1/2 and 1/4, renormalised to 2/3 and 1/3
    ],
)
def test_exact_moments(law: Length, mean: float, variance: float) -> None:
    assert math.isclose(law.mean, mean, rel_tol=1e-9)
    assert math.isclose(law.std**2, variance, rel_tol=1e-8, abs_tol=1e-9)


def test_lognormal_keeps_mean_and_spread() -> None:
    law = LogNormal(500, cv=1.0)
    assert math.isclose(law.mean, 500, rel_tol=1e-6)
    assert math.isclose(law.std**2, 500**2 + 1 / 12, rel_tol=1e-5)  # rounding adds the variance of a unit cell
    assert law.quantile(0.5) == round(500 / math.sqrt(2))


def test_lognormal_from_sigma() -> None:
    law = LogNormal.from_sigma(300, 0.8, limit=4096)
    assert math.isclose(law.median_tokens, 300, rel_tol=1e-12)
    assert math.isclose(law.sigma, 0.8, rel_tol=1e-12)
    assert law.max_tokens == 4096


def test_exponential_as_gamma_and_weibull() -> None:
    """P(X >= k) = exp(-(k - 1/2)/100) for k >= 2, so E[X] = 1 + exp(-0.015)/(1 - exp(-0.01))."""
    mean = 1 + math.exp(-0.015) / (1 - math.exp(-0.01))
    for law in (Gamma(100, cv=1.0), Weibull(100, shape=1.0)):
        assert math.isclose(law.mean, mean, rel_tol=1e-9)
        assert math.isclose(law.probabilities[0], -math.expm1(-0.015), rel_tol=1e-9)


def test_erlang_two() -> None:
    """P(X <= x) = 1 - exp(-z)(1 + z) with z = 2x/mean."""
    law = Gamma(100, cv=1 / math.sqrt(2))
    z = 2 * 60.5 / 100
    assert math.isclose(law.probabilities[law.values <= 60].sum(), 1 - math.exp(-z) * (1 + z), rel_tol=1e-9)


def test_pareto_head_and_tail() -> None:
    law = Pareto(10, 2.0, limit=1000)
    total = 1 - (10 / 1000.5) ** 2
    assert law.values[0] == 10
    assert math.isclose(law.probabilities[0], (1 - (10 / 10.5) ** 2) / total, rel_tol=1e-9)
    tail = law.probabilities[law.values > 100].sum()
    assert math.isclose(tail, ((10 / 100.5) ** 2 - (10 / 1000.5) ** 2) / total, rel_tol=1e-9)


@given(
    law=st.sampled_from([Geometric, lambda m, limit: LogNormal(m, cv=1.2, limit=limit)]),
    mean=st.floats(2, 100),
    limit=st.integers(101, 300),
)
def test_truncation_conditions_on_the_limit(law: object, mean: float, limit: int) -> None:
    cut = law(mean, limit=limit)  # type: ignore[operator]
    whole = law(mean, limit=None)  # type: ignore[operator]
    inside = whole.values <= limit
    assert cut.max_tokens == limit
    assert whole.max_tokens == math.inf
    np.testing.assert_array_equal(cut.values, whole.values[inside])
    np.testing.assert_allclose(
        cut.probabilities, whole.probabilities[inside] / whole.probabilities[inside].sum(), rtol=1e-9, atol=1e-15
    )


@given(
    levels=st.lists(st.integers(1, 99), min_size=2, max_size=6, unique=True).map(sorted),
    data=st.data(),
)
def test_quantiles_are_reproduced(levels: list[int], data: st.DataObject) -> None:
    tokens = sorted(data.draw(st.lists(st.integers(1, 5000), min_size=len(levels), max_size=len(levels), unique=True)))
    law = Quantiles([level / 100 for level in levels], tokens)
    got = law.quantile(np.array(levels) / 100)
    assert (np.abs(got - tokens) <= 1).all()  # rounding to a token
    assert law.values[0] == tokens[0]
    assert law.values[-1] == tokens[-1]


def test_quantiles_by_hand() -> None:
    """Half uniform on [1, 100], half uniform on [100, 1000]: mean 50.5/2 + 550/2."""
    law = Quantiles([0, 0.5, 1], [1, 100, 1000])
    assert math.isclose(law.mean, 300.25, rel_tol=1e-4)
    assert math.isclose(law.probabilities[law.values == 50][0], 0.5 / 99, rel_tol=1e-9)


def test_quantiles_with_an_atom() -> None:
    """Half the mass on 50, and the half cells around it: 0.25*0.5/40 below, 0.25*0.5/50 above."""
    law = Quantiles([0, 0.25, 0.75, 1], [10, 50, 50, 100])
    assert math.isclose(law.probabilities[law.values == 50][0], 0.5 + 0.003125 + 0.0025, rel_tol=1e-9)


def test_quantiles_put_the_unstated_tails_on_the_ends() -> None:
    law = Quantiles([0.1, 0.9], [100, 200])
    assert math.isclose(law.probabilities[0], 0.1 + 0.8 * 0.5 / 100, rel_tol=1e-9)
    assert math.isclose(law.probabilities[-1], 0.1 + 0.8 * 0.5 / 100, rel_tol=1e-9)
    assert math.isclose(law.mean, 150, rel_tol=1e-9)


@given(st.floats(0.001, 0.999))
def test_quantile_inverts_the_distribution_function(level: float) -> None:
    law = Discrete([1, 5, 9], [0.2, 0.3, 0.5])
    assert law.quantile(level) == (1 if level <= 0.2 else 5 if level <= 0.5 else 9)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Constant(0), "tokens = 0, must be an integer >= 1"),
        (lambda: Constant(2.5), "tokens = 2.5, must be an integer"),  # type: ignore[arg-type]
        (lambda: Uniform(10, 9), "high = 9, must be an integer >= 10"),
        (lambda: Uniform(1, 1 << 23), "Use Discrete"),
        (lambda: Discrete([]), "values is empty"),
        (lambda: Discrete([1, 1]), "must be distinct"),
        (lambda: Discrete([1, 2], [1]), "2 values but 1 weights"),
        (lambda: Discrete([1, 2], [0, 0]), "weights sum to 0"),
        (lambda: Geometric(0.5), "mean_tokens = 0.5, must be a finite number and >= 1"),
        (lambda: Geometric(math.nan), "mean_tokens = nan, must be a finite number"),
        (lambda: LogNormal(100, cv=0), "cv = 0, must be a finite number and > 0"),
        (lambda: LogNormal(100, cv=1, limit=0), "limit = 0, must be an integer >= 1"),
        (lambda: Gamma(-1, cv=1), "mean_tokens = -1"),
        (lambda: Weibull(100, shape=0.01), "shape = 0.01"),
        (lambda: Pareto(10, 1.5, limit=None), "limit = None"),
        (lambda: Pareto(10, 1.5, limit=5), "limit = 5, must be an integer >= 10"),
        (lambda: Quantiles([0.5], [1]), "at least 2"),
        (lambda: Quantiles([0.5, 0.5], [1, 2]), "must increase strictly"),
        (lambda: Quantiles([0.5, 0.9], [2, 1]), "must not decrease"),
        (lambda: Quantiles([0.5, 1.1], [1, 2]), r"probabilities\[1\] = 1.1"),
        (lambda: Quantiles([0, 1], [1, 1e9]), r"tokens\[1\] = 1000000000.0"),
        (lambda: LogNormal(4e8, cv=0.01, limit=10), r"limit = 10, must be > mean_tokens = 4e\+08"),
    ],
)
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
