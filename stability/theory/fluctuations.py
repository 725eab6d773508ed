r"""Fluctuations of KV in use and of the number running around their means. **Approximation.**

Arrivals per iteration follow the iteration time (a linear Hawkes process in iterations). With k_m(a), w_m(a) the KV and
seconds of mark m in its a-th iteration, means over marks barred and R = 1/(1 - lambda FFT[wbar]),

.. math:: \mathrm{Var}\,K = \lambda\tau\,E_m \sum_a \left[k_m + \lambda\,w_m * R * \bar k\right]^2(a),

measured against simulation at lambda E[W] = .09/.28/.57/.76: standard deviation over Poisson 1.05/1.19/1.58/2.19 here,
1.07/1.16/1.64/2.59 there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .._types import FloatArray, IntArray
from ..model.lengths import AtomPart, Lengths, ProductPart
from ..model.workload import RequestClass
from .moments import Demand

MARKS = 8
"""Strata per length axis of the marks that fluctuations are averaged over."""

AGES = 128
"""Ages tabulated; longer lives are binned."""


@dataclass(frozen=True, slots=True, eq=False)
class Ages:
    """KV held and seconds caused by representative requests, by age in bins of `width` iterations."""

    weights: FloatArray  # (marks,)
    kv_tokens: FloatArray  # (marks, ages), mean over the bin
    claimed: FloatArray  # (marks, ages), KV that admission counts: held, or reserved
    work_s: FloatArray  # (marks, ages), sum over the bin
    resident: FloatArray  # (marks, ages), iterations of the bin in which the mark is resident, over its width
    width: int

    @classmethod
    def of(cls, classes: Sequence[RequestClass], mix: FloatArray, budget: int, law: FloatArray, evicts: bool) -> Ages:
        s, o, weights = _marks(classes, mix)
        chunks = -(-s // budget)
        life = chunks + o - 1
        width = max(1, -(-int(life.max()) // AGES))
        bins = -(-int(life.max()) // width)
        age = np.arange(bins * width)[None, :]  # iterations since admission
        decodes = age - chunks[:, None] + 1
        alive = age < life[:, None]
        done = np.minimum(age * budget, s[:, None])  # prompt tokens computed before this iteration
        chunk = np.minimum(budget, s[:, None] - done)
        held = np.where(decodes > 0, s[:, None] + decodes, done + chunk) * alive
        decoding = (decodes > 0) & alive
        work = np.where(
            decoding, law[2] + law[3] * (s[:, None] + decodes), law[1] * chunk + law[4] * chunk * (done + chunk / 2)
        )
        claim = held if evicts else (s + o)[:, None] * alive
        shape = (len(s), bins, width)
        return cls(
            weights,
            held.reshape(shape).mean(axis=2),
            claim.reshape(shape).mean(axis=2),
            (work * alive).reshape(shape).sum(axis=2),
            alive.reshape(shape).mean(axis=2),
            width,
        )

    def with_means(self, work_s: float, demand: FloatArray, evicts: bool) -> Ages:
        """The same shapes with the exact means: strata miss part of a heavy tail."""
        wanted = (demand[Demand.VOLUME], demand[Demand.VOLUME if evicts else Demand.RESERVED])
        held, claimed = (
            column * (mean / (self.width * float(self.weights @ column.sum(axis=1))))
            for column, mean in zip((self.kv_tokens, self.claimed), wanted, strict=True)
        )
        total = float(self.weights @ self.work_s.sum(axis=1))
        work = self.work_s * (work_s / total) if total > 0 else self.work_s
        return Ages(self.weights, held, claimed, work, self.resident, self.width)

    def variances(self, lam: float, iteration_s: float) -> tuple[float, float, float]:
        """Variance of the KV in use and of the KV claimed (tokens**2), and of the number running."""
        length = 1 << int(np.ceil(np.log2(8 * self.kv_tokens.shape[1])))
        work = np.fft.rfft(self.work_s, length, axis=1)
        mean_work = np.fft.rfft(self.weights @ self.work_s, length)
        echo = lam / (1 - np.minimum(lam, (1 - 1e-6) / max(mean_work[0].real, 1e-300)) * mean_work)
        found = []
        for held in (self.kv_tokens, self.claimed, self.resident):
            shape = np.fft.rfft(held, length, axis=1)
            mean_shape = np.fft.rfft(self.weights @ held, length)
            response = np.fft.irfft(shape + work * (echo * mean_shape), length, axis=1)
            found.append(float(lam * iteration_s * self.width * (self.weights @ (response**2).sum(axis=1))))
        return found[0], found[1], found[2]


def _representatives(part: AtomPart) -> IntArray:
    """Rows in the middle of strata of equal probability: by output length, within each by prompt length."""
    count = len(part.output_tokens)
    weights = np.full(count, 1.0 / count) if part.probabilities is None else part.probabilities
    by_output = np.argsort(part.output_tokens, kind="stable")
    chosen = []
    for stratum in _equal_parts(by_output, weights):
        by_prompt = stratum[np.argsort(part.prompt_tokens[stratum], kind="stable")]
        reached = np.cumsum(weights[by_prompt])
        middles = (np.arange(MARKS) + 0.5) / MARKS * reached[-1]
        chosen.append(by_prompt[np.minimum(np.searchsorted(reached, middles), len(by_prompt) - 1)])
    return np.concatenate(chosen)


def _equal_parts(rows: IntArray, weights: FloatArray) -> list[IntArray]:
    """Consecutive runs of `rows` of about equal weight, none empty."""
    reached = np.cumsum(weights[rows])
    edges = np.searchsorted(reached, np.arange(1, MARKS) / MARKS * reached[-1])
    return [run for run in np.split(rows, edges) if len(run)]


def _marks(classes: Sequence[RequestClass], mix: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Representative (prompt, output, weight) triples of a mix."""
    found = [_law_marks(item.lengths) for item in classes]
    weights = [share * mass for share, (_, _, mass) in zip(mix.tolist(), found, strict=True)]
    return np.concatenate([s for s, _, _ in found]), np.concatenate([o for _, o, _ in found]), np.concatenate(weights)


@lru_cache(maxsize=256)
def _law_marks(lengths: Lengths) -> tuple[IntArray, IntArray, FloatArray]:
    """The same of one law: strata of its probability."""
    levels = (np.arange(MARKS) + 0.5) / MARKS
    prompts, outputs, weights = [], [], []
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            s = np.repeat(part.prompt.quantile(levels), MARKS)
            o = np.tile(part.output.quantile(levels), MARKS)
        else:
            rows = _representatives(part)
            s, o = part.prompt_tokens[rows], part.output_tokens[rows]
        prompts.append(s)
        outputs.append(o)
        weights.append(np.full(len(s), part.weight / len(s)))
    return np.concatenate(prompts), np.concatenate(outputs), np.concatenate(weights)
