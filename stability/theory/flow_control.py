r"""Flow control (arXiv 2604.11001): budgets of activations per slot, and what they do to memory and queues.

Time is slotted: one slot is one token of every active request. A request of s prompt and o output tokens holds `s + j` after its
j-th token, `w = s o + o (o+1)/2` over its life. Class k arrives Poisson, lambda_k per slot.

- **Necessary**, any scheduler (Proposition 3.2): `sum_k lambda_k w_k <= M`.
- **Sufficient**, Algorithm 1 with budgets b_k (Theorem 3.3): `b_k > lambda_k` for every k and `sum_k b_k w_k <= M`. Memory then never
  overflows, classes decouple, and each queue is the reflected walk `Q_t = max(Q_{t-1} + n_t - b, 0)`; where some b_k <= lambda_k its queue
  is not stable. So under the memory condition the first is also necessary for Algorithm 1.
- `best_budgets` maximises the least `b_k/lambda_k`, exactly.
- `waiting` has the stationary queue, by Spitzer's identity: exact.
- `overflow_bound` bounds how often Algorithm 2 overflows, by Chernoff.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray, read_only
from ..errors import InputError, check_integer, check_number
from . import footprint

TAIL = 1e-16
"""Terms of series below this share are left out."""


def workloads(prompt_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
    """Least KV volume of each class, w = s o + o (o+1)/2, token-slots.

    Parameters
    ----------
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1

    Examples
    --------
    >>> workloads([10, 10, 10], [20, 40, 60]).tolist()
    [410.0, 1220.0, 2430.0]
    """
    return footprint.volume(prompt_tokens, output_tokens, 1, residency="slots")


def largest_common_rate(workload_tokens: ArrayLike, capacity_tokens: float, mix: ArrayLike | None = None) -> float:
    """The factor of `mix` above which no scheduler is stable (Proposition 3.2): M/sum_k mix_k w_k. **Necessary**.

    Parameters
    ----------
    workload_tokens : (n,) array_like
        w of each class.
    capacity_tokens : float
        M.
    mix : (n,) array_like, optional
        Arrivals of each class per slot, up to the factor; 1 for each without it.

    Examples
    --------
    >>> round(largest_common_rate([410, 1220, 2430], 16_492), 4)
    4.0621
    """
    w = np.asarray(workload_tokens, dtype=np.float64)
    shares = np.ones(len(w)) if mix is None else np.asarray(mix, dtype=np.float64)
    return float(capacity_tokens / (shares @ w))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BudgetReading:
    """What Theorem 3.3 says of budgets. Arrays over classes, shape (n,).

    Attributes
    ----------
    budgets : ndarray of int
        b_k, per slot.
    peak_tokens : float
        sum_k b_k w_k: usage in the slots in which every budget of the last slots was used; never exceeded.
    fits : bool
        Whether that is within M.
    margin : float
        Least b_k/lambda_k; stable iff above 1 (given that it fits).
    stable : bool
    backlog_per_slot : float
        sum_k (lambda_k - b_k)^+: growth of the queues.
    waiting_mean : ndarray
        Stationary mean queue of each class after activation; infinite where b_k <= lambda_k.
    """

    budgets: IntArray
    peak_tokens: float
    fits: bool
    margin: float
    stable: bool
    backlog_per_slot: float
    waiting_mean: FloatArray


def check_budgets(
    budgets: ArrayLike, rates_per_slot: ArrayLike, workload_tokens: ArrayLike, capacity_tokens: float
) -> BudgetReading:
    """What the theory says of the budgets of Algorithm 1.

    Parameters
    ----------
    budgets : (n,) array_like of int, >= 1
        b_k.
    rates_per_slot : (n,) array_like, > 0
        lambda_k.
    workload_tokens : (n,) array_like
        w_k (`workloads`).
    capacity_tokens : float
        M.

    Examples
    --------
    >>> found = check_budgets([4, 4, 4], [3, 3, 3], [410, 1220, 2430], 16_492)
    >>> found.peak_tokens, found.stable, round(float(found.waiting_mean[0]), 3)
    (16240.0, True, 0.801)
    """
    b, rates = np.asarray(budgets), np.asarray(rates_per_slot, dtype=np.float64)
    w = np.asarray(workload_tokens, dtype=np.float64)
    if b.shape != rates.shape or b.shape != w.shape or not np.issubdtype(b.dtype, np.integer):
        raise InputError(
            f"budgets {b.tolist()}, rates {rates.tolist()} and workloads {w.tolist()}, must be as many, budgets integers. "
            "Give one of each per class."
        )
    peak = float(b @ w)
    margin = float((b / rates).min())
    fits = peak <= capacity_tokens
    return BudgetReading(
        budgets=read_only(b.astype(np.int64)),
        peak_tokens=peak,
        fits=fits,
        margin=margin,
        stable=fits and margin > 1,
        backlog_per_slot=float(np.maximum(rates - b, 0.0).sum()),
        waiting_mean=read_only(
            np.array(
                [waiting(x, y).mean if y > x else math.inf for x, y in zip(rates.tolist(), b.tolist(), strict=True)]
            )
        ),
    )


def best_budgets(rates_per_slot: ArrayLike, workload_tokens: ArrayLike, capacity_tokens: float) -> IntArray:
    """The integer budgets with the greatest least b_k/lambda_k among those with sum_k b_k w_k <= M.

    Exact: budgets with all ratios >= r take every unit whose ratio before it was below r, so units are given in the order of
    that ratio until one does not fit; that class is then done, and the others go on with what is left (the next least
    ratios, in turn).

    Parameters
    ----------
    rates_per_slot : (n,) array_like, > 0
    workload_tokens : (n,) array_like, > 0
    capacity_tokens : float

    Returns
    -------
    (n,) ndarray of int
        0 where not even one request of a class fits beside the others' units.

    Examples
    --------
    >>> best_budgets([3, 3, 3], [410, 1220, 2430], 16_492).tolist()
    [4, 4, 4]
    """
    rates, w = np.asarray(rates_per_slot, dtype=np.float64), np.asarray(workload_tokens, dtype=np.float64)
    if rates.shape != w.shape or not (rates > 0).all() or not (w > 0).all():
        raise InputError(
            f"rates {rates.tolist()} and workloads {w.tolist()}, must be as many numbers > 0. Leave out classes that do not come."
        )
    budgets = np.zeros(len(w), dtype=np.int64)
    room = check_number("capacity_tokens", capacity_tokens, at_least=0)
    # Start just below the level that all units of a common ratio would need, to spare small steps.
    level = max(0.0, (room - float(w.sum())) / float(rates @ w))
    budgets[:] = np.floor(level * rates)
    room -= float(budgets @ w)
    queue = [(budgets[k] / rates[k], k) for k in range(len(w))]
    heapq.heapify(queue)
    while queue:
        _, k = heapq.heappop(queue)
        if w[k] <= room:
            room -= float(w[k])
            budgets[k] += 1
            heapq.heappush(queue, (budgets[k] / rates[k], k))
    return budgets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WaitingLaw:
    """Stationary queue of one class after activation: exact.

    Attributes
    ----------
    mean, variance : float
        Of the requests left waiting at the end of a slot.
    empty : float
        P(none).
    delay_slots : float
        Mean slots a request waits, by Little's law.
    """

    mean: float
    variance: float
    empty: float
    delay_slots: float


def waiting(rate_per_slot: float, budget: int) -> WaitingLaw:
    r"""The stationary law of `Q_t = max(Q_{t-1} + n_t - b, 0)`, n Poisson(lambda): Spitzer's identity.

    With S_k Poisson(k lambda), its r-th cumulant is `sum_k E[((S_k - k b)^+)^r]/k`, and `P(Q = 0) = exp(-sum_k P(S_k > k b)/k)`.

    Parameters
    ----------
    rate_per_slot : float > 0
        lambda, per slot.
    budget : int > rate_per_slot
        b.

    Examples
    --------
    >>> law = waiting(0.5, 1)  # Q of M/D/1 at slots: rho^2/(2 (1 - rho))
    >>> round(law.mean, 6)
    0.25
    """
    lam = check_number("rate_per_slot", rate_per_slot, above=0)
    b = check_integer("budget", budget, at_least=1)
    if not b > lam:
        raise InputError(f"budget = {b}, must be > the rate {lam:g}: the queue would grow. Raise it.")
    mean = variance = log_empty = 0.0
    # P(S_k > kb) falls at least like exp(-k (lam - b + b log(b/lam))).
    decay = lam - b + b * math.log(b / lam)
    for k in range(1, int(40 / decay) + 50):
        first, second, beyond = _excess(k * lam, k * b)
        mean += first / k
        variance += second / k
        log_empty += beyond / k
        if second < TAIL * variance:
            break
    return WaitingLaw(mean=mean, variance=variance, empty=math.exp(-log_empty), delay_slots=mean / lam)


def _excess(mean: float, level: int) -> tuple[float, float, float]:
    """E[(S - c)^+], E[((S - c)^+)^2] and P(S > c) for S Poisson, c >= mean: summed from the largest term down."""
    top = level + int(12 * math.sqrt(level + 1)) + 60
    x = np.arange(level + 1, top, dtype=np.float64)
    first = -mean + (level + 1) * math.log(mean) - math.lgamma(level + 2)
    terms = np.exp(first + np.concatenate(([0.0], np.cumsum(np.log(mean / x[1:])))))
    over = x - level
    return float(over @ terms), float(over * over @ terms), float(terms.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class OverflowBound:
    """How often Algorithm 2 overflows.

    Attributes
    ----------
    mean_tokens : float
        Mean usage with every budget used.
    exponent : float
        theta of the bound, 1/tokens; 0 where the bound says nothing.
    per_slot : float
        Bound on P(usage > M) in a slot.
    """

    mean_tokens: float
    exponent: float
    per_slot: float

    def over(self, slots: float) -> float:
        """Bound on P(any overflow in `slots` slots)."""
        return min(1.0, slots * self.per_slot)


def overflow_bound(
    low: int,
    high: int,
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    capacity_tokens: float,
    probabilities: ArrayLike | None = None,
) -> OverflowBound:
    r"""Chernoff bound on the usage of Algorithm 2 with budgets U{low..high}. **Proved**, up to the first overflow.

    A request activated j - 1 slots ago holds `s + j` if it still runs. If every budget is used, usage is a sum of independent terms, one
    per slot of activation, each over a random number of requests, so

    .. math:: P(U > M) \le \min_\theta e^{-\theta M} \prod_{j \ge 1} E_B\Big[\Big(E\,e^{\theta (s+j) 1\{o \ge j\}}\Big)^B\Big].

    Assumed: requests are independent, their lengths independent of budgets and queues (first come, first served). Queues shorter than a budget only
    lower U: the same requests and more, coupled. After an overflow the evicted start anew and are no longer a fresh sample (long
    requests are evicted more), so the bound is on the probability that a given slot is the first to overflow, and times T on any
    overflow within T slots; later overflows are approximate. It falls exponentially in M minus the mean usage.

    Parameters
    ----------
    low, high : int
        Budgets are uniform on low..high.
    prompt_tokens, output_tokens : (n,) array_like of int, >= 1
        s and o of each class.
    capacity_tokens : float
        M.
    probabilities : (n,) array_like, optional
        Share of each class; equal without it.
    """
    s, o = np.atleast_1d(np.asarray(prompt_tokens)), np.atleast_1d(np.asarray(output_tokens))
    p = np.full(len(s), 1 / len(s)) if probabilities is None else np.asarray(probabilities, dtype=np.float64)
    budgets = np.arange(check_integer("low", low, at_least=0), check_integer("high", high, at_least=max(1, low)) + 1)
    ages = np.arange(1, int(o.max()) + 1)
    runs = o[:, None] >= ages
    held = (s[:, None] + ages) * runs  # (class, age)
    mean = float(budgets.mean() * (p @ held.sum(axis=1)))
    if mean >= capacity_tokens:
        return OverflowBound(mean_tokens=mean, exponent=0.0, per_slot=1.0)

    def log_bound(theta: float) -> float:
        shift = held.max(axis=0)
        inner = np.log(np.einsum("k,kj->j", p, np.exp(theta * (held - shift)))) + theta * shift
        powers = budgets[:, None] * inner
        largest = powers.max(axis=0)
        outer = largest + np.log(np.exp(powers - largest).mean(axis=0))
        return float(outer.sum() - theta * capacity_tokens)

    low_theta, high_theta = 0.0, 1.0 / float(held.max())
    while log_bound(high_theta * 1.01) < log_bound(high_theta) and high_theta < 1e3:
        high_theta *= 2
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(120):  # convex in theta
        a, b = high_theta - golden * (high_theta - low_theta), low_theta + golden * (high_theta - low_theta)
        if log_bound(a) < log_bound(b):
            high_theta = b
        else:
            low_theta = a
    theta = (low_theta + high_theta) / 2
    return OverflowBound(mean_tokens=mean, exponent=theta, per_slot=min(1.0, math.exp(log_bound(theta))))
