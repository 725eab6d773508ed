"""Predicted output lengths: what a scheduler may know of a request before it runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from .._types import IntArray


class Predictor(ABC):
    """A rule that predicts output lengths; immutable and hashable, so that policies that hold one are."""

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


@dataclass(frozen=True, slots=True)
class Oracle(Predictor):
    """Exact lengths: what hindsight knows."""

    def predict(self, prompt_tokens: IntArray, output_tokens: IntArray, rng: np.random.Generator) -> IntArray:
        """The output lengths: `prompt_tokens` and `rng` are not looked at, `output_tokens` returned as they are."""
        del prompt_tokens, rng
        return output_tokens
