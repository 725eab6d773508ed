r"""Rows of a fleet: the replica-seconds that a request of each class takes from each kind of replica.

A fleet serves rates :math:`x_{ik}` (class k on the :math:`n_i` replicas of type i) when, in every row r,

.. math:: \sum_k T_{irk}\,x_{ik} \le n_i, \qquad T_{irk} = W_{ik} + c_{0,i}\,a_{irk}/C_{ir} .

Three readings, never to be mixed:

- `"bound"`: least demands, whole capacities. **Necessary** for every routing and every scheduling policy (no migration, no split into prefill
  and decode pools). A law that is not affine contributes the affine laws below it; a two-phase law or a table, tangents to its least time,
  which is sublinear in the demands.
- `"policy"`: what the pool's own scheduler reaches, **approximate**: `analyze` in the direction of one mix, linear around it. Each row is
  scaled so that it gives `analyze`'s capacity at that mix: packing slack of reservations, headroom and eviction waste of gates, tangents of other laws.
- `"proved"`: one row a pool, **sufficient** with reservation admission and random splitting:
  :math:`T_{ik} = W_{ik} + c_{0,i} \sum_r a_{irk}/((1-\delta_{ir}) C_{ir})`. Pools that may evict prove nothing and serve nothing.

Equal replicas are one type, whatever pools they are in. A class fits a type or does not: then its rate there is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .._types import AnyArray, BoolArray, FloatArray, IntArray
from ..errors import InputError, NotModelledError, UnservableError, check_choice
from ..model.checks import check_no_prefixes, check_pair
from ..model.fleet import Fleet
from ..model.iteration import IterationTime
from ..model.replica import Replica
from ..model.workload import RequestClass, Workload
from ..policies import Fcfs, scheduler_of
from ..theory import envelope, footprint
from ..theory.analyze import RARE, check_rate
from ..theory.conditions import BOUND_ROWS, GATE_ROWS, RESERVE_ROWS, Resource, capacities, work_s
from ..theory.moments import N_DEMANDS, Demand, moments, tail_probability
from ..theory.regimes import evicts
from ..theory.solve import largest_footprint, solve
from .tangents import tangent_rows

KINDS = ("policy", "bound", "proved")

_Parts = tuple[FloatArray, FloatArray, FloatArray]
"""seconds (R, K), of which memory-, slot- and budget-bound (R, 3, K), and capacities (3,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FleetRows:
    """Rows of a fleet for given classes.

    Attributes
    ----------
    kind : str
        "policy", "bound" or "proved".
    types : tuple of Replica
        The distinct replicas.
    pools : tuple of str
        Names.
    type_of : (n_pools,) ndarray of int
        Type of each pool's replicas.
    pool_replicas : (n_pools,) ndarray
    replicas : (n,) ndarray
        Replicas of each type.
    classes : tuple of str
    rates_per_s : (K,) ndarray
        Of the workload.
    seconds : (n, R, K) ndarray
        T; 0 where the class does not fit.
    occupancy : (n, R, 3, K) ndarray
        The part of T that falls as 1/capacity of each resource.
    limits : (n, 3) ndarray
        The capacities it refers to.
    per_token : (n,) ndarray
        By how much the KV capacity in `limits` grows with one token of KV cache.
    fits : (n, K) ndarray of bool
    law : (n, 5) ndarray
        Affine law, or the tangent at the type's capacity.
    decode_s : (n, K) ndarray
        What a decode adds for itself: c_d + c_k E[own KV], s.
    decodes : (K,) ndarray
        Mean decodes of a request.
    work_s : (n, K) ndarray
        W, s.
    doubts : tuple of str
        Pools whose policy rows lie outside every regime with a known capacity, and why.
    """

    kind: str
    types: tuple[Replica, ...]
    pools: tuple[str, ...]
    type_of: IntArray
    pool_replicas: FloatArray
    replicas: FloatArray
    classes: tuple[str, ...]
    rates_per_s: FloatArray
    seconds: FloatArray
    occupancy: FloatArray
    limits: FloatArray
    per_token: FloatArray
    fits: BoolArray
    law: FloatArray
    decode_s: FloatArray
    decodes: FloatArray
    work_s: FloatArray
    doubts: tuple[str, ...]

    @property
    def pool_share(self) -> FloatArray:
        """Each pool's share of the replicas of its type. Shape (n_pools,)."""
        return np.asarray(self.pool_replicas / self.replicas[self.type_of])

    def names_of(self, type_: int) -> str:
        """Pools of a type, for messages."""
        return ", ".join(name for name, t in zip(self.pools, self.type_of.tolist(), strict=True) if t == type_)


def fleet_rows(
    fleet: Fleet, workload: Workload, *, rows: str = "policy", mixes: FloatArray | None = None, merged: bool = True
) -> FleetRows:
    """The rows of a fleet for the classes of a workload.

    Parameters
    ----------
    fleet : Fleet
        Mixed, independent pools; their weights do not matter.
    workload : Workload
        Classes; a schedule counts with its time average. Classes without arrivals have rows, too.
    rows : {"policy", "bound", "proved"}
        Which reading.
    mixes : (n, K) ndarray, optional
        Rates of the classes on each type, up to a factor, around which policy rows are linear; the workload's without.
    merged : bool
        Whether pools of equal replicas are one type; without, every pool is its own.

    Raises
    ------
    UnservableError
        If a class fits no pool.
    NotModelledError
        For prefill and decode pools, barriers, prefix hits, schedulers without an analysis.
    """
    check_pair(fleet, workload)
    check_no_prefixes(workload, "optimal routing and regions")
    check_rate(workload)
    check_choice("rows", rows, KINDS)
    classes = list(workload.classes)
    _check_modelled(fleet)
    index: dict[Replica, int] = {}
    type_of = np.array([index.setdefault(pool.replica, len(index)) for pool in fleet.pools])
    types = tuple(index)
    if not merged:
        type_of, types = np.arange(len(fleet.pools)), tuple(pool.replica for pool in fleet.pools)
    counts = np.array([pool.replicas for pool in fleet.pools], dtype=np.float64)
    replicas = np.bincount(type_of, weights=counts, minlength=len(types)).astype(np.float64)
    fits = _fits(types, classes)
    rates = np.array([item.mean_rate_per_s for item in classes])
    _check_servable(types, classes, fits, rates)
    demand = _class_demands(types, classes)
    mix = np.broadcast_to(rates, fits.shape) if mixes is None else mixes
    mix = np.where(fits, mix, 0.0)
    empty = mix.sum(axis=1) <= 0
    mix = np.where(empty[:, None], fits, mix)
    coefficients, shares, doubts = _policy(types, classes, mix)
    build = {"policy": _policy_rows, "bound": _bound_rows, "proved": _proved_rows}[rows]
    if rows == "proved":
        fits = fits & _provable(types, classes, fits)[:, None]
        _check_proved(types, classes, fits, rates)
    found = [
        build(types[i], demand[i], coefficients[i], shares[i], mix[i], fits[i], classes) for i in range(len(types))
    ]
    height = max(len(part[0]) for part in found)
    seconds = np.zeros((len(types), height, len(classes)))
    occupancy = np.zeros((len(types), height, 3, len(classes)))
    for i, (own, parts, _) in enumerate(found):
        seconds[i, : len(own)], occupancy[i, : len(own)] = own * fits[i], parts * fits[i]
    _check_bounded(types, classes, seconds, fits)
    decodes = np.maximum(demand[:, :, Demand.DECODE], 1e-300)
    own_kv = np.where(demand[:, :, Demand.DECODE] > 0, demand[:, :, Demand.READ] / decodes, 0.0)
    return FleetRows(
        kind=rows,
        types=types,
        pools=tuple(pool.name for pool in fleet.pools),
        type_of=type_of,
        pool_replicas=counts,
        replicas=replicas,
        classes=tuple(item.name for item in classes),
        rates_per_s=rates,
        seconds=seconds,
        occupancy=occupancy,
        limits=np.array([part[2] for part in found]),
        per_token=np.array([1.0 - (rows != "bound") * _watermark(replica) for replica in types]),
        fits=fits,
        law=coefficients,
        decode_s=coefficients[:, None, 2] + coefficients[:, None, 3] * own_kv,
        decodes=demand[0, :, Demand.DECODE].copy(),
        work_s=work_s(coefficients[:, None, :], demand),
        doubts=tuple(
            f"pool {pool.name!r}: {doubts[type_]}"
            for pool, type_ in zip(fleet.pools, type_of.tolist(), strict=True)
            if rows == "policy" and doubts[type_]
        ),
    )


def _watermark(replica: Replica) -> float:
    engine = replica.engine
    return engine.watermark if engine.scheduler is None else float(getattr(engine.scheduler, "watermark", 0.0))


def _check_modelled(fleet: Fleet) -> None:
    for pool in fleet.pools:
        if pool.role != "mixed" or pool.coupling != "independent":
            raise NotModelledError(
                f"pool {pool.name!r} has a prefill/decode role or a barrier, must be mixed and independent for regions and "
                "routing. Use `stability check`."
            )
        if not isinstance(scheduler_of(pool.replica.engine), Fcfs):
            raise NotModelledError(
                f"pool {pool.name!r}: scheduler {pool.replica.engine.scheduler!r} has no analysis yet. "
                "Use `stability simulate`."
            )


def _fits(types: Sequence[Replica], classes: Sequence[RequestClass]) -> BoolArray:
    """Whether requests of each class can be served by each type. Shape (n, K)."""
    longest = {gate: [largest_footprint(item, gate) for item in classes] for gate in (False, True)}
    fits = np.empty((len(types), len(classes)), dtype=np.bool_)
    for i, replica in enumerate(types):
        room = replica.usable_kv_tokens
        for k, (item, most) in enumerate(zip(classes, longest[evicts(replica)], strict=True)):
            fits[i, k] = most <= room or (math.isinf(most) and tail_probability(item.lengths, room) <= RARE)
    return fits


def _check_servable(
    types: Sequence[Replica], classes: Sequence[RequestClass], fits: BoolArray, rates: FloatArray
) -> None:
    for k, item in enumerate(classes):
        if rates[k] > 0 and not fits[:, k].any():
            largest = max(types, key=lambda replica: replica.usable_kv_tokens)
            most = largest_footprint(item, evicts(largest))
            need = f"up to {most:.0f} KV tokens" if math.isfinite(most) else "KV without a limit"
            raise UnservableError(
                f"class {item.name!r} has requests that take {need}, must fit in a pool, the largest of which has "
                f"{largest.usable_kv_tokens}. "
                + (
                    f"Raise a pool's KV cache by {most - largest.usable_kv_tokens:.0f} tokens or truncate the lengths."
                    if math.isfinite(most)
                    else "Truncate the lengths with limit=..."
                )
            )


def _check_bounded(
    types: Sequence[Replica], classes: Sequence[RequestClass], seconds: FloatArray, fits: BoolArray
) -> None:
    for i, k in zip(*np.nonzero(fits & ~(seconds.max(axis=1) > 0)), strict=True):
        raise InputError(
            f"a request of class {classes[k].name!r} takes no time under {types[i].iteration!r}, must take some: its rate would have no "
            "bound. Give the law a base_s > 0."
        )


def _class_demands(types: Sequence[Replica], classes: Sequence[RequestClass]) -> FloatArray:
    """Mean demand of each class at each type. Shape (n, K, 15)."""
    known: dict[tuple[int, int], FloatArray] = {}
    demand = np.empty((len(types), len(classes), N_DEMANDS))
    for i, replica in enumerate(types):
        key = (replica.engine.max_num_batched_tokens, replica.engine.block_size)
        if key not in known:
            known[key] = np.array([moments(item.lengths, *key, item.max_output_tokens).mean for item in classes])
        demand[i] = known[key]
    return demand


def _policy(
    types: Sequence[Replica], classes: Sequence[RequestClass], mix: FloatArray
) -> tuple[FloatArray, FloatArray, list[str]]:
    """Tangent law (n, 5), E[a_r]/C_r of the mix (n, 3) and doubts of each type, as `analyze` has them; equal mixes together.

    A type that no class fits has rows of its own making; nothing is ever sent there.
    """
    coefficients, shares = np.tile([1.0, 0.0, 0.0, 0.0, 0.0], (len(types), 1)), np.ones((len(types), 3))
    doubts = [""] * len(types)
    total = mix.sum(axis=1, keepdims=True)
    keys, where = np.unique(mix / np.where(total > 0, total, 1.0), axis=0, return_inverse=True)
    for key in np.flatnonzero(keys.sum(axis=1) > 0).tolist():
        rows = np.flatnonzero(where.ravel() == key)
        some = np.flatnonzero(keys[key] > 0)
        weights = keys[key][some] / keys[key][some].sum()
        solved = solve([types[i] for i in rows.tolist()], [classes[k] for k in some.tolist()], weights, 0.95)
        coefficients[rows], shares[rows] = solved.coefficients, solved.shares
        for row, doubt in zip(rows.tolist(), solved.doubts, strict=True):
            doubts[row] = doubt
    return coefficients, shares, doubts


def _policy_rows(
    replica: Replica,
    demand: FloatArray,
    law: FloatArray,
    shares: FloatArray,
    mix: FloatArray,
    fits: BoolArray,
    classes: Sequence[RequestClass],
) -> _Parts:
    del fits, classes
    wanted = demand[:, list(GATE_ROWS if evicts(replica) else RESERVE_ROWS)].T  # (3, K)
    mean = wanted @ (mix / max(float(mix.sum()), 1e-300))
    limits = np.where((shares > 0) & (mean > 0), mean / np.maximum(shares, 1e-300), np.inf)
    part = max(law[0], 0.0) * wanted / limits[:, None]
    return _stacked(work_s(law, demand), part, limits)


def _stacked(work: FloatArray, part: FloatArray, limits: FloatArray) -> _Parts:
    """One row per resource."""
    occupancy = np.zeros((3, 3, part.shape[1]))
    for r in range(3):
        occupancy[r, r] = part[r]
    return work + part, occupancy, limits


def _bound_rows(
    replica: Replica,
    demand: FloatArray,
    law: FloatArray,
    shares: FloatArray,
    mix: FloatArray,
    fits: BoolArray,
    classes: Sequence[RequestClass],
) -> _Parts:
    del law, shares, classes
    limits = capacities(replica)
    wanted = demand[:, list(BOUND_ROWS)].T
    own = replica.iteration
    if isinstance(own, IterationTime):
        coefficients = np.array(own.coefficients)
        return _stacked(work_s(coefficients, demand), coefficients[0] * wanted / limits[:, None], limits)
    facets = envelope.minorants(own, int(limits[Resource.TOKEN_BUDGET]))
    if not len(facets):
        seconds, occupancy = tangent_rows(own, demand, limits, mix, fits)
        return seconds, occupancy, limits
    seconds_, parts = [], []
    for facet in facets[facets[:, 0] >= 0]:
        own_seconds, own_part, _ = _stacked(work_s(facet, demand), facet[0] * wanted / limits[:, None], limits)
        seconds_.append(own_seconds)
        parts.append(own_part)
    for low in facets[facets[:, 0] < 0]:
        for high in facets[facets[:, 0] > 0]:  # mixed to base 0
            weight = high[0] / (high[0] - low[0])
            seconds_.append((weight * work_s(low, demand) + (1 - weight) * work_s(high, demand))[None])
            parts.append(np.zeros((1, 3, demand.shape[0])))
    kept = undominated(np.concatenate(seconds_))
    return np.concatenate(seconds_)[kept], np.concatenate(parts)[kept], limits


def undominated(seconds: FloatArray) -> IntArray:
    """Rows that no other row is at least as great as in every class; of equal ones the first. Shape (m,)."""
    kept: list[int] = []
    order = np.argsort(-seconds.sum(axis=1), kind="stable")
    for row in order.tolist():
        if not any(np.all(seconds[row] <= seconds[other]) for other in kept):
            kept.append(row)
    return np.array(sorted(kept))


def _largest(classes: Sequence[RequestClass], fits: BoolArray) -> float:
    return max(
        (largest_footprint(item, False) for item, ok in zip(classes, fits.tolist(), strict=True) if ok),
        default=math.inf,
    )


def _provable(types: Sequence[Replica], classes: Sequence[RequestClass], fits: BoolArray) -> BoolArray:
    """Types for which anything is proved. Shape (n,)."""
    return np.array([_kept_free(replica, classes, fits[i]) is not None for i, replica in enumerate(types)])


def _kept_free(replica: Replica, classes: Sequence[RequestClass], fits: BoolArray) -> float | None:
    """KV that a reservation may leave unused, tokens: the largest request's and the watermark; None if nothing is proved."""
    largest = _largest(classes, fits)
    if evicts(replica) or not math.isfinite(largest):
        return None
    if not len(envelope.majorants(replica.iteration, replica.engine.max_num_batched_tokens)):
        return None
    kept = float(footprint.blocks(int(largest), replica.engine.block_size)) + replica.watermark_tokens
    return kept if kept < replica.usable_kv_tokens else None


def _check_proved(
    types: Sequence[Replica], classes: Sequence[RequestClass], fits: BoolArray, rates: FloatArray
) -> None:
    missing = [item.name for k, item in enumerate(classes) if rates[k] > 0 and not fits[:, k].any()]
    if missing:
        raise InputError(
            f"nothing is proved for class {missing[0]!r} on any of {len(types)} kinds of replicas, must be for one. Use admission='reserve', "
            "lengths with a limit and a KV cache larger than the longest request, or rows='policy'."
        )


def _proved_rows(
    replica: Replica,
    demand: FloatArray,
    law: FloatArray,
    shares: FloatArray,
    mix: FloatArray,
    fits: BoolArray,
    classes: Sequence[RequestClass],
) -> _Parts:
    del law, shares
    limits = capacities(replica)
    kept = _kept_free(replica, classes, fits)
    if kept is None or not fits.any():
        return np.zeros((1, len(demand))), np.zeros((1, 3, len(demand))), limits
    limits = limits - np.array([kept, 0.0, 0.0])
    wanted = demand[:, list(RESERVE_ROWS)].T
    laws = envelope.majorants(replica.iteration, replica.engine.max_num_batched_tokens)
    best: tuple[float, FloatArray, FloatArray] | None = None
    for coefficients in laws:
        part = max(float(coefficients[0]), 0.0) * wanted / limits[:, None]
        own = work_s(coefficients, demand) + part.sum(axis=0)
        if best is None or float(mix @ own) < best[0]:
            best = float(mix @ own), own, part
    assert best is not None
    return best[1][None], best[2][None], limits


def by_pool(rows: FleetRows, of_type: AnyArray) -> FloatArray:
    """Rates of each pool from those of its type: replicas of a type share evenly. Shape (n_pools, ...)."""
    share = rows.pool_share.reshape((-1,) + (1,) * (of_type.ndim - 1))
    return np.asarray(of_type[rows.type_of] * share)
