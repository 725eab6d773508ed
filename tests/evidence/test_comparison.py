"""Simultaneous paired differences: hand numbers, joint coverage, refusals."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability.errors import InputError, UnknownNameError
from stability.evidence.comparison import ADJUSTMENTS, comparison
from stability.evidence.intervals import batch_means_interval


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_all_intervals_cover_together(adjustment: str) -> None:
    # 600 tables at 95 % or a little above: fewer than 541 right ones (90 %) have probability below 1e-6.
    rng = np.random.default_rng(6)
    right = apart = 0
    truth = {"a": 0.0, "b": 1.0, "c": 1.5, "d": 1.5}
    for _ in range(600):
        shared = rng.normal(0, 5, 12)  # common random numbers
        results = {name: mean + shared + rng.normal(0, 1, 12) for name, mean in truth.items()}
        table = comparison(results, adjustment=adjustment)
        gaps = [truth[pair.policy] - truth[pair.against] for pair in table.differences]
        right += all(gap in pair.interval for gap, pair in zip(gaps, table.differences, strict=True))
        apart += all(gap in batch_means_interval(results[p.policy] - results[p.against], batches=12)
                     for gap, p in zip(gaps, table.differences, strict=True))  # fmt: skip
    assert right > 540
    assert apart < 540  # unadjusted intervals do not


def test_levels_of_the_single_intervals() -> None:
    results = {"a": [1.0, 2.0], "b": [2.0, 5.0], "c": [0.0, 1.0]}
    assert [p.interval.level for p in comparison(results, level=0.94).differences] == pytest.approx([0.98] * 3)
    sidak = comparison(results, level=0.94, adjustment="sidak")
    assert sidak.differences[0].interval.level ** 3 == pytest.approx(0.94)
    assert sidak.differences[0].interval.half_width < comparison(results, level=0.94).differences[0].interval.half_width


def test_pairs() -> None:
    results = {"a": [1.0, 2.0], "b": [2.0, 5.0], "c": [0.0, 1.0]}
    every = comparison(results).differences
    assert [(p.policy, p.against, p.difference) for p in every] == [("b", "a", 2.0), ("c", "a", -1.0), ("c", "b", -3.0)]
    against = comparison(results, baseline="b").differences
    assert [(p.policy, p.against, p.difference) for p in against] == [("a", "b", -2.0), ("c", "b", -3.0)]
    assert against[1].interval.batches == 2


@given(st.integers(0, 500), st.sampled_from((0.5, 4.0)))
def test_common_noise_and_unit(seed: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    a, b, common = rng.normal(0, 1, (3, 8))
    plain = comparison({"a": a, "b": b}).differences[0]
    moved = comparison({"a": factor * (a + common), "b": factor * (b + common)}).differences[0]
    assert moved.difference == pytest.approx(factor * plain.difference, abs=1e-9)
    assert moved.interval.half_width == pytest.approx(factor * plain.interval.half_width)
    assert moved.distinct is plain.distinct


def test_tables_and_dictionary() -> None:
    table = comparison({"fcfs": [3.0, 4.0, 5.0], "srpt": [1.0, 2.1, 2.9]}, metric="TTFT mean (s)")
    assert "TTFT mean (s)" in table.summary()
    assert table.rows()[0][-1] == "yes"
    assert "srpt" in table._repr_html_()
    found = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert found["schema"] == "stability/comparison/1"
    assert found["means"]["fcfs"] == 4.0
    with pytest.raises(TypeError, match="no truth value"):
        bool(table)


def test_refusals() -> None:
    good = [1.0, 2.0]
    with pytest.raises(InputError, match="1 policies"):
        comparison({"a": good})
    with pytest.raises(InputError, match=r"\[2, 3\] replications"):
        comparison({"a": good, "b": [1.0, 2.0, 3.0]})
    with pytest.raises(InputError, match=r"results\['b'\]\[1\] = nan"):
        comparison({"a": good, "b": [1.0, np.nan]})
    with pytest.raises(InputError, match="1 entries, must have >= 2"):
        comparison({"a": [1.0], "b": [1.0]})
    with pytest.raises(UnknownNameError, match="Did you mean fcfs"):
        comparison({"fcfs": good, "b": good}, baseline="fcf")
    with pytest.raises(InputError, match="adjustment"):
        comparison({"a": good, "b": good}, adjustment="tukey")
    with pytest.raises(InputError, match="level"):
        comparison({"a": good, "b": good}, level=1.0)
