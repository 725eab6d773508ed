"""Fitted objects as plan keys, to paste."""

from __future__ import annotations

from dataclasses import fields

from ..model.iteration import Hinge, IterationLaw, IterationTime, Staircase, TwoPhase
from ..model.lengths import Gamma, Length, LogNormal, Quantiles, Weibull

DIGITS = 6
"""Significant digits of a pasted number: far more than any fit has."""


def iteration_snippet(law: IterationLaw) -> str:
    """The `iteration` of a pool: YAML, one line a law."""
    if isinstance(law, TwoPhase):
        return f"iteration:\n  two_phase:\n    decode: {_keys(law.decode)}\n    mixed: {_keys(law.mixed)}\n"
    kind = "hinge" if isinstance(law, Hinge) else "staircase" if isinstance(law, Staircase) else "affine"
    return f"iteration:\n  {kind}: {_keys(law)}\n"


def length_snippet(law: Length) -> str:
    """The value of `prompt` or `output`: YAML in one line."""
    if isinstance(law, Quantiles):
        levels = ", ".join(f"{level:.9g}" for level in law.levels)
        return f"{{quantiles: {{probabilities: [{levels}], tokens: [{', '.join(number(t) for t in law.tokens)}]}}}}"
    assert isinstance(law, LogNormal | Gamma | Weibull)
    kind = {"LogNormal": "lognormal", "Gamma": "gamma", "Weibull": "weibull"}[type(law).__name__]
    shape = f"shape: {number(law.shape)}" if isinstance(law, Weibull) else f"cv: {number(law.cv)}"
    limit = "" if law.limit is None else f", max: {law.limit}"
    return f"{{{kind}: {{mean: {number(law.mean_tokens)}, {shape}{limit}}}}}"


def number(value: float) -> str:
    """A number of a plan."""
    return f"{value:.{DIGITS}g}"


def _keys(law: IterationLaw) -> str:
    assert isinstance(law, IterationTime | Hinge | Staircase)
    pairs = [(item.name, getattr(law, item.name)) for item in fields(law)]
    needed = ("base_s", "per_token_s", "threshold_tokens", "per_step_s", "step_tokens")
    return "{" + ", ".join(f"{name}: {number(value)}" for name, value in pairs if value or name in needed) + "}"
