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
from ..model.lengths import AtomPart, Length, Lengths, ProductPart
from ..model.workload import RequestClass
from .moments import Demand

EDGES = np.array([*np.arange(7) / 7, *(1 - 2.0 ** -np.arange(4, 12)), 1.0])
"""Probability levels that bound the strata of a length axis: even in the bulk, halving in the tail that carries the variance."""

SHARES = np.diff(EDGES)

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
        edge = np.arange(-(-int(life.max()) // width) + 1) * width
        prompt, count = s[:, None].astype(np.float64), chunks[:, None]
        last = prompt - (count - 1) * budget  # the last chunk

        # Ages of each bin, closed on the left, in whole chunks; in the last chunk; and decodes, by their number.
        whole, whole_sum = _counted(np.minimum(edge, count - 1))
        final, _ = _counted(np.clip(edge - count + 1, 0, 1))
        decodes, decode_sum = _counted(np.clip(edge - count, 0, (o - 1)[:, None]))
        decode_sum += decodes  # the first decode adds one token
        held = budget * (whole_sum + whole) + prompt * final + prompt * decodes + decode_sum
        work = (law[2] + law[3] * prompt) * decodes + law[3] * decode_sum
        work += law[1] * (budget * whole + last * final)
        work += law[4] * (
            budget * (budget * whole_sum + budget * whole / 2) + last * ((count - 1) * budget + last / 2) * final
        )
        resident = whole + final + decodes
        claim = held if evicts else (s + o)[:, None] * resident
        return cls(weights, held / width, claim / width, work, resident / width, width)

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


def _counted(edges: IntArray) -> tuple[FloatArray, FloatArray]:
    """Number and sum of the whole numbers from each of `edges` to the next, along the last axis."""
    low, high = edges[:, :-1].astype(np.float64), edges[:, 1:].astype(np.float64)
    return high - low, (high * (high - 1) - low * (low - 1)) / 2


def _representatives(part: AtomPart) -> tuple[IntArray, FloatArray]:
    """Rows in the middle of strata: by output length, within each by prompt length; and the weight of each."""
    count = len(part.output_tokens)
    weights = np.full(count, 1.0 / count) if part.probabilities is None else part.probabilities
    by_output = np.argsort(part.output_tokens, kind="stable")
    chosen, mass = [], []
    for stratum in _strata(by_output, weights):
        for run in _strata(stratum[np.argsort(part.prompt_tokens[stratum], kind="stable")], weights):
            reached = np.cumsum(weights[run])
            chosen.append(run[min(int(np.searchsorted(reached, reached[-1] / 2)), len(run) - 1)])
            mass.append(reached[-1])
    return np.array(chosen), np.array(mass) / weights.sum()


def _strata(rows: IntArray, weights: FloatArray) -> list[IntArray]:
    """Consecutive runs of `rows` between the levels of `EDGES`, none empty."""
    reached = np.cumsum(weights[rows])
    cuts = np.searchsorted(reached, EDGES[1:-1] * reached[-1])
    return [run for run in np.split(rows, cuts) if len(run)]


def _stratum_means(law: Length) -> IntArray:
    """Mean of each stratum of a marginal law, rounded."""
    reached = np.concatenate(([0.0], np.cumsum(law.probabilities)))
    total = np.concatenate(([0.0], np.cumsum(law.probabilities * law.values)))
    means = np.diff(np.interp(EDGES * reached[-1], reached, total)) / (SHARES * reached[-1])
    return np.asarray(np.maximum(1, np.rint(means)), dtype=np.int64)


def _marks(classes: Sequence[RequestClass], mix: FloatArray) -> tuple[IntArray, IntArray, FloatArray]:
    """Representative (prompt, output, weight) triples of a mix."""
    found = [_law_marks(item.lengths) for item in classes]
    weights = [share * mass for share, (_, _, mass) in zip(mix.tolist(), found, strict=True)]
    return np.concatenate([s for s, _, _ in found]), np.concatenate([o for _, o, _ in found]), np.concatenate(weights)


@lru_cache(maxsize=256)
def _law_marks(lengths: Lengths) -> tuple[IntArray, IntArray, FloatArray]:
    """The same of one law: strata of its probability."""
    prompts, outputs, weights = [], [], []
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            s = np.repeat(_stratum_means(part.prompt), len(SHARES))
            o = np.tile(_stratum_means(part.output), len(SHARES))
            mass = np.outer(SHARES, SHARES).ravel()
        else:
            rows, mass = _representatives(part)
            s, o = part.prompt_tokens[rows], part.output_tokens[rows]
        prompts.append(s)
        outputs.append(o)
        weights.append(part.weight * mass)
    return np.concatenate(prompts), np.concatenate(outputs), np.concatenate(weights)
