"""What fitting a step-time law gives: the law, how well it is known, and how well it meets the measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._extras import needs
from .._result import Tabular, html_table, json_safe, percent, text_table
from .._types import ArrayLike, FloatArray
from ..errors import check_integer
from ..model.iteration import IterationLaw
from .forms import Form
from .snippet import iteration_snippet

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

_COLUMNS = ("time_s", "fitted_s", "prefill_tokens", "signed", "covariance")
"""Arrays that `to_dict` leaves out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One coefficient of a fitted law.

    Attributes
    ----------
    phase : str
        "all", or the steps it holds for: "decode" (decode-only) or "mixed".
    name : str
        As in the law; "per_token_s" where prompt and decode tokens were fitted as one.
    value : float
        s per unit.
    low, high : float
        Ends of its confidence interval; 0 and infinity where the data do not identify it.
    identified : bool
        Whether the data say anything of it.
    """

    phase: str
    name: str
    value: float
    low: float
    high: float
    identified: bool = True

    @property
    def label(self) -> str:
        """For tables."""
        return self.name if self.phase == "all" else f"{self.phase}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LawFit(Tabular):
    """A step-time law fitted to measured steps.

    Attributes
    ----------
    law : IterationLaw
        The law.
    form : str
        "affine", "two_phase" (decode-only and mixed steps apart), each also "_tied" (prompt and decode tokens cost
        alike), "hinge" or "staircase".
    bend_tokens : float or None
        Threshold of a hinge or tile of a staircase; intervals take it as given.
    coefficients : tuple of Coefficient
        With their intervals.
    level : float
        Confidence level of the intervals.
    observations : int
        Rows fitted.
    r2 : float
        Share of the variance of the times explained.
    mape, median_error, worst_error : float
        Mean, median and largest of abs(fitted/measured - 1).
    worst_row : int
        Row of the largest, counted from 0.
    outliers : float
        Share of the rows more than four robust standard deviations off.
    time_ratio : float
        Sum of fitted over sum of measured times: below 1 the law leaves out time that steps took now and then.
    information : mapping of str to float
        BIC of each form tried less the least of them.
    ranges : mapping of str to (float, float)
        Least and greatest P, D, K and P + D of the rows; beyond them the law extrapolates.
    warnings : tuple of str
        What the data do not identify, and other grounds for doubt.
    time_s, fitted_s, prefill_tokens : (n,) ndarray
        Measured and fitted times, s, and prompt tokens of the rows.
    signed : (p,) ndarray
        Identified coefficients without the constraint >= 0, s per unit.
    covariance : (p, p) ndarray
        Of `signed`.
    degrees : int
        Its degrees of freedom.

    Examples
    --------
    See :func:`stability.fit_law`.
    """

    schema: ClassVar[str] = "stability/law-fit/1"

    law: IterationLaw
    form: str
    bend_tokens: float | None
    coefficients: tuple[Coefficient, ...]
    level: float
    observations: int
    r2: float
    mape: float
    median_error: float
    worst_error: float
    worst_row: int
    outliers: float
    time_ratio: float
    information: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]]
    warnings: tuple[str, ...]
    time_s: FloatArray
    fitted_s: FloatArray
    prefill_tokens: FloatArray
    signed: FloatArray
    covariance: FloatArray
    degrees: int

    def __repr__(self) -> str:
        return f"LawFit({self.form}, {self.observations} rows, MAPE {percent(self.mape)}, R2 {self.r2:.4f})"

    def draws(self, count: int, *, rng: int | np.random.SeedSequence | np.random.Generator | None = 0) -> FloatArray:
        """`count` rows of coefficients as likely as the data leave them, drawn with `rng`, in s per unit.

        They come from the law of the signed estimate, Student's t about it, and are moved to the nearest ones >= 0 in the
        metric of its covariance, which is what the constrained fit of such data would give.
        """
        check_integer("count", count, at_least=1)
        from scipy.optimize import nnls

        generator = np.random.default_rng(rng)
        scale = np.sqrt(np.maximum(np.diag(self.covariance), 1e-40))
        root = np.linalg.cholesky(self.covariance / np.outer(scale, scale) + 1e-10 * np.eye(len(scale)))
        noise = generator.standard_normal((count, len(scale))) @ root.T
        noise *= np.sqrt(self.degrees / generator.chisquare(self.degrees, count))[:, None]
        inverse = np.linalg.inv(root)
        drawn = self.signed / scale + noise
        for row in np.flatnonzero((drawn < 0).any(axis=1)).tolist():
            drawn[row] = nnls(inverse, inverse @ drawn[row])[0]
        full = np.zeros((count, len(self.coefficients)))
        full[:, [item.identified for item in self.coefficients]] = drawn * scale
        return full

    def law_of(self, coefficients: ArrayLike) -> IterationLaw:
        """The law of the fit's form with other `coefficients` >= 0, in their order, s per unit."""
        form = Form(name=self.form, bend_tokens=self.bend_tokens)
        return form.law(np.asarray(coefficients, dtype=np.float64).tolist())

    def plan_snippet(self) -> str:
        """The law as YAML for a pool of a plan."""
        return iteration_snippet(self.law)

    def beyond(self, *, decode_tokens: float, prefill_tokens: float, kv_tokens: float) -> tuple[str, ...]:
        """Sentences on each of `decode_tokens`, `prefill_tokens` and `kv_tokens` of a step that no row came near (half as much again)."""
        asked = {"decode_tokens": decode_tokens, "prefill_tokens": prefill_tokens, "kv_tokens": kv_tokens}
        return tuple(
            f"the law extrapolates: {name} up to {value:.0f} in a step, measured up to {self.ranges[name][1]:.0f}"
            for name, value in asked.items()
            if value > 1.5 * self.ranges[name][1]
        )

    def coefficient_rows(self) -> list[tuple[str, ...]]:
        """The coefficients as (name, value, interval) for people."""
        return [
            (
                item.label,
                _si(item.value),
                f"{_si(item.low)} .. {_si(item.high)}" if item.identified else "not identified",
            )
            for item in self.coefficients
        ]

    @property
    def _header(self) -> tuple[str, ...]:
        return ("coefficient", "value", f"{100 * self.level:g} % interval")

    def rows(self) -> list[tuple[str, str]]:
        """The fit as (quantity, value) pairs for people."""
        bend = "" if self.bend_tokens is None else f", bend at {self.bend_tokens:g} tokens"
        others = ", ".join(f"{name} +{value:.1f}" for name, value in self.information.items() if name != self.form)
        return [
            ("form", self.form + bend),
            ("BIC of other forms", others or "- (none tried)"),
            ("rows", str(self.observations)),
            ("R2", f"{self.r2:.5f}"),
            (
                "error",
                f"mean {percent(self.mape)}, median {percent(self.median_error)}, worst {percent(self.worst_error)}",
            ),
            ("outliers", percent(self.outliers)),
            ("fitted over measured time", f"{self.time_ratio:.4f}"),
        ]

    def summary(self) -> str:
        """The fit as text tables, with warnings."""
        parts = [text_table(self.rows()), text_table(self.coefficient_rows(), self._header)]
        parts += ["\n".join(f"! {warning}" for warning in self.warnings)] if self.warnings else []
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        warnings = html_table([(warning,) for warning in self.warnings], caption="warnings") if self.warnings else ""
        return html_table(self.rows()) + html_table(self.coefficient_rows(), self._header) + warnings

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema; without the rows."""
        kept = {item.name: json_safe(getattr(self, item.name)) for item in fields(self) if item.name not in _COLUMNS}
        return {"schema": self.schema, **kept, "plan": self.plan_snippet()}

    def to_frame(self) -> pandas.DataFrame:
        """One row per coefficient; values in s per unit."""
        needs("pandas")
        import pandas

        return pandas.DataFrame([json_safe(item) for item in self.coefficients])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Relative residuals against the measured time, on `ax` (a new figure without it)."""
        from ..plots.calibration import plot_residuals

        return plot_residuals(self, ax)


def _si(value: float) -> str:
    """A coefficient for people, in ms, us or ns."""
    if not np.isfinite(value):
        return "inf"
    for factor, unit in ((1e3, "ms"), (1e6, "us"), (1e9, "ns"), (1e12, "ps")):
        if abs(value) * factor >= 0.1:
            return f"{value * factor:.4g} {unit}"
    return "0"
