r"""Least total latency on an engine: what no scheduler gets below, even one that knows all requests beforehand.

**Statement.** Let a step last at least `c0 + cp*P + cd*D + ck*K + ca*A` (an affine law, or one below the true law) and let C be the KV
capacity, the slots or the token budget. Request i takes the own time :math:`w_{ij}` and the amount :math:`u_{ij}` of the resource in the
step of its j-th token, prefill and all its chunks counting as the first. Put :math:`z_{ij} = w_{ij} + c_0 u_{ij}/C`,
:math:`z_i = \sum_j z_{ij}`, and :math:`\tau_{ij} = c_0 + w_{ij}`, the least time of that step. With R replicas

.. math:: \sum_i C_i \;\ge\; \min_y \sum_i \frac1{z_i}\int t\,y_i(t)\,dt
          + \sum_i \sum_j \frac{z_{ij}}{z_i}\Bigl(\frac{\tau_{ij}}2 + \sum_{k>j}\tau_{ik}\Bigr) ,

the minimum over rates :math:`\sum_i y_i \le R` that give work :math:`z_{ij}` to the j-th token, none before
:math:`a_i + \sum_{k<j}\tau_{ik}`.

**Proof.** In any run take the step in which token j of request i is computed for good (what is evicted or started anew is left
out). The :math:`u_{ij}` in one step add up to at most C, so its length is at least :math:`c_0 + \sum w \ge \sum z`: spread each
:math:`z_{ij}` evenly over its step and the rates stay below 1 a replica. No token comes before the request alone on an empty replica would
have it, so the releases hold. The mean time at which the work of i is done lies before :math:`C_i` by at least the second sum: half the own step
and all the later ones. The minimum is reached by serving, of what is released, the request of least :math:`z_i`: pieces of work have value
:math:`1/z_i` a unit, and exchanging two pieces against that order does not help (Goemans et al., SIAM J. Discrete Math. 15, 2002).

Recomputing after an eviction may be cheaper than the decode it stands for: :math:`w_{ij}` is the smaller of the two. Chunks of a prompt
have no fixed size: their own times add up to W in whatever order, so their share of the second sum is at least
:math:`W(W + c_0)/2`.

The largest over resources, and over affine laws below the true one, is taken, and the sum of the latencies alone where that is larger.
**Necessary** for every scheduler, preemptive, restarting or pausing; leaving out requests leaves a bound for the rest. It is not the least
latency: batches of few requests share c0 worse than z counts.
"""

from __future__ import annotations

import heapq
from dataclasses import replace
from itertools import combinations

import numpy as np

from .._types import FloatArray, IntArray
from ..errors import NotModelledError
from ..model.fleet import Barrier, Fleet
from ..model.iteration import IterationLaw, TwoPhase
from ..model.replica import Replica
from ..theory import footprint
from ..theory.envelope import minorants

MOST_REQUESTS = 200_000
"""Requests beyond which no bound is computed."""

PIECES = 400_000
"""Most pieces of work in all: tokens are grouped, released with the first of their group."""

SEGMENTS = 32
"""Most pieces a request."""


