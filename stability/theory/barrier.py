r"""Workers behind a barrier: by how much the largest of G loads exceeds their mean, and what that costs.

A step lasts :math:`\tau = c_0 + \mathrm{sync} + \max_g (c_p P_g + c_d D_g + c_k K_g)`, so only what differs between workers is inflated.
With D requests decoding on each worker, whose KV has mean m and standard deviation sigma (`resident`), and
:math:`\rho = E[\max_g K_g]/E[K_g]`:

- **Routing that does not look at waiting requests** (random, round robin, fewest requests, least KV) while all slots are full:
  the worker is the one with a free slot, so K_g is a sum of D independent terms. Exact: the law of the sum by
  convolution (`BarrierRatios.independent`). Normal form :math:`1 + d_G\,\sigma/(m\sqrt{D})` (`.normal`), short by the skewness of the
  sum. Extreme-value form with :math:`\sqrt{2\ln G}` (`.limit`), too large at small G.
- **Balanced routing** (BR-0; `.balanced`), **approximation**: two errors are left. Levels age: a worker is set to the common level
  when it gets a request, while that level falls by D tokens a step against the growth of all; at exponential times of mean E[o]/D
  steps, the oldest of G stands :math:`E[o](H_G - 1)` tokens above the mean, H_G the harmonic number. And each worker is set to within one
  request: :math:`d_G\,\sigma`. Together :math:`\rho = 1 + (E[o](H_G - 1) + d_G\sigma)/(D m)`. The first term alone (`.aged`) remains to a router
  with a request of any size at hand that does not know when requests end.
- **Separation.** The imbalance :math:`G\max L - \sum L` is :math:`G d_G \sigma\sqrt{D} \sim G\sigma\sqrt{2 D\ln G}` without balancing and
  :math:`G(E[o](H_G - 1) + d_G\sigma)` with it: their ratio grows like :math:`\sqrt{D}`, and for bounded lengths and balancing within one request
  the difference is the :math:`\Omega(\sqrt{B\log G})` of arXiv 2601.17855 (B their slots).
- **Capacity per worker** :math:`1/(W_{PD} + c_k r \rho + (c_0 + \mathrm{sync})\,a/C)` where prompts are computed elsewhere
  (W_PD the work but for KV reads). In mixed groups a worker with a prompt holds the others up: :math:`\max_g (c_p P_g + c_a A_g + c_k K_g)` is taken of
  the sum of both laws. **Approximation**: prompt tokens and KV of a worker are independent.

Against independent replicas. The same workers without barrier serve more by exactly what the maximum adds; a group pays when its
workers need it to hold the model (experts spread over all of them), and the weights freed are KV: see `break_even_memory`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .._result import Tabular
from .._types import ComplexArray, FloatArray
from ..errors import NotModelledError, check_integer, check_number
from ..model.lengths import Lengths
from ..model.replica import Replica
from ..model.workload import Workload
from .moments import Demand, mean_over, moments
from .order_statistics import harmonic, largest_normal, largest_normal_limit, largest_of
from .resident import lattice, resident_moments, resident_transform
from .steps import prompt_law, step_mix

CELLS, DEVIATIONS = 256, 48
"""Lattice points per standard deviation of a worker's load, and deviations above the mean that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarrierRatios(Tabular):
    """E[max_g K_g]/E[K_g] of G workers with D decoding requests each, under several routings.

    Attributes
    ----------
    workers : int
    decoding : int
        D, per worker.
    mean_tokens, deviation_tokens : float
        KV of one decoding request at a random step (m, sigma).
    independent : float
        Routing that does not look at waiting requests; exact for independent requests.
    normal, limit : float
        The same by d_G and by sqrt(2 ln G).
    balanced : float
        Balanced routing. **Approximation**.
    aged : float
        What is left of it with a request of any size at hand.

    Examples
    --------
    See :func:`stability.barrier_ratios`.
    """

    workers: int
    decoding: int
    mean_tokens: float
    deviation_tokens: float
    independent: float
    normal: float
    limit: float
    balanced: float
    aged: float

    schema: ClassVar[str] = "stability/barrier-ratios/1"

    def __repr__(self) -> str:
        return f"BarrierRatios({self.workers} workers of {self.decoding}: {self.independent:.4f}, balanced {self.balanced:.4f})"

    def rows(self) -> list[tuple[str, str]]:
        """Ratios by routing, for people."""
        return [
            ("workers, decoding on each", f"{self.workers}, {self.decoding}"),
            ("KV of a request at a random step", f"{self.mean_tokens:.4g} +- {self.deviation_tokens:.4g} tokens"),
            ("max over mean, unbalanced routing", f"{self.independent:.4f}"),
            ("  by the normal law", f"{self.normal:.4f}"),
            ("  by sqrt(2 ln G)", f"{self.limit:.4f}"),
            ("max over mean, balanced routing", f"{self.balanced:.4f}"),
            ("  with a request of any size at hand", f"{self.aged:.4f}"),
            ("imbalance, unbalanced over balanced", f"{self.separation:.3g}"),
        ]

    @property
    def separation(self) -> float:
        """Imbalance without over imbalance with balancing."""
        return (self.independent - 1) / (self.balanced - 1)


