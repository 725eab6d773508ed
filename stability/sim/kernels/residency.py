"""What the KV cache holds: running sums instead of a list of requests.

All decoding requests advance by one token an iteration, so a request's KV is a constant plus the iteration number, it opens
a block in the iterations of one residue class modulo the block size, and its last iteration is known when it starts to
decode. Lists by last iteration, counters by residue class and an admission list replace any loop over the batch.

The victim of an eviction is the newest request, so it heads the list of its last iteration: everything that joined the
list later has been evicted before it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ._jit import kernel
from .prefix_cache import give_evicted, give_finished
from .state import FREE, GROUP_SHIFT, NONE, Machine
from .waiting import push_front


@kernel
def blocks(s: Any, tokens: int) -> int:
    """Blocks that hold `tokens`; block sizes are nearly always powers of two, and a shift is much faster than a division."""
    if s.block_shift >= 0:
        return int((tokens + s.round_up) >> s.block_shift)
    return int((tokens + s.round_up) // s.block_size)


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
def start_decoding(machine: Machine, s: Any, place: int, end_s: float) -> None:
    """A request whose known tokens are all computed in the present iteration gets a token at its end."""
    request = machine.pool[place]
    tokens = request.prompt_tokens + request.generated
    request.generated += 1
    if np.isnan(request.first_token_s):
        request.first_token_s = end_s
    following = s.iteration + 1
    request.offset = tokens - following
    request.last_iteration = s.iteration + request.output_tokens - request.generated
    turn = tokens + s.round_up + 1 - following
    request.phase = turn & (s.block_size - 1) if s.block_shift >= 0 else turn % s.block_size
    machine.phases[s.phase_start + request.phase] += 1
    bucket = s.bucket_start + (request.last_iteration & (machine.ring - 1))
    request.next = machine.buckets[bucket]
    machine.buckets[bucket] = place
    machine.groups[bucket >> GROUP_SHIFT] += 1
    s.decoding += 1
    s.context += tokens


@kernel
def evict_newest(machine: Machine, s: Any, now_s: float) -> int:
    """Evict the newest request; return 1 if it was to open a block in the present iteration."""
    place = s.newest
    request = machine.pool[place]
    opens = 0
    if place == s.partial:
        s.partial = NONE
        tokens = request.computed
    else:
        tokens = request.offset + s.iteration
        request.generated = tokens + 1 - request.prompt_tokens
        bucket = s.bucket_start + (request.last_iteration & (machine.ring - 1))
        machine.buckets[bucket] = request.next
        machine.groups[bucket >> GROUP_SHIFT] -= 1
        machine.phases[s.phase_start + request.phase] -= 1
        opens = 1 if request.phase == s.residue else 0
        s.decoding -= 1
        s.context -= tokens
    remove(machine, s, place)
    give_evicted(machine, s, place, tokens, blocks(s, tokens))
    request.preemptions += 1
    s.preemptions += 1
    push_front(machine, s, place, now_s)
    return opens


@kernel
def complete(machine: Machine, r: int, place: int, now_s: float) -> None:
    """A decoding request leaves with its last token."""
    s = machine.replicas[r]
    request = machine.pool[place]
    # The last token's KV is never stored.
    tokens = request.prompt_tokens + request.output_tokens - 1
    s.decoding -= 1
    s.context -= tokens
    machine.phases[s.phase_start + request.phase] -= 1
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
