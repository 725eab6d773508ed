"""Concrete sessions: what a workload with sessions turns into when it is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._types import FloatArray, IntArray
from ..errors import NotModelledError
from .arrivals import RateSchedule, Replay
from .requests import Clock
from .streams import RandomState, Stream, generator, seed_sequence
from .workload import RequestClass, Workload

NO_SESSION = -1
"""System prompt of a request that is no turn of a session: it shares nothing."""

SESSIONS = 1 << 10
"""Sessions drawn at a time. Part of the definition of a draw."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrawnSessions:
    """Sessions in the order in which they start. A request outside any session is one of a single turn.

    Attributes
    ----------
    start_s : (n,) float, non-decreasing
        Arrival of the first turn, s.
    request_class, system_prompt : (n,) int
        Class, and number of the system prompt, counted over all classes, or `NO_SESSION`.
    shared_tokens : (n,) int
        Length of the system prompt, tokens.
    first : (n + 1,) int
        Place of each session's first turn in the columns of turns.
    prompt_tokens, output_tokens, max_output_tokens, cached_prefix_tokens : (m,) int
        Of each turn: the limit is the output's own length where the class has none; cached are those of classes that say so.
    think_s : (m,) float
        From the completion of a turn to the arrival of the next, s.
    """

    start_s: FloatArray
    request_class: IntArray
    system_prompt: IntArray
    shared_tokens: IntArray
    first: IntArray
    prompt_tokens: IntArray
    output_tokens: IntArray
    max_output_tokens: IntArray
    cached_prefix_tokens: IntArray
    think_s: FloatArray


def draw_sessions(workload: Workload, *, rng: RandomState = None) -> Iterator[DrawnSessions]:
    """Sessions of `workload` in consecutive blocks, without end; with schedules that do not repeat, until their end.

    Two calls with one seed yield the same sessions. A class without sessions yields sessions of one turn.
    """
    if isinstance(workload.arrivals, Replay):
        raise NotModelledError("a replay has no sessions to draw. Use Workload.sessions(...).")
    root = seed_sequence(rng)
    starts = Workload([_starting(item) for item in workload.classes], workload.arrivals)
    clock = Clock(starts)
    gaps, kinds = generator(root, Stream.ARRIVALS), generator(root, Stream.CLASSES)
    sizes = [generator(root, Stream.LENGTHS, index) for index in range(len(workload.classes))]
    pauses = [generator(root, Stream.THINKING, index) for index in range(len(workload.classes))]
    prompts = [0 if item.sessions is None else len(item.sessions.popularity) for item in workload.classes]
    before = np.cumsum([0, *prompts]).tolist()  # every class has system prompts of its own
    now = 0.0
    while True:
        units = now + np.cumsum(workload.arrivals.unit_gaps(SESSIONS, gaps))
        now = float(units[-1])
        times = clock.time_s(units)
        which = clock.classes(times, kinds)
        keep = int(np.searchsorted(times, np.inf, side="left"))
        parts = [
            _turns(item, int((which[:keep] == index).sum()), before[index], sizes[index], pauses[index])
            for index, item in enumerate(workload.classes)
        ]
        if keep:
            yield _merged(times[:keep], which[:keep], parts)
        if keep < SESSIONS:
            return


def _starting(item: RequestClass) -> RequestClass:
    """The class at the rate at which its sessions start."""
    each = 1.0 if item.sessions is None else item.sessions.turns_mean
    if isinstance(item.rate_per_s, RateSchedule):
        return item.with_rate(item.rate_per_s.scaled(1 / each))
    return item.with_rate(item.rate_per_s / each)


_Turns = tuple[IntArray, IntArray, IntArray, IntArray, IntArray, IntArray, IntArray, FloatArray]
"""System prompt, its length and turns of each session; prompt, output, output limit, cached tokens and think time of each turn."""


def _turns(
    item: RequestClass, count: int, first_prompt: int, sizes: np.random.Generator, pauses: np.random.Generator
) -> _Turns:
    """`count` sessions of the class, whose system prompts are numbered from `first_prompt` on."""
    law = item.sessions
    if law is None:
        s, o, known = item.lengths.sample_cached(count, sizes)
        none, zeros = np.full(count, NO_SESSION), np.zeros(count, dtype=np.int64)
        known = np.maximum(known, item.cached_prefix_tokens)
        return none, zeros, zeros + 1, s, o, _limits(item, o), known, np.zeros(count)
    system = sizes.choice(len(law.popularity), size=count, p=np.array(law.popularity)).astype(np.int64)
    turns = law.turns.sample(count, sizes)
    total = int(turns.sum())
    user, output = law.new_tokens.sample(total, sizes), law.output.sample(total, sizes)
    think_s = law.think_times_s(total, pauses)
    shared = np.array(law.system_prompt_tokens, dtype=np.int64)[system]
    owner = np.repeat(np.arange(count), turns)
    first = np.concatenate(([0], np.cumsum(turns)))
    said = np.concatenate(([0], np.cumsum(user + output)))
    prompt = shared[owner] + said[1:] - said[first[owner]] - output
    if law.limit_tokens is not None:
        keep = prompt + int(law.output.max_tokens) <= law.limit_tokens
        turns = np.bincount(owner[keep], minlength=count)
        prompt, output, think_s = prompt[keep], output[keep], think_s[keep]
    known = np.zeros(len(prompt), dtype=np.int64)
    return system + first_prompt, shared, turns, prompt, output, _limits(item, output), known, think_s


def _limits(item: RequestClass, output: IntArray) -> IntArray:
    return output if item.max_output_tokens is None else np.full_like(output, item.max_output_tokens)


def _merged(times: FloatArray, which: IntArray, parts: list[_Turns]) -> DrawnSessions:
    """The classes' sessions in the order of their starts."""
    system, shared, turns, prompt, output, limit, cached, think_s = parts[0]
    if len(parts) > 1:
        place = np.argsort(which, kind="stable")  # the sessions of each class in turn
        system, shared, turns = (np.concatenate([part[i] for part in parts]) for i in range(3))
        begin = np.concatenate(([0], np.cumsum(turns)))
        order = np.empty(len(which), dtype=np.int64)
        order[place] = np.arange(len(which))
        rows = np.concatenate([np.arange(begin[i], begin[i + 1]) for i in order.tolist()])
        system, shared, turns = system[order], shared[order], turns[order]
        prompt, output, limit, cached = (np.concatenate([part[i] for part in parts])[rows] for i in range(3, 7))
        think_s = np.concatenate([part[7] for part in parts])[rows]
    return DrawnSessions(
        start_s=times,
        request_class=which,
        system_prompt=system,
        shared_tokens=shared,
        first=np.concatenate(([0], np.cumsum(turns))),
        prompt_tokens=prompt,
        output_tokens=output,
        max_output_tokens=limit,
        cached_prefix_tokens=cached,
        think_s=think_s,
    )
