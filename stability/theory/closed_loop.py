r"""The mean step in which a request of a closed loop decodes: what a benchmark at fixed concurrency measures.

With n equal requests always in flight, each resident for `iterations` steps, a request that decodes meets the n - 1 others (arrival
theorem): each brings its prompt once every `iterations` steps and decodes in the rest. Hence, with y = (n - 1)/iterations,

.. math:: D = 1 + y (o - 1), \qquad K = \frac{r}{o - 1} + y r, \qquad P = y s, \qquad A = y s^2/2, \qquad
          \pi = \min(1, y \lceil s/B \rceil)

where pi is the share of its steps that carry prompt tokens; where memory or the token budget admit fewer than n, y is what they
allow. Where the time to first token was measured, too, Little's law gives y = (n - 1)/(TTFT/TPOT + o - 1) without a model of what
requests wait for. The time per output token is the mean step,

.. math:: \mathrm{TPOT} = (1 - \pi)\, \tau(0, D, K, 0) + \pi\, \tau(P/\pi, D, K, A/\pi) .

**Approximation**: random phases (a benchmark that starts all requests at once keeps them in step for a while), equal lengths, and slots
enough for n. `validation/deployments.py` shows its error on thousands of measured points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray
from ..model.iteration import IterationLaw
from . import footprint


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoopSteps:
    """Mean steps, one a point. Arrays of one shape.

    Attributes
    ----------
    prefill_tokens, decode_tokens, kv_tokens, prefill_context : ndarray
        Means of P, D, K and A over the steps in which a request decodes.
    mixed_share : ndarray
        Share of those steps that carry prompt tokens.
    """

    prefill_tokens: FloatArray
    decode_tokens: FloatArray
    kv_tokens: FloatArray
    prefill_context: FloatArray
    mixed_share: FloatArray

    def time_s(self, law: IterationLaw) -> FloatArray:
        """The mean step under `law`: time per output token, s."""
        without = law.time_s(0.0, self.decode_tokens, self.kv_tokens)
        share = np.where(self.mixed_share > 0, self.mixed_share, 1.0)
        carrying = law.time_s(
            self.prefill_tokens / share, self.decode_tokens, self.kv_tokens, self.prefill_context / share
        )
        return np.asarray((1 - self.mixed_share) * without + self.mixed_share * carrying)


def loop_steps(
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    in_flight: ArrayLike,
    *,
    max_num_batched_tokens: int,
    kv_capacity_tokens: float | None = None,
    first_token_steps: ArrayLike | None = None,
) -> LoopSteps:
    """The mean steps of a replica with `in_flight` equal requests; see the module.

    Parameters
    ----------
    prompt_tokens, output_tokens : array_like of int, >= 1 and >= 2
        Lengths, tokens.
    in_flight : array_like, >= 1
        Requests in flight.
    max_num_batched_tokens : int >= 1
        Token budget.
    kv_capacity_tokens : float, optional
        KV cache, tokens; without it memory is taken to admit all.
    first_token_steps : array_like, >= 0, optional
        Measured time to first token over time per output token: then y is Little's law, and memory, slots and waits need no
        model.

    Examples
    --------
    >>> steps = loop_steps(100, 11, 12, max_num_batched_tokens=512)  # 11 iterations, y = 1
    >>> float(steps.decode_tokens), float(steps.prefill_tokens), float(steps.kv_tokens)
    (11.0, 100.0, 1160.5)
    """
    s, o, n = np.asarray(prompt_tokens), np.asarray(output_tokens), np.asarray(in_flight, dtype=np.float64)
    reads = footprint.reads(s, o)
    if first_token_steps is None:
        served = np.minimum(
            n / footprint.iterations(s, o, max_num_batched_tokens), max_num_batched_tokens / (s + o - 1)
        )
        if kv_capacity_tokens is not None:
            served = np.minimum(served, kv_capacity_tokens / footprint.volume(s, o, max_num_batched_tokens))
    else:
        served = n / (np.asarray(first_token_steps, dtype=np.float64) + o - 1)
    y = served * (n - 1) / n
    return LoopSteps(
        prefill_tokens=np.asarray(y * s),
        decode_tokens=np.asarray(1 + y * (o - 1)),
        kv_tokens=np.asarray(reads / (o - 1) + y * reads),
        prefill_context=np.asarray(y * s * s / 2.0),
        mixed_share=np.asarray(np.minimum(1.0, y * footprint.chunks(s, max_num_batched_tokens))),
    )
