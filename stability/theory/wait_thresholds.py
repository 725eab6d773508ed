"""WAIT's thresholds: which integers meet the conditions of Theorem 1, and the best of them. See `wait`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .._result import Tabular, no_truth, seconds
from .._types import ArrayLike, FloatArray, IntArray, read_only
from ..errors import InputError
from ..policies import Wait
from ..policies.wait import positive_integers
from .wait import WaitFluid, WaitModel, candidate_thresholds, fluid, latency_bound_s

REGIMES = {
    "strict": "throughput gap O(1/(zeta T)), latency O(1)",
    "boundary": "throughput gap O((zeta T)^-1/2), latency O((zeta T)^1/2)",
    "none": "no guarantee: some type arrives faster than full batches take it, or memory does not do",
}
"""What Theorem 1 says of a threshold vector, by regime."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class WaitDesign(Tabular):
    """Thresholds of WAIT with what Theorem 1 and the latency bound say of them.

    Attributes
    ----------
    thresholds : (n,) ndarray of int
        n_j, by class.
    iteration_s : float
        DT(n): time of the full batch.
    memory_tokens : float
        KV that the full batch holds: residents never hold more.
    gap_s : (n,) ndarray
        n_j/lambda_j: mean time between arrivals of n_j requests.
    feasible_gap_s : (float, float)
        Ends of the interval of D: DT*, and what memory, slots and token budget allow.
    regime : {"strict", "boundary", "none"}
        Case of Theorem 1 (`REGIMES`).
    latency_bound_s, ttft_bound_s : (n,) ndarray
        Proved upper bounds on the means.
    fluid : WaitFluid
    """

    schema: ClassVar[str] = "stability/wait-design/1"

    thresholds: IntArray
    iteration_s: float
    memory_tokens: float
    gap_s: FloatArray
    feasible_gap_s: tuple[float, float]
    regime: str
    latency_bound_s: FloatArray
    ttft_bound_s: FloatArray
    fluid: WaitFluid

    def __bool__(self) -> bool:
        raise no_truth("WaitDesign")

    @property
    def policy(self) -> Wait:
        """The scheduler with these thresholds."""
        return Wait(thresholds=tuple(self.thresholds.tolist()))

    def __repr__(self) -> str:
        return f"WaitDesign(thresholds {self.thresholds.tolist()}, {self.regime}, batch {seconds(self.iteration_s)})"

    def rows(self) -> list[tuple[str, str]]:
        """The design as (quantity, value) pairs for people."""
        low, high = self.feasible_gap_s
        return [
            ("thresholds", ", ".join(map(str, self.thresholds.tolist()))),
            ("guarantee", f"{self.regime}: {REGIMES[self.regime]}"),
            ("full batch", f"{seconds(self.iteration_s)}, {self.memory_tokens:.6g} KV tokens"),
            ("time between batches", ", ".join(map(seconds, self.gap_s.tolist()))),
            ("  feasible", f"{seconds(low)} to {seconds(high)}"),
            ("mean latency at most", ", ".join(map(seconds, self.latency_bound_s.tolist()))),
            ("mean TTFT at most", ", ".join(map(seconds, self.ttft_bound_s.tolist()))),
        ]


def check_thresholds(model: WaitModel, thresholds: ArrayLike) -> WaitDesign:
    """What the theory says of given thresholds.

    Parameters
    ----------
    model : WaitModel
        From `paper_model` or `engine_model`.
    thresholds : (n,) array_like of int, >= 1
        n_j.

    Examples
    --------
    >>> from stability.theory.wait import paper_model
    >>> model = paper_model(base_s=1.0, per_kv_token_s=0.01, rates_per_s=[1.0], prompt_tokens=[10],
    ...     output_tokens=[3], kv_capacity_tokens=100)
    >>> check_thresholds(model, [2])  # DT = 1 + 0.01 * 2 * 33 = 1.66 < 2
    WaitDesign(thresholds [2], strict, batch 1.66 s)
    """
    counts = np.array(positive_integers("thresholds", np.atleast_1d(np.asarray(thresholds)).tolist()))
    if counts.shape != model.rates_per_s.shape:
        raise InputError(
            f"thresholds = {counts.tolist()}, must be {len(model.rates_per_s)} integers >= 1. Give one per type."
        )
    batch, gaps, found = model.iteration_s(counts), counts / model.rates_per_s, fluid(model)
    # Equality is meant up to rounding: 1 + 9 * 0.1 is not 1.9 exactly.
    slack = gaps / batch - 1
    meets = found.exists and model.fits(counts) and bool((slack >= -1e-12).all())
    regime = "none" if not meets else "strict" if bool((slack > 1e-12).all()) else "boundary"
    latency, ttft = latency_bound_s(model, counts)
    return WaitDesign(
        thresholds=read_only(counts.astype(np.int64)),
        iteration_s=batch,
        memory_tokens=model.memory_tokens(counts),
        gap_s=read_only(gaps),
        feasible_gap_s=(model.least_gap_s, model.largest_gap_s),
        regime=regime,
        latency_bound_s=read_only(latency),
        ttft_bound_s=read_only(ttft),
        fluid=found,
    )


def wait_thresholds(model: WaitModel) -> WaitDesign:
    """The thresholds on the line `ceil(lambda D)` that give the least bound on the mean latency of a request.

    Every integer vector on the line is looked at, so rounding is part of the choice: `DT(n) < n_j/lambda_j` and memory are checked for
    the integers themselves. Vectors off the line are not.

    Parameters
    ----------
    model : WaitModel
        From `paper_model` or `engine_model`.

    Returns
    -------
    WaitDesign
        In the strict regime.

    Raises
    ------
    InputError
        If no integers meet the conditions: the rate is outside the region, or inside by less than rounding takes.

    Notes
    -----
    The bound is that of `latency_bound_s`: large D makes every stage longer, D near DT* makes the queue long.

    Examples
    --------
    >>> from stability.theory.wait import paper_model
    >>> model = paper_model(base_s=1.0, per_kv_token_s=0.01, rates_per_s=[1.0], prompt_tokens=[10],
    ...     output_tokens=[3], kv_capacity_tokens=100)
    >>> wait_thresholds(model)
    WaitDesign(thresholds [2], strict, batch 1.66 s)
    """
    counts = candidate_thresholds(model)
    batch = model.iterations_s(counts.astype(np.float64))
    gaps = counts / model.rates_per_s
    limits = (
        (model.volume_tokens, model.kv_capacity_tokens),
        (model.stages, model.slots),
        (model.tokens, model.budget),
    )
    fits = np.logical_and.reduce([counts @ need <= limit for need, limit in limits])
    kept = counts[fits & (batch[:, None] < gaps * (1 - 1e-12)).all(axis=1)]
    if not len(kept):
        low, high = model.least_gap_s, model.largest_gap_s
        raise InputError(
            f"no thresholds: the time between batches must be above {low:.4g} s for the rate and at most {high:.4g} s for memory, "
            "slots and token budget, in whole requests. Lower the rate or raise the limit that binds."
        )
    share = model.rates_per_s / model.rates_per_s.sum()
    bounds = [float(share @ latency_bound_s(model, row)[0]) for row in kept]
    return check_thresholds(model, kept[int(np.argmin(bounds))])