def barrier_ratios(workload: Workload, *, workers: int, decoding: int) -> BarrierRatios:
    """By how much the largest KV load of a barrier group exceeds the mean one.

    Parameters
    ----------
    workload : Workload
        Whose mix of lengths is served.
    workers : int >= 2
        G.
    decoding : int >= 1
        Requests decoding on each worker (D).

    Returns
    -------
    BarrierRatios
        One ratio per routing.

    Raises
    ------
    InputError
        If an argument breaks the rule stated for it.

    Examples
    --------
    Prompts of 10 tokens, outputs of 3: a request reads 11 or 12, and the larger of two such reads 11.75 on average.

    >>> import stability as st
    >>> lengths = st.lengths.Independent(st.lengths.Constant(10), st.lengths.Constant(3))
    >>> found = barrier_ratios(st.Workload.poisson(1.0, lengths), workers=2, decoding=1)
    >>> round(found.independent * 11.5, 2), round(found.normal * 11.5, 2)
    (11.75, 11.78)
    """
    workers = check_integer("workers", workers, at_least=2)
    decoding = check_integer("decoding", decoding, at_least=1)
    laws, shares, demand = _mix(workload)
    mean, deviation = resident_moments(demand)
    of_sum = deviation / (mean * math.sqrt(decoding))
    outputs = float(demand[Demand.DECODE]) + 1
    aged = outputs * (harmonic(workers) - 1) / (decoding * mean)
    return BarrierRatios(
        workers=workers,
        decoding=decoding,
        mean_tokens=mean,
        deviation_tokens=deviation,
        independent=_largest_load(laws, shares, mean, deviation, decoding, workers) / (decoding * mean),
        normal=1 + largest_normal(workers) * of_sum,
        limit=1 + largest_normal_limit(workers) * of_sum,
        balanced=1 + aged + largest_normal(workers) * deviation / (decoding * mean),
        aged=1 + aged,
    )


def decode_capacity(replica: Replica, workload: Workload, *, workers: int, sync_s: float = 0.0, ratio: float) -> float:
    """Rate per worker of a slot-limited decode group: 1/(cd E[o-1] + ck E[r] rho + (c0 + sync) E[o-1]/N), 1/s.

    Parameters
    ----------
    replica : Replica
        One worker, under an affine law.
    workload : Workload
        Its prompts are computed elsewhere.
    workers : int >= 2
        Workers of the group; the rate is of each.
    sync_s : float >= 0
        Time of the barrier, s.
    ratio : float >= 1
        rho, from `barrier_ratios` with `decoding` the slots.

    Returns
    -------
    float
        Requests per second and worker.
    """
    check_integer("workers", workers, at_least=2)
    check_number("ratio", ratio, at_least=1)
    base, _, decode, read, _ = _affine(replica)
    demand = _mix(workload)[2]
    occupied = demand[Demand.DECODE] / replica.engine.max_num_seqs
    work = decode * demand[Demand.DECODE] + read * demand[Demand.READ] * ratio
    return 1 / float(work + (base + sync_s) * occupied)


