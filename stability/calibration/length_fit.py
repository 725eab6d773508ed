"""What fitting length distributions gives: the law of one length, and of prompt and output together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from .._result import Tabular, html_table, json_safe, percent, text_table
from .._types import FloatArray
from ..model.lengths import GaussianCopula, Independent, Length, Lengths
from .snippet import length_snippet

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LengthFit(Tabular):
    """A length distribution fitted to bucket counts.

    Attributes
    ----------
    law : Length
        The law, tokens.
    family : str
        "lognormal", "gamma", "weibull" or "piecewise".
    requests : int
        Requests counted.
    mean_tokens, std_tokens : float
        Of the law.
    p_value : float or None
        Of the likelihood-ratio test of the buckets against the law; None for a piecewise law, which meets all of them.
    distance : float
        Largest difference of the distribution functions at the bounds (Kolmogorov's).
    information : mapping of str to float
        BIC of each family less the least of them.
    beyond : float
        Share of the requests beyond the last finite bound, whose lengths nobody saw.
    warnings : tuple of str
        Grounds for doubt.
    upper_bounds_tokens, counts : (n,) ndarray
        What was fitted.

    Examples
    --------
    See :func:`stability.fit_length`.
    """

    schema: ClassVar[str] = "stability/length-fit/1"

    law: Length
    family: str
    requests: int
    mean_tokens: float
    std_tokens: float
    p_value: float | None
    distance: float
    information: Mapping[str, float]
    beyond: float
    warnings: tuple[str, ...]
    upper_bounds_tokens: FloatArray
    counts: FloatArray

    def __repr__(self) -> str:
        return f"LengthFit({self.family}, mean {self.mean_tokens:.4g}, std {self.std_tokens:.4g} tokens)"

    def rows(self) -> list[tuple[str, str]]:
        """The fit as (quantity, value) pairs for people."""
        others = ", ".join(f"{name} +{value:.1f}" for name, value in self.information.items() if name != self.family)
        test = "- (meets every bucket)" if self.p_value is None else f"p = {self.p_value:.3g}"
        return [
            ("family", self.family),
            ("BIC of others", others or "-"),
            ("requests", str(self.requests)),
            ("mean, std", f"{self.mean_tokens:.4g}, {self.std_tokens:.4g} tokens"),
            ("test of the family", test),
            ("largest distance", percent(self.distance)),
            ("beyond the last bound", percent(self.beyond)),
        ]

    def summary(self) -> str:
        """The fit as a text table, with warnings."""
        return "\n\n".join([text_table(self.rows()), *(f"! {warning}" for warning in self.warnings)])

    def _repr_html_(self) -> str:
        warnings = html_table([(warning,) for warning in self.warnings], caption="warnings") if self.warnings else ""
        return html_table(self.rows()) + warnings

    def plan_snippet(self) -> str:
        """The law as a value of the plan keys `prompt` and `output`."""
        return length_snippet(self.law)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        kept = {item.name: json_safe(getattr(self, item.name)) for item in fields(self) if item.name != "law"}
        kept["upper_bounds_tokens"] = [b if math.isfinite(b) else "+Inf" for b in self.upper_bounds_tokens.tolist()]
        return {"schema": self.schema, **kept, "plan": self.plan_snippet()}

    def plot(self, ax: Axes | None = None) -> Axes:
        """Fitted and counted distribution functions, on `ax` (a new figure without it)."""
        from ..plots.calibration import plot_lengths

        return plot_lengths({self.family: self}, ax)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LengthsFit:
    """Prompt and output lengths fitted together.

    Attributes
    ----------
    prompt, output : LengthFit
        The marginal laws.
    spearman : float or None
        Rank correlation of prompt and output; None where only histograms are known, and independence is assumed.

    Examples
    --------
    See :func:`stability.fit_lengths`.
    """

    prompt: LengthFit
    output: LengthFit
    spearman: float | None

    SCHEMA: ClassVar[str] = "stability/lengths-fit/1"

    def __repr__(self) -> str:
        return f"LengthsFit(prompt={self.prompt!r}, output={self.output!r}, spearman={self.spearman})"

    @property
    def lengths(self) -> Lengths:
        """The joint law, for a workload."""
        if self.spearman is None or abs(self.spearman) < 1e-9:
            return Independent(self.prompt.law, self.output.law)
        return GaussianCopula(self.prompt.law, self.output.law, self.spearman)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of both, and what is not known of them together."""
        own = [
            *(f"prompt: {text}" for text in self.prompt.warnings),
            *(f"output: {text}" for text in self.output.warnings),
        ]
        if self.spearman is None:
            own.append(
                "histograms do not say how prompt and output go together: taken as independent; E[s o] drives KV memory, "
                "so give spearman where a trace tells it"
            )
        return tuple(own)

    def plan_snippet(self) -> str:
        """The lengths as YAML for a workload of a plan."""
        text = f"lengths:\n  prompt: {self.prompt.plan_snippet()}\n  output: {self.output.plan_snippet()}\n"
        return text if self.spearman is None else f"{text}  spearman: {self.spearman:.4f}\n"

    def summary(self) -> str:
        """Both fits as text tables, with warnings."""
        joint = "independent (assumed)" if self.spearman is None else f"{self.spearman:.4f}"
        parts = [
            f"prompt\n{text_table(self.prompt.rows())}",
            f"output\n{text_table(self.output.rows())}",
            f"rank correlation  {joint}",
            *(["\n".join(f"! {text}" for text in self.warnings)] if self.warnings else []),
        ]
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return html_table(self.prompt.rows(), caption="prompt") + html_table(self.output.rows(), caption="output")

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping, tagged with its schema."""
        return {
            "schema": self.SCHEMA,
            "prompt": self.prompt.to_dict(),
            "output": self.output.to_dict(),
            "spearman": self.spearman,
            "warnings": list(self.warnings),
            "plan": self.plan_snippet(),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Fitted and counted distribution functions of both, on `ax` (a new figure without it)."""
        from ..plots.calibration import plot_lengths

        return plot_lengths({"prompt": self.prompt, "output": self.output}, ax)
