"""Measured error rates of the stability test on few runs; `validation/calibration.py` measures them on many."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import stability as st
from stability.evidence import critical
from validation.calibration import Row, bursts, limits, measure, mm1, replica, slope_says_unstable

RUNS = 150
MOST_BY_CHANCE = 11
"""Of 150 runs with error rate 1 % (nominal 0.5 %), more than 11 are wrong with probability 3e-7."""


@pytest.fixture(scope="module")
def rows() -> dict[tuple[float, int], Row]:
    system = mm1((1_000, 10_000))
    return {(load, row.samples): row for load in (0.8, 1.0, 1.2) for row in measure(system, load, RUNS, seed=5)}


def test_few_false_verdicts_at_any_length(rows: dict[tuple[float, int], Row]) -> None:
    for (load, _), row in rows.items():
        assert load < 1 or row.stable <= MOST_BY_CHANCE
        assert load > 1 or row.unstable <= MOST_BY_CHANCE


def test_clear_cases_are_decided(rows: dict[tuple[float, int], Row]) -> None:
    assert rows[0.8, 10_000].stable > 0.9 * RUNS
    assert rows[1.2, 10_000].unstable > 0.9 * RUNS


def test_usual_rules_err(rows: dict[tuple[float, int], Row]) -> None:
    assert rows[0.8, 1_000].slope_unstable > 0.2 * RUNS
    assert rows[1.0, 10_000].slope_unstable > 0.5 * RUNS
    assert RUNS - rows[1.2, 1_000].threshold_unstable <= 0.2 * RUNS < rows[1.0, 10_000].threshold_unstable


def test_on_the_simulator() -> None:
    engine = st.Engine(max_num_seqs=16, max_num_batched_tokens=8192)
    system = replica(
        "16 slots", engine, kv_capacity_tokens=1_000_000, longest_output=63, per_sample=0.5, lengths=(1_500,)
    )
    (below,), (above,) = measure(system, 0.7, 40, seed=3), measure(system, 1.2, 40, seed=3)
    assert below.unstable == above.stable == 0
    assert below.stable > 30
    assert above.unstable > 30


def test_bursts_need_their_length() -> None:
    told = bursts(50, lengths=(20_000,))
    untold = replace(told, correlation_samples=1)
    (good,), (bad,) = measure(told, 1.05, 60, seed=2), measure(untold, 1.05, 60, seed=2)
    assert good.stable <= 7  # more has probability below 1e-6 at the nominal 0.5 %
    assert bad.stable > good.stable


def test_slope_rule_is_least_squares() -> None:
    noise = np.random.default_rng(2).normal(0, 1, 2000)
    assert slope_says_unstable(noise + 0.001 * np.arange(2000))
    assert not slope_says_unstable(noise - 0.001 * np.arange(2000))
    assert not slope_says_unstable(np.tile([0.0, 1.0, 1.0, 0.0], 100))


def test_limits_are_the_quantiles() -> None:
    sure = np.asarray(critical.PROBABILITIES) >= 1e-3  # there 8 % is six standard errors or more of 60 000 paths
    for name, values in limits(60_000, seed=9).items():
        np.testing.assert_allclose(values[sure], np.asarray(getattr(critical, name))[sure], rtol=0.08, err_msg=name)


def test_limits_pass_through_the_table_and_go_on() -> None:
    for k, probability in enumerate(critical.PROBABILITIES):
        assert critical.growth_limit(probability) == pytest.approx(critical.GROWTH_LIMITS[k])
        assert critical.height_limit(probability) == pytest.approx(critical.HEIGHT_LIMITS[k])
        assert critical.spread_limit(probability) == pytest.approx(critical.SPREAD_LIMITS[k])
    levels = np.geomspace(0.1, 1e-12, 200)
    assert (np.diff([critical.growth_limit(p) for p in levels]) > 0).all()
    assert (np.diff([critical.height_limit(p) for p in levels]) < 0).all()
    assert (np.diff([critical.spread_limit(p) for p in levels]) < 0).all()


def test_ratios_by_hand() -> None:
    steps = np.array([1.0, 3.0, 1.0, 3.0])
    path = np.concatenate([[0.0], np.cumsum(steps)])
    assert critical.growth_ratio(path) == pytest.approx(2 * 2 / np.sqrt(4 / 3))
    assert critical.height_ratio(path) == pytest.approx((0 + 1 + 4 + 5 + 8) / 5 / np.sqrt(20))
    assert critical.spread_ratio(path) == pytest.approx(np.sqrt(106 / 5 - 3.6**2) / np.sqrt(20))
