"""BalanceRoute's and BF-IO's decisions, compiled: those of `stability.sim.reference.dispatch`, where the sources are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..._types import FloatArray, IntArray
from ...policies.balance import BalanceRouter
from ._jit import called, kernel
from .state import NONE

WordArray = npt.NDArray[np.uint64]

BALANCE_ROUTE, BALANCE_FUTURE = 0, 1
BITS = 1 << 12
"""As in the reference; here too, because the cache of kernels follows this folder only."""
WORDS = BITS // 64
ONE, ZERO, SIXTY_FOUR = np.uint64(1), np.uint64(0), np.uint64(64)


class Desk(NamedTuple):
    """A balancing router's parameters and working memory.

    Attributes
    ----------
    rule : int
        `BALANCE_ROUTE` or `BALANCE_FUTURE`.
    alpha, beta, blend : float
    discounts : (H + 1,) float
    loads : (H + 1, G) int
        Projected loads; changed as requests are placed.
    free : (G,) int
        Free slots; changed likewise.
    envelope, ahead, order : (H + 1,) int
        Largest loads, one worker's margins and the order of these.
    waiting, prompts : (room,) int
        Positions and prompts of the requests that can be looked at.
    fitting, sizes : (room,) int
        Of those, the ones whose sums are looked at: place and tokens.
    chosen, placed, worker : int
        The set chosen last; all placements.
    layers : (window + 1, most + 1, WORDS) uint64
        Reachable sums, see the reference.
    """

    rule: int
    alpha: float
    beta: float
    blend: float
    weight: float
    greedy_slots: int
    window: int
    discounts: FloatArray
    loads: IntArray
    free: IntArray
    envelope: IntArray
    ahead: IntArray
    order: IntArray
    waiting: IntArray
    prompts: IntArray
    fitting: IntArray
    sizes: IntArray
    chosen: IntArray
    placed: IntArray
    worker: IntArray
    layers: WordArray


def desk_of(policy: BalanceRouter, workers: int, slots: int) -> Desk:
    """The working memory of `policy` for a group of `workers` with `slots` each."""
    steps = policy.horizon + 1
    discounts = np.array([1.0] + [policy.decay] * policy.horizon).cumprod()
    room = policy.window + workers * slots
    most = min(max(policy.greedy_slots, 1), slots)
    return Desk(
        rule=policy.rule,  # type: ignore[attr-defined]
        alpha=float(policy.alpha),
        beta=float(workers) if policy.beta is None else float(policy.beta),
        blend=float(getattr(policy, "blend", 0.0)),
        weight=float(np.add.accumulate(discounts)[-1]),
        greedy_slots=policy.greedy_slots,
        window=policy.window,
        discounts=np.asarray(discounts, dtype=np.float64),
        loads=np.zeros((steps, workers), dtype=np.int64),
        free=np.zeros(workers, dtype=np.int64),
        envelope=np.zeros(steps, dtype=np.int64),
        ahead=np.zeros(steps, dtype=np.int64),
        order=np.zeros(steps, dtype=np.int64),
        waiting=np.zeros(room, dtype=np.int64),
        prompts=np.zeros(room, dtype=np.int64),
        fitting=np.zeros(room, dtype=np.int64),
        sizes=np.zeros(room, dtype=np.int64),
        chosen=np.zeros(most + 1, dtype=np.int64),
        placed=np.zeros(workers * slots, dtype=np.int64),
        worker=np.zeros(workers * slots, dtype=np.int64),
        layers=np.zeros((policy.window + 1, most + 1, WORDS), dtype=np.uint64),
    )


@called
def score(desk: Desk, tokens: int) -> float:
    """F of so many tokens on the worker whose margins are in `ahead`."""
    total = 0.0
    for h in range(len(desk.ahead)):
        if tokens > desk.ahead[h]:
            total += desk.discounts[h] * (tokens - desk.ahead[h])
    return desk.alpha * desk.weight * tokens - desk.beta * total


@called
def target(desk: Desk) -> int:
    """The least maximiser of `score`; `NONE` if it has none."""
    ahead, order = desk.ahead, desk.order
    for h in range(len(ahead)):
        place = h
        while place > 0 and ahead[order[place - 1]] > ahead[h]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = h
    weight = 0.0
    for h in range(len(ahead)):
        weight += desk.discounts[order[h]]
        if desk.beta * weight >= desk.alpha * desk.weight:
            return int(ahead[order[h]])
    return NONE


@called
def best_single(desk: Desk, count: int, aim: int) -> int:
    """The one of the first `count` prompts with the greatest gain."""
    prompts = desk.prompts
    below = above = NONE
    for i in range(count):
        if prompts[i] <= aim or aim == NONE:
            if below == NONE or prompts[i] > prompts[below]:
                below = i
        elif above == NONE or prompts[i] < prompts[above]:
            above = i
    if below == NONE or (above != NONE and score(desk, prompts[below]) < score(desk, prompts[above])):
        return above
    return below


@called
def choose_largest(desk: Desk, count: int, most: int, aim: int) -> bool:
    """Choose the `most` longest prompts, the first of equals; whether their sum is within the aim."""
    prompts, chosen = desk.prompts, desk.chosen
    taken = 0
    for i in range(count):
        place = taken
        while place > 0 and prompts[chosen[place - 1]] < prompts[i]:
            place -= 1
        if place == most:
            continue
        taken = min(taken + 1, most)
        for j in range(taken - 1, place, -1):
            chosen[j] = chosen[j - 1]
        chosen[place] = i
    total = 0
    for j in range(taken):
        total += prompts[chosen[j]]
    return aim == NONE or total <= aim


@kernel
def has(words: WordArray, bit: int) -> bool:
    """Whether a bit is set."""
    return bool((words[bit >> 6] >> np.uint64(bit & 63)) & ONE)


@called
def fill_layers(desk: Desk, count: int, most: int, unit: int, reach: int, stop: int) -> int:
    """Reachable sums of the first 0, 1, ... sizes; returns after which prefix it stopped, the first to reach `stop`."""
    layers = desk.layers
    words = (reach >> 6) + 1
    last = (~ZERO) >> np.uint64(63 - (reach & 63))
    for k in range(1, most + 1):
        for w in range(words):
            layers[0, k, w] = ZERO
    for i in range(count):
        size = desk.sizes[i] // unit
        by, bits = size >> 6, np.uint64(size & 63)
        found = False
        for k in range(1, most + 1):
            old, new = layers[i, k, :words], layers[i + 1, k, :words]
            for w in range(words):
                new[w] = old[w]
            if by >= words:
                continue
            if k == 1:
                new[by] |= ONE << bits
            else:
                add_shifted(new[by:], layers[i, k - 1, : words - by], bits)
            new[words - 1] &= last
            found = found or (stop != NONE and has(new, stop))
        if found:
            return i + 1
    return count


@kernel
def add_shifted(target_words: WordArray, source: WordArray, bits: np.uint64) -> None:
    """Add the bits of `source`, moved up by `bits` < 64."""
    if bits == ZERO:
        for w in range(len(source)):
            target_words[w] |= source[w]
        return
    back = SIXTY_FOUR - bits
    target_words[0] |= source[0] << bits
    lower, upper, moved = source[: len(source) - 1], source[1:], target_words[1:]
    for w in range(len(upper)):
        moved[w] |= (upper[w] << bits) | (lower[w] >> back)


@called
def sum_below(desk: Desk, prefix: int, fewest: int, most: int, aim: int) -> int:
    """The largest reachable sum up to `aim`, or `NONE`."""
    word = aim >> 6
    mask = (~ZERO) >> np.uint64(63 - (aim & 63))
    while word >= 0:
        bits = ZERO
        for k in range(fewest, most + 1):
            bits |= desk.layers[prefix, k, word]
        bits &= mask
        if bits != ZERO:
            bit = 63
            while not (bits >> np.uint64(bit)) & ONE:
                bit -= 1
            return word * 64 + bit
        mask = ~ZERO
        word -= 1
    return NONE


@called
def sum_above(desk: Desk, prefix: int, fewest: int, most: int, aim: int, reach: int) -> int:
    """The smallest reachable sum above `aim`, or `NONE`."""
    first = aim + 1
    word = first >> 6
    mask = (~ZERO) << np.uint64(first & 63)
    while word <= reach >> 6:
        bits = ZERO
        for k in range(fewest, most + 1):
            bits |= desk.layers[prefix, k, word]
        bits &= mask
        if bits != ZERO:
            bit = 0
            while not (bits >> np.uint64(bit)) & ONE:
                bit += 1
            return word * 64 + bit
        mask = ~ZERO
        word += 1
    return NONE


@kernel
def first_prefix(desk: Desk, count: int, k: int, size: int) -> int:
    """The shortest prefix of which k sizes reach `size`; one more than `count` if none does."""
    if k == 0:
        return 0
    low, high = 0, count + 1
    while low < high:  # a sum once reached stays so
        middle = (low + high) // 2
        if has(desk.layers[middle, k], size):
            high = middle
        else:
            low = middle + 1
    return low


@called
def trace_back(desk: Desk, count: int, fewest: int, most: int, size: int, unit: int) -> int:
    """Put the requests behind a sum into `chosen`, in order; returns how many."""
    prefix, k = count + 2, NONE
    for j in range(fewest, most + 1):
        found = first_prefix(desk, count, j, size)
        if found < prefix:
            prefix, k = found, j
    taken = k
    while k > 0:
        k -= 1
        desk.chosen[k] = desk.fitting[prefix - 1]
        size -= desk.sizes[prefix - 1] // unit
        prefix = first_prefix(desk, count, k, size)
    return taken


@kernel
def total_of(desk: Desk, taken: int) -> int:
    """Prompt tokens of the chosen requests."""
    total = 0
    for j in range(taken):
        total += desk.prompts[desk.chosen[j]]
    return total


@called
def best_set(desk: Desk, count: int, most: int, aim: int) -> int:
    """Choose the set of at most `most` requests with the greatest gain; returns how many."""
    if most == 1:
        desk.chosen[0] = best_single(desk, count, aim)
        return 1
    if choose_largest(desk, count, most, aim):
        return min(most, count)
    longest, single, fits = 0, NONE, 0
    for i in range(count):
        tokens = desk.prompts[i]
        if tokens <= aim:
            longest = max(longest, tokens)
            desk.fitting[fits], desk.sizes[fits] = i, tokens
            fits += 1
        elif single == NONE or tokens < desk.prompts[single]:
            single = i
    if fits == 0:
        desk.chosen[0] = single
        return 1
    reach = aim + longest
    if single != NONE:
        reach = min(reach, desk.prompts[single])
    unit = (reach + BITS) // BITS  # ceil((reach + 1)/BITS)
    reach, goal, most = reach // unit, aim // unit, min(most, fits)
    prefix = fill_layers(desk, fits, most, unit, reach, goal)
    below = sum_below(desk, prefix, 1, most, goal)
    taken = trace_back(desk, prefix, 1, most, below, unit)
    if below == goal:
        return taken
    at_below = score(desk, total_of(desk, taken))
    above = sum_above(desk, prefix, 1, most, goal, reach)
    if above != NONE:
        taken = trace_back(desk, prefix, 1, most, above, unit)
    elif single != NONE:
        desk.chosen[0], taken = single, 1
    if (above != NONE or single != NONE) and at_below >= score(desk, total_of(desk, taken)):
        taken = trace_back(desk, prefix, 1, most, below, unit)
    return taken


@called
def best_exact_set(desk: Desk, count: int, most: int, aim: int) -> int:
    """BF-IO's choice of exactly k requests, the best over k; returns how many."""
    longest = 0
    for i in range(count):
        longest = max(longest, desk.prompts[i])
        desk.fitting[i], desk.sizes[i] = i, desk.prompts[i]
    reach = aim + longest
    unit = (reach + BITS) // BITS
    reach, goal = reach // unit, aim // unit
    fill_layers(desk, count, most, unit, reach, NONE)
    best_size, best_k, best = NONE, NONE, 0.0
    for k in range(most, 0, -1):
        size = sum_below(desk, count, k, k, goal)
        if size == NONE:
            size = sum_above(desk, count, k, k, goal, reach)
        if size == NONE:
            continue
        worth = score(desk, total_of(desk, trace_back(desk, count, k, k, size, unit)))
        if best_k == NONE or worth > best:
            best_size, best_k, best = size, k, worth
    return trace_back(desk, count, best_k, best_k, best_size, unit)


