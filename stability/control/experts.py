r"""Expert placement: which GPU holds which experts of a mixture, so that the most loaded GPU is loaded least.

Expert e gets load_e tokens; GPU g has room for a number of experts (slots) and works on the tokens f_eg it is sent:

.. math:: \min L \quad \text{s.t.} \quad \sum_g f_{eg} = \mathrm{load}_e, \quad \sum_e f_{eg} \le L, \quad
          0 \le f_{eg} \le \mathrm{load}_e P_{eg}, \quad \sum_e P_{eg} \le \mathrm{slots}, \quad P_{eg} \in \{0, 1\}.

For a given placement P this is a linear program (the flow over redundant experts, LPLB); with P a mixed-integer one. The
greedy method adds copies of the expert with the largest load per copy, places copies in descending order on the least loaded
GPU (LPT, as EPLB does) and then solves for the flow; its gap is to max(mean load, a load that even most copies leave).

A layer of a mixture lasts as long as its most loaded GPU, so the imbalance :math:`\rho = L/\text{mean}` stretches what is
proportional to the tokens of experts: `ExpertBalance.inflated`. The loads are long-run shares: single batches fluctuate around
them and are less even, most of all small ones, so this is a lower estimate of the stretch (**approximation**).

References: position paper arXiv 2605.01280 (section 2, expert parallelism); EPLB and LPLB of DeepSeek.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._extras import needs
from .._result import Tabular, no_truth
from .._types import ArrayLike, BoolArray, FloatArray, read_only
from ..errors import InputError, NotModelledError, check_choice, check_integer, check_number
from ..model.iteration import IterationLaw, IterationTime, TwoPhase
from .programs import Optimum, Program

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

METHODS = ("greedy", "exact")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExpertBalance(Tabular):
    """A placement of experts on GPUs, the flow of tokens over it, and how uneven that leaves the GPUs.

    Attributes
    ----------
    method : str
        "greedy" or "exact".
    loads : (n_experts,) ndarray
        Share of the tokens that each expert gets.
    placement : (n_experts, n_gpus) ndarray of bool
        Which GPU holds which expert.
    flow : (n_experts, n_gpus) ndarray
        Share of the tokens that each copy computes.
    imbalance : float
        Load of the most loaded GPU over the mean: the factor by which the expert part of a step is stretched.
    even_imbalance : float
        The same with every expert's tokens spread evenly over its copies.
    lower_bound : float
        Imbalance that no placement gets below.
    flow_gap : float
        Gap of the flow's linear program, by its dual prices.

    Examples
    --------
    See :func:`stability.expert_balance`.
    """

    schema: ClassVar[str] = "stability/expert-balance/1"

    method: str
    loads: FloatArray
    placement: BoolArray
    flow: FloatArray
    imbalance: float
    even_imbalance: float
    lower_bound: float
    flow_gap: float

    def __bool__(self) -> bool:
        raise no_truth("ExpertBalance")

    def __repr__(self) -> str:
        experts, gpus = self.placement.shape
        return f"ExpertBalance({experts} experts on {gpus} GPUs, imbalance {self.imbalance:.4f}, gap {self.gap:.1e}, {self.method})"

    @property
    def gap(self) -> float:
        """imbalance/lower_bound - 1: what a better placement could gain at most."""
        return self.imbalance / self.lower_bound - 1

    @property
    def gpu_loads(self) -> FloatArray:
        """Load of each GPU over the mean. Shape (n_gpus,)."""
        sums = self.flow.sum(axis=0)
        return np.asarray(sums / sums.mean())

    def inflated(self, law: IterationLaw, *, expert_share: float) -> IterationLaw:
        """The step-time law of a worker whose experts are as uneven as this.

        The times per token (`per_prefill_token_s`, `per_decode_token_s`) grow by 1 + `expert_share` (imbalance - 1). The base
        (weights are read whatever the tokens are), KV reads and prefill attention, which are not the experts', stay.

        Parameters
        ----------
        law : IterationTime or TwoPhase
            Of even loads.
        expert_share : float in [0, 1]
            Share of the time per token that the experts' layers take, communication of tokens included.
        """
        share = check_number("expert_share", expert_share, at_least=0, at_most=1)
        by = 1 + share * (self.imbalance - 1)
        if isinstance(law, TwoPhase):
            return TwoPhase(decode=_stretched(law.decode, by), mixed=_stretched(law.mixed, by))
        if isinstance(law, IterationTime):
            return _stretched(law, by)
        raise NotModelledError(
            f"law = {law!r} has no coefficients per token to stretch. Use IterationTime or iteration.TwoPhase."
        )

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        experts, gpus = self.placement.shape
        copies = self.placement.sum(axis=1)
        return [
            (
                "experts",
                f"{experts} on {gpus} GPUs, {int(copies.sum())} copies, most copies of one {int(copies.max())}",
            ),
            ("largest load of an expert", f"{experts * float(self.loads.max()):.3g} times the mean"),
            ("imbalance", f"{self.imbalance:.4f}"),
            ("  copies used evenly", f"{self.even_imbalance:.4f}"),
            ("  no placement below", f"{self.lower_bound:.4f} (gap {self.gap:.1e})"),
            ("method", self.method),
        ]

    def to_frame(self) -> pandas.DataFrame:
        """One row per copy: expert, GPU, share of the tokens."""
        needs("pandas")
        import pandas

        expert, gpu = np.nonzero(self.placement)
        return pandas.DataFrame({"expert": expert, "gpu": gpu, "token_share": self.flow[expert, gpu]})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Load of each GPU over the mean, as bars on `ax` (a new figure without it)."""
        from ..plots.experts import plot_expert_balance

        return plot_expert_balance(self, ax)


