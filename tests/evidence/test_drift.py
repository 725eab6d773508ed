"""The stability test: invariants, refusals, and paths whose verdict is plain."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability._result import Verdict
from stability.errors import InputError
from stability.evidence.drift import StabilityEvidence, StabilityTest, stability_test

Series = npt.NDArray[np.float64]


def walk(seed: int, samples: int, drift: float) -> Series:
    """A reflected random walk on the integers."""
    rng = np.random.default_rng(seed)
    free = np.cumsum(rng.poisson(1 + drift, samples) - rng.poisson(1.0, samples)).astype(np.float64)
    return free - np.minimum(np.minimum.accumulate(free), 0)


walks = st.builds(
    walk, seed=st.integers(0, 1000), samples=st.integers(150, 3000), drift=st.sampled_from((-0.3, -0.1, 0.0, 0.1, 0.3))
)


def same(one: StabilityEvidence, other: StabilityEvidence) -> None:
    assert one.verdict is other.verdict
    assert (one.samples, one.looks) == (other.samples, other.looks)
    np.testing.assert_allclose(
        [one.growth, one.height, one.spread], [other.growth, other.height, other.spread], rtol=1e-9
    )


@given(walks, st.sampled_from((2.0**-20, 8.0, 1e6)), st.sampled_from((0.0, 3.0, 1000.0)))
def test_unit_and_origin_do_not_matter(series: Series, factor: float, shift: float) -> None:
    same(stability_test(series), stability_test(factor * (series + shift)))


@given(walks, st.lists(st.integers(1, 400), min_size=1, max_size=8))
def test_pieces_give_what_the_whole_gives(series: Series, sizes: list[int]) -> None:
    test = StabilityTest()
    for piece in np.split(series, np.cumsum(sizes)):
        test.update(piece)
    same(test.evidence, stability_test(series))


@given(walks, st.integers(2, 5))
def test_correlated_samples_count_for_one(series: Series, times: int) -> None:
    slow = stability_test(np.repeat(series, times), correlation_samples=times)
    fast = stability_test(series)
    assert slow.verdict is fast.verdict
    assert slow.samples == times * fast.samples
    np.testing.assert_allclose([slow.growth, slow.height, slow.spread], [fast.growth, fast.height, fast.spread])


@given(walks)
def test_a_decision_stands(series: Series) -> None:
    test = StabilityTest()
    test.update(series)
    before = test.evidence
    test.update(walk(7, 2000, -0.3))
    if before.verdict is not Verdict.UNDETERMINED:
        assert test.evidence is before


@given(walks)
def test_one_series_counts_for_both(series: Series) -> None:
    same(stability_test(series), stability_test(series, series))


@given(walks, st.sampled_from((1e-6, 1e-3, 0.01, 0.1)))
def test_smaller_errors_never_decide_earlier(series: Series, level: float) -> None:
    strict, loose = stability_test(series, alpha=level, beta=level), stability_test(series, alpha=0.2, beta=0.2)
    if strict.verdict is not Verdict.UNDETERMINED:
        assert loose.verdict is not Verdict.UNDETERMINED
        assert loose.samples <= strict.samples


@pytest.mark.parametrize("value", [0.0, 5.0, 0.1])
def test_a_constant_series_is_undetermined(value: float) -> None:
    evidence = stability_test(np.full(5000, value))
    assert evidence.verdict is Verdict.UNDETERMINED
    assert "never varied" in evidence.reason


@pytest.mark.parametrize("samples", [0, 1, 255])
def test_a_short_series_is_undetermined(samples: int) -> None:
    evidence = stability_test(np.arange(samples))
    assert evidence.verdict is Verdict.UNDETERMINED
    assert evidence.reason.startswith(f"{samples} samples are too few")
    assert np.isnan(evidence.growth)


def test_plain_growth_is_unstable_at_the_first_look() -> None:
    evidence = stability_test(np.arange(256))
    assert evidence.verdict is Verdict.UNSTABLE
    assert evidence.growth_per_sample == pytest.approx(1.0)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
def test_a_stationary_level_far_from_empty_is_stable(correlation: float) -> None:
    noise = np.random.default_rng(3).normal(0, 1, 20_000)
    series = np.empty_like(noise)
    level = 0.0
    for k, step in enumerate(noise):
        series[k] = level = correlation * level + step
    assert stability_test(series + 1000).verdict is Verdict.STABLE


def test_long_runs_decide_on_white_noise() -> None:
    test = StabilityTest(alpha=1e-6, beta=1e-6)
    rng = np.random.default_rng(4)
    for _ in range(100):
        test.update(np.maximum(rng.normal(3, 1, 5000), 0))
    assert test.verdict is Verdict.STABLE


def test_a_backlog_that_drains_is_never_unstable() -> None:
    start = np.linspace(2000, 0, 2000)
    assert stability_test(start).verdict is not Verdict.UNSTABLE
    assert stability_test(np.concatenate([start, walk(1, 20_000, -0.3)])).verdict is Verdict.STABLE


def test_growth_like_the_root_of_time_is_undetermined() -> None:
    verdicts = [stability_test(walk(seed, 20_000, 0.0)).verdict for seed in range(20)]
    assert verdicts.count(Verdict.UNDETERMINED) >= 15


def test_filling_up_is_no_verdict_with_both_series() -> None:
    running = 1000 * (1 - np.exp(-np.arange(2000) / 800)) + np.random.default_rng(5).normal(0, 3, 2000)
    waiting = np.random.default_rng(6).poisson(0.5, 2000)
    assert stability_test(running).verdict is Verdict.UNSTABLE  # what one series cannot know
    assert stability_test(waiting).verdict is Verdict.STABLE
    assert stability_test(running + waiting, waiting).verdict is Verdict.UNDETERMINED


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 300])
def test_gaps_are_refused_by_place(value: float, place: int) -> None:
    series = walk(1, 400, 0.0)
    series[place] = value
    with pytest.raises(InputError, match=rf"backlog\[{place}\] = .*must be finite"):
        stability_test(series)
    with pytest.raises(InputError, match=rf"waiting\[{place}\]"):
        stability_test(walk(1, 400, 0.0), series)


def test_other_input_is_refused() -> None:
    with pytest.raises(InputError, match="2 dimensions"):
        stability_test(np.zeros((3, 3)))
    with pytest.raises(InputError, match="no numbers"):
        stability_test(["a", "b"])  # type: ignore[list-item]
    with pytest.raises(InputError, match="waiting has 2 samples, backlog 3"):
        stability_test([1, 2, 3], [1, 2])
    for level in (0, 0.3, float("nan")):
        with pytest.raises(InputError, match="alpha"):
            stability_test([1.0], alpha=level)
        with pytest.raises(InputError, match="beta"):
            stability_test([1.0], beta=level)
    with pytest.raises(InputError, match="correlation_samples"):
        stability_test([1.0], correlation_samples=0)
    test = StabilityTest()
    test.update([1.0], [1.0])
    with pytest.raises(InputError, match="all or none"):
        test.update([1.0])


def test_refused_samples_leave_the_test_as_it_was() -> None:
    series = walk(4, 1000, 0.1)
    test = StabilityTest()
    test.update(series[:150])
    with pytest.raises(InputError):
        test.update([1.0, float("nan")])
    test.update(series[150:])
    same(test.evidence, stability_test(series))


def test_result_shows_itself() -> None:
    evidence = stability_test(np.arange(256))
    assert repr(evidence) == "StabilityEvidence(UNSTABLE after 256 samples)"
    assert "false verdicts" in evidence.summary()
    assert evidence._repr_html_().startswith("<table>")
    found = json.loads(json.dumps(evidence.to_dict(), allow_nan=False))
    assert found["schema"] == "stability/evidence/1"
    assert found["verdict"] == "unstable"
    json.dumps(stability_test([1.0]).to_dict(), allow_nan=False)
    with pytest.raises(TypeError, match="no truth value"):
        bool(evidence)
