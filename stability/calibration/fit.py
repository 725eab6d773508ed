"""`fit_law`: the step-time law of measured engine steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import BoolArray, FloatArray, read_only
from ..errors import InputError, check_choice, check_number
from .criterion import MARGIN, information_criterion
from .diagnose import warnings_of
from .forms import FORMS, Form, forms
from .law_fit import Coefficient, LawFit
from .observations import StepObservations
from .robust import Estimate, collinear, estimate, point_estimate

CHOICES = ("auto", *FORMS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Candidate:
    """A form with its design's columns that hold anything, and what it makes of the data."""

    form: Form
    used: BoolArray
    design: FloatArray
    bic: float


def fit_law(observations: StepObservations, *, form: str = "auto", robust: bool = True, level: float = 0.95) -> LawFit:
    """The step-time law that measured steps, or averages of steps, follow.

    Non-negative least squares of relative errors with Huber's loss, one coefficient per term; decode-only and mixed steps
    get laws of their own, or the batch a bend, where the Bayesian information criterion calls for it.

    Parameters
    ----------
    observations : StepObservations
        Compositions and times, s.
    form : {"auto", "affine_tied", "affine", "two_phase_tied", "two_phase", "hinge", "staircase"}
        Form of the law; "auto" chooses by BIC, the fewest coefficients within 10 of the least.
    robust : bool
        Huber's loss, which rare stalls do not move; False: squares.
    level : float in (0, 1)
        Confidence level of the intervals.

    Returns
    -------
    LawFit
        The law, coefficients with intervals, errors, warnings; `plan_snippet()` for a plan.

    Raises
    ------
    InputError
        If there are too few rows, or terms that the rows cannot tell apart.

    Notes
    -----
    See `stability.calibration.robust` for the estimate and its intervals, `forms` for the forms, `criterion` for the choice.
    A term that no row holds (prompt tokens, where every step was decode-only) gets the coefficient 0 and a warning.

    Examples
    --------
    >>> import numpy as np, stability as st
    >>> p, d = np.tile([0, 0, 64, 512], 25), np.arange(100) % 32 + 1
    >>> k = d * (100 + np.arange(100) % 7 * 50)
    >>> law = st.IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=2e-5, per_kv_token_s=1e-7)
    >>> steps = StepObservations(prefill_tokens=p, decode_tokens=d, kv_tokens=k, time_s=law.time_s(p, d, k))
    >>> fit = fit_law(steps)
    >>> fit.form, round(fit.law.base_s, 6), round(fit.law.per_kv_token_s * 1e7, 6)
    ('affine', 0.01, 1.0)
    """
    check_choice("form", form, CHOICES)
    check_number("level", level, above=0, below=1)
    reasons: list[str] = []
    best: dict[str, _Candidate] = {}
    simplest = True
    for name in FORMS if form == "auto" else (form,):
        tried = [_try(item, observations, robust, reasons) for item in forms(name, observations)]
        fitted = [candidate for candidate in tried if candidate is not None]
        simplest, first = simplest and not tried, simplest and bool(tried)
        if form == "auto" and first and not fitted:
            raise InputError(reasons[-1])  # what a plane cannot tell apart, a bend only seems to
        if fitted:
            best[name] = min(fitted, key=lambda candidate: candidate.bic)
    if not best:
        raise InputError(reasons[0] if reasons else _unseen(form))
    least = min(candidate.bic for candidate in best.values())
    chosen = min(
        (candidate for candidate in best.values() if candidate.bic <= least + MARGIN),
        key=lambda candidate: (candidate.form.parameters, candidate.bic),
    )
    strata = observations.mixed_share == 0
    try:
        found = estimate(chosen.design, observations.time_s, observations.weights, strata, robust=robust)
    except np.linalg.LinAlgError:
        time_s = observations.time_s
        raise InputError(
            f"times from {time_s.min():.3g} to {time_s.max():.3g} s leave no law by which to compare rows, must be of steps of "
            "one engine. Correct units or drop rows."
        ) from None
    information = {name: candidate.bic - least for name, candidate in best.items()}
    return _result(observations, chosen, found, level, information, reasons if form == "auto" else [])


