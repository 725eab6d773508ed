r"""WAIT (arXiv 2504.11320): the fluid equilibrium, its region, and thresholds that keep it.

A batch of WAIT advances `n_j` requests of type j at each of its stages, one stage of prefill and `o_j - 1` of decode. With
`g_j` the KV volume of a request and `W_j` the time its iterations cause (`footprint`, residency "wait"), such a batch holds
`sum_j n_j g_j` tokens and takes

.. math:: \Delta T(n) = c_0 + \sum_j n_j W_j.

In the fluid limit arrivals balance batches, `n_j = lambda_j DT`, which gives the **equilibrium**

.. math:: \Delta T^* = \frac{c_0}{1 - \sum_j \lambda_j W_j},\quad n^*_j = \lambda_j\,\Delta T^*,\quad
          M^* = \sum_j n^*_j g_j,

and the **region** `sum_j lambda_j W_j < 1` and `M* <= M`. Outside it mean latency grows with the horizon under every policy
(Proposition 1); within it no policy has more throughput than the fluid (Proposition 2).

**Thresholds** (sufficient, Theorem 1): `DT(n) <= n_j/lambda_j` for every j and `M* <= sum_j n_j g_j <= M`. With `n_j = lambda_j D`
both read `DT* <= D <= M/sum_j lambda_j g_j`. Integers are rounded up from `lambda_j D`, which moves DT and memory, so
both conditions are looked at again for the integers. Theorem 1: where `DT(n) < n_j/lambda_j` for all j the gap of throughput is
O(1/(zeta T)) and latency O(1); where some of them are equal, O((zeta T)^-1/2) and O((zeta T)^1/2).

The paper's law is `d0 + d1 * (all KV resident in the batch)` and its decode length is `l' = o - 1` (`paper_model`); it remarks that any
law that does not decrease in what a batch holds will do, since the proof only compares batches with the full one. `engine_model` takes the
replica's own, and what an engine limits besides: batch slots and the token budget of an iteration. For laws that are not affine
DT(n) = tau(full batch), and DT* solves `D = tau(lambda D)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._types import ArrayLike, FloatArray, IntArray, read_only
from ..errors import InputError, check_integer, check_number
from ..model.iteration import IterationLaw, IterationTime
from ..model.lengths import Constant, Independent
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from . import footprint

DOUBLINGS = 60
"""Of the empty batch's time, until a batch must be shorter than the time between batches."""

TERMS, MOST_TERMS = 4096, 1 << 22
"""Terms of Spitzer's sum taken at a time, and at most."""

