"""The `lengths` of a plan: a catalog name, a trace, two marginal laws, or a mixture."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from ...errors import InputError
from ...model import lengths as laws
from ..traces import Trace, read_trace
from .section import (
    NonNegative,
    Number,
    Positive,
    Section,
    Text,
    Tokens,
)
from .source import PlanSource

LIMIT = "the longest length, tokens; longer ones are cut off and the rest renormalised"


class DiscreteSection(Section):
    """Given lengths with given weights."""

    values: list[Tokens] = Field(description="the possible lengths, tokens")
    weights: list[NonNegative] | None = Field(default=None, description="one weight a value; equal if omitted")

    def build(self) -> laws.Length:
        """The law."""
        return laws.Discrete(self.values, self.weights)


class GeometricSection(Section):
    """Every token is the last with the same chance."""

    mean: Positive = Field(description="the mean length, tokens")
    max: Tokens | None = Field(default=None, description=LIMIT)

    def build(self) -> laws.Length:
        """The law."""
        return laws.Geometric(self.mean, limit=self.max)


class LogNormalSection(Section):
    """Mean and coefficient of variation, or median and sigma."""

    mean: Positive | None = Field(default=None, description="the mean length, tokens")
    cv: Positive | None = Field(default=None, description="standard deviation over mean")
    median: Positive | None = Field(default=None, description="the median length, tokens")
    sigma: Positive | None = Field(default=None, description="the standard deviation of the logarithm")
    max: Tokens | None = Field(default=None, description=LIMIT)

    def build(self) -> laws.Length:
        """The law."""
        if self.mean and self.cv and not (self.median or self.sigma):
            return laws.LogNormal(self.mean, self.cv, limit=self.max)
        if self.median and self.sigma and not (self.mean or self.cv):
            return laws.LogNormal.from_sigma(self.median, self.sigma, limit=self.max)
        raise InputError(
            f"a lognormal with the keys {', '.join(self.given()) or '(none)'}, must have mean and cv, or median and sigma. "
            "Give one of the pairs."
        )


class GammaSection(Section):
    """Mean and coefficient of variation."""

    mean: Positive = Field(description="the mean length, tokens")
    cv: Positive = Field(description="standard deviation over mean; 1 is exponential")
    max: Tokens | None = Field(default=None, description=LIMIT)

    def build(self) -> laws.Length:
        """The law."""
        return laws.Gamma(self.mean, self.cv, limit=self.max)


class WeibullSection(Section):
    """Mean and shape."""

    mean: Positive = Field(description="the mean length, tokens")
    shape: Positive = Field(description="the shape; below 1 the tail is heavier than exponential")
    max: Tokens | None = Field(default=None, description=LIMIT)

    def build(self) -> laws.Length:
        """The law."""
        return laws.Weibull(self.mean, self.shape, limit=self.max)


class ParetoSection(Section):
    """A truncated power law."""

    low: Positive = Field(description="the shortest length, tokens")
    tail_index: Positive = Field(description="the exponent of the tail")
    max: Tokens = Field(description=LIMIT)

    def build(self) -> laws.Length:
        """The law."""
        return laws.Pareto(self.low, self.tail_index, limit=self.max)


class QuantilesSection(Section):
    """Quantiles, linear in between."""

    probabilities: list[Number] = Field(description="increasing levels from 0 to 1")
    tokens: list[NonNegative] = Field(description="the length at each level, tokens")

    def build(self) -> laws.Length:
        """The law."""
        return laws.Quantiles(self.probabilities, self.tokens)


class MarginalSection(Section):
    """The law of prompt or of output lengths; a bare number is a constant."""

    bare: ClassVar[str] = "constant"
    one_of: ClassVar[tuple[str, ...]] = (
        "constant",
        "uniform",
        "discrete",
        "geometric",
        "lognormal",
        "gamma",
        "weibull",
        "pareto",
        "quantiles",
    )
    constant: Tokens | None = Field(default=None, description="the one length, tokens")
    uniform: tuple[Tokens, Tokens] | None = Field(
        default=None, description="the shortest and the longest length, [10, 1600]"
    )
    discrete: DiscreteSection | None = Field(default=None, description="values and weights")
    geometric: GeometricSection | None = Field(default=None, description="mean and max")
    lognormal: LogNormalSection | None = Field(default=None, description="mean, cv and max")
    gamma: GammaSection | None = Field(default=None, description="mean, cv and max")
    weibull: WeibullSection | None = Field(default=None, description="mean, shape and max")
    pareto: ParetoSection | None = Field(default=None, description="low, tail_index and max")
    quantiles: QuantilesSection | None = Field(default=None, description="probabilities and tokens")

    def build(self) -> laws.Length:
        """The law."""
        if self.constant is not None:
            return laws.Constant(self.constant)
        if self.uniform is not None:
            return laws.Uniform(*self.uniform)
        (family,) = self.given().values()
        law = family.build()
        assert isinstance(law, laws.Length)
        return law


class ComponentSection(Section):
    """One law of a mixture."""

    weight: NonNegative = Field(description="its share, up to a factor")
    lengths: LengthsSection = Field(description="its lengths")


class LengthsSection(Section):
    """Lengths of prompt and output; a bare text is a workload of the catalog."""

    bare: ClassVar[str] = "catalog"
    catalog: Text | None = Field(default=None, description="the name of a workload that `stability catalog` lists")
    trace: Text | None = Field(default=None, description="a trace file, relative to the plan")
    format: Text | None = Field(default=None, description="the format of the trace; told by its first line if omitted")
    prefix_hits: bool = Field(
        default=False, description="whether prompt tokens that the trace says are in the prefix cache are found there"
    )
    prompt: MarginalSection | None = Field(default=None, description="the law of prompt lengths")
    output: MarginalSection | None = Field(default=None, description="the law of output lengths")
    spearman: Number | None = Field(default=None, gt=-1, lt=1, description="the rank correlation of prompt and output")
    mixture: list[ComponentSection] | None = Field(default=None, min_length=1, description="laws with weights")

    def read_trace(self, source: PlanSource) -> Trace:
        """The trace it names."""
        self._check_keys()
        assert self.trace is not None
        trace = read_trace(source.folder / self.trace, format=self.format)
        source.notes.extend(f"{self.trace}: {note}" for note in trace.notes)
        return trace

    def build(self, source: PlanSource, rate_per_s: float | None) -> tuple[laws.Lengths, float | None]:
        """The joint law and the rate at which its requests come: `rate_per_s`, or a trace's own if that is None.

        Raises
        ------
        InputError
            If the keys do not go together, a name is unknown, a trace cannot be read, or a law makes no sense.
        """
        if self.trace is None:
            self._check_keys()
            return self._law(source), rate_per_s
        trace = self.read_trace(source)
        if rate_per_s is None and trace.rate_per_s is None:
            raise InputError(f"the requests of {self.trace} all come at once, must have a rate. Give rate_per_s.")
        lengths = trace.workload(prefix_hits=self.prefix_hits).lengths
        return lengths, trace.rate_per_s if rate_per_s is None else rate_per_s

    def _law(self, source: PlanSource) -> laws.Lengths:
        if self.catalog is not None:
            from ...model import catalog

            return catalog.lengths(self.catalog)
        if self.mixture is not None:
            parts = [item.lengths.build(source, 0.0)[0] for item in self.mixture]
            return laws.Mixture(parts, [item.weight for item in self.mixture])
        assert self.prompt is not None
        assert self.output is not None
        prompt, output = self.prompt.build(), self.output.build()
        if self.spearman is not None:
            return laws.GaussianCopula(prompt, output, self.spearman)
        return laws.Independent(prompt, output)

    def _check_keys(self) -> None:
        shapes = (("catalog",), ("trace", "format", "prefix_hits"), ("prompt", "output", "spearman"), ("mixture",))
        given = set(self.given()) - (set() if self.prefix_hits else {"prefix_hits"})
        fits = any(given and given <= set(shape) for shape in shapes)
        if (
            not fits
            or ("prompt" in given) != ("output" in given)
            or given in ({"format"}, {"spearman"}, {"prefix_hits"})
        ):
            raise InputError(
                f"the keys {', '.join(sorted(given)) or '(none)'}, must be a catalog name, {{trace: FILE}}, "
                "{prompt: ..., output: ...} or {mixture: [...]}. Choose one of them."
            )


ComponentSection.model_rebuild()  # it names a section below it
