"""An idle fleet, and more room for one under way."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..._types import FloatArray
from ...errors import InputError
from ...model.iteration import IterationLaw
from ..domain import LOOK_AHEAD, Limits
from .forecast import CHUNK, empty_forecast, forget, settle
from .laws import encode
from .policies import policies_of
from .state import FREE, GROUP, LOG_COLUMNS, NONE, REPLICA, REQUEST, SAMPLE_COLUMNS, Log, Machine, Outcome

MOST_BUCKETS = 1 << 29
"""Two gigabytes of them."""


def blank_outcome(rows: int, *, arrivals: bool) -> Outcome:
    """Room for the results of `rows` requests, not yet written."""
    return Outcome(
        np.empty(rows if arrivals else 0),
        np.empty(rows),
        np.empty(rows),
        np.empty(rows),
        np.empty(rows, dtype=np.int32),
        np.empty(rows, dtype=np.int32),
    )


def empty_log(steps: int, samples: int, resolution_s: float) -> Log:
    """Room for `steps` step records and `samples` samples."""
    return Log(
        np.empty(steps),
        np.empty(steps),
        np.empty((steps, len(LOG_COLUMNS)), dtype=np.int64),
        np.zeros((samples, len(SAMPLE_COLUMNS))),
        resolution_s,
    )


def build(
    servers: Sequence[tuple[Limits, IterationLaw]],
    *,
    log: Log,
    outcome: Outcome,
    ttft_bins: int,
    max_waiting: int | None = None,
) -> Machine:
    """An idle fleet at time 0."""
    count = len(servers)
    replicas = np.zeros(count, dtype=REPLICA).view(np.recarray)
    laws: list[FloatArray] = []
    encoded: dict[tuple[int, int], tuple[int, int]] = {}
    law_start = phase_start = 0
    for r, (limits, law) in enumerate(servers):
        s = replicas[r]
        for name in (
            "block_size",
            "capacity_blocks",
            "watermark_blocks",
            "max_seqs",
            "max_tokens",
            "admission",
            "prefix_caching",
            "discipline",
            "extra_tokens",
        ):
            s[name] = getattr(limits, name)
        size = limits.block_size
        s.block_shift = size.bit_length() - 1 if size & (size - 1) == 0 else -1
        key = (id(law), limits.max_tokens)
        if key not in encoded:
            kind, coefficients = encode(law, limits.max_tokens)
            encoded[key] = (kind, law_start)
            laws.append(coefficients)
            law_start += len(coefficients)
        s.law_kind, s.law_start = encoded[key]
        s.phase_start = phase_start
        phase_start += limits.block_size
    policies = policies_of([limits for limits, _ in servers], replicas)
    if policies.cohorts is not None:
        for cohort in policies.cohorts.cohorts:
            cohort.phase_start = phase_start
            phase_start += cohort.block_size
    replicas.free_blocks[:] = replicas.empty_blocks[:] = replicas.capacity_blocks
    for name in ("oldest", "newest", "partial", "head", "tail", "first_kept", "last_kept"):
        replicas[name] = NONE
    replicas.blocked_s[:] = replicas.emptied_s[:] = math.nan
    replicas.most_waiting[:] = np.iinfo(np.int64).max if max_waiting is None else max_waiting
    return Machine(
        replicas=replicas,
        pool=np.zeros(0, dtype=REQUEST).view(np.recarray),
        due_s=np.full(count, math.inf),
        requests=np.zeros(count, dtype=np.int64),
        tokens=np.zeros(count, dtype=np.int64),
        phases=np.zeros(phase_start, dtype=np.int64),
        buckets=np.full(0, NONE, dtype=np.int32),
        groups=np.zeros(0, dtype=np.int32),
        ring=0,
        laws=np.concatenate(laws),
        registers=np.array([NONE, 0, 0, 0, 0], dtype=np.int64),
        now_s=np.zeros(1),
        outcome=outcome,
        log=log,
        ttft_counts=np.zeros(ttft_bins, dtype=np.int64),
        policies=policies,
    )


def with_room(machine: Machine, requests: int) -> Machine:
    """The machine with at least `requests` free places in its pool."""
    used = int(machine.requests.sum())
    old = machine.pool
    if len(old) - used >= requests:
        return machine
    size = max(2 * len(old), used + requests)
    pool = np.zeros(size, dtype=REQUEST).view(np.recarray)
    pool[: len(old)] = old
    pool.index[len(old) :] = NONE
    pool.next[len(old) :] = np.arange(len(old) + 1, size + 1)
    pool.next[-1] = machine.registers[FREE]
    machine.registers[FREE] = len(old)
    return machine._replace(pool=pool, policies=machine.policies.with_room(size))


def with_ring(machine: Machine, longest_output: int) -> Machine:
    """The machine with buckets for outputs of up to `longest_output` tokens."""
    if machine.ring > longest_output:
        return machine
    ring = max(GROUP, 1 << int(longest_output).bit_length())
    cohorts = machine.policies.cohorts
    clocks = [machine.replicas] if cohorts is None else [machine.replicas, cohorts.cohorts]
    count = sum(len(part) for part in clocks)
    if count * ring > MOST_BUCKETS:
        raise InputError(
            f"an output of {longest_output} tokens on {len(machine.replicas)} replicas needs {count * ring} buckets, "
            f"must need <= {MOST_BUCKETS}. Truncate the outputs or simulate fewer replicas."
        )
    buckets = np.full(count * ring, NONE, dtype=np.int32)
    groups = np.zeros(count * ring // GROUP, dtype=np.int32)
    start = 0
    for part in clocks:
        part.bucket_start[:] = start + np.arange(len(part)) * ring
        start += len(part) * ring
    pool = machine.pool
    for s in machine.replicas[machine.replicas.running > 0]:
        place = int(s.oldest)
        while place != NONE:  # oldest first, so that the newest heads its list again
            request = pool[place]
            clock = machine.policies.clock_of(s, place)
            if place != s.partial and request.last_iteration != NONE:
                bucket = int(clock.bucket_start) + (int(request.last_iteration) & (ring - 1))
                request.next = buckets[bucket]
                buckets[bucket] = place
                groups[bucket // GROUP] += 1
            place = int(request.newer)
    return machine._replace(buckets=buckets, groups=groups, ring=ring)


def with_forecast(machine: Machine, longest_output: int) -> Machine:
    """The machine with forecasts as long as the lives of the requests it has been told of."""
    ahead = machine.policies.look_ahead
    if ahead is None:
        return machine
    # What is predicted to outgrow the KV cache is never in a forecast; a pseudo-length may rise to the output.
    own = machine.replicas[machine.replicas.discipline == LOOK_AHEAD]
    longest = max(min(int(ahead.told.max()), int((own.capacity_blocks * own.block_size).max())), longest_output)
    old = ahead.forecast
    window = old.usage.shape[1]
    if window > longest + CHUNK:
        return machine
    new = empty_forecast(len(machine.replicas), longest, old.owed.shape[2] - 2)
    for r, s in enumerate(machine.replicas):
        begin = ahead.desks[r].known = forget(old, r, int(ahead.desks[r].known), int(s.iteration))
        for start in range(begin, begin + window, CHUNK):
            settle(old, r, s, start)
            at, to = start & (window - 1), start & (new.usage.shape[1] - 1)
            new.usage[r, to : to + CHUNK] = old.usage[r, at : at + CHUNK]
            new.peaks[r, to // CHUNK] = old.peaks[r, at // CHUNK]
    return machine._replace(policies=machine.policies._replace(look_ahead=ahead._replace(forecast=new)))
