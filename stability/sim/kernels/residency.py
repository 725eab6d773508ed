"""What the KV cache holds: running sums instead of a list of requests.

All decoding requests advance by one token an iteration, so a request's KV is a constant plus the iteration number, it opens
a block in the iterations of one residue class modulo the block size, and its last iteration is known when it starts to
decode. Lists by last iteration, counters by residue class and an admission list replace any loop over the batch.

The victim of an eviction is the newest request, so it heads the list of its last iteration: everything that joined the
list later has been evicted before it.

A `clock` counts the iterations in which its requests decode, and keeps their sums. Where all decode in every iteration it is
the replica itself; disciplines that pause some of them keep clocks of their own (`cohorts`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._jit import kernel
from .prefix_cache import give_evicted, give_finished
from .state import FREE, GROUP_SHIFT, NONE, Machine
from .waiting import wait_again


@kernel
def blocks(s: Any, tokens: int) -> int:
    """Blocks charged to a request of `tokens`; block sizes are nearly always powers of two, and a shift is much faster than a division."""
    if s.block_shift >= 0:
        return int((tokens + s.extra_tokens + s.block_size - 1) >> s.block_shift)
    return int((tokens + s.extra_tokens + s.block_size - 1) // s.block_size)


@kernel
def append(machine: Machine, s: Any, place: int) -> None:
    """Make a request the newest of the running ones."""
    request = machine.pool[place]
    request.newer = NONE
    request.older = s.newest
    if s.newest == NONE:
        s.oldest = place
    else:
        machine.pool[s.newest].newer = place
    s.newest = place
    s.running += 1
    s.reserved_blocks += request.reserve_blocks


@kernel
def remove(machine: Machine, s: Any, place: int) -> None:
    """Take a request out of the running ones."""
    request = machine.pool[place]
    if request.older == NONE:
        s.oldest = request.newer
    else:
        machine.pool[request.older].newer = request.newer
    if request.newer == NONE:
        s.newest = request.older
    else:
        machine.pool[request.newer].older = request.older
    s.running -= 1
    s.reserved_blocks -= request.reserve_blocks


@kernel
def start_decoding(machine: Machine, clock: Any, place: int, end_s: float) -> None:
    """A request whose known tokens are all computed in the present iteration gets a token at its end."""
    request = machine.pool[place]
    if np.isnan(request.first_token_s):
        request.first_token_s = end_s
    request.generated += 1
    go_on(machine, clock, place, clock.iteration + request.output_tokens - request.generated)


@kernel
def go_on(machine: Machine, clock: Any, place: int, last_iteration: int) -> None:
    """From the iteration after the present one until `last_iteration`, a request gets a token in every iteration of `clock`."""
    request = machine.pool[place]
    tokens = request.prompt_tokens + request.generated - 1
    following = clock.iteration + 1
    request.offset = tokens - following
    request.last_iteration = last_iteration
    turn = request.offset + clock.extra_tokens
    request.phase = turn & (clock.block_size - 1) if clock.block_shift >= 0 else turn % clock.block_size
    machine.phases[clock.phase_start + request.phase] += 1
    bucket = clock.bucket_start + (last_iteration & (machine.ring - 1))
    request.next = machine.buckets[bucket]
    machine.buckets[bucket] = place
    machine.groups[bucket >> GROUP_SHIFT] += 1
    clock.decoding += 1
    clock.context += tokens


@kernel
def stop_newest(machine: Machine, clock: Any, place: int) -> int:
    """A decoding request of `clock` that heads its list, as the newest does, stops before its time; return the tokens it holds."""
    request = machine.pool[place]
    tokens = request.offset + clock.iteration
    request.generated = tokens + 1 - request.prompt_tokens
    bucket = clock.bucket_start + (request.last_iteration & (machine.ring - 1))
    machine.buckets[bucket] = request.next
    machine.groups[bucket >> GROUP_SHIFT] -= 1
    machine.phases[clock.phase_start + request.phase] -= 1
    clock.decoding -= 1
    clock.context -= tokens
    return int(tokens)


@kernel
def evict(machine: Machine, s: Any, place: int, tokens: int) -> None:
    """A request that holds `tokens` and decodes no more leaves the cache."""
    remove(machine, s, place)
    give_evicted(machine, s, place, tokens, blocks(s, tokens))
    machine.pool[place].preemptions += 1
    s.preemptions += 1


@kernel
def evict_newest(machine: Machine, s: Any, now_s: float) -> int:
    """Evict the newest request, to be resumed; return 1 if it was to open a block in the present iteration."""
    place = s.newest
    request = machine.pool[place]
    opens = 0
    if place == s.partial:
        s.partial = NONE
        tokens = request.computed
    else:
        opens = 1 if request.phase == s.residue else 0
        tokens = stop_newest(machine, s, place)
    evict(machine, s, place, tokens)
    wait_again(machine, s, place, now_s)
    return opens


@kernel
def complete_due(machine: Machine, r: int, clock: Any, now_s: float) -> int:
    """The requests whose last iteration is the one that `clock` has just left are complete; return how many."""
    bucket = clock.bucket_start + ((clock.iteration - 1) & (machine.ring - 1))
    place = machine.buckets[bucket]
    completed = 0
    if place != NONE:
        machine.buckets[bucket] = NONE
        machine.replicas[r].blocked = 0
        while place != NONE:
            following = machine.pool[place].next
            complete(machine, r, clock, place, now_s)
            place = following
            completed += 1
        machine.groups[bucket >> GROUP_SHIFT] -= completed
    return completed


@kernel
def complete(machine: Machine, r: int, clock: Any, place: int, now_s: float) -> None:
    """A decoding request leaves with its last token."""
    s = machine.replicas[r]
    request = machine.pool[place]
    # The last token's KV is never stored.
    tokens = request.prompt_tokens + request.output_tokens - 1
    clock.decoding -= 1
    clock.context -= tokens
    machine.phases[clock.phase_start + request.phase] -= 1
    give_finished(s, tokens, blocks(s, tokens))
    remove(machine, s, place)
    s.completed += 1
    s.itl_area += now_s - request.first_token_s
    s.itl_tokens += request.output_tokens - 1
    ttft = request.first_token_s - request.arrival_s
    s.ttft_area += ttft
    machine.requests[r] -= 1
    machine.tokens[r] -= tokens + 1
    if len(machine.outcome.finish_s):
        i = request.index
        machine.outcome.admitted_s[i] = request.admitted_s
        machine.outcome.first_token_s[i] = request.first_token_s
        machine.outcome.finish_s[i] = now_s
        machine.outcome.preemptions[i] = request.preemptions
    else:
        count_ttft(machine, ttft)
    request.index = NONE
    request.next = machine.registers[FREE]
    machine.registers[FREE] = place


@kernel
def count_ttft(machine: Machine, ttft_s: float) -> None:
    """Add to the histogram, whose bins are 1/128 of an octave wide."""
    mantissa, exponent = math.frexp(ttft_s)
    row = (int(exponent) + 40) * 128 + int((mantissa - 0.5) * 256)
    machine.ttft_counts[min(max(row, 0), len(machine.ttft_counts) - 1)] += 1