def zipf_loads(experts: int, *, exponent: float = 1.0) -> FloatArray:
    """Shares of the tokens that follow Zipf's law: the k-th expert gets 1/k**exponent, up to a factor.

    Parameters
    ----------
    experts : int >= 1
        How many.
    exponent : float >= 0
        0 is even; measured routers of large mixtures lie well below 1.

    Returns
    -------
    (experts,) ndarray
        Falling, with sum 1.

    Raises
    ------
    InputError
        If an argument breaks the rule stated for it.

    Examples
    --------
    >>> zipf_loads(3).round(4).tolist()  # 6/11, 3/11, 2/11
    [0.5455, 0.2727, 0.1818]
    """
    count = check_integer("experts", experts, at_least=1)
    weights = np.arange(1, count + 1) ** -check_number("exponent", exponent, at_least=0)
    return np.asarray(weights / weights.sum())


def expert_balance(
    loads: ArrayLike, *, gpus: int, slots_per_gpu: int, method: str = "greedy", time_limit_s: float = 20.0
) -> ExpertBalance:
    """A placement of experts, with copies of hot ones, that levels the load of the GPUs.

    Parameters
    ----------
    loads : (n_experts,) array_like, >= 0
        Tokens that each expert gets, up to a factor.
    gpus : int >= 1
        GPUs of the expert-parallel group.
    slots_per_gpu : int >= 1
        Experts that a GPU has memory for; gpus * slots_per_gpu >= n_experts.
    method : {"greedy", "exact"}
        Copies and packing by rule with the flow by a linear program; or all by a mixed-integer one, for small cases.
    time_limit_s : float > 0
        For the exact method, s; the gap that is left is in the result.

    Returns
    -------
    ExpertBalance
        Placement, flow, imbalance and the bound on it.

    Raises
    ------
    InputError
        If an argument breaks the rule stated for it.

    Notes
    -----
    See the module `stability.control.experts`.

    Examples
    --------
    One expert with half of the tokens and two with a quarter: on two GPUs they fit evenly; on four, a copy of the first is
    needed:

    >>> import stability as st
    >>> st.expert_balance([2, 1, 1], gpus=2, slots_per_gpu=2).imbalance
    1.0
    >>> found = st.expert_balance([2, 1, 1], gpus=4, slots_per_gpu=1)
    >>> found.imbalance, found.placement.sum(axis=1).tolist()
    (1.0, [2, 1, 1])
    """
    given = np.array(loads, dtype=np.float64)
    count = check_integer("gpus", gpus, at_least=1)
    slots = check_integer("slots_per_gpu", slots_per_gpu, at_least=1)
    check_choice("method", method, METHODS)
    check_number("time_limit_s", time_limit_s, above=0)
    if given.ndim != 1 or not np.isfinite(given).all() or (given < 0).any() or not given.sum() > 0:
        raise InputError("loads must be one number >= 0 an expert, not all 0. Give the tokens that each expert gets.")
    if count * slots < len(given):
        raise InputError(
            f"gpus * slots_per_gpu = {count * slots}, must be >= the {len(given)} experts. "
            f"Give each GPU {math.ceil(len(given) / count)} slots, or use {math.ceil(len(given) / slots)} GPUs."
        )
    given /= given.sum()
    most = min(count, count * slots - len(given) + 1)  # copies an expert can have
    bound = max(1.0, count * float(given.max()) / most)
    if method == "exact":
        found, placement = _exact(given, count, slots, time_limit_s)
        if found is None:
            placement = _greedy(given, count, slots)
        else:
            bound = max(bound, count * found.bound)
    else:
        placement = _greedy(given, count, slots)
    flow, gap = _flow(given, placement)
    even = (given / placement.sum(axis=1)) @ placement
    imbalance = count * float(flow.sum(axis=0).max())
    return ExpertBalance(
        method=method,
        loads=read_only(given),
        placement=read_only(placement),
        flow=read_only(flow),
        imbalance=imbalance,
        even_imbalance=count * float(even.max()),
        lower_bound=min(bound, imbalance),
        flow_gap=gap,
    )


