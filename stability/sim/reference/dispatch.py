"""What BalanceRoute and BF-IO decide, as plain functions of loads, free slots and waiting prompts.

Loads are KV tokens of the workers' resident requests, margins their distance to the largest load. `loads_ahead[h][g]` is the
load of worker g projected h steps ahead; a new request adds its prompt at every h, and requests that stay are not grown:
with equal counts growth shifts all workers alike.

Sources: arXiv 2605.06113 (BR-0, BR-H), 2601.17855 and its authors' code (BF-IO). What those leave open is decided here, and said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...policies.balance import BalanceFuture, BalanceRouter

BITS = 1 << 12
"""Reachable sums are kept at this resolution: in tokens as long as they fit, else in units of so many tokens that they do."""

NONE = -1


def imbalance(loads: Sequence[int]) -> int:
    """G max L - sum L: tokens by which the workers together fall short of the most loaded one.

    Examples
    --------
    >>> imbalance([100, 90, 70, 60])
    80
    """
    return len(loads) * max(loads) - sum(loads)


def margins(loads: Sequence[int]) -> list[int]:
    """Tokens each worker can take before it is the most loaded one.

    Examples
    --------
    >>> margins([100, 90, 70, 60])
    [0, 10, 30, 40]
    """
    return [max(loads) - load for load in loads]


def gain(tokens: int, margin: int, workers: int) -> int:
    """F = D - G (D - m)_+: by how much placing `tokens` on a worker with this margin lowers the imbalance (BR-0).

    Examples
    --------
    >>> gain(25, 40, 4), gain(80, 40, 4)
    (25, -80)
    """
    return tokens - workers * max(tokens - margin, 0)


def penalty(tokens: int, ahead: Sequence[int], beta: float, discounts: Sequence[float]) -> float:
    """What BR-H charges for exceeding the margins ahead: beta sum_h gamma^h (D - m_h)_+.

    Examples
    --------
    The published example, at h = 0, 5, 10, 50 with beta = 8 and gamma = 0.9: worker B is cheaper.

    >>> discounts = [0.9**h for h in (0, 5, 10, 50)]
    >>> round(penalty(500, [0, 190, 1590, 1250], 8, discounts), 1), round(penalty(500, [1400, 0, 0, 0], 8, discounts), 1)
    (5464.4, 3777.3)
    """
    total = 0.0
    for margin, discount in zip(ahead, discounts, strict=True):
        if tokens > margin:
            total += discount * (tokens - margin)
    return beta * total


def score(tokens: int, ahead: Sequence[int], alpha: float, beta: float, discounts: Sequence[float]) -> float:
    """F = alpha D sum_h gamma^h - beta sum_h gamma^h (D - m_h)_+ (BR-H). With one step, alpha 1 and beta G it is `gain`."""
    total = 0.0
    for discount in discounts:
        total += discount
    return alpha * total * tokens - penalty(tokens, ahead, beta, discounts)


def target(ahead: Sequence[int], alpha: float, beta: float, discounts: Sequence[float]) -> int:
    """The least maximiser of `score`, concave in the tokens: the margin at which the slope turns <= 0; -1 if it never does."""
    total = 0.0
    for discount in discounts:
        total += discount
    weight = 0.0
    for h in sorted(range(len(ahead)), key=lambda h: ahead[h]):
        weight += discounts[h]
        if beta * weight >= alpha * total:
            return ahead[h]
    return NONE


def nearest(prompts: Sequence[int], aim: int) -> tuple[int, int]:
    """Positions of the longest prompt up to `aim` and of the shortest above it, the first of equals; -1 if there is none."""
    below = above = NONE
    for i, tokens in enumerate(prompts):
        if tokens <= aim or aim == NONE:
            if below == NONE or tokens > prompts[below]:
                below = i
        elif above == NONE or tokens < prompts[above]:
            above = i
    return below, above


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The gain on one worker, as a function of the tokens placed.

    Attributes
    ----------
    ahead : sequence of int
        Its margins, at h = 0 .. H.
    alpha, beta : float
    discounts : sequence of float
        gamma^h.
    """

    ahead: Sequence[int]
    alpha: float
    beta: float
    discounts: Sequence[float]

    def of(self, tokens: int) -> float:
        """F at so many tokens."""
        return score(tokens, self.ahead, self.alpha, self.beta, self.discounts)

    def better(self, below: int, above: int) -> bool:
        """Whether `below` tokens are at least as good as `above`."""
        return self.of(below) >= self.of(above)


