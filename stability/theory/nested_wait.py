r"""Nested WAIT (arXiv 2504.11320): segments of decode work for requests whose output length is unknown.

All prompts have s tokens; a request that is still decoding at a boundary passes into the next segment. With boundaries
`0 = r_0 < r_1 < ... < r_L` (decode tokens, `r = o - 1`), segment k holds the stages `r_{k-1}+1 .. r_k` (and the prefill, k = 1);
it receives requests at rate `Lambda_k = Lambda P(o - 1 > r_{k-1})`, a share `p_k = Lambda_k/Lambda_{k-1}` of those of the one before.

**Conditions** (Theorem 2, with boundaries at every output length; Theorem 4 with fewer): thresholds n_k with

.. math:: \Delta T(n) = c_0 + \sum_k n_k w_k < n_1/\Lambda_1, \qquad p_k < n_k/n_{k-1} < 1,

w_k the time of one request over the stages of segment k, and memory of at least

.. math:: M_{req} = M^\pi + \sum_{k \ge 2} (s + r_{k-1})
          \Big(n_k + \frac1{\theta_k}\ln\frac{m(1 + T/c_0)}{\delta}\Big), \qquad
          M^\pi = \sum_k n_k\,(s + \bar r_k)\,\delta_k,

with `theta_k > 0` the root of `exp(-theta n_k) (1 - p_k + p_k e^theta)^{n_{k-1}} = 1` (`decay_rate`). Then the throughput gap is O(1/T), latency
O(1), and memory stays within M over [0, T] with probability at least 1 - delta. **Proved** for the dynamics without overflow.
A buffer is necessary: at M = M* some instance leaves every policy a gap (Proposition 5).

A request waits for segment k with the KV of its `r_{k-1}` decodes and is then advanced to stage `r_{k-1} + 1`: passing a boundary takes no
iteration of its own, so the stages of DT and M^pi are all that a full batch holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray
from ..errors import InputError, check_integer, check_number
from ..model.iteration import IterationLaw, IterationTime
from ..model.lengths import Lengths, ProductPart
from ..model.replica import Replica
from ..model.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NestedModel:
    """Requests of one prompt length and unknown output, and what their stages cost.

    Attributes
    ----------
    law : IterationLaw
        Time of a batch; non-decreasing in what the batch holds.
    rate_per_s : float
        Arrivals of all types.
    prompt_tokens : int
    decode_tokens : (m,) ndarray of int, increasing
        l' = o - 1 of the types.
    probabilities : (m,) ndarray
        Of the types.
    kv_capacity_tokens : float
    slots, budget : float
        Batch slots and tokens of an iteration; infinite where nothing limits.
    prompts_equal : bool
        Whether all prompts have this length, or only on average: the theorem is for equal ones.
    prompt_square : float
        E[s^2], tokens**2: twice the attention work of a prefill (0 in the paper's law).
    """

    law: IterationLaw
    rate_per_s: float
    prompt_tokens: int
    decode_tokens: IntArray
    probabilities: FloatArray
    kv_capacity_tokens: float
    slots: float = math.inf
    budget: float = math.inf
    prompts_equal: bool = True
    prompt_square: float = 0.0

    @property
    def base_s(self) -> float:
        """Time of an empty batch (c0, d0), s."""
        return float(self.law.time_s(0.0, 0.0, 0.0))

    def survival(self, boundary: int) -> float:
        """P(o - 1 > boundary): still decoding beyond it."""
        return float(self.probabilities[self.decode_tokens > boundary].sum())


def nested_paper_model(
    *,
    base_s: float,
    per_kv_token_s: float,
    rates_per_s: ArrayLike,
    prompt_tokens: int,
    decode_tokens: ArrayLike,
    kv_capacity_tokens: float,
) -> NestedModel:
    """The paper's own model: d0 + d1 times the KV in the batch.

    Parameters
    ----------
    base_s, per_kv_token_s : float
        d0, s, and d1, s/token.
    rates_per_s : (m,) array_like
        Poisson rate of each type.
    prompt_tokens : int
        l, common to all.
    decode_tokens : (m,) array_like of int, increasing
        l' of each type.
    kv_capacity_tokens : float
        C.
    """
    rates, decodes = np.asarray(rates_per_s, dtype=np.float64), np.asarray(decode_tokens, dtype=np.int64)
    if rates.shape != decodes.shape or rates.ndim != 1 or not (rates > 0).all():
        raise InputError(
            f"rates_per_s = {rates.tolist()}, must be a rate > 0 for each of {decodes.tolist()} decode tokens. Give as many."
        )
    if len(decodes) == 0 or decodes[0] < 1 or (np.diff(decodes) <= 0).any():
        raise InputError(f"decode_tokens = {decodes.tolist()}, must increase from >= 1. Sort the types.")
    s = check_integer("prompt_tokens", prompt_tokens, at_least=1)
    return NestedModel(
        law=IterationTime(base_s=base_s, per_prefill_token_s=per_kv_token_s, per_kv_token_s=per_kv_token_s),
        rate_per_s=float(rates.sum()),
        prompt_tokens=s,
        decode_tokens=decodes,
        probabilities=rates / rates.sum(),
        kv_capacity_tokens=check_number("kv_capacity_tokens", kv_capacity_tokens, above=0),
    )


def nested_engine_model(replica: Replica, workload: Workload) -> NestedModel:
    """Nested WAIT on a replica of this package: its affine law, slots and token budget.

    Parameters
    ----------
    replica : Replica
        Its law must not decrease in what a batch holds.
    workload : Workload
        All classes together: one law of output lengths. Prompts of several lengths count with their mean, and nothing is then proved.
    """
    lengths = workload.lengths
    decodes, probabilities = _decode_law(lengths)
    s = lengths.prompt_mean_tokens
    square = lengths.expect(_prompt_square)
    return NestedModel(
        law=replica.iteration,
        rate_per_s=workload.rate_per_s,
        prompt_tokens=round(s),
        decode_tokens=decodes,
        probabilities=probabilities,
        kv_capacity_tokens=float(replica.usable_kv_tokens),
        slots=float(replica.engine.max_num_seqs),
        budget=float(replica.engine.max_num_batched_tokens),
        prompt_square=square,
        prompts_equal=square <= s * s * (1 + 1e-12),
    )


def _prompt_square(prompt_tokens: IntArray, _: IntArray) -> FloatArray:
    return prompt_tokens.astype(np.float64) ** 2


def _decode_law(lengths: Lengths) -> tuple[IntArray, FloatArray]:
    """The law of o - 1: values and probabilities."""
    values, weights = [], []
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            values.append(part.output.values)
            weights.append(part.weight * part.output.probabilities)
        else:
            count = len(part.output_tokens)
            each = np.full(count, 1 / count) if part.probabilities is None else part.probabilities
            values.append(part.output_tokens)
            weights.append(part.weight * each)
    outputs, place = np.unique(np.concatenate(values), return_inverse=True)
    chances = np.bincount(place, weights=np.concatenate(weights), minlength=len(outputs))
    kept = chances > 0
    return (outputs[kept] - 1).astype(np.int64), np.asarray(chances[kept] / chances.sum())


def decay_rate(before: int, after: int, share: float) -> float:
    r"""theta_k: how fast the chance of x requests too many in a boundary queue falls, exp(-theta x).

    The root of `exp(-theta n_k) (1 - p + p e^theta)^{n_{k-1}} = 1`; it is at least `8 (n_k - n_{k-1} p)/n_{k-1}`
    (Hoeffding) and at most `-n_{k-1} ln p/(n_{k-1} - n_k)`.

    Parameters
    ----------
    before, after : int >= 1
        n_{k-1} and n_k.
    share : float in (0, 1)
        p_k, of those that finish segment k-1.

    Returns
    -------
    float
        Infinite where n_k >= n_{k-1}: no more can come than are taken.

    Examples
    --------
    >>> round(decay_rate(10, 4, 0.3), 5)
    0.87106
    """
    p = check_number("share", share, above=0, below=1)
    if after >= before:
        return math.inf
    if not after > before * p:
        raise InputError(
            f"n_k = {after} of n_(k-1) = {before}, must be above the share {p:g} that comes: the queue between them would grow. "
            "Raise n_k."
        )
    low, high = 8 * (after - before * p) / before, -before * math.log(p) / (before - after)
    for _ in range(200):
        middle = (low + high) / 2
        # The logarithm of the left side, divided by n_{k-1}: negative before the root, convex.
        if math.log1p(p * math.expm1(middle)) < middle * after / before:
            low = middle
        else:
            high = middle
        if high - low <= 1e-15 * high:
            break
    return (low + high) / 2
