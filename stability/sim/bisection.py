"""Capacity as open-loop simulations show it: the rates between which the verdict of the stability test turns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .._result import Described, Tabular, Verdict
from ..errors import InputError, check_integer, check_number
from ..evidence.drift import MOST_BLOCKS, stability_test
from ..model.arrivals import Poisson, Replay
from ..model.fleet import Fleet
from ..model.streams import RandomState, seed_sequence
from ..model.workload import Workload
from ..policies.routers import Router
from .capacity import measured_capacity
from .engine import simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TRIALS = 50
FIRST_GUESS = (0.9, 1.1)
"""First rates, over saturated throughput."""
WIDEN = 1.25


@dataclass(frozen=True, slots=True, kw_only=True)
class RateTrial(Described):
    """One rate tried.

    Attributes
    ----------
    rate_per_s : float
    verdict : Verdict
    requests : int
        Arrivals of the longest run at this rate.
    reason : str
        Of the verdict.

    Examples
    --------
    See :func:`stability.capacity_by_bisection`.
    """

    rate_per_s: float
    verdict: Verdict
    requests: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectedCapacity(Tabular):
    """Capacity of a fleet as a bracket of rates.

    Attributes
    ----------
    stable_per_s : float
        Largest rate found STABLE, 1/s; 0 if none was.
    unstable_per_s : float
        Smallest rate found UNSTABLE, 1/s; infinite if none was.
    trials : tuple of RateTrial
        Rates tried, in order.
    reason : str
        Why the bracket is wider than asked for; empty otherwise.
    seed : int

    Examples
    --------
    See :func:`stability.capacity_by_bisection`.
    """

    schema = "stability/bisected-capacity/1"

    stable_per_s: float
    unstable_per_s: float
    trials: tuple[RateTrial, ...]
    reason: str
    seed: int

    def __repr__(self) -> str:
        return (
            f"BisectedCapacity({self.stable_per_s:.5g}/s to {self.unstable_per_s:.5g}/s after {len(self.trials)} rates)"
        )

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        rows = [
            ("largest rate found stable", f"{self.stable_per_s:.5g} requests/s"),
            ("smallest rate found unstable", f"{self.unstable_per_s:.5g} requests/s"),
        ]
        rows += [(f"{t.rate_per_s:.5g} requests/s", f"{t.verdict} after {t.requests} requests") for t in self.trials]
        return [*rows, ("stopped because", self.reason or "the bracket is narrow enough"), ("seed", f"{self.seed}")]

    def plot(self, ax: Axes | None = None) -> Axes:
        """The rates tried, in order, with their verdicts, on `ax` (a new figure without it)."""
        from ..plots.bisection import plot_bisection

        return plot_bisection(self, ax)


def capacity_by_bisection(
    fleet: Fleet,
    workload: Workload,
    *,
    low: float | None = None,
    high: float | None = None,
    tolerance: float = 0.02,
    requests_per_run: int = 4_000,
    most_requests: int = 256_000,
    router: str | Router = "join_shortest_kv",
    correlation_samples: int = 1,
    rng: RandomState = None,
) -> BisectedCapacity:
    """Bisection of the arrival rate on the stability test of the requests in the system and of those waiting.

    Unlike `measured_capacity` it sees the fleet under its router, and needs no saturation; it takes longer. Every rate
    is simulated with the same requests; a run is doubled until it is decided or has had `most_requests`. Rates that stay
    undetermined are left out of the bracket from both sides. Valid for stationary input; a schedule counts with its mean
    rate, a replay is resampled.

    Parameters
    ----------
    fleet, workload
        The rate of the workload does not matter, its shares and the spacing of its arrivals do.
    low, high : float > 0, optional
        Rates to try first, 1/s; by default 0.9 and 1.1 of a short saturated run's throughput. They need not bracket the
        capacity.
    tolerance : float in (0, 1)
        Width of the bracket over its upper end at which to stop.
    requests_per_run : int >= 512
        Requests of a first run, sampled at 512 instants. Let it be many times the requests that run together.
    most_requests : int >= requests_per_run
        Expected requests beyond which a run is not doubled. Half of the runs are decided after about
        60 / (1 - load)**2, fewer where request sizes vary little.
    router : str or Router
        As in `simulate`.
    correlation_samples : int >= 1
        As in `stability_test`; a sample spans `requests_per_run` / 512 arrivals.
    rng : int, SeedSequence, Generator or None
        Seed.

    Returns
    -------
    BisectedCapacity

    Raises
    ------
    InputError
        If an argument breaks its rule.

    Examples
    --------
    Eight slots and eighty iterations of 10 ms: ten requests/s.

    >>> import stability as st
    >>> engine = st.Engine(max_num_seqs=8, max_num_batched_tokens=512, block_size=1)
    >>> fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=100_000, engine=engine))
    >>> lengths = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Constant(80))
    >>> found = st.capacity_by_bisection(fleet, st.Workload.poisson(1.0, lengths), low=5.0, high=15.0, tolerance=0.7, rng=1)
    >>> found.stable_per_s, found.unstable_per_s
    (5.0, 15.0)
    """
    tolerance = check_number("tolerance", tolerance, above=0, below=1)
    requests_per_run = check_integer("requests_per_run", requests_per_run, at_least=MOST_BLOCKS)
    most_requests = check_integer("most_requests", most_requests, at_least=requests_per_run)
    root = seed_sequence(rng)
    mean = workload.averaged()
    mix = Workload(mean.classes, Poisson() if isinstance(mean.arrivals, Replay) else mean.arrivals)
    if low is None or high is None:
        guess = measured_capacity(fleet, mix, requests=requests_per_run, replications=2, rng=root).capacity_per_s
        low = FIRST_GUESS[0] * guess if low is None else low
        high = FIRST_GUESS[1] * guess if high is None else high
    low, high = check_number("low", low, above=0), check_number("high", high, above=0)
    if not low < high:
        raise InputError(f"low = {low:g} with high = {high:g}, must be below it. Give two rates in order.")

    trials: list[RateTrial] = []
    reason = f"{MOST_TRIALS} rates were tried."
    while len(trials) < MOST_TRIALS:
        rate = _next_rate(trials, low, high, tolerance)
        if rate is None:
            reason = _undecided_reason(trials, most_requests)
            break
        trials.append(
            rate_trial(
                fleet,
                mix.scaled(rate_per_s=rate),
                requests_per_run=requests_per_run,
                most_requests=most_requests,
                router=router,
                correlation_samples=correlation_samples,
                root=root,
            )
        )
    stable, _, unstable = _sorted(trials)
    return BisectedCapacity(
        stable_per_s=stable,
        unstable_per_s=unstable,
        trials=tuple(trials),
        reason=reason,
        seed=int(root.entropy) if isinstance(root.entropy, int) else 0,
    )


def _sorted(trials: list[RateTrial]) -> tuple[float, list[float], float]:
    """Largest stable rate, undetermined rates inside the bracket in order, smallest unstable rate."""
    stable = max((t.rate_per_s for t in trials if t.verdict is Verdict.STABLE), default=0.0)
    unstable = min((t.rate_per_s for t in trials if t.verdict is Verdict.UNSTABLE), default=math.inf)
    between = sorted(
        t.rate_per_s for t in trials if t.verdict is Verdict.UNDETERMINED and stable < t.rate_per_s < unstable
    )
    return stable, between, unstable


def _next_rate(trials: list[RateTrial], low: float, high: float, tolerance: float) -> float | None:
    """A rate outside all tried until both verdicts were seen; then the middle of the wider decided gap, if wide enough."""
    stable, between, unstable = _sorted(trials)
    tried = [t.rate_per_s for t in trials]
    if not stable:
        return low if not tried else min(tried) / WIDEN
    if math.isinf(unstable):
        return high if high > max(tried) else max(tried) * WIDEN
    gaps = [(stable, between[0]), (between[-1], unstable)] if between else [(stable, unstable)]
    begin, end = max(gaps, key=lambda gap: gap[1] - gap[0])
    return (begin + end) / 2 if end - begin > tolerance * unstable else None


def _undecided_reason(trials: list[RateTrial], most_requests: int) -> str:
    _, between, _ = _sorted(trials)
    if not between:
        return ""
    return (
        f"rates from {between[0]:.5g} to {between[-1]:.5g}/s stay undetermined within {most_requests} requests. "
        "Raise most_requests."
    )


def rate_trial(
    fleet: Fleet,
    workload: Workload,
    *,
    requests_per_run: int,
    most_requests: int,
    router: str | Router,
    correlation_samples: int,
    root: np.random.SeedSequence,
) -> RateTrial:
    """The verdict at the workload's rate: runs with the same requests, each twice as long as the last, until decided.

    Parameters
    ----------
    fleet, workload, requests_per_run, most_requests, router, correlation_samples
        As in `capacity_by_bisection`.
    root : SeedSequence
        Seed.
    """
    resolution_s = requests_per_run / workload.rate_per_s / MOST_BLOCKS
    samples, doublings = MOST_BLOCKS, int(math.log2(most_requests / requests_per_run))
    for _ in range(doublings + 1):
        run = simulate(
            fleet,
            workload,
            horizon_s=samples * resolution_s,
            router=router,
            rng=root,
            keep="summary",
            resolution_s=resolution_s,
        )
        waiting = run.series["waiting"]
        evidence = stability_test(waiting + run.series["running"], waiting, correlation_samples=correlation_samples)
        samples *= 2
        if evidence.verdict is not Verdict.UNDETERMINED:
            break
    return RateTrial(
        rate_per_s=workload.rate_per_s, verdict=evidence.verdict, requests=run.arrived, reason=evidence.reason
    )
