"""Predicted output lengths: what a scheduler may know of a request before and while it runs.

All but the oracle are honest: they look at the true length only through the error they model (`Interval`, `Bins`, `Noisy`: a
predictor of that accuracy), or not at all (`ClassMean`, `PromptMean`, `Survival`: what was seen of other requests). They are vectorised, draw
only from the generator they are given, one number a request, and predict the same however the requests come in blocks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray
from ..errors import InputError, check_choice, check_integer, check_number
from ..model.lengths import token_array
from ..model.workload import Workload

ENDS = ("lower", "upper")
"""Which end of an interval a scheduler is told."""

NOISES = ("uniform", "lognormal")
"""Laws of the error of `Noisy`."""


class Predictor(ABC):
    """A rule that predicts output lengths; immutable and hashable, so that policies that hold one are.

    Examples
    --------
    >>> import numpy as np
    >>> from stability import policies
    >>> policies.Oracle().predict(np.array([100]), np.array([7]), np.random.default_rng(1)).tolist()
    [7]
    """

    @abstractmethod
    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """Predicted output length of each request, tokens, at least 1.

        Parameters
        ----------
        prompt_tokens, output_tokens : (n,) array of int
            What the requests hold; an honest predictor looks at `output_tokens` only through the error it models.
        rng : Generator
            Its random numbers, one stream for the whole run.

        Returns
        -------
        (n,) array of int
            The predictions.
        """

    def predict_requests(
        self, prompt_tokens: IntArray, output_tokens: IntArray, request_class: IntArray, rng: np.random.Generator
    ) -> IntArray:
        """As `predict`, for predictors that look at the request's class, too: what the simulator calls.

        Parameters
        ----------
        prompt_tokens, output_tokens, request_class : (n,) array of int
            What the requests hold; classes are indices into the workload's.
        rng : Generator
            Its random numbers, one stream for the whole run.

        Returns
        -------
        (n,) array of int
            The predictions; those of `predict` unless overridden.
        """
        del request_class
        return self.predict(prompt_tokens, output_tokens, rng)


@dataclass(frozen=True, slots=True)
class Oracle(Predictor):
    """Exact lengths: what hindsight knows.

    Examples
    --------
    >>> import numpy as np
    >>> from stability import policies
    >>> policies.Oracle().predict(np.array([100]), np.array([7]), np.random.default_rng(1)).tolist()
    [7]
    """

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The output lengths: `prompt_tokens` and `rng` are not looked at, `output_tokens` returned as they are."""
        del prompt_tokens, rng
        return output_tokens


