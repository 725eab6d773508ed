"""Rates and live replicas over time: piecewise constant, on one list of windows for the whole fleet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._types import FloatArray, IntArray
from ...errors import InputError, unknown_name
from ...model.arrivals import RateSchedule, Replay
from ...model.fleet import Fleet
from ...model.workload import Workload
from .events import Burst, Outage

REPLAY_WINDOWS = 240
"""Windows in which a replayed trace's arrivals are counted."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Timeline:
    """What the fleet is offered and what of it is up.

    Attributes
    ----------
    start_s : (windows,) ndarray
        Where each window begins; the last one never ends.
    rates_per_s : (windows, classes) ndarray
        Arrivals at the fleet.
    alive : (windows, pools) ndarray of int
        Replicas that are up.
    split : (windows, classes, pools) ndarray
        Share of each class that each pool gets; all 0 where no pool of a class is up: its arrivals are held.
    """

    start_s: FloatArray
    rates_per_s: FloatArray
    alive: IntArray
    split: FloatArray

    @property
    def routed_per_s(self) -> FloatArray:
        """Arrivals sent to each pool, 1/s. Shape (windows, classes, pools)."""
        return self.rates_per_s[:, :, None] * self.split

    @property
    def held_per_s(self) -> FloatArray:
        """Arrivals that no pool takes, 1/s. Shape (windows, classes)."""
        return np.where(self.split.sum(axis=2) > 0, 0.0, self.rates_per_s)

    def after(self, before_s: float, share: float) -> Timeline:
        """The same from `before_s` on, after a time of the first window's rates times `share`."""
        starts = self.start_s + before_s
        return Timeline(
            start_s=np.concatenate(([0.0], starts)),
            rates_per_s=np.concatenate((self.rates_per_s[:1] * share, self.rates_per_s)),
            alive=np.concatenate((self.alive[:1], self.alive)),
            split=np.concatenate((self.split[:1], self.split)),
        )


def timeline(
    fleet: Fleet,
    workload: Workload,
    shares: FloatArray,
    *,
    horizon_s: float,
    bursts: Sequence[Burst] = (),
    outages: Sequence[Outage] = (),
) -> Timeline:
    """Windows from 0 to `horizon_s`.

    Parameters
    ----------
    fleet, workload
        A replay is taken at its counts in windows of equal length.
    shares : (classes, pools) ndarray
        Split of each class over the pools while all are up; the rest of a split keeps its proportions when one is down.
    horizon_s : float > 0
        Until when, s.
    bursts, outages
        What happens.
    """
    starts = {0.0}
    for burst in bursts:
        starts.update((burst.at_s, burst.end_s))
    for outage in outages:
        starts.update((outage.at_s, outage.until_s))
    curves = [_curve(workload, index, horizon_s) for index in range(len(workload.classes))]
    for edges, _ in curves:
        starts.update(edges.tolist())
    begin = np.array(sorted(t for t in starts if t < horizon_s and math.isfinite(t)))
    middle = begin + np.diff(np.append(begin, horizon_s)) / 2
    rates = np.stack([values[np.searchsorted(edges, middle, side="right") - 1] for edges, values in curves], axis=1)
    for burst in bursts:
        rates[(middle >= burst.at_s) & (middle < burst.end_s)] *= burst.factor
    alive = _alive(fleet, outages, middle)
    up = np.where(alive[:, None, :] > 0, shares[None], 0.0)
    total = up.sum(axis=2, keepdims=True)
    split = np.divide(up, total, out=np.zeros_like(up), where=total > 0)
    return Timeline(start_s=begin, rates_per_s=rates, alive=alive, split=split)


def pool_index(fleet: Fleet, outage: Outage) -> int:
    """Which pool an outage means."""
    names = [pool.name for pool in fleet.pools]
    if not outage.pool:
        return 0
    if outage.pool not in names:
        raise unknown_name("pool", outage.pool, names)
    return names.index(outage.pool)


def replicas_lost(fleet: Fleet, outage: Outage) -> int:
    """How many replicas an outage stops."""
    pool = fleet.pools[pool_index(fleet, outage)]
    lost = pool.replicas if outage.replicas is None else outage.replicas
    if lost > pool.replicas:
        raise InputError(
            f"the outage stops {lost} replicas of pool {pool.name!r}, must be <= {pool.replicas}, all it has. Stop fewer."
        )
    return lost


def _alive(fleet: Fleet, outages: Sequence[Outage], at_s: FloatArray) -> IntArray:
    alive = np.tile(np.array([pool.replicas for pool in fleet.pools], dtype=np.int64), (len(at_s), 1))
    for outage in outages:
        during = (at_s >= outage.at_s) & (at_s < outage.until_s)
        alive[during, pool_index(fleet, outage)] -= replicas_lost(fleet, outage)
    if (alive < 0).any():
        pool = fleet.pools[int(np.argmin(alive.min(axis=0)))]
        raise InputError(
            f"outages at one time stop more than the {pool.replicas} replicas of pool {pool.name!r}. Stop fewer, or later."
        )
    return alive


def _curve(workload: Workload, index: int, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    """Edges up to the horizon, and the rate from each of them on."""
    if isinstance(workload.arrivals, Replay):
        return _counted(workload.arrivals, horizon_s)
    rate = workload.classes[index].rate_per_s
    if not isinstance(rate, RateSchedule):
        return np.zeros(1), np.array([float(rate)])
    starts, values = np.array(rate.start_s), np.array(rate.rates_per_s)
    if not rate.repeat:
        return np.append(starts, rate.end_s), np.append(values, 0.0)
    passes = math.ceil(horizon_s / rate.end_s)
    edges = (np.arange(passes)[:, None] * rate.end_s + starts).ravel()
    return edges, np.tile(values, passes)


def _counted(replay: Replay, horizon_s: float) -> tuple[FloatArray, FloatArray]:
    until_s = min(horizon_s, float(replay.arrival_s[-1]) * (1 + 1e-12) + 1e-9)
    edges = np.linspace(0.0, until_s, REPLAY_WINDOWS + 1)
    counts, _ = np.histogram(replay.arrival_s, edges)
    return edges, np.append(counts / np.diff(edges), 0.0)
