"""What requests find in the prefix cache, and the moments that follow: known beforehand, or of sessions at a given state of the cache."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..model.lengths import Empirical, Independent, Lengths, Mixture, ProductPart
from ..model.sessions import Tabulated, dense
from ..model.workload import RequestClass
from .cached import found_tokens
from .moments import Demand, Moments, moments
from .turn_demand import turn_demand


@dataclass(frozen=True, slots=True)
class ClassAtHits(RequestClass):
    """Turns of sessions whose chances to find prefixes are known.

    Parameters
    ----------
    found : tuple of float
        Chance to find the conversation of lag j = 1, 2, ..., given as many turns before.
    system : tuple of float
        Chance to find the system prompt, for each distinct length of one.
    shared_tokens : float
        KV tokens of a resident turn that are counted with another one already, on average.
    """

    found: tuple[float, ...] = ()
    system: tuple[float, ...] = ()
    shared_tokens: float = 0.0


def at_hits(item: RequestClass, found: tuple[float, ...], system: tuple[float, ...], shared: float) -> ClassAtHits:
    """The class of sessions with those chances."""
    assert item.sessions is not None
    return ClassAtHits(
        item.name,
        item.rate_per_s,
        item.lengths,
        value=item.value,
        max_output_tokens=item.max_output_tokens,
        sessions=item.sessions,
        found=found,
        system=system,
        shared_tokens=shared,
    )


def nothing_found(item: RequestClass) -> RequestClass:
    """The class without a prefix cache: sessions find nothing."""
    if item.sessions is None:
        return item
    return at_hits(item, (0.0,), tuple(0.0 for _ in item.sessions.system_groups), 0.0)


def class_moments(item: RequestClass, budget: int, block_size: int) -> Moments:
    """Mean demands of a request of the class: `moments` of its lengths, less what it finds in the prefix cache.

    Sessions without a state of the cache find nothing. Memory that requests share is taken off the KV volume that gates count, not
    off reservations, which are full.
    """
    if not isinstance(item, ClassAtHits):
        return moments(item.lengths, budget, block_size, item.max_output_tokens, item.cached_prefix_tokens)
    return _at_state(item, budget, block_size)


@lru_cache(maxsize=256)
def _at_state(item: ClassAtHits, budget: int, block_size: int) -> Moments:
    assert item.sessions is not None
    table = turn_demand(item.sessions, len(item.found), budget, block_size, item.max_output_tokens)
    mean = table.mean(np.array(item.found), np.array(item.system))
    for held in (Demand.VOLUME, Demand.LEAST_VOLUME):
        mean[held] -= item.shared_tokens * mean[Demand.ITERATIONS]
    mean.flags.writeable = False
    return Moments(mean=mean, covariance=None, samples=0)


@lru_cache(maxsize=256)
def computed_lengths(item: RequestClass, block_size: int) -> Lengths:
    """Law of the prompt tokens computed, and outputs: `lengths` where nothing is found."""
    if isinstance(item, ClassAtHits):
        assert item.sessions is not None
        table = turn_demand(item.sessions, len(item.found), 1 << 30, block_size, item.max_output_tokens)
        return Independent(Tabulated(table.computed(item.found, item.system)), item.sessions.output)
    return _behind(item.lengths, item.cached_prefix_tokens, block_size)


def _behind(lengths: Lengths, cached: int, block_size: int) -> Lengths:
    parts = lengths.parts()
    if not cached and not any(getattr(part, "cached_prefix_tokens", None) is not None for part in parts):
        return lengths
    laws: list[Lengths] = []
    for part in parts:
        if isinstance(part, ProductPart):
            table = dense(part.prompt)
            s = part.prompt.values
            rest = np.bincount(s - found_tokens(s, cached, block_size), weights=table[s]).astype(np.float64)
            laws.append(Independent(Tabulated(rest), part.output))
        else:
            known = 0 if part.cached_prefix_tokens is None else part.cached_prefix_tokens
            s = part.prompt_tokens
            laws.append(Empirical(s - found_tokens(s, np.maximum(known, cached), block_size), part.output_tokens))
    return laws[0] if len(laws) == 1 else Mixture(laws, [part.weight for part in parts])