def _greedy(loads: FloatArray, gpus: int, slots: int) -> BoolArray:
    """Copies to the largest load per copy, then largest copies first to the least loaded GPU with room."""
    copies = np.ones(len(loads), dtype=np.int64)
    heap = [(-load, e) for e, load in enumerate(loads.tolist())]
    heapq.heapify(heap)
    for _ in range(gpus * slots - len(loads)):
        while heap and copies[heap[0][1]] >= gpus:
            heapq.heappop(heap)
        if not heap:
            break
        _, e = heap[0]
        copies[e] += 1
        heapq.heapreplace(heap, (-loads[e] / copies[e], e))
    placement = np.zeros((len(loads), gpus), dtype=np.bool_)
    carried, free = np.zeros(gpus), np.full(gpus, slots)
    each = loads / copies
    for e in np.argsort(-each, kind="stable").tolist():
        for _ in range(int(copies[e])):
            room = np.flatnonzero((free > 0) & ~placement[e])
            if len(room):  # else every GPU with room holds it already
                g = int(room[carried[room].argmin()])
                placement[e, g] = True
                carried[g] += each[e]
                free[g] -= 1
    return placement


def _flow(loads: FloatArray, placement: BoolArray) -> tuple[FloatArray, float]:
    """The flow that levels a placement best, and its gap."""
    program = Program()
    (top,) = program.variables(1, cost=1.0)
    at = np.full(placement.shape, -1)
    at[placement] = program.variables(int(placement.sum()))
    for e, load in enumerate(loads.tolist()):
        program.row(at[e, placement[e]], 1.0, at_least=load, at_most=load)
    for g in range(placement.shape[1]):
        held = at[placement[:, g], g].tolist()
        program.row([*held, int(top)], [*([1.0] * len(held)), -1.0], at_most=0.0)
    found = program.minimise()
    flow = np.zeros(placement.shape)
    flow[placement] = np.maximum(found.values[at[placement]], 0.0)
    sums = flow.sum(axis=1)
    flow *= np.divide(loads, sums, out=np.ones_like(loads), where=sums > 0)[:, None]
    return flow, found.gap


def _exact(loads: FloatArray, gpus: int, slots: int, time_limit_s: float) -> tuple[Optimum | None, BoolArray]:
    """The mixed-integer program; None where it found nothing in time."""
    program, experts = Program(), len(loads)
    (top,) = program.variables(1, cost=1.0, lower=1 / gpus)
    flow = program.variables(experts * gpus).reshape(experts, gpus)
    held = program.variables(experts * gpus, upper=1.0, integer=True).reshape(experts, gpus)
    for e, load in enumerate(loads.tolist()):
        program.row(flow[e], 1.0, at_least=load, at_most=load)
        program.row(held[e], 1.0, at_least=1.0)
        for g in range(gpus):
            program.row([flow[e, g], held[e, g]], [1.0, -load], at_most=0.0)
    for g in range(gpus):
        program.row([*flow[:, g].tolist(), int(top)], [*([1.0] * experts), -1.0], at_most=0.0)
        program.row(held[:, g], 1.0, at_most=float(slots))
    found = program.minimise(time_limit_s=time_limit_s)
    if not len(found.values):
        return None, np.zeros((experts, gpus), dtype=np.bool_)
    return found, found.values[held] > 0.5


def _stretched(law: IterationTime, by: float) -> IterationTime:
    return replace(
        law,
        per_prefill_token_s=law.per_prefill_token_s * by,
        per_decode_token_s=law.per_decode_token_s * by,
    )
