"""Time from arrival to first token once there is a slot and memory: prompts queue for the token budget. **Approximation**.

Prefill is one server: a prompt's chunks and the decodes of the iterations they fill are its service, and prompts queue for it
first come, first served (Pollaczek-Khinchine, exponential tail). A free server starts with the next iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray
from .admission import Wait
from .report import PoolReport
from .steps import PromptLaw

BINS = 256
"""Values of the prefill time kept for quantiles."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefillWait:
    """Time from arrival to first token once there is a slot and memory.

    `next_s` until an iteration starts, a `queue` for the token budget, then one of `alone_s` with `weights`.
    """

    next_s: float
    queue: Wait
    alone_s: FloatArray
    weights: FloatArray
    p99_s: float

    @property
    def mean_s(self) -> float:
        """Mean."""
        return self.next_s / 2 + self.queue.probability * self.queue.mean_s + float(self.weights @ self.alone_s)

    def quantile_s(self, level: float, waits: Wait) -> float:
        """Quantile of this and an independent wait for admission."""
        if not math.isfinite(waits.mean_s * waits.probability) or not math.isfinite(self.queue.mean_s):
            return math.inf
        alone, weights = self._condensed()
        low = 0.0
        high = self.next_s + float(self.alone_s.max()) + 60 * (waits.mean_s + self.queue.mean_s)
        for _ in range(50):
            middle = (low + high) / 2
            over = float(weights @ self.queue.then_tail(waits, middle - self.next_s - alone))
            low, high = (middle, high) if over > 1 - level else (low, middle)
        return high

    def _condensed(self) -> tuple[FloatArray, FloatArray]:
        """`alone_s` and `weights` in bins of equal width: few values for long sums."""
        if len(self.alone_s) <= BINS:
            return self.alone_s, self.weights
        low, high = float(self.alone_s.min()), float(self.alone_s.max())
        bins = np.minimum(((self.alone_s - low) / max(high - low, 1e-300) * BINS).astype(np.int64), BINS - 1)
        mass = np.bincount(bins, weights=self.weights, minlength=BINS).astype(np.float64)
        total = np.bincount(bins, weights=self.weights * self.alone_s, minlength=BINS)
        used = mass > 0
        return np.asarray(total[used] / mass[used]), mass[used]


def prefill_wait(
    prompts: PromptLaw, lam: float, at: PoolReport, law: FloatArray, room: float, budget: float
) -> PrefillWait:
    """Time from arrival to first token once there is a slot and memory.

    Prefill is one server: a prompt's chunks and the decodes of the iterations they fill are its service, and prompts
    queue for it first come, first served (Pollaczek-Khinchine, exponential tail). A free server starts with the next
    iteration. Its own percentile takes the larger of the queue's and the prompt's own, with the other at its mean.
    """
    s, weights = prompts.values.astype(np.float64), prompts.probabilities
    own = law[1] * s + law[4] * s * s / 2
    carried = lam * at.iteration_s * float(weights @ own)
    decoding = max(at.iteration_s - carried, 0.0)
    service = own + decoding * s / room
    busy = lam * float(weights @ service)
    alone = own + decoding * np.ceil(s / budget)
    if busy >= 1:
        full = Wait(probability=1.0, mean_s=math.inf)
        return PrefillWait(next_s=decoding, queue=full, alone_s=alone, weights=weights, p99_s=math.inf)
    queue = lam * float(weights @ service**2) / (2 * (1 - busy))
    mean = float(weights @ alone)
    queue_tail = queue / busy * math.log(busy / 0.01) if busy > 0.01 else 0.0
    alone_tail = _weighted_quantile(alone, weights, 0.99)
    return PrefillWait(
        next_s=decoding,
        queue=Wait(probability=busy, mean_s=queue / busy if busy > 0 else 0.0),
        alone_s=alone,
        weights=weights,
        p99_s=decoding + max(queue_tail + mean, queue + alone_tail),
    )


def _weighted_quantile(values: FloatArray, weights: FloatArray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, level * reached[-1])), len(values) - 1)])