@dataclass(frozen=True, slots=True)
class Interval(Predictor):
    """One end of an interval around the true length: from `floor(low * o)` to `ceil(high * o)`, as in arXiv 2508.14544.

    Ends in proportion to the length keep its order: shortest first by them is shortest first by the truth.

    Parameters
    ----------
    low : float in [0, 1]
        Lower end over the length; the end itself is at least 1.
    high : float >= 1
        Upper end over the length.
    end : {"lower", "upper"}
        Which one is told: "upper" for `AMax`, "lower" for `AMin`.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import numpy as np
    >>> from stability import policies
    >>> policies.Interval(0.5, 1.5).predict(np.array([100]), np.array([7]), np.random.default_rng(1)).tolist()  # ceil(10.5)
    [11]
    """

    low: float
    high: float
    end: str = "upper"

    def __post_init__(self) -> None:
        check_number("low", self.low, at_least=0, at_most=1)
        check_number("high", self.high, at_least=1)
        check_choice("end", self.end, ENDS)

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The chosen end for each of `output_tokens`; `prompt_tokens` and `rng` are not looked at."""
        del prompt_tokens, rng
        if self.end == "lower":
            return _tokens(np.floor(self.low * output_tokens))
        return _tokens(np.ceil(self.high * output_tokens))


@dataclass(frozen=True, slots=True)
class Bins(Predictor):
    """The bin of the true length: 1..width, width+1..2 width, and so on; a classifier that is always right.

    Parameters
    ----------
    width : int >= 1
        Tokens per bin; 1 is the oracle.
    end : {"lower", "upper"}
        Which end of the bin is told: "upper" for `AMax`, "lower" for `AMin`.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import numpy as np
    >>> from stability import policies
    >>> policies.Bins(10).predict(np.array([1, 1]), np.array([7, 11]), np.random.default_rng(1)).tolist()
    [10, 20]
    """

    width: int
    end: str = "upper"

    def __post_init__(self) -> None:
        check_integer("width", self.width, at_least=1)
        check_choice("end", self.end, ENDS)

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The chosen end of the bin of each of `output_tokens`; `prompt_tokens` and `rng` are not looked at."""
        del prompt_tokens, rng
        first = (output_tokens - 1) // self.width * self.width + 1
        return np.asarray(first if self.end == "lower" else first + self.width - 1, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Noisy(Predictor):
    """The true length with an error: a predictor of known accuracy.

    Parameters
    ----------
    error : float >= 0
        "uniform": the prediction is uniform on (1 - error) o .. (1 + error) o, error <= 1. "lognormal": it is o times a
        lognormal factor of median 1, error the standard deviation of its logarithm.
    law : {"uniform", "lognormal"}
        Law of the error.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> import numpy as np
    >>> from stability import policies
    >>> guess = policies.Noisy(0.5).predict(np.array([1]), np.array([100]), np.random.default_rng(1))
    >>> bool(50 <= guess[0] <= 150)
    True
    """

    error: float
    law: str = "uniform"

    def __post_init__(self) -> None:
        check_choice("law", self.law, NOISES)
        check_number("error", self.error, at_least=0, at_most=1.0 if self.law == "uniform" else None)

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """Each of `output_tokens` times a factor drawn from `rng`; `prompt_tokens` are not looked at."""
        if self.law == "uniform":
            factor = 1 + self.error * (2 * rng.random(len(prompt_tokens)) - 1)
        else:
            factor = np.exp(self.error * rng.standard_normal(len(prompt_tokens)))
        return _tokens(np.rint(factor * output_tokens))


@dataclass(frozen=True, slots=True)
class ClassMean(Predictor):
    """The mean output of the request's class: no look at the request's own lengths.

    Parameters
    ----------
    means : sequence of float, >= 1
        Mean output of each request class of the workload, tokens, in its order.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> chat, code = np.zeros(2, dtype=int), np.ones(1, dtype=int)
    >>> told = ClassMean((200.0, 60.0)).predict_requests(
    ...     np.array([5, 5, 5]), np.array([9, 9, 9]), np.concatenate([chat, code]), np.random.default_rng(0)
    ... )
    >>> told.tolist()
    [200, 200, 60]
    """

    means: tuple[float, ...]

    def __post_init__(self) -> None:
        means = tuple(check_number(f"means[{k}]", mean, at_least=1) for k, mean in enumerate(tuple(self.means)))
        if not means:
            raise InputError("means is empty, must have one entry a request class. Give the mean output of each.")
        object.__setattr__(self, "means", means)

    @classmethod
    def learned(cls, workload: Workload) -> ClassMean:
        """The means of the workload's classes, as its distributions have them.

        Parameters
        ----------
        workload : Workload
            What the requests will be like.
        """
        return cls(means=tuple(float(item.lengths.output_mean_tokens) for item in workload.classes))

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The mean, for each of `prompt_tokens`, if there is one class; `output_tokens` and `rng` are not looked at."""
        if len(self.means) > 1:
            raise InputError(
                f"{self!r} has {len(self.means)} classes, must be told those of the requests. Call predict_requests."
            )
        return self.predict_requests(prompt_tokens, output_tokens, np.zeros(len(prompt_tokens), dtype=np.int64), rng)

    def predict_requests(
        self, prompt_tokens: IntArray, output_tokens: IntArray, request_class: IntArray, rng: np.random.Generator
    ) -> IntArray:
        """The mean of each of `request_class`; `prompt_tokens`, `output_tokens` and `rng` are not looked at."""
        del prompt_tokens, output_tokens, rng
        if len(request_class) and int(request_class.max()) >= len(self.means):
            raise InputError(
                f"{self!r} has {len(self.means)} means, must have one for each of {int(request_class.max()) + 1} request classes. "
                "Add the missing ones."
            )
        return _tokens(np.rint(np.array(self.means)[request_class]))


@dataclass(frozen=True, slots=True)
class PromptMean(Predictor):
    """The mean output of requests with prompts of about that length: no look at the request's own output.

    Parameters
    ----------
    means : sequence of float, >= 1
        Mean output of each bin of prompts, tokens.
    edges : sequence of int, increasing, one fewer
        The shortest prompt of each bin but the first. Without edges all requests are in one.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Prompts up to 100 tokens answer in 20 on average, longer ones in 200:

    >>> import numpy as np
    >>> from stability import policies
    >>> guess = policies.PromptMean(means=(20.0, 200.0), edges=(100,))
    >>> guess.predict(np.array([50, 500]), np.array([1, 1]), np.random.default_rng(1)).tolist()
    [20, 200]
    """

    means: tuple[float, ...]
    edges: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        means = tuple(check_number(f"means[{k}]", mean, at_least=1) for k, mean in enumerate(tuple(self.means)))
        edges = tuple(check_integer(f"edges[{k}]", edge, at_least=1) for k, edge in enumerate(tuple(self.edges)))
        if len(means) != len(edges) + 1 or any(a >= b for a, b in pairwise(edges)):
            raise InputError(
                f"{len(means)} means and edges {edges}, must have one edge fewer than means, increasing. "
                "An edge is where the next bin begins."
            )
        object.__setattr__(self, "means", means)
        object.__setattr__(self, "edges", edges)

    @classmethod
    def learned(cls, workload: Workload, *, bins: int = 8, requests: int = 100_000, seed: int = 0) -> PromptMean:
        """The means of `bins` equally frequent bins of prompts, from requests drawn from `workload`.

        Parameters
        ----------
        workload : Workload
            What the requests will be like.
        bins : int >= 1
            At most so many: equal prompts stay together.
        requests : int >= 1
            How many are looked at.
        seed : int
            Of the draw.
        """
        check_integer("bins", bins, at_least=1)
        count = check_integer("requests", requests, at_least=1)
        prompt, output = workload.lengths.sample(count, np.random.default_rng(seed))
        levels = np.quantile(prompt, np.arange(1, bins) / bins, method="higher")
        edges = np.unique(levels[levels > prompt.min()]).astype(np.int64)
        place = np.searchsorted(edges, prompt, side="right")
        means = np.bincount(place, weights=output) / np.bincount(place)
        return cls(means=tuple(means.tolist()), edges=tuple(edges.tolist()))

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The mean of the bin of each of `prompt_tokens`; `output_tokens` and `rng` are not looked at."""
        del output_tokens, rng
        place = np.searchsorted(np.array(self.edges, dtype=np.int64), prompt_tokens, side="right")
        return _tokens(np.rint(np.array(self.means)[place]))


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Survival(Predictor):
    """What the outputs of other requests say of one that has generated so many tokens: the conditional empirical law.

    Parameters
    ----------
    output_tokens : (n,) array_like of int, >= 1
        Output lengths seen.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Notes
    -----
    A request that outlives them all is predicted to end with its next token.

    Examples
    --------
    >>> seen = Survival([10, 20, 60])
    >>> seen.remaining_tokens([0, 10, 30]).tolist()  # (10+20+60)/3, then (10 + 50)/2, then 30
    [30.0, 30.0, 30.0]
    """

    values: IntArray = field(repr=False)
    counts: IntArray = field(repr=False)

    def __init__(self, output_tokens: ArrayLike) -> None:
        seen = token_array("output_tokens", output_tokens)
        if not len(seen):
            raise InputError("output_tokens is empty, must hold at least one length. Give what was seen.")
        values, counts = np.unique(seen, return_counts=True)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "counts", counts)

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The mean of what was seen, for each of `prompt_tokens`; `output_tokens` and `rng` are not looked at."""
        del output_tokens, rng
        return np.full(len(prompt_tokens), max(1, round(float(self.remaining_tokens([0])[0]))), dtype=np.int64)

    def remaining_tokens(self, generated_tokens: ArrayLike) -> FloatArray:
        """E[O - a | O > a] for each `generated_tokens` a, tokens; 1 beyond the longest seen."""
        a = np.asarray(generated_tokens, dtype=np.int64)
        left, total = self._beyond(a)
        return np.divide(total - a * left, left, out=np.ones(a.shape), where=left > 0)

    def finish_probability(self, generated_tokens: ArrayLike, horizon: int) -> FloatArray:
        """P(O <= a + horizon | O > a) for each `generated_tokens` a; 1 beyond the longest seen.

        Parameters
        ----------
        generated_tokens : array_like of int, >= 0
            Tokens so far.
        horizon : int >= 1
            Tokens ahead.
        """
        a = np.asarray(generated_tokens, dtype=np.int64)
        left, later = self._beyond(a)[0], self._beyond(a + check_integer("horizon", horizon, at_least=1))[0]
        return np.divide(left - later, left, out=np.ones(a.shape), where=left > 0)

    def remaining_within_tokens(self, generated_tokens: ArrayLike, horizon: int) -> FloatArray:
        """E[O - a | a < O <= a + horizon], tokens; `horizon` where none was seen to end there, 1 beyond the longest.

        Parameters
        ----------
        generated_tokens : array_like of int, >= 0
            Tokens so far, a.
        horizon : int >= 1
            Tokens ahead.
        """
        a = np.asarray(generated_tokens, dtype=np.int64)
        h = check_integer("horizon", horizon, at_least=1)
        (left, total), (later, later_total) = self._beyond(a), self._beyond(a + h)
        ending = left - later
        otherwise = np.where(left > 0, float(h), 1.0)
        return np.divide(total - later_total - a * ending, ending, out=otherwise, where=ending > 0)

    def _beyond(self, tokens: IntArray) -> tuple[FloatArray, FloatArray]:
        """How many seen are longer, and their sum."""
        place = np.searchsorted(self.values, tokens, side="right")
        left = np.append(np.cumsum(self.counts[::-1])[::-1], 0).astype(np.float64)
        total = np.append(np.cumsum((self.counts * self.values)[::-1])[::-1], 0).astype(np.float64)
        return left[place], total[place]


def _tokens(values: FloatArray) -> IntArray:
    return np.asarray(np.maximum(values, 1), dtype=np.int64)