def excess_s(
    coefficients: FloatArray,
    demand: FloatArray,
    laws: tuple[Lengths, ...],
    shares: tuple[float, ...],
    *,
    workers: int,
    per_iteration: float,
    budget: float,
    memory: float = math.inf,
) -> float:
    """E[max_g X_g] - E[X_g] of a mixed group, X = cp P + ca A + ck K: time that the barrier adds to a step, s.

    Parameters
    ----------
    coefficients : (5,) ndarray
        Affine (or tangent) law.
    demand : (15,) ndarray
        Mean demand of the mix.
    laws, shares : tuple
        Length laws of the classes and their shares.
    workers : int
        G.
    per_iteration : float
        Completions per step and worker (y).
    budget : float
        Token budget of a worker, which bounds the prompt tokens of a step.
    memory : float
        KV that no worker's load exceeds, tokens.
    """
    _, prefill, _, read, context = coefficients.tolist()
    decoding = max(1, round(per_iteration * float(demand[Demand.DECODE])))
    mean, deviation = resident_moments(demand) if demand[Demand.DECODE] > 0 else (0.0, 0.0)
    room = max(budget - per_iteration * float(demand[Demand.DECODE]), 1.0)
    mix = step_mix(prompt_law(laws, shares), per_iteration, room)
    per_token = prefill + context * float(demand[Demand.CONTEXT] / demand[Demand.PREFILL])
    prompt_s = per_token * mix.prefill_tokens
    prompt_mean = float(prompt_s @ mix.probabilities)
    prompt_deviation = math.sqrt(max(float(prompt_s**2 @ mix.probabilities) - prompt_mean**2, 0.0))
    kv_deviation = read * deviation * math.sqrt(decoding)
    spread = math.hypot(prompt_deviation, kv_deviation)
    if spread <= 0:
        return 0.0
    cell = spread / CELLS
    highest = decoding * read * mean + float(prompt_s.max()) + DEVIATIONS * spread
    size = 1 << math.ceil(math.log2(highest / cell))
    load = np.zeros(size)
    load[0] = 1.0
    if kv_deviation > 0:
        load = _sum_law(resident_transform(laws, shares, cell / read, size), decoding, size)
        full = memory * read / cell
        if full < size - 1:
            load[int(full)] += load[int(full) + 1 :].sum()
            load[int(full) + 1 :] = 0.0
    both = np.fft.irfft(np.fft.rfft(load) * np.fft.rfft(lattice(prompt_s, mix.probabilities, cell, size)), size)
    both = np.maximum(both, 0.0) / both.sum()
    return max(0.0, cell * (largest_of(both, workers) - float(both @ np.arange(size))))


def break_even_memory(replica: Replica, workload: Workload, *, workers: int, sync_s: float = 0.0) -> float:
    """How many times the slots of an independent replica a decode group needs per worker to serve as much.

    Slots follow the KV memory left beside the weights: independent replicas each hold the whole model, a group holds it once.
    Both decode only, with full slots and unbalanced routing; infinite if no number does.

    Parameters
    ----------
    replica : Replica
        An independent replica, under an affine law.
    workload : Workload
        Its prompts are computed elsewhere.
    workers : int >= 2
        Workers of the group.
    sync_s : float >= 0
        Time of the barrier, s.

    Returns
    -------
    float
        Slots per worker over those of the replica; at least 1.
    """
    base, _, decode, read, _ = _affine(replica)
    demand = _mix(workload)[2]
    slots, decodes = replica.engine.max_num_seqs, float(demand[Demand.DECODE])
    reads = float(demand[Demand.READ])
    mean, deviation = resident_moments(demand)
    alone = decode * decodes + read * reads + base * decodes / slots

    def group(factor: float) -> float:
        ratio = 1 + largest_normal(workers) * deviation / (mean * math.sqrt(slots * factor))
        return decode * decodes + read * reads * ratio + (base + sync_s) * decodes / (slots * factor)

    low, high = 1.0, 2.0
    if group(low) <= alone:
        return low
    while group(high) > alone:
        low, high = high, 2 * high
        if high > 1e6:
            return math.inf
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if group(middle) > alone else (low, middle)
    return high


def _affine(replica: Replica) -> tuple[float, float, float, float, float]:
    kind, coefficients = replica.iteration.encode()
    if kind != 0:
        raise NotModelledError(
            f"iteration = {replica.iteration!r}, must be an IterationTime. Use its tangent at the batch you run."
        )
    base, prefill, decode, read, context = coefficients.tolist()
    return base, prefill, decode, read, context


def _mix(workload: Workload) -> tuple[tuple[Lengths, ...], tuple[float, ...], FloatArray]:
    classes = [item for item in workload.classes if item.mean_rate_per_s > 0]
    rates = np.array([item.mean_rate_per_s for item in classes])
    shares = rates / rates.sum()
    demand = mean_over([moments(item.lengths, 1 << 30) for item in classes], shares)
    return tuple(item.lengths for item in classes), tuple(shares.tolist()), demand


def _largest_load(
    laws: tuple[Lengths, ...], shares: tuple[float, ...], mean: float, deviation: float, decoding: int, workers: int
) -> float:
    """E of the largest of `workers` sums of `decoding` independent KV loads, tokens."""
    if deviation <= 0:
        return decoding * mean
    spread = deviation * math.sqrt(decoding)
    cell = 1.0 if spread < CELLS else spread / CELLS
    size = 1 << math.ceil(math.log2((decoding * mean + DEVIATIONS * spread) / cell))
    return cell * largest_of(_sum_law(resident_transform(laws, shares, cell, size), decoding, size), workers)


def _sum_law(transform: ComplexArray, count: int, size: int) -> FloatArray:
    return np.maximum(np.fft.irfft(transform**count, size), 0.0)