@kernel
def next_worker(desk: Desk, abundant: bool) -> int:
    """The worker to serve next."""
    best = NONE
    last = len(desk.loads) - 1
    for g in range(len(desk.free)):
        if desk.free[g] == 0:
            continue
        if best == NONE:
            best = g
        elif desk.rule == BALANCE_FUTURE and not abundant:
            mine = (1 - desk.blend) * desk.loads[0, g] + desk.blend * desk.loads[last, g]
            if mine < (1 - desk.blend) * desk.loads[0, best] + desk.blend * desk.loads[last, best]:
                best = g
        elif desk.free[g] > desk.free[best] or (
            desk.free[g] == desk.free[best] and desk.loads[0, g] < desk.loads[0, best]
        ):
            best = g
    return best


@called
def dispatch(desk: Desk, count: int) -> int:
    """Place requests from the first `count` of `prompts`; returns how many, in `placed` and `worker`."""
    horizon, workers = desk.loads.shape
    total_free = 0
    for g in range(workers):
        total_free += desk.free[g]
    for h in range(horizon):
        largest = desk.loads[h, 0]
        for g in range(1, workers):
            largest = max(largest, desk.loads[h, g])
        desk.envelope[h] = largest
    for i in range(count):
        desk.waiting[i] = i
    done = 0
    while count > 0 and total_free > 0:
        abundant = total_free > desk.greedy_slots
        g = next_worker(desk, abundant)
        least = desk.envelope[0]
        for h in range(horizon):
            desk.ahead[h] = desk.envelope[h] - desk.loads[h, g]
            least = min(least, desk.ahead[h])
        seen = min(count, desk.window)
        most = min(desk.free[g], seen)
        taken = 1
        if abundant:
            desk.chosen[0] = best_single(desk, seen, target(desk))
        elif desk.rule == BALANCE_FUTURE:
            taken = best_exact_set(desk, seen, most, least)
        else:
            taken = best_set(desk, seen, most, target(desk))
        if not abundant and score(desk, total_of(desk, taken)) <= 0:
            desk.chosen[0] = best_single(desk, seen, target(desk))
            taken = 1
        tokens = total_of(desk, taken)
        for h in range(horizon):
            desk.loads[h, g] += tokens
            desk.envelope[h] = max(desk.envelope[h], desk.loads[h, g])
        for j in range(taken):
            desk.placed[done] = desk.waiting[desk.chosen[j]]
            desk.worker[done] = g
            done += 1
        for _ in range(taken):  # take the chosen ones out, the last in the queue first
            last = 0
            for j in range(taken):
                last = max(last, desk.chosen[j])
            for j in range(taken):
                if desk.chosen[j] == last:
                    desk.chosen[j] = NONE
            for i in range(last, count - 1):
                desk.waiting[i] = desk.waiting[i + 1]
                desk.prompts[i] = desk.prompts[i + 1]
            count -= 1
        desk.free[g] -= taken
        total_free -= taken
    return done
