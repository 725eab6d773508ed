"""A token-level simulation of a prefill pool, a shared link and a decode pool: the oracle of `disaggregation`.

Written apart from the package's simulator, as plainly as possible: replicas take requests in turn, prefill chunks are first
come, first served, transfers share the link equally, decode reserves prompt + output from the start of the transfer.
"""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Replica:
    waiting: deque = field(default_factory=deque)
    running: list = field(default_factory=list)
    held: float = 0.0
    busy: bool = False


def simulate(arrival_s, prompt, output, *, prefill, decode, counts, seconds_per_token=0.0, latency_s=0.0):
    """Completion time of each request. `prefill` and `decode` are stability Replicas with affine laws."""
    c0, cp, _, _, ca = prefill.iteration.coefficients
    d0, _, cd, ck, _ = decode.iteration.coefficients
    budget, slots, room = prefill.engine.max_num_batched_tokens, prefill.engine.max_num_seqs, prefill.kv_capacity_tokens
    decode_slots, decode_room = decode.engine.max_num_seqs, decode.kv_capacity_tokens
    source = [Replica() for _ in range(counts[0])]
    target = [Replica() for _ in range(counts[1])]
    moving: dict[int, float] = {}  # tokens left to move
    moved_at, link_version = 0.0, 0
    done_s = np.full(len(prompt), np.nan)
    done_tokens = np.zeros(len(prompt), dtype=int)
    events = [(t, i, "arrive", i) for i, t in enumerate(arrival_s)]
    heapq.heapify(events)
    serial = len(events)

    def push(time, kind, what):
        nonlocal serial
        serial += 1
        heapq.heappush(events, (time, serial, kind, what))

    def start_prefill(now, p):
        replica = source[p]
        while replica.waiting and len(replica.running) < slots and replica.held + prompt[replica.waiting[0]] <= room:
            i = replica.waiting.popleft()
            replica.running.append(i)
            replica.held += prompt[i]
        if replica.busy or not replica.running:
            return
        left, work, chunks = budget, 0.0, []
        for i in replica.running:
            chunk = min(left, prompt[i] - done_tokens[i])
            if chunk:
                work += chunk * (done_tokens[i] + chunk / 2)
                chunks.append((i, chunk))
                left -= chunk
        replica.busy = True
        push(now + c0 + cp * (budget - left) + ca * work, "prefilled", (p, chunks))

    def start_decode(now, d):
        replica = target[d]
        if replica.busy or not replica.running:
            return
        batch = replica.running[:decode_slots]
        kv = sum(prompt[i] + made[i] for i in batch)
        replica.busy = True
        push(now + d0 + cd * len(batch) + ck * kv, "decoded", (d, batch))

    def share_link(now):
        """Let the link work until now, then say when its first transfer ends."""
        nonlocal moved_at, link_version
        if moving:
            each = (now - moved_at) / seconds_per_token / len(moving)
            for i in moving:
                moving[i] -= each
        moved_at = now
        link_version += 1
        if moving:
            push(now + max(0.0, min(moving.values())) * seconds_per_token * len(moving), "moved", link_version)

    def start_transfers(now, d):
        replica = target[d]
        while replica.waiting and replica.held + prompt[replica.waiting[0]] + output[replica.waiting[0]] <= decode_room:
            i = replica.waiting.popleft()
            replica.held += prompt[i] + output[i]
            if seconds_per_token:
                share_link(now)
                moving[i] = float(prompt[i])
                share_link(now)
            else:
                push(now + latency_s, "arrived", i)

    made = np.ones(len(prompt), dtype=int)
    while events:
        now, _, kind, what = heapq.heappop(events)
        if kind == "arrive":
            source[what % counts[0]].waiting.append(what)
            start_prefill(now, what % counts[0])
        elif kind == "prefilled":
            p, chunks = what
            source[p].busy = False
            for i, chunk in chunks:
                done_tokens[i] += chunk
                if done_tokens[i] == prompt[i]:
                    source[p].running.remove(i)
                    if output[i] == 1:
                        done_s[i] = now
                        source[p].held -= prompt[i]
                    else:
                        target[i % counts[1]].waiting.append(i)
                        start_transfers(now, i % counts[1])
            start_prefill(now, p)
        elif kind == "moved":
            if what != link_version:
                continue
            share_link(now)
            for i in [i for i, left in moving.items() if left <= 1e-4]:
                del moving[i]
                push(now + latency_s, "arrived", i)
            share_link(now)
        elif kind == "arrived":
            source[what % counts[0]].held -= prompt[what]
            target[what % counts[1]].running.append(what)
            start_decode(now, what % counts[1])
            start_prefill(now, what % counts[0])
        else:
            d, batch = what
            target[d].busy = False
            for i in batch:
                made[i] += 1
                if made[i] == output[i]:
                    done_s[i] = now
                    target[d].running.remove(i)
                    target[d].held -= prompt[i] + output[i]
            start_transfers(now, d)
            start_decode(now, d)
    return done_s


def saturated_rate(done_s: np.ndarray) -> float:
    """Completions per second between the first 30 % and 80 % of them."""
    ordered = np.sort(done_s)
    low, high = int(0.3 * len(ordered)), int(0.8 * len(ordered))
    return float((high - low) / (ordered[high] - ordered[low]))