def best_single(prompts: Sequence[int], scores: Scores, aim: int) -> int:
    """The one request with the greatest gain."""
    below, above = nearest(prompts, aim)
    if below == NONE or (above != NONE and not scores.better(prompts[below], prompts[above])):
        return above
    return below


def best_set(prompts: Sequence[int], most: int, scores: Scores, aim: int) -> list[int]:
    """The set of at most `most` requests with the greatest gain: its sum is the nearest to `aim` from below or above.

    Found as a subset sum at a resolution of `BITS`; of sets with one sum, the one completed first. A sum that meets the aim at
    that resolution is taken.
    """
    if most == 1:
        return [best_single(prompts, scores, aim)]
    largest = sorted(range(len(prompts)), key=lambda i: (-prompts[i], i))[:most]
    if aim == NONE or sum(prompts[i] for i in largest) <= aim:
        return largest
    single = nearest(prompts, aim)[1]
    fitting = [i for i, tokens in enumerate(prompts) if tokens <= aim]
    if not fitting:
        return [single]
    reach = aim + max(prompts[i] for i in fitting)
    if single != NONE:
        reach = min(
            reach, prompts[single]
        )  # a set with a prompt beyond the aim is no better than the shortest of those
    sums = _Sums([prompts[i] for i in fitting], min(most, len(fitting)), aim, reach)
    below = [fitting[i] for i in sums.below(1, sums.most)]
    if sum(sums.sizes[fitting.index(i)] for i in below) == aim // sums.unit:
        return below
    above = [fitting[i] for i in sums.above(1, sums.most)] or [single]
    if above == [NONE] or scores.better(_total(prompts, below), _total(prompts, above)):
        return below
    return above


def best_exact_set(prompts: Sequence[int], most: int, scores: Scores, aim: int) -> list[int]:
    """BF-IO: for each k <= `most` exactly k requests, the largest sum up to `aim`, else the smallest above it; the best over k."""
    sums = _Sums(prompts, most, aim, aim + max(prompts))
    best: list[int] = []
    for k in range(most, 0, -1):
        found = sums.below(k, k) or sums.above(k, k)
        if found and (not best or scores.of(_total(prompts, found)) > scores.of(_total(prompts, best))):
            best = found
    return best


def _total(prompts: Sequence[int], chosen: Sequence[int]) -> int:
    return sum(prompts[i] for i in chosen)