def _try(form: Form, steps: StepObservations, robust: bool, reasons: list[str]) -> _Candidate | None:
    """The form fitted, or None with a reason added."""
    design = form.design(steps)
    used = np.asarray(design.any(axis=0))
    design = design[:, used]
    names = [f"{name}" if phase == "all" else f"{phase}.{name}" for phase, name in np.array(form.terms)[used].tolist()]
    if len(steps) < len(names) + 2:
        reasons.append(
            f"{len(steps)} rows for the {len(names)} coefficients of form {form.name!r}, must be at least {len(names) + 2}. "
            "Measure more steps, or ask for a simpler form."
        )
        return None
    same = collinear(design, steps.time_s)
    if same:
        reasons.append(
            f"the rows cannot tell {', '.join(names[i] for i in same)} apart (form {form.name!r}): they move in "
            "proportion, must vary apart. Vary batch, context and prompt lengths, or ask for a simpler form."
        )
        return None
    coefficients = point_estimate(design, steps.time_s, steps.weights, robust=robust)
    whole = np.zeros(len(used))
    whole[used] = coefficients
    try:
        form.law(whole.tolist())
    except InputError as error:  # a phase that takes no time, a step that costs nothing
        reasons.append(f"form {form.name!r} comes out as no law: {error}")
        return None
    free = int((coefficients > 0).sum()) + (form.bend_tokens is not None)
    bic = information_criterion(steps, design @ coefficients, free)
    return _Candidate(form=form, used=used, design=design, bic=bic)


def _unseen(form: str) -> str:
    if form == "affine_tied":
        return f"form {form!r} of steps without prompt or without decode tokens, must see both. Ask for 'affine'."
    if form.startswith("two_phase"):
        return f"form {form!r} of steps of one kind only, must see decode-only and mixed ones. Ask for 'affine'."
    return (
        f"form {form!r} of averages or of batches of one size, must see single steps of many sizes. Ask for 'affine'."
    )


def _result(
    steps: StepObservations,
    chosen: _Candidate,
    found: Estimate,
    level: float,
    information: dict[str, float],
    reasons: list[str],
) -> LawFit:
    from scipy.special import stdtrit

    half = float(stdtrit(found.degrees, (1 + level) / 2)) * np.sqrt(np.diag(found.covariance))
    # Where others are held at 0, the value may lie outside the signed estimate's interval, which is then widened to it.
    low = np.minimum(np.maximum(found.signed - half, 0.0), found.coefficients)
    high = np.maximum(np.maximum(found.signed + half, 0.0), found.coefficients)
    place = np.cumsum(chosen.used) - 1
    coefficients = tuple(
        Coefficient(phase=phase, name=name, value=float(found.coefficients[i]), low=float(low[i]), high=float(high[i]))
        if known
        else Coefficient(phase=phase, name=name, value=0.0, low=0.0, high=np.inf, identified=False)
        for (phase, name), known, i in zip(chosen.form.terms, chosen.used.tolist(), place.tolist(), strict=True)
    )
    time_s, fitted_s = steps.time_s, chosen.design @ found.coefficients
    error = np.abs(fitted_s / time_s - 1)
    batch = steps.prefill_tokens + steps.decode_tokens
    share = np.where(steps.mixed_share > 0, steps.mixed_share, 1.0)
    columns = {
        "prefill_tokens": steps.prefill_tokens / share,
        "decode_tokens": steps.decode_tokens,
        "kv_tokens": steps.kv_tokens,
        "batched_tokens": batch,
    }
    spread = float(np.sum((time_s - time_s.mean()) ** 2))
    fit = LawFit(
        law=chosen.form.law([item.value for item in coefficients]),
        form=chosen.form.name,
        bend_tokens=chosen.form.bend_tokens,
        coefficients=coefficients,
        level=level,
        observations=len(steps),
        r2=1 - float(np.sum((time_s - fitted_s) ** 2)) / spread if spread > 0 else 1.0,
        mape=float(error.mean()),
        median_error=float(np.median(error)),
        worst_error=float(error.max()),
        worst_row=int(error.argmax()),
        outliers=float(found.outliers.mean()),
        time_ratio=float((steps.weights * fitted_s).sum() / (steps.weights * time_s).sum()),
        information=information,
        ranges={name: (float(column.min()), float(column.max())) for name, column in columns.items()},
        warnings=(),
        time_s=time_s,
        fitted_s=read_only(fitted_s),
        prefill_tokens=steps.prefill_tokens,
        signed=read_only(found.signed),
        covariance=read_only(found.covariance),
        degrees=found.degrees,
    )
    return warnings_of(fit, reasons)
