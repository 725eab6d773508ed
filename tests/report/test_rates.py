"""Curves over the rate."""

from __future__ import annotations

import numpy as np
import pytest

import stability as st

from .test_page import LENGTHS, small


def test_curves_rise_up_to_the_capacity() -> None:
    fleet, workload = small("a"), st.Workload.poisson(5.0, LENGTHS)
    curve = st.rate_curve(fleet, workload, points=12)
    assert curve.rate_per_s[-1] == pytest.approx(0.995 * st.analyze(fleet, workload).capacity_per_s)
    for name in ("rate_per_s", "itl_s", "ttft_mean_s", "kv_occupancy", "running_mean"):
        assert (np.diff(getattr(curve, name)) > 0).all(), name
    assert (curve.ttft_p99_s >= curve.ttft_mean_s).all()
    assert not curve.itl_s.flags.writeable
    middle = st.latency(fleet, workload.scaled(rate_per_s=float(curve.rate_per_s[6])))
    assert curve.ttft_p99_s[6] == middle.ttft_p99_s
    assert curve.to_dict()["schema"] == "stability/rate-curve/1"
    assert list(curve.to_frame().columns)[:3] == ["rate_per_s", "load", "itl_s"]


def test_the_curve_does_not_depend_on_the_workloads_own_rate() -> None:
    slow, fast = (st.rate_curve(small("a"), st.Workload.poisson(r, LENGTHS), points=3) for r in (1.0, 30.0))
    assert slow.ttft_p99_s == pytest.approx(fast.ttft_p99_s, rel=1e-9)


def test_pictures_draw_on_given_axes() -> None:
    from matplotlib.figure import Figure

    from stability.plots.rates import capacity_line, kv_curve, latency_curve, lever_bars

    fleet, workload = small("a"), st.Workload.poisson(5.0, LENGTHS)
    curve = st.rate_curve(fleet, workload, points=4)
    axes = Figure().subplots(2, 2).flat
    assert latency_curve(curve, axes[0], targets=st.Targets(itl_s=0.02)) is axes[0]
    assert kv_curve(curve, axes[1]) is axes[1]
    assert capacity_line(curve.report, axes[2]) is axes[2]
    assert lever_bars(curve.report, st.levers(fleet, workload, curve.report), axes[3]) is axes[3]
    assert [text.get_text() for text in axes[0].texts] == ["target 20 ms", "5/s"]
    assert curve.plot().get_xlabel() == "requests/s"
