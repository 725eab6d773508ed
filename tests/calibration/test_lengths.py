"""Length laws from bucket counts: moments recovered, tails censored, families told apart."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

import stability as st
from stability.calibration.lengths import _probabilities
from stability.io.plan import plan_from_text

BOUNDS = np.array([1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, np.inf])
PLAN = """schema: stability/plan/1
workload:
  rate_per_s: 0.1
"""
FLEET = """fleet:
  - {pool: chat, kv_capacity_tokens: 10000000, iteration: {affine: {base_s: 0.01}}}
"""


def expected(law: st.lengths.Length, requests: float) -> np.ndarray:
    return requests * _probabilities(law, BOUNDS)


@settings(max_examples=20)
@given(some.sampled_from(["lognormal", "gamma", "weibull"]), some.floats(50, 1000), some.floats(0.4, 1.6))
def test_expected_counts_of_a_family_give_its_moments_back(family: str, mean: float, cv: float) -> None:
    law = {
        "lognormal": lambda: st.lengths.LogNormal(mean, cv),
        "gamma": lambda: st.lengths.Gamma(mean, cv),
        "weibull": lambda: st.lengths.Weibull(mean, 1 / cv),
    }[family]()
    fit = st.fit_length(BOUNDS, expected(law, 20_000))
    assert fit.mean_tokens == pytest.approx(law.mean, rel=0.01)
    assert fit.std_tokens == pytest.approx(law.std, rel=0.03)
    assert fit.distance < 0.005
    if fit.family != "piecewise":
        assert fit.p_value is not None
        assert fit.p_value > 1e-3


@settings(max_examples=30)
@given(
    some.lists(some.floats(0, 1000), min_size=16, max_size=16).filter(lambda x: sum(x) > 1),
    some.one_of(some.none(), some.integers(60_000, 200_000)),
)
def test_the_piecewise_law_meets_every_bucket(counts: list[float], limit: int | None) -> None:
    fit = st.fit_length(BOUNDS, counts, families=["piecewise"], limit_tokens=limit)
    share = np.cumsum(counts) / np.sum(counts)
    assert fit.distance < 2e-3
    assert np.cumsum(_probabilities(fit.law, BOUNDS)) == pytest.approx(share, abs=2e-3)
    assert fit.p_value is None


def test_drawn_lengths_give_the_parameters_within_their_error() -> None:
    # Standard error of the log median: sigma/sqrt(n); six of them.
    law = st.lengths.LogNormal.from_sigma(400, 0.9)
    drawn = law.sample(5000, np.random.default_rng(0))
    counts = np.histogram(drawn, np.concatenate(([0], BOUNDS)) + 0.5)[0]
    fit = st.fit_length(BOUNDS, counts)
    assert fit.family == "lognormal"
    assert isinstance(fit.law, st.lengths.LogNormal)
    assert np.log(fit.law.median_tokens / 400) == pytest.approx(0, abs=6 * 0.9 / np.sqrt(5000))
    assert fit.law.sigma == pytest.approx(0.9, rel=6 / np.sqrt(2 * 5000))


def test_the_unbounded_bucket_is_censored() -> None:
    """A tenth beyond the last bound: the family continues, where cutting it off would halve the mean."""
    law = st.lengths.LogNormal(300, 1.5)
    few = np.array([10, 30, 100, 300, 600, np.inf])
    counts = 10_000 * _probabilities(law, few)
    fit = st.fit_length(few, counts, families=["lognormal"])
    assert fit.beyond == pytest.approx(counts[-1] / 10_000)
    assert fit.mean_tokens == pytest.approx(law.mean, rel=0.01)
    assert any("beyond the last bound" in text for text in fit.warnings)


def test_a_truncated_law_is_fitted_as_one() -> None:
    law = st.lengths.LogNormal(3000, 2.0, limit=8192)
    fit = st.fit_length(BOUNDS, expected(law, 50_000), families=["lognormal"], limit_tokens=8192)
    assert fit.law.max_tokens == 8192
    assert fit.mean_tokens == pytest.approx(law.mean, rel=0.02)


@pytest.mark.parametrize(
    ("bounds", "counts", "limit"),
    [
        ([64, 256, 512, 1024], [20, 30, 50, 400], 1024),
        ([64, 256, 512, 1024, 2048, 4096], [2, 2, 2, 2, 2, 20], 4096),
        ([64, 256, np.inf], [10, 1, 400], 4096),
    ],
)
def test_lengths_piled_up_at_the_limit_stay_below_it(bounds: list[float], counts: list[float], limit: int) -> None:
    """Most requests in the last bucket: the likeliest lognormal has its mean far beyond the limit before truncation."""
    fit = st.fit_length(bounds, counts, limit_tokens=limit)
    assert fit.law.max_tokens <= limit
    assert fit.distance < 0.01
    with pytest.raises(st.InputError, match="Add 'piecewise'"):
        st.fit_length(bounds, counts, families=["lognormal"], limit_tokens=limit)


@pytest.mark.parametrize(
    ("bounds", "counts"),
    [([11, 15, 122, 220, 3039, 3729, 10254, np.inf], [0, 0, 1, 0, 1, 0, 0, 0]), ([10, 20, np.inf], [5, 1, 500])],
)
def test_tails_without_end_leave_the_piecewise_law(bounds: list[float], counts: list[float]) -> None:
    fit = st.fit_length(bounds, counts)
    assert np.isfinite(fit.mean_tokens)
    assert fit.law.max_tokens <= 2 * bounds[-2]


def test_a_family_that_does_not_fit_gives_way_and_is_rejected() -> None:
    counts = np.array([0, 0, 0, 0, 0, 4000, 0, 0, 0, 0, 6000, 0, 0, 0, 0, 0.0])
    assert st.fit_length(BOUNDS, counts).family == "piecewise"
    uniform = expected(st.lengths.Uniform(10, 1600), 50_000)
    assert st.fit_length(BOUNDS, uniform).family == "piecewise"
    forced = st.fit_length(BOUNDS, uniform, families=["gamma"])
    assert any("rejected" in text for text in forced.warnings)


@pytest.mark.parametrize("law", [st.lengths.Uniform(10, 1600), st.lengths.Constant(700), st.lengths.Geometric(300)])
def test_the_piecewise_law_meets_a_measured_mean(law: st.lengths.Length) -> None:
    counts = expected(law, 10_000)
    fit = st.fit_length(BOUNDS, counts, families=["piecewise"], total_tokens=10_000 * law.mean)
    assert fit.mean_tokens == pytest.approx(law.mean, rel=2e-3)
    assert fit.distance < 5e-3
    assert fit.warnings == ()


def test_a_mean_out_of_reach_is_said() -> None:
    fit = st.fit_length([1000, 2000], [100, 100], total_tokens=10_000)
    assert any("the measured one 50" in text for text in fit.warnings)


@pytest.mark.parametrize(
    ("bounds", "counts", "part"),
    [
        ([10, 5], [1, 2], "increase"),
        ([10, 20], [0, 0], "not all 0"),
        ([10, 20], [1, -1], ">= 0"),
        ([10], [1, 2], "must be as many"),
    ],
)
def test_bad_histograms_are_refused(bounds: list[float], counts: list[float], part: str) -> None:
    with pytest.raises(st.InputError, match=part):
        st.fit_length(bounds, counts)


def test_a_trace_gives_moments_and_rank_correlation() -> None:
    law = st.lengths.GaussianCopula(st.lengths.LogNormal(600, 1.0), st.lengths.Gamma(250, 0.8), 0.5)
    prompt, output = law.sample(5000, np.random.default_rng(5))
    fit = st.fit_lengths(prompt, output)
    assert fit.prompt.mean_tokens == pytest.approx(prompt.mean(), rel=0.03)
    assert fit.output.std_tokens == pytest.approx(output.std(), rel=0.06)
    assert fit.spearman == pytest.approx(0.5, abs=6 * np.sqrt(1 / 5000))
    assert fit.lengths.correlation > 0.2
    pasted = "".join(f"  {line}\n" for line in fit.plan_snippet().splitlines())
    plan = plan_from_text(PLAN + pasted + FLEET)
    assert plan.workload.classes[0].lengths.prompt_mean_tokens == pytest.approx(fit.prompt.mean_tokens, rel=1e-3)
    answer = json.loads(json.dumps(fit.to_dict(), allow_nan=False))
    assert answer["schema"] == "stability/lengths-fit/1"
    assert "rank correlation" in fit.summary()
    assert "tokens" in fit.plot().get_xlabel()
    assert "<table>" in fit._repr_html_()
    assert "<table>" in fit.prompt._repr_html_()


def test_piecewise_snippets_are_plans() -> None:
    fit = st.fit_length(BOUNDS, np.arange(16), families=["piecewise"])
    pasted = f"  lengths: {{prompt: {fit.plan_snippet()}, output: 10}}\n"
    plan = plan_from_text(PLAN + pasted + FLEET)
    assert plan.workload.classes[0].lengths.prompt_mean_tokens == pytest.approx(fit.mean_tokens, rel=1e-3)


def test_constant_lengths() -> None:
    fit = st.fit_lengths(np.full(50, 100), np.full(50, 20))
    assert fit.prompt.family == "piecewise"
    assert fit.prompt.mean_tokens == pytest.approx(100, abs=60)
    assert fit.spearman == 0
