r"""Step-time laws that are not affine, between affine ones.

The necessary condition holds for every affine law below the true one on the feasible compositions (at most B batched
tokens, N decodes, M tokens of KV). The best of these minorants, over convex combinations with a base >= 0, gives the
same bound as the lower convex envelope of the law maximised over the batch level: a smaller batch can be the better one
(`c + a max(0, b - b0)` with `a b0 > c`), which shows as a minorant of base 0 between two facets.

The sufficient condition holds for every affine law above the true one.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np

from .._types import FloatArray
from ..model.iteration import BatchLaw, IterationLaw, IterationTime, Table, TwoPhase
from .conditions import BOUND_ROWS, Resource, occupancy, work_s
from .moments import Demand


def upper_bound(law: IterationLaw, demand: FloatArray, limits: FloatArray) -> float:
    """Rate that no policy exceeds, 1/s: **necessary**.

    Parameters
    ----------
    law : IterationLaw
        Step-time law.
    demand : (15,) ndarray
        Mean demand of a request, see `Demand`.
    limits : (3,) ndarray
        Capacities of the resources, see `conditions.capacities`.
    """
    return 1.0 / least_time_s(law, demand, limits)


def least_time_s(law: IterationLaw, demand: FloatArray, limits: FloatArray) -> float:
    """Least mean engine time any policy can spend per request, s."""
    if isinstance(law, TwoPhase):
        return _two_phase_time(law, demand, limits)
    if isinstance(law, Table):
        return _table_time(law, demand, limits)
    return _best_minorant(minorants(law, int(limits[Resource.TOKEN_BUDGET])), demand, limits)


def minorants(law: IterationLaw, budget: int) -> FloatArray:
    """Affine laws whose maximum is the lower convex envelope of `law` over batches of 1..`budget` tokens. Shape (m, 5)."""
    if isinstance(law, IterationTime):
        return np.array([law.coefficients])
    if isinstance(law, BatchLaw):
        return _facets(law, budget, sign=1.0)
    return np.empty((0, 5))


def majorants(law: IterationLaw, budget: int) -> FloatArray:
    """Affine laws nowhere below `law` over batches of 1..`budget` tokens. Shape (m, 5)."""
    if isinstance(law, IterationTime):
        return np.array([law.coefficients])
    if isinstance(law, TwoPhase):
        return np.maximum([law.decode.coefficients], [law.mixed.coefficients])
    if isinstance(law, BatchLaw):
        return _facets(law, budget, sign=-1.0)
    return np.empty((0, 5))


def _facets(law: BatchLaw, budget: int, sign: float) -> FloatArray:
    """Facets of the lower (sign 1) or upper (sign -1) hull of phi over 1..budget."""
    points = law.breakpoints(budget) if sign > 0 else np.arange(1, budget + 1)
    x = points.astype(np.float64)
    y = sign * law.of_batch_s(x)
    hull = [0]
    for index in range(1, len(x)):
        while len(hull) > 1 and _slope(x, y, hull[-1], index) <= _slope(x, y, hull[-2], hull[-1]):
            hull.pop()
        hull.append(index)
    if len(hull) == 1:
        return np.array([[sign * y[0], 0.0, 0.0, law.per_kv_token_s, law.per_prefill_context_s]])
    facets = []
    for left, right in pairwise(hull):
        slope = sign * _slope(x, y, left, right)
        base = sign * y[left] - slope * x[left]
        facets.append([base, slope, slope, law.per_kv_token_s, law.per_prefill_context_s])
    return np.array(facets)


def _slope(x: FloatArray, y: FloatArray, left: int, right: int) -> float:
    return float((y[right] - y[left]) / (x[right] - x[left]))


def _best_minorant(facets: FloatArray, demand: FloatArray, limits: FloatArray) -> float:
    """Largest E[W] + c0 max_r a_r/C_r over minorants of base >= 0, and over pairs mixed to base 0."""
    share = float(occupancy(demand, BOUND_ROWS, limits).max())
    work = work_s(facets, demand)
    base = facets[:, 0]
    times = [float(w + c * share) for w, c in zip(work, base, strict=True) if c >= 0]
    for i, j in combinations(range(len(facets)), 2):
        if base[i] * base[j] < 0:
            weight = base[j] / (base[j] - base[i])
            times.append(float(weight * work[i] + (1 - weight) * work[j]))
    return max(times)


def _two_phase_time(law: TwoPhase, demand: FloatArray, limits: FloatArray) -> float:
    """The linear program over (decode-only, mixed) iterations per request, by visiting the vertices of its two variables.

    Per request, u decode-only and v mixed iterations; decodes and reads go where they are cheaper, as far as slots,
    budget and memory of those iterations allow. The cost is piecewise linear in (u, v) with breaks on a dozen lines.
    """
    memory, slots, budget = (float(c) for c in limits)
    prefill, decode, read, context = (float(demand[d]) for d in (0, 1, 2, 3))
    share = float(occupancy(demand, BOUND_ROWS, limits).max())
    lines = np.array(
        [
            (1, 0, 0),
            (0, budget, prefill),
            (1, 1, share),
            (slots, 0, decode),
            (0, slots, decode),
            (slots, slots, decode),
            (0, budget, prefill + decode),
            (0, budget - slots, prefill),
            (slots, budget, prefill + decode),
            (memory, 0, read),
            (0, memory, read),
            (memory, memory, read),
        ]
    )
    pairs = np.array([(a, b) for a, b in combinations(lines, 2) if abs(a[0] * b[1] - a[1] * b[0]) > 1e-9])
    points = np.linalg.solve(pairs[:, :, :2], pairs[:, :, 2:])[:, :, 0]
    slack = 1e-9 * max(share, 1.0)
    u, v = points[:, 0], points[:, 1]
    ok = (u >= -slack) & (v * budget >= prefill - slack * budget) & (u + v >= share - slack)
    only, mixed = law.decode.coefficients, law.mixed.coefficients

    def split(total: float, room_u: FloatArray, room_v: FloatArray, cost_u: float, cost_v: float) -> FloatArray:
        room_u, room_v = np.maximum(room_u, 0.0), np.maximum(room_v, 0.0)
        cheap_u = cost_u <= cost_v
        first = np.minimum(total, room_u if cheap_u else room_v)
        cost = first * min(cost_u, cost_v) + (total - first) * max(cost_u, cost_v)
        return np.where(room_u + room_v >= total * (1 - 1e-12), cost, np.inf)

    room_v = np.minimum(v * slots, v * budget - prefill)
    cost = u * only[0] + v * mixed[0] + mixed[1] * prefill + mixed[4] * context
    cost = cost + split(decode, u * slots, room_v, only[2], mixed[2])
    cost = cost + split(read, u * memory, v * memory, only[3], mixed[3])
    return float(cost[ok].min())


def _table_time(law: Table, demand: FloatArray, limits: FloatArray) -> float:
    """The linear program whose iterations are the corners of the measured grid (a multilinear law bends only there)."""
    from scipy.optimize import linprog

    axes = [
        clipped_axis(axis, limit)
        for axis, limit in zip(table_axes(law), (limits[2], limits[1], limits[0]), strict=True)
    ]
    p, d, k = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
    times = law.time_s(p, d, k)
    shares = occupancy(demand, BOUND_ROWS, limits)
    wanted = [demand[Demand.PREFILL], demand[Demand.DECODE], demand[Demand.READ], float(shares.max())]
    supply = np.vstack([p, d, k, np.ones_like(p)])
    found = linprog(times, A_ub=-supply, b_ub=-np.array(wanted), bounds=(0, None), method="highs")
    if found.fun is None:  # demands beyond what any mix of grid points supplies: no time suffices
        return np.inf
    return float(found.fun) + law.per_prefill_context_s * float(demand[Demand.CONTEXT])


def table_axes(law: Table) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The grid of a measured table: prompt tokens, decodes, KV tokens."""
    return np.array(law.prefill_tokens), np.array(law.decode_tokens), np.array(law.kv_tokens)


def clipped_axis(axis: FloatArray, limit: float) -> FloatArray:
    """The axis from 0 to the engine's limit: extrapolated or cut."""
    return np.concatenate(([0.0], axis[(axis > 0) & (axis < limit)], [limit]))
