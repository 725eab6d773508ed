"""What a fit leaves uncertain reaches the capacity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import stability as st

from .steps import LAW, TWO, steps

ENGINE = st.Engine(max_num_seqs=64, max_num_batched_tokens=2048, admission="reserve", block_size=1)
REPLICA = st.Replica(iteration=LAW, kv_capacity_tokens=10**6, engine=ENGINE)
FLEET = st.Fleet.of(REPLICA, name="chat")
LENGTHS = st.lengths.Independent(st.lengths.Uniform(100, 900), st.lengths.Uniform(50, 350))
WORKLOAD = st.Workload.poisson(5.0, LENGTHS)


def test_intervals_cover_the_capacity_under_the_true_law() -> None:
    # 100 seeds; P(Bin(100, 0.95) < 81) = 1e-7.
    truth = st.analyze(FLEET, WORKLOAD).capacity_per_s
    found = [
        st.fitted_capacity(FLEET, WORKLOAD, fit=st.fit_law(steps(LAW, 150, seed=seed), form="affine"))
        for seed in range(100)
    ]
    covered = sum(item.capacity_interval[0] <= truth <= item.capacity_interval[1] for item in found)
    assert covered >= 81
    widths = [np.diff(item.capacity_interval)[0] for item in found]
    scatter = np.std([item.capacity_per_s for item in found])
    assert np.mean(widths) == pytest.approx(2 * 1.99 * scatter, rel=0.35)  # the sd of 100 is within 35 % (five sd)


def test_exact_laws_leave_the_capacity_certain() -> None:
    found = st.fitted_capacity(FLEET, WORKLOAD, fit=st.fit_law(steps(LAW, 100, noise=0), form="affine"))
    low, high = found.capacity_interval
    assert low == pytest.approx(high, rel=1e-6)
    assert found.capacity_per_s == pytest.approx(st.analyze(FLEET, WORKLOAD).capacity_per_s, rel=1e-6)
    assert found.verdict is st.Verdict.STABLE


def test_verdicts_by_rate() -> None:
    fit = st.fit_law(steps(TWO, 200))
    capacity = st.fitted_capacity(FLEET, WORKLOAD, fit=fit).capacity_per_s
    for factor, verdict in ((0.5, "STABLE"), (1.0, "UNDETERMINED"), (1.5, "UNSTABLE")):
        found = st.fitted_capacity(FLEET, WORKLOAD.scaled(rate_per_s=factor * capacity), fit=fit)
        assert found.verdict is st.Verdict[verdict]
        assert found.to_dict()["schema"] == "stability/fitted-capacity/1"
        assert verdict in repr(found)
    with pytest.raises(TypeError):
        bool(found)


def test_a_finite_trace_widens_the_interval() -> None:
    fit = st.fit_law(steps(LAW, 400), form="affine")
    prompt, output = LENGTHS.sample(100, np.random.default_rng(1))
    few = st.Workload.poisson(5.0, st.lengths.Empirical(prompt, output))
    widths = [np.diff(st.fitted_capacity(FLEET, w, fit=fit).capacity_interval)[0] for w in (WORKLOAD, few)]
    assert widths[1] > 2 * widths[0]


def test_the_pool_must_be_named_among_several() -> None:
    fleet = st.Fleet([st.Pool("a", REPLICA, 1), st.Pool("b", REPLICA, 2)])
    fit = st.fit_law(steps(LAW, 100, noise=0), form="affine")
    with pytest.raises(st.InputError, match=r"pools a, b, the fitted one must be named"):
        st.fitted_capacity(fleet, WORKLOAD, fit=fit)
    with pytest.raises(st.InputError, match="unknown pool 'c'"):
        st.fitted_capacity(fleet, WORKLOAD, fit=fit, pool="c")
    assert st.fitted_capacity(fleet, WORKLOAD, fit=fit, pool="b").pool == "b"


def test_what_the_plan_asks_beyond_the_rows_is_said() -> None:
    fit = st.fit_law(steps(LAW, 100, noise=0), form="affine")
    wide = replace(REPLICA, engine=replace(ENGINE, max_num_batched_tokens=8192))
    found = st.fitted_capacity(st.Fleet.of(wide), WORKLOAD, fit=fit)
    assert any("extrapolates: prefill_tokens up to 8192" in text for text in found.warnings)
