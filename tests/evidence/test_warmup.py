"""MSER-5: the formula, a known transient, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability.errors import InputError
from stability.evidence.warmup import mser5


def by_definition(values: list[float]) -> int:
    count = len(values) // 5
    means = np.array(values[: 5 * count]).reshape(count, 5).mean(axis=1)
    errors = [((means[d:] - means[d:].mean()) ** 2).sum() / (count - d) ** 2 for d in range(count // 2 + 1)]
    return 5 * int(np.argmin(errors))


@given(st.lists(st.integers(-50, 50), min_size=10, max_size=200))
def test_is_its_formula(values: list[int]) -> None:
    rng = np.random.default_rng(len(values))
    series = (np.array(values) + rng.normal(0, 1, len(values))).tolist()  # no ties
    assert mser5(series).samples == by_definition(series)


def test_finds_the_end_of_a_transient() -> None:
    rng = np.random.default_rng(4)
    series = 10 * np.exp(-np.arange(5000) / 100) + rng.normal(0, 1, 5000)
    found = mser5(series)
    assert 150 <= found.samples <= 800
    assert found.reliable
    assert found.mean == pytest.approx(0, abs=0.08)  # five standard errors


def test_a_growing_series_has_no_end_of_warm_up() -> None:
    found = mser5(np.arange(1000.0))
    assert not found.reliable
    assert found.samples == 500
    assert "run longer" in found.summary()


def test_constant_series_needs_none() -> None:
    assert mser5(np.full(100, 0.1)).samples == 0


@given(st.integers(0, 100), st.sampled_from((0.25, 64.0)), st.sampled_from((-8.0, 1024.0)))
def test_unit_and_origin_do_not_matter(seed: int, factor: float, shift: float) -> None:
    series = np.random.default_rng(seed).normal(0, 1, 200)
    assert mser5(factor * series + shift).samples == mser5(series).samples


def test_refusals_and_dictionary() -> None:
    with pytest.raises(InputError, match="9 entries, must have >= 10"):
        mser5(np.zeros(9))
    with pytest.raises(InputError, match=r"values\[3\] = nan"):
        mser5([0, 1, 2, np.nan, *range(10)])
    assert json.loads(json.dumps(mser5(np.arange(30.0)).to_dict()))["schema"] == "stability/warmup/1"