def least_total_latency_s(
    fleet: Fleet,
    arrival_s: FloatArray,
    prompt_tokens: IntArray,
    output_tokens: IntArray,
    *,
    unlimited_memory: bool = False,
) -> float:
    """Total latency of these requests that no scheduler gets below, s.

    Parameters
    ----------
    fleet : Fleet
        Independent replicas of one kind that prefill and decode.
    arrival_s : (n,) ndarray
        Arrivals.
    prompt_tokens, output_tokens : (n,) ndarray of int
        Lengths.
    unlimited_memory : bool
        Whether schedulers may ignore the KV capacity (`gate=False`).

    Raises
    ------
    NotModelledError
        If the fleet is not of that kind or caches prefixes, no affine law is known below its step-time law, or there are too many
        requests.
    """
    if len(arrival_s) > MOST_REQUESTS:
        raise NotModelledError(
            f"{len(arrival_s)} requests, must be at most {MOST_REQUESTS} for the hindsight bound. Simulate fewer."
        )
    for pool in fleet.pools:
        if pool.role != "mixed" or isinstance(pool.coupling, Barrier):
            raise NotModelledError(
                f"pool {pool.name!r} is coupled or of role {pool.role!r}, must be of independent replicas that prefill and decode "
                "for the hindsight bound."
            )
    replica = fleet.pools[0].replica
    if replica.engine.prefix_caching:
        raise NotModelledError("prefix_caching spares work that the hindsight bound counts. Compare without it.")
    if any(_alike(pool.replica) != _alike(replica) for pool in fleet.pools):
        raise NotModelledError("the pools have replicas of several kinds, must have one for the hindsight bound.")
    laws = affine_below(replica.iteration, replica.engine.max_num_batched_tokens)
    if not len(laws):
        raise NotModelledError(f"{replica.iteration!r} has no affine law below it, must have for the hindsight bound.")
    servers = sum(pool.replicas for pool in fleet.pools)
    arrival = np.asarray(arrival_s, dtype=np.float64)
    arrival = arrival - arrival.min()
    segments = max(1, min(SEGMENTS, PIECES // len(arrival)))
    resources = ("slots", "budget") if unlimited_memory else ("memory", "slots", "budget")
    return max(
        _bound(_Needs(replica, law, name), servers, arrival, prompt_tokens, output_tokens, segments)
        for name in resources
        for law in laws
    )


def _alike(replica: Replica) -> Replica:
    """The replica without its scheduler: what is left decides the bound."""
    return replace(replica, engine=replace(replica.engine, scheduler=None, admission="reserve", watermark=0.0))


def affine_below(law: IterationLaw, budget: int) -> FloatArray:
    """Affine laws of base >= 0 below `law`, shape (m, 5): its own facets, and pairs of them mixed to base 0."""
    if isinstance(law, TwoPhase):
        return np.minimum([law.decode.coefficients], [law.mixed.coefficients])
    facets = minorants(law, budget)
    found = [facet for facet in facets if facet[0] >= 0]
    for one, other in combinations(facets, 2):
        if one[0] * other[0] < 0:
            share = other[0] / (other[0] - one[0])
            found.append(share * one + (1 - share) * other)
    return np.array(found).reshape(-1, 5)


class _Needs:
    """Work and least step times of one request after the other on one kind of replica."""

    def __init__(self, replica: Replica, law: FloatArray, resource: str) -> None:
        self.replica, self.resource = replica, resource
        self.base, self.prefill, self.decode, self.read, self.context = law.tolist()
        engine = replica.engine
        self.budget, self.block = engine.max_num_batched_tokens, engine.block_size
        limits = {
            "memory": replica.usable_kv_tokens,
            "slots": engine.max_num_seqs,
            "budget": engine.max_num_batched_tokens,
        }
        self.share = self.base / limits[resource]

    def of(self, s: int, o: int) -> tuple[FloatArray, FloatArray, float]:
        """(z_j, tau_j) for j = 1..o, and the second sum of the statement."""
        held = s + np.arange(1, o, dtype=np.float64)  # known tokens of the steps of tokens 2..o
        own = np.minimum(self.decode + self.read * held, self.prefill * held + self.context * held**2 / 2)
        chunks = int(footprint.chunks(s, self.budget))
        prompt = self.prefill * s + self.context * s * s / 2
        if self.resource == "memory":
            first = float(footprint.volume(s, 1, self.budget, self.block, least=True))
            used = footprint.blocks(held.astype(np.int64), self.block).astype(np.float64)
        else:
            first, used = float(chunks if self.resource == "slots" else s), np.ones(o - 1)
        work = np.concatenate(([prompt + self.share * first], own + self.share * used))
        least = np.concatenate(([chunks * self.base + prompt], self.base + own))
        later = np.concatenate((np.cumsum(least[::-1])[::-1][1:], [0.0]))
        before = work @ later + work[1:] @ least[1:] / 2 + (work[0] * self.base + prompt * prompt) / 2
        return work, least, float(before / work.sum()) if work.sum() > 0 else float(least.sum())


def _bound(
    needs: _Needs,
    servers: int,
    arrival: FloatArray,
    prompt_tokens: IntArray,
    output_tokens: IntArray,
    segments: int,
) -> float:
    pieces: list[tuple[float, float, int, float]] = []  # release, z_i, request, work
    tails = alone = 0.0
    known: dict[tuple[int, int], tuple[list[float], list[float], float, float, float]] = {}
    for i, lengths in enumerate(zip(prompt_tokens.tolist(), output_tokens.tolist(), strict=True)):
        if lengths not in known:
            known[lengths] = _grouped(*needs.of(*lengths), segments)
        work, offsets, total, tail, latency = known[lengths]
        tails += tail
        alone += latency
        pieces += [(float(arrival[i]) + offset, total, i, part) for part, offset in zip(work, offsets, strict=True)]
    if not all(piece[1] > 0 for piece in pieces):  # a law of zeros
        return alone
    pieces.sort()
    return max(alone, _mean_busy_times(pieces, servers) + tails - float(arrival.sum()))


def _grouped(
    work: FloatArray, least: FloatArray, tail: float, segments: int
) -> tuple[list[float], list[float], float, float, float]:
    """(work of the pieces, when each is released after the arrival, z, tail, latency alone)."""
    starts = np.unique(np.linspace(0, len(work), segments, endpoint=False).astype(np.int64))
    offsets = np.concatenate(([0.0], np.cumsum(least)[:-1]))[starts]
    return np.add.reduceat(work, starts).tolist(), offsets.tolist(), float(work.sum()), tail, float(least.sum())


def _mean_busy_times(pieces: list[tuple[float, float, int, float]], servers: int) -> float:
    """Least sum over requests of the mean time of their work: of what is released, the request of least z first."""
    now = total = 0.0
    waiting: list[tuple[float, int, float]] = []
    place = 0
    while place < len(pieces) or waiting:
        if not waiting:
            now = max(now, pieces[place][0])
        while place < len(pieces) and pieces[place][0] <= now:
            _, z, i, part = pieces[place]
            heapq.heappush(waiting, (z, i, part))
            place += 1
        z, i, left = heapq.heappop(waiting)
        end = now + left / servers
        if place < len(pieces) and pieces[place][0] < end:
            end = pieces[place][0]
            done = (end - now) * servers
            heapq.heappush(waiting, (z, i, left - done))
        else:
            done = left
        total += done * (now + end) / 2 / z
        now = end
    return total
