"""`fit_law`: exact data, coverage of its intervals, outliers, forms by BIC, and what cannot be told apart."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

import stability as st
from stability.calibration import fit as fit_module
from stability.calibration.robust import collinear, estimate
from stability.io.plan import plan_from_text

from .steps import LAW, TWO, steps

TRUTH = np.array(LAW.coefficients)
PLAN = """schema: stability/plan/1
workload: {rate_per_s: 5, lengths: {prompt: 100, output: 50}}
fleet:
  - pool: chat
    kv_capacity_tokens: 100000
"""


def values(fit: st.LawFit) -> np.ndarray:
    return np.array([item.value for item in fit.coefficients])


@given(some.lists(some.floats(0.1, 10), min_size=5, max_size=5))
def test_exact_data_give_the_law_back(factors: list[float]) -> None:
    law = st.IterationTime(
        **dict(zip(("base_s", "per_prefill_token_s", "per_decode_token_s"), TRUTH[:3] * factors[:3], strict=True)),
        per_kv_token_s=TRUTH[3] * factors[3],
        per_prefill_context_s=TRUTH[4] * factors[4],
    )
    fit = st.fit_law(steps(law, 60, noise=0), form="affine")
    assert fit.law.coefficients == pytest.approx(law.coefficients, rel=1e-6)
    assert fit.mape < 1e-9
    assert fit.r2 == pytest.approx(1)


def test_intervals_cover_at_their_level_and_are_as_wide_as_the_estimates_scatter() -> None:
    # 200 seeds. P(Bin(200, 0.95) < 171) = 3e-7 for each of five coefficients; the sample sd is within 25 % (five of its own sd).
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
    truth = np.array(law.coefficients)
    fits = [st.fit_law(steps(law, 300, seed=seed), form="affine") for seed in range(200)]
    covered = np.array([[c.low <= t <= c.high for c, t in zip(fit.coefficients, truth, strict=True)] for fit in fits])
    assert (covered.sum(axis=0) >= 171).all()
    told = np.sqrt(np.mean([np.diag(fit.covariance) for fit in fits], axis=0))
    seen = np.std([fit.signed for fit in fits], axis=0)
    assert told == pytest.approx(seen, rel=0.25)
    # The mean of 200 estimates is the truth within six standard errors: relative residuals do not bias it.
    signed = np.mean([fit.signed for fit in fits], axis=0)
    assert (np.abs(signed - truth) < 6 * seen / np.sqrt(200)).all()


def test_dividing_by_the_measured_time_would_bias_the_fit() -> None:
    rows = steps(LAW, 20_000, noise=0.1)
    design = np.column_stack([np.ones(len(rows)), rows.prefill_tokens, rows.decode_tokens, rows.kv_tokens])
    design = np.column_stack([design, rows.prefill_context])
    naive = np.linalg.lstsq(design / rows.time_s[:, None], np.ones(len(rows)), rcond=None)[0]
    assert naive[0] / TRUTH[0] < 0.985  # by 2 % at 10 % noise
    assert values(st.fit_law(rows, form="affine"))[0] == pytest.approx(TRUTH[0], rel=0.005)


def test_stalls_do_not_move_the_law_and_are_reported() -> None:
    clean = steps(LAW, 1000)
    times = clean.time_s.copy()
    times[::50] *= 8
    stalled = clean.with_times(times)
    fit, squares = st.fit_law(stalled, form="affine"), st.fit_law(stalled, form="affine", robust=False)
    assert values(fit) == pytest.approx(values(st.fit_law(clean, form="affine")), rel=0.05)
    assert fit.outliers == pytest.approx(0.02, abs=0.005)
    assert fit.time_ratio < 0.95
    assert any("leaves out" in text for text in fit.warnings)
    assert squares.law.base_s > 1.05 * fit.law.base_s  # the mean of 2 % eightfold steps is 14 % above
    assert squares.time_ratio == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("law", "form"),
    [
        (LAW, "affine"),
        (
            st.IterationTime(base_s=0.01, per_prefill_token_s=5e-5, per_decode_token_s=5e-5, per_kv_token_s=8e-8),
            "affine_tied",
        ),
        (TWO, "two_phase"),
        (st.iteration.Hinge(base_s=0.02, per_token_s=1e-4, threshold_tokens=256, per_kv_token_s=8e-8), "hinge"),
        (st.iteration.Staircase(base_s=0.005, per_step_s=0.01, step_tokens=128, per_kv_token_s=8e-8), "staircase"),
    ],
)
def test_the_form_is_the_one_the_data_follow(law: st.iteration.IterationLaw, form: str) -> None:
    fit = st.fit_law(steps(law, 600, noise=0.02))
    assert fit.form == form
    assert fit.information[form] <= 10
    assert fit.median_error < 0.02
    if form == "staircase":
        assert fit.bend_tokens == 128


def test_few_rows_of_a_kind_weigh_as_much_as_many_of_the_other() -> None:
    """Mixed steps with a bend, and 2 % decode-only steps that read KV three times as fast: the bend must not decide."""
    bent = st.iteration.Hinge(base_s=0.02, per_token_s=8e-5, threshold_tokens=700, per_kv_token_s=3e-7)
    plain = st.IterationTime(base_s=0.02, per_decode_token_s=4e-5, per_kv_token_s=1e-7)
    rows = steps(bent, 2000, noise=0.02, mixed=0.98)
    only = rows.prefill_tokens == 0
    times = np.where(only, plain.time_s(0, rows.decode_tokens, rows.kv_tokens), rows.time_s)
    fit = st.fit_law(rows.with_times(times))
    assert fit.form.startswith("two_phase")
    assert np.median(np.abs(fit.fitted_s / fit.time_s - 1)[only]) < 0.01
    forced = st.fit_law(rows.with_times(times), form="hinge")
    assert any("decode-only rows come out" in text and "too long" in text for text in forced.warnings)


def test_a_coefficient_at_zero_keeps_an_honest_interval() -> None:
    law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=8e-8)
    zeros = [st.fit_law(steps(law, 300, seed=seed), form="affine").coefficients[4] for seed in range(60)]
    at_zero = [item for item in zeros if item.value == 0]
    assert 15 < len(at_zero) < 45  # about half
    assert any(item.high > 0 for item in at_zero)
    assert all(item.low == 0 for item in at_zero)


def test_columns_in_proportion_are_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    d = rng.integers(1, 100, 200)
    rows = st.StepObservations(prefill_tokens=np.zeros(200), decode_tokens=d, kv_tokens=500 * d, time_s=0.01 + 1e-5 * d)
    with pytest.raises(st.InputError, match=r"cannot tell per_decode_token_s, per_kv_token_s apart.*must vary apart"):
        st.fit_law(rows, form="affine")
    with pytest.raises(st.InputError, match=r"cannot tell .* apart"):
        st.fit_law(rows)


def test_prompt_and_decode_tokens_in_proportion_are_fitted_as_one() -> None:
    rows = steps(LAW, 200, mixed=1)
    tied = st.StepObservations(
        prefill_tokens=3 * rows.decode_tokens,
        decode_tokens=rows.decode_tokens,
        kv_tokens=rows.kv_tokens,
        time_s=LAW.time_s(3 * rows.decode_tokens, rows.decode_tokens, rows.kv_tokens),
    )
    fit = st.fit_law(tied)
    assert fit.form == "affine_tied"
    assert any("not tried" in text and "per_prefill_token_s" in text for text in fit.warnings)


@pytest.mark.parametrize(("unseen", "kind"), [("per_prefill_token_s", "prompt"), ("per_decode_token_s", "decode")])
def test_a_kind_of_token_that_no_row_holds_is_not_priced_like_the_other(unseen: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 128, 300)
    context = tokens * rng.integers(100, 2000, 300) * (kind == "prompt")
    p, d = (0 * tokens, tokens) if kind == "prompt" else (tokens, 0 * tokens)
    time_s = (8e-3 + 2e-5 * tokens + 4e-8 * context) * np.exp(0.02 * rng.standard_normal(300))
    rows = st.StepObservations(prefill_tokens=p, decode_tokens=d, kv_tokens=context, time_s=time_s)
    fit = st.fit_law(rows)
    assert fit.form == "affine"
    assert {item.name: item.identified for item in fit.coefficients}[unseen] is False
    assert any(f"{unseen} is not identified" in text for text in fit.warnings)
    with pytest.raises(st.InputError, match=r"'affine_tied' of steps without prompt or .*Ask for 'affine'"):
        st.fit_law(rows, form="affine_tied")
    bent = rows.with_times(0.02 + 1e-4 * np.maximum(0, tokens - 64) + 4e-8 * context)
    assert any(f"no row holds {kind} tokens: per_token_s" in text for text in st.fit_law(bent, form="hinge").warnings)


def test_mixed_steps_without_decodes_leave_them_unpriced() -> None:
    rows = steps(TWO, 400, noise=0.01)
    decodes = np.where(rows.prefill_tokens > 0, 0, rows.decode_tokens)
    apart = st.StepObservations(
        prefill_tokens=rows.prefill_tokens,
        decode_tokens=decodes,
        kv_tokens=np.where(decodes > 0, rows.kv_tokens, 0),
        time_s=rows.time_s,
    )
    with pytest.raises(st.InputError, match="two_phase_tied"):
        st.fit_law(apart, form="two_phase_tied")
    fit = st.fit_law(apart, form="two_phase")
    assert any("mixed.per_decode_token_s is not identified" in text for text in fit.warnings)


def test_nearly_the_same_context_is_flagged() -> None:
    rng = np.random.default_rng(1)
    d = rng.integers(1, 100, 400)
    k = d * rng.integers(995, 1006, 400)
    times = LAW.time_s(0, d, k) * (1 + 0.02 * rng.standard_normal(400))
    fit = st.fit_law(
        st.StepObservations(prefill_tokens=np.zeros(400), decode_tokens=d, kv_tokens=k, time_s=times), form="affine"
    )
    text = " ".join(fit.warnings)
    assert "hardly told apart" in text
    assert "per_prefill_token_s is not identified" in text
    assert not fit.coefficients[1].identified
    assert fit.coefficients[1].high == np.inf


def test_what_the_data_want_below_zero_is_said() -> None:
    rows = steps(st.IterationTime(base_s=0.02, per_decode_token_s=1e-4), 400, noise=0.005)
    fit = st.fit_law(rows.with_times(rows.time_s - 1e-8 * rows.kv_tokens), form="affine")
    assert fit.coefficients[3].value == 0
    assert any("want per_kv_token_s below 0" in text for text in fit.warnings)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(st.InputError, match=r"4 rows for the .* coefficients .*must be at least"):
        st.fit_law(steps(LAW, 4))
    with pytest.raises(st.InputError, match="must see decode-only and mixed"):
        st.fit_law(steps(LAW, 50, mixed=0), form="two_phase")


@pytest.mark.parametrize("law", [LAW, TWO, st.iteration.Hinge(base_s=0.02, per_token_s=1e-4, threshold_tokens=256)])
def test_the_snippet_is_a_plan_with_the_law(law: st.iteration.IterationLaw) -> None:
    fit = st.fit_law(steps(law, 600, noise=0.01))
    indented = "".join(f"    {line}\n" for line in fit.plan_snippet().splitlines())
    pasted = plan_from_text(PLAN + indented).fleet.pools[0].replica.iteration
    args = ((0, 700), (30, 9), (20_000, 4000), (0, 700**2 / 2))
    assert pasted.time_s(*map(np.array, args)) == pytest.approx(fit.law.time_s(*map(np.array, args)), rel=1e-5)


def test_results_print_serialise_and_draw() -> None:
    import json

    fit = st.fit_law(steps(TWO, 400))
    assert "LawFit(two_phase" in repr(fit)
    assert "per_kv_token_s" in fit.summary()
    assert "<table>" in fit._repr_html_()
    answer = json.loads(json.dumps(fit.to_dict(), allow_nan=False))
    assert answer["schema"] == "stability/law-fit/1"
    assert "time_s" not in answer
    assert list(fit.to_frame().columns) == ["phase", "name", "value", "low", "high", "identified"]
    assert "measured step time" in fit.plot().get_xlabel()
    with pytest.raises(ValueError, match="read-only"):
        fit.fitted_s[0] = 1


def test_draws_scatter_as_the_covariance_and_stay_above_zero() -> None:
    fit = st.fit_law(steps(LAW, 300), form="affine")
    drawn = fit.draws(4000, rng=1)
    assert (drawn >= 0).all()
    inner = [0, 1, 2, 3]
    assert drawn[:, inner].std(axis=0) == pytest.approx(np.sqrt(np.diag(fit.covariance))[inner], rel=0.1)
    assert fit.law_of(values(fit)) == fit.law


def test_blocks_widen_intervals_of_dependent_rows() -> None:
    """Residuals that drift: independent rows would claim four times the certainty there is."""
    rng = np.random.default_rng(3)
    n = 4000
    drift = np.zeros(n)
    for i in range(1, n):
        drift[i] = 0.9 * drift[i - 1] + rng.standard_normal()
    design, time = np.ones((n, 1)), 1 + 0.01 * drift
    found = estimate(design, time, np.ones(n), np.zeros(n, dtype=bool), robust=False)
    naive = time.std() / np.sqrt(n)
    assert 2.5 < np.sqrt(found.covariance[0, 0]) / naive < 6  # sqrt((1 + .9)/(1 - .9)) = 4.4


def test_collinear_names_the_columns() -> None:
    x = np.arange(1.0, 11)
    assert collinear(np.column_stack([np.ones(10), x, 2 * x, x**2]), np.ones(10)) == [1, 2]
    assert collinear(np.column_stack([np.ones(10), x, x**2]), np.ones(10)) == []
    both = np.column_stack([np.ones(10), x, 2 * x, x**2, 3 + 1e-9 * x**3])  # two combinations, one of them exact
    assert collinear(both, np.ones(10)) == [0, 1, 2, 4]


def test_times_without_any_scale_are_one_sentence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        p, d, k = (np.floor(10 ** rng.uniform(0, most, 40)) for most in (8, 12, 17))
        rows = st.StepObservations(
            prefill_tokens=p,
            decode_tokens=d,
            kv_tokens=k,
            time_s=10 ** rng.uniform(-12, 12, 40),
            weights=rng.integers(0, 2, 40),
        )
        with suppress(st.InputError):
            st.fit_law(rows, form="affine")


def test_forms_are_named_simplest_first() -> None:
    counts = [len(fit_module.Form(name=name).terms) for name in fit_module.FORMS[:4]]
    assert all(a < b for a, b in pairwise(counts))