MOST_CANDIDATES = 200_000
"""Threshold vectors looked at; beyond, every k-th on the line."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WaitModel:
    """What a batch of WAIT costs. Arrays over types, shape (n,).

    Attributes
    ----------
    law : IterationLaw
        Time of a batch; non-decreasing in what the batch holds.
    rates_per_s : ndarray
        Poisson arrival rates.
    demand : (n, 4) ndarray
        What one request adds to the full batch over its stages: prompt tokens, decodes, KV reads, prefill attention work.
    volume_tokens : ndarray
        KV of one request at each of its stages, summed (g), tokens.
    stages : ndarray of int
        One prefill and o - 1 decodes: o.
    tokens : ndarray
        Tokens computed for one request over its stages: s + o - 1.
    kv_capacity_tokens, slots, budget : float
        What a replica holds and computes at a time; infinite where nothing limits.
    """

    law: IterationLaw
    rates_per_s: FloatArray
    demand: FloatArray
    volume_tokens: FloatArray
    stages: IntArray
    tokens: FloatArray
    kv_capacity_tokens: float
    slots: float = np.inf
    budget: float = np.inf

    def iteration_s(self, thresholds: ArrayLike) -> float:
        """DT(n): time of the full batch, s."""
        return float(self.iterations_s(np.asarray(thresholds, dtype=np.float64)[None])[0])

    def iterations_s(self, thresholds: FloatArray) -> FloatArray:
        """The same for each row of thresholds. Shape (c,)."""
        return self.law.time_s(*(thresholds @ self.demand).T)

    def memory_tokens(self, thresholds: ArrayLike) -> float:
        """KV that the full batch holds, tokens."""
        return float(np.asarray(thresholds, dtype=np.float64) @ self.volume_tokens)

    @property
    def least_gap_s(self) -> float:
        """DT*: a time between batches that just keeps up with the arrivals, s: the least; infinite without an equilibrium.

        In closed form for an affine law. For others the first crossing found by doubling, and bisection.
        """
        if isinstance(self.law, IterationTime):
            base, *prices = self.law.coefficients
            left = 1 - float(self.rates_per_s @ self.demand @ np.array(prices))
            return base / left if left > 0 else np.inf
        high = self.iteration_s(np.zeros(len(self.rates_per_s)))
        for _ in range(DOUBLINGS):
            if self.iteration_s(self.rates_per_s * high) <= high:
                break
            high *= 2
        else:
            return np.inf
        low = 0.0
        while high - low > 1e-12 * high:
            middle = (low + high) / 2
            low, high = (low, middle) if self.iteration_s(self.rates_per_s * middle) <= middle else (middle, high)
        return high

    @property
    def largest_gap_s(self) -> float:
        """The time between batches at which memory, slots or token budget are full, s."""
        needs = (self.volume_tokens, self.stages, self.tokens)
        limits = (self.kv_capacity_tokens, self.slots, self.budget)
        return min(limit / float(self.rates_per_s @ need) for need, limit in zip(needs, limits, strict=True))

    def fits(self, thresholds: ArrayLike) -> bool:
        """Whether the full batch fits memory, slots and token budget."""
        counts = np.asarray(thresholds, dtype=np.float64)
        needs = (self.volume_tokens, self.stages, self.tokens)
        limits = (self.kv_capacity_tokens, self.slots, self.budget)
        return all(float(counts @ need) <= limit for need, limit in zip(needs, limits, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WaitFluid:
    """The fluid equilibrium.

    Attributes
    ----------
    per_stage : (n,) ndarray
        n*: requests of each type at each of its stages.
    memory_tokens, iteration_s : float
        M* and DT*.
    decode_tokens_per_s : float
        Thr* = sum_j lambda_j l'_j.
    exists : bool
        Whether sum_j lambda_j W_j < 1; without it the rest is infinite.
    inside : bool
        Whether it exists and fits memory, slots and token budget: the stability region.
    """

    per_stage: FloatArray
    memory_tokens: float
    iteration_s: float
    decode_tokens_per_s: float
    exists: bool
    inside: bool


def paper_model(
    *,
    base_s: float,
    per_kv_token_s: float,
    rates_per_s: ArrayLike,
    prompt_tokens: ArrayLike,
    output_tokens: ArrayLike,
    kv_capacity_tokens: float,
) -> WaitModel:
    """The paper's own model: a batch takes d0 + d1 times the KV of everything in it.

    Parameters
    ----------
    base_s, per_kv_token_s : float
        d0, s, and d1, s/token.
    rates_per_s : (n,) array_like
        Poisson arrival rates of the types.
    prompt_tokens, output_tokens : (n,) array_like of int
        l and l' + 1: the token of the prefill counts as output.
    kv_capacity_tokens : float
        C.

    Examples
    --------
    The instance of Proposition 3: (l, l') = (1, 1) and (1, 2), both at rate 1, d1 = 0.1, d0 = 1 - 9 d1:

    >>> model = paper_model(
    ...     base_s=0.1, per_kv_token_s=0.1, rates_per_s=[1, 1], prompt_tokens=[1, 1], output_tokens=[2, 3],
    ...     kv_capacity_tokens=9,
    ... )
    >>> fluid(model).per_stage.round(9).tolist(), round(fluid(model).memory_tokens, 9)
    ([1.0, 1.0], 9.0)
    """
    s, o = np.atleast_1d(np.asarray(prompt_tokens)), np.atleast_1d(np.asarray(output_tokens))
    held = footprint.volume(s, o, 1, residency="wait")
    return WaitModel(
        law=IterationTime(base_s=base_s, per_prefill_token_s=per_kv_token_s, per_kv_token_s=per_kv_token_s),
        rates_per_s=_rates(rates_per_s),
        demand=np.stack([s, o - 1, held - s, np.zeros(len(s))], axis=1),
        volume_tokens=held,
        stages=o.astype(np.int64),
        tokens=(s + o - 1).astype(np.float64),
        kv_capacity_tokens=check_number("kv_capacity_tokens", kv_capacity_tokens, above=0),
    )


def engine_model(replica: Replica, workload: Workload) -> WaitModel:
    """WAIT on a replica of this package: its affine law, blocks, slots and token budget.

    Parameters
    ----------
    replica : Replica
        Its law must not decrease in what a batch holds.
    workload : Workload
        Every class of one prompt and one output length: its types.

    Raises
    ------
    InputError
        If a class has several lengths: WAIT's types are (prompt, output) pairs.
    """
    engine = replica.engine
    pairs = np.array([single_lengths(item) for item in workload.classes], dtype=np.int64)
    s, o = pairs[:, 0], pairs[:, 1]
    demand = np.stack([s, o - 1, footprint.reads(s, o), s.astype(np.float64) ** 2 / 2], axis=1)
    return WaitModel(
        law=replica.iteration,
        rates_per_s=workload.rates_per_s,
        demand=demand,
        volume_tokens=footprint.volume(s, o, 1, engine.block_size, residency="wait"),
        stages=o,
        tokens=(s + o - 1).astype(np.float64),
        kv_capacity_tokens=float(replica.usable_kv_tokens),
        slots=float(engine.max_num_seqs),
        budget=float(engine.max_num_batched_tokens),
    )


def single_lengths(item: RequestClass) -> tuple[int, int]:
    """The one (prompt, output) pair of a class, tokens."""
    lengths = item.lengths
    if (
        not isinstance(lengths, Independent)
        or not isinstance(lengths.prompt, Constant)
        or not isinstance(lengths.output, Constant)
    ):
        raise InputError(
            f"class {item.name!r} has several lengths, WAIT's types must have one prompt and one output length each. "
            "Split the class into types, or use the nested variant for unknown outputs."
        )
    return int(lengths.prompt_mean_tokens), int(lengths.output_mean_tokens)


def fluid(model: WaitModel) -> WaitFluid:
    """The fluid equilibrium of a model.

    Parameters
    ----------
    model : WaitModel
        From `paper_model` or `engine_model`.
    """
    gap = model.least_gap_s
    per_stage = model.rates_per_s * gap
    return WaitFluid(
        per_stage=read_only(per_stage),
        memory_tokens=float(per_stage @ model.volume_tokens),
        iteration_s=gap,
        decode_tokens_per_s=float(model.rates_per_s @ (model.stages - 1)),
        exists=bool(np.isfinite(gap)),
        inside=bool(np.isfinite(gap)) and gap <= model.largest_gap_s * (1 + 1e-12),
    )


def latency_bound_s(model: WaitModel, thresholds: ArrayLike) -> tuple[FloatArray, FloatArray]:
    r"""Upper bounds on mean latency and mean time to first token of each type under WAIT, s. **Proved**.

    Every `n_j` arrivals of type j make one job; from its start it needs a batch to prefill and `o_j - 1` later starts of type j
    to finish, one per further job. Jobs come as an Erlang(n_j) renewal process; a batch of any composition takes at most
    DT, and a job that finds the server with others waits at most one batch for it. Lindley's recursion with service DT and
    such vacations stays within DT of the one without, whose mean wait Kingman bounds by `1/(2 lambda_j (1 - DT lambda_j/n_j))`:

    .. math:: E[\mathrm{TTFT}_j] \le \frac{n_j - 1}{2\lambda_j} + \frac{1}{2\lambda_j(1 - \lambda_j\Delta T/n_j)}
              + (1 + 1\{m > 1\})\,\Delta T,

    and latency adds `(o_j - 1) n_j/lambda_j`. For one type everything but Kingman's term is exact (`mean_latency_s` has that, too). Poisson arrivals, stationary.

    Parameters
    ----------
    model : WaitModel
    thresholds : (n,) array_like of int, >= 1

    Returns
    -------
    latency_s, ttft_s : (n,) ndarray
        Infinite where `DT >= n_j/lambda_j`.
    """
    counts = np.asarray(thresholds, dtype=np.float64)
    gaps = counts / model.rates_per_s
    batch = model.iteration_s(counts)
    slack = 1 - batch / gaps
    waits = np.divide(1, 2 * model.rates_per_s * slack, out=np.full(len(gaps), np.inf), where=slack > 0)
    visits = 1 if len(gaps) == 1 else 2
    ttft = (counts - 1) / (2 * model.rates_per_s) + waits + visits * batch
    return ttft + (model.stages - 1) * gaps, ttft


def mean_latency_s(model: WaitModel, threshold: int) -> tuple[float, float]:
    r"""Mean latency and mean time to first token of one type under WAIT, s. **Exact**.

    The jobs of `latency_bound_s` are an E_n/D/1 queue; with A_k the Erlang(k n, lambda) time of k jobs, Spitzer's identity gives

    .. math:: E[W_q] = \sum_{k \ge 1} \frac1k E[(k \Delta T - A_k)^+].

    Parameters
    ----------
    model : WaitModel
        Of one type.
    threshold : int >= 1
        n.

    Returns
    -------
    latency_s, ttft_s : float
        Infinite where `DT >= n/lambda`.

    Examples
    --------
    For n = 1 the queue is M/D/1: two gaps of 1 s, a batch of 0.5 s, and a wait of 0.25/(2 * 0.5) s.

    >>> model = paper_model(
    ...     base_s=0.5, per_kv_token_s=0.0, rates_per_s=[1.0], prompt_tokens=[1], output_tokens=[3], kv_capacity_tokens=99
    ... )
    >>> [round(value, 9) for value in mean_latency_s(model, 1)]
    [2.75, 0.75]
    """
    from scipy.special import gammainc

    if len(model.rates_per_s) != 1:
        raise InputError(
            f"the model has {len(model.rates_per_s)} types, must have one: batches of several are no queue of one kind of job. "
            "Use latency_bound_s."
        )
    n, rate, batch = (
        check_integer("threshold", threshold, at_least=1),
        float(model.rates_per_s[0]),
        model.iteration_s([threshold]),
    )
    if not rate * batch < n:
        return np.inf, np.inf
    wait, first = 0.0, 1
    while first < MOST_TERMS:
        k = np.arange(first, first + TERMS)
        spent, jobs = rate * batch * k, k * float(n)
        terms = (spent * gammainc(jobs, spent) - jobs * gammainc(jobs + 1, spent)) / (rate * k)
        wait += float(np.maximum(terms, 0.0).sum())
        first += TERMS
        if terms[-1] * TERMS < 1e-12 * batch:
            break
    ttft = (n - 1) / (2 * rate) + wait + batch
    return ttft + float(model.stages[0] - 1) * n / rate, ttft


def candidate_thresholds(model: WaitModel) -> IntArray:
    """The threshold vectors ceil(lambda D) for D up to the largest gap, each once. Shape (c, n)."""
    rates, top = model.rates_per_s, model.largest_gap_s
    if not np.isfinite(top):
        raise InputError("nothing limits the batch, the KV capacity must be finite. Give kv_capacity_tokens.")
    steps = np.concatenate([np.arange(1, int(rate * top) + 1) / rate for rate in rates.tolist()] or [np.empty(0)])
    places = np.unique(np.concatenate((steps, [top])))
    if len(places) > MOST_CANDIDATES:
        places = places[:: -(-len(places) // MOST_CANDIDATES)]
    counts = np.ceil(np.outer(places, rates) * (1 - 1e-12)).astype(np.int64)
    return np.unique(np.maximum(counts, 1), axis=0)


def _rates(values: ArrayLike) -> FloatArray:
    rates = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if not (np.isfinite(rates) & (rates > 0)).all():
        raise InputError(
            f"rates_per_s = {rates.tolist()}, must be finite numbers > 0. Leave out types that do not come."
        )
    return rates
