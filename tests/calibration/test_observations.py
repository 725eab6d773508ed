"""Columns of steps and of benchmark points, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

import stability as st


def columns(**changed: object) -> dict[str, object]:
    return {"prefill_tokens": [0, 10], "decode_tokens": [1, 2], "kv_tokens": [5, 6], "time_s": [0.1, 0.2], **changed}


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"time_s": [0.1, 0.0]}, r"time_s\[1\] = 0, must be finite and > 0"),
        ({"kv_tokens": [5, np.nan]}, r"kv_tokens\[1\] = nan, must be finite and >= 0"),
        ({"decode_tokens": [1, 2, 3]}, r"decode_tokens has shape \(3,\), must be \(2,\)"),
        ({"time_s": [0.1, 1e200]}, r"time_s\[1\] = 1e\+200, must be finite and > 0, from 1e-12 to 1e12 s"),
        ({"kv_tokens": [5, 1e200]}, r"kv_tokens\[1\] = 1e\+200, must be finite and >= 0, at most 1e\+18"),
        ({"weights": [0, 0]}, "weights are all 0, must be > 0 somewhere"),
        ({"mixed_share": [0, 2]}, r"mixed_share\[1\] = 2, must be finite and between 0 and 1"),
        ({"mixed_share": [0, 0]}, r"mixed_share\[1\] = 0 with prompt tokens"),
    ],
)
def test_bad_columns_are_refused_in_one_sentence(changed: dict[str, object], part: str) -> None:
    with pytest.raises(st.InputError, match=part):
        st.StepObservations(**columns(**changed))  # type: ignore[arg-type]


def test_defaults() -> None:
    rows = st.StepObservations(**columns())  # type: ignore[arg-type]
    assert rows.mixed_share.tolist() == [0, 1]
    assert rows.prefill_context.tolist() == [0, 50]
    assert rows.is_single_steps
    assert len(rows.only(rows.prefill_tokens > 0)) == 1
    with pytest.raises(ValueError, match="read-only"):
        rows.time_s[0] = 1


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("output_tokens", [1], r"output_tokens\[0\] = 1, must be finite and >= 2"),
        ("in_flight", [0], r"in_flight\[0\] = 0, must be finite and >= 1"),
        ("ttft_s", [0.1, 0.2], r"ttft_s has shape \(2,\)"),
    ],
)
def test_bad_points_are_refused(name: str, value: list[float], part: str) -> None:
    good = {"in_flight": [4], "prompt_tokens": [10], "output_tokens": [20], "tpot_s": [0.01]}
    with pytest.raises(st.InputError, match=part):
        st.BenchmarkPoints(**{**good, name: value})