class _Sums:
    """Sums that up to `most` of the prompts reach, prefix by prefix: bit u of `layers[i][k]` for k of the first i prompts."""

    def __init__(self, prompts: Sequence[int], most: int, aim: int, reach: int) -> None:
        self.aim, self.most = aim, most
        self.unit = -(-(reach + 1) // BITS)
        self.sizes = [tokens // self.unit for tokens in prompts]
        kept = (1 << (reach // self.unit + 1)) - 1
        layer = [1] + [0] * most
        self.layers = [layer]
        for size in self.sizes:
            layer = layer[:1] + [(layer[k] | layer[k - 1] << size) & kept for k in range(1, most + 1)]
            self.layers.append(layer)

    def below(self, fewest: int, most: int) -> list[int]:
        """The set of `fewest` to `most` requests with the largest sum up to the aim."""
        bits = self._union(fewest, most) & ((1 << (self.aim // self.unit + 1)) - 1)
        return self._set(bits.bit_length() - 1, fewest, most) if bits else []

    def above(self, fewest: int, most: int) -> list[int]:
        """The set with the smallest sum above the aim."""
        bits = self._union(fewest, most) >> (self.aim // self.unit + 1)
        if not bits:
            return []
        lowest = (bits & -bits).bit_length() - 1
        return self._set(lowest + self.aim // self.unit + 1, fewest, most)

    def _union(self, fewest: int, most: int) -> int:
        bits = 0
        for k in range(fewest, most + 1):
            bits |= self.layers[-1][k]
        return bits

    def _set(self, size: int, fewest: int, most: int) -> list[int]:
        """The requests behind a sum: by the shortest prefix that reaches it, then by the fewest requests."""
        prefix, k = min((self._first(k, size), k) for k in range(fewest, most + 1))
        chosen = []
        while k > 0:
            chosen.append(prefix - 1)
            size -= self.sizes[prefix - 1]
            k -= 1
            prefix = self._first(k, size)
        return chosen[::-1]

    def _first(self, k: int, size: int) -> int:
        """The shortest prefix of which k requests reach `size`; beyond all if none does."""
        for i, layer in enumerate(self.layers):
            if layer[k] >> size & 1:
                return i
        return len(self.layers)


def dispatch(
    policy: BalanceRouter, loads_ahead: Sequence[Sequence[int]], free: Sequence[int], prompts: Sequence[int]
) -> list[tuple[int, int]]:
    """Requests to place now, as (position among `prompts`, worker), in order of decision.

    While more than `greedy_slots` slots are free in all, the request with the greatest gain joins the worker with most of them
    (ties: least load). Then the worker first in order takes its best set, or the best single request where no set gains.

    Parameters
    ----------
    policy : BalanceRouter
    loads_ahead : (H + 1, G) nested sequence
        Projected loads; changed nowhere.
    free : (G,) sequence
        Free slots.
    prompts : sequence
        Prompt tokens of the waiting requests in order of arrival.
    """
    loads, free = [list(row) for row in loads_ahead], list(free)
    count = len(free)
    beta = float(count) if policy.beta is None else policy.beta
    discounts = _discounts(policy.decay, len(loads))
    waiting = list(range(len(prompts)))
    placed: list[tuple[int, int]] = []

    def assign(worker: int, chosen: Sequence[int]) -> None:
        for position in chosen:
            for row in loads:
                row[worker] += prompts[waiting[position]]
            placed.append((waiting[position], worker))
        for position in sorted(chosen, reverse=True):
            del waiting[position]
        free[worker] -= len(chosen)

    while waiting and sum(free) > 0:
        abundant = sum(free) > policy.greedy_slots
        if abundant:
            worker = min(range(count), key=lambda g: (-free[g], loads[0][g]))
        elif isinstance(policy, BalanceFuture):
            open_workers = [g for g in range(count) if free[g] > 0]
            worker = min(open_workers, key=lambda g: (1 - policy.blend) * loads[0][g] + policy.blend * loads[-1][g])
        else:
            worker = min(range(count), key=lambda g: (-free[g], loads[0][g]))  # the largest margin is the least load
        ahead = [max(row) - row[worker] for row in loads]
        scores = Scores(ahead=ahead, alpha=policy.alpha, beta=beta, discounts=discounts)
        window = [prompts[i] for i in waiting[: policy.window]]
        most = min(free[worker], len(window))
        if abundant:
            chosen = [best_single(window, scores, target(ahead, policy.alpha, beta, discounts))]
        elif isinstance(policy, BalanceFuture):
            chosen = best_exact_set(window, most, scores, min(ahead))
        else:
            chosen = best_set(window, most, scores, target(ahead, policy.alpha, beta, discounts))
        if not abundant and scores.of(_total(window, chosen)) <= 0:
            chosen = [best_single(window, scores, target(ahead, policy.alpha, beta, discounts))]
        assign(worker, chosen)
    return placed


def _discounts(decay: float, count: int) -> list[float]:
    found = [1.0]
    for _ in range(count - 1):
        found.append(found[-1] * decay)
    return found


def project(loads: Sequence[int], residents: Sequence[tuple[int, int, float]], horizon: int) -> list[list[int]]:
    """Loads 0 .. `horizon` steps ahead: a request counts at h while h < c, always at 0, throughout if c >= horizon.

    Parameters
    ----------
    loads : sequence of int
        Now, by worker.
    residents : sequence of (worker, tokens, c)
        Running requests with their predicted remaining steps c.
    horizon : int
        H.
    """
    ahead = [list(loads) for _ in range(horizon + 1)]
    for worker, tokens, steps in residents:
        if steps < horizon:
            for h in range(1, horizon + 1):
                if h >= steps:
                    ahead[h][worker] -= tokens
    return ahead
