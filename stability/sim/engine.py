"""`simulate`: checks, the run, and its result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from ..errors import InputError, NotModelledError, check_choice, check_integer, check_number
from ..model.arrivals import Replay
from ..model.fleet import Fleet
from ..model.requests import draw_blocks
from ..model.streams import RandomState, Stream, generator, seed_sequence
from ..model.turns import draw_sessions
from ..model.workload import Workload
from ..policies.balance import GroupRouter
from ..policies.routers import BidPrice, Router, router_of
from .domain import INTERPRETED, check_prefixes, check_servable, limits_of, replicas_of
from .result import SimulationResult

KEEP_MOST = 100_000_000
"""Requests whose records fill about six gigabytes."""


LIVED_OUT = 0.8
"""Share of the workload's rate below which a run of sessions is said to be measured too early."""


def simulate(
    fleet: Fleet,
    workload: Workload,
    *,
    requests: int | None = None,
    horizon_s: float | None = None,
    router: str | Router = "join_shortest_kv",
    rng: RandomState = None,
    saturated: bool = False,
    concurrency: int | None = None,
    record_steps: bool = False,
    keep: str = "requests",
    warmup: float = 0.1,
    resolution_s: float | None = None,
    max_waiting: int | None = None,
    progress: bool = False,
) -> SimulationResult:
    """Simulate continuous batching token by token.

    Parameters
    ----------
    fleet : Fleet
        Independent pools of mixed replicas.
    workload : Workload
        A replay is simulated as it is; other workloads are drawn.
    requests : int >= 1, optional
        Stop arrivals after this many; the run then serves all of them.
    horizon_s : float > 0, optional
        No request arrives and no step starts at or after this time. With `requests`: whichever comes first.
    router : str or Router
        "round_robin", "random", "join_shortest_queue", "join_shortest_kv", "power_of_two", "weighted_split" or an object.
    rng : int, SeedSequence, Generator or None
        Seed; runs with one seed see the same requests whatever the fleet and the router.
    saturated : bool
        All requests wait at time 0: measures capacity.
    concurrency : int >= 1, optional
        Closed loop: this many requests in the system, each replaced when it completes.
    record_steps : bool
        Keep every step in `result.steps`.
    keep : {"requests", "summary"}
        Whether to keep every request; a summary needs constant memory.
    warmup : float in [0, 1)
        Share of the requests (or of the horizon) left out of means and quantiles.
    resolution_s : float > 0, optional
        Sample the state at its multiples into `result.series`, s.
    max_waiting : int >= 1, optional
        A replica at which so many requests wait turns arrivals away (open loop only); the router does not try another.
    progress : bool
        Show a progress bar.

    Returns
    -------
    SimulationResult
        Marked incomplete if interrupted from the keyboard.

    Raises
    ------
    InputError
        If an argument breaks its rule.
    UnservableError
        If a request can never fit a replica it may join.
    NotModelledError
        If the fleet asks for what is not simulated yet.

    Examples
    --------
    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=1000))
    >>> trace = st.Workload.from_requests([0.0, 0.0], [100, 50], [3, 1])
    >>> result = simulate(fleet, trace)
    >>> result.requests.finish_s.round(3).tolist()
    [0.03, 0.01]
    """
    if requests is not None:
        requests = check_integer("requests", requests, at_least=1)
    if horizon_s is not None:
        horizon_s = check_number("horizon_s", horizon_s, above=0)
    if concurrency is not None:
        concurrency = check_integer("concurrency", concurrency, at_least=1)
        if saturated:
            raise InputError("saturated and concurrency are both given, must be one of them. Drop one.")
    check_choice("keep", keep, ("requests", "summary"))
    share = check_number("warmup", warmup, at_least=0, below=1)
    if resolution_s is not None:
        resolution_s = check_number("resolution_s", resolution_s, above=0)
    if max_waiting is not None:
        max_waiting = check_integer("max_waiting", max_waiting, at_least=1)
        if saturated or concurrency is not None:
            raise InputError("max_waiting is given, must be so in an open loop only. Drop saturated or concurrency.")
    replicas, pools = replicas_of(fleet)
    for pool in fleet.pools:
        limits_of(pool.replica)
    policy = router_of(router, fleet)
    if workload.has_sessions and isinstance(policy, BidPrice):
        raise NotModelledError(
            "BidPrice turns requests away, must not meet sessions: what a session does whose turn is turned away is not modelled. Use another "
            "router."
        )
    if isinstance(policy, BidPrice) and (saturated or concurrency is not None):
        raise InputError("BidPrice turns requests away, must do so in an open loop. Drop saturated or concurrency.")
    if isinstance(policy, GroupRouter):
        raise NotModelledError(
            f"router = {policy!r} is for barrier groups, must be one of ROUTERS. Use simulate_barrier()."
        )
    check_prefixes(fleet, workload)
    shares = policy.shares(fleet, len(workload.classes))
    root = seed_sequence(rng)
    timed = not saturated and concurrency is None
    until_s = horizon_s if timed else None
    if workload.has_sessions:
        return _sessions(
            fleet,
            workload,
            policy,
            root,
            closed=not timed,
            requests=requests,
            horizon_s=horizon_s,
            record_steps=record_steps,
            keep=keep,
            warmup=share,
            resolution_s=resolution_s,
            max_waiting=max_waiting,
            progress=progress,
        )
    blocks = draw_blocks(workload, requests=requests, horizon_s=until_s, rng=root)
    expected = _expected_requests(workload, requests, until_s)
    if keep == "requests" and expected > KEEP_MOST and math.isfinite(expected):
        raise InputError(
            f"requests = {expected:.0f} to be kept one by one, must be <= {KEEP_MOST}. Use keep='summary'."
        )
    if not timed:
        if math.isinf(expected):
            raise InputError("requests is missing, must be given in a saturated or closed-loop run. Say how many.")
        blocks = (replace(block, arrival_s=np.zeros(len(block))) for block in blocks)

    # One seed draws the same requests twice, so they can all be checked first.
    check_servable(fleet, policy, workload, draw_blocks(workload, requests=requests, horizon_s=until_s, rng=root))

    from .interpreted import InterpretedRun
    from .run import Run

    # A policy without a kernel is run by the reference, and so is the fleet it is part of.
    planned = any(limits_of(pool.replica).discipline == INTERPRETED for pool in fleet.pools)
    with _bar(progress, expected) as report:
        run = (InterpretedRun if planned else Run)(
            replicas=replicas,
            router=policy,
            shares=shares,
            uniforms=generator(root, Stream.ROUTING),
            concurrency=concurrency or 0,
            horizon_s=math.inf if horizon_s is None else horizon_s,
            expected=expected,
            warmup=share,
            keep_requests=keep == "requests",
            record_steps=record_steps,
            resolution_s=resolution_s,
            report=report,
            max_waiting=max_waiting,
            root=root,
        )
        complete = True
        try:
            if concurrency is None:
                run.open_loop(blocks)
            else:
                run.closed_loop(blocks)
        except KeyboardInterrupt:
            complete = False
            run.count_arrived()
    from .summary import summarise

    mode = "saturated" if saturated else "closed loop" if concurrency is not None else "open loop"
    return summarise(
        run,
        pools=pools,
        mode=mode,
        router=type(policy).__name__,
        root=root,
        complete=complete,
        class_names=tuple(item.name for item in workload.classes),
    )


def _sessions(
    fleet: Fleet,
    workload: Workload,
    policy: Router,
    root: np.random.SeedSequence,
    *,
    closed: bool,
    requests: int | None,
    horizon_s: float | None,
    record_steps: bool,
    keep: str,
    warmup: float,
    resolution_s: float | None,
    max_waiting: int | None,
    progress: bool,
) -> SimulationResult:
    """`simulate` for a workload with sessions, whose later turns arrive when the run says so."""
    if closed or max_waiting is not None:
        raise InputError(
            "saturated, concurrency or max_waiting is given for a workload with sessions, must not be: every session is a closed loop of its "
            "own. Drop it; for a backlog raise the rate."
        )
    if requests is None and horizon_s is None:
        raise InputError("give requests or horizon_s: sessions have no end of their own.")
    from .session_run import SessionRun
    from .summary import summarise

    replicas, pools = replicas_of(fleet)
    check_servable(fleet, policy, workload, ())
    expected = math.inf if requests is None else float(requests)
    with _bar(progress, expected) as report:
        run = SessionRun(
            replicas=replicas,
            router=policy,
            shares=policy.shares(fleet, len(workload.classes)),
            uniforms=generator(root, Stream.ROUTING),
            concurrency=0,
            horizon_s=math.inf if horizon_s is None else horizon_s,
            expected=expected,
            warmup=warmup,
            keep_requests=keep == "requests",
            record_steps=record_steps,
            resolution_s=resolution_s,
            report=report,
            root=root,
        )
        complete = True
        try:
            run.play(draw_sessions(workload, rng=root))
        except KeyboardInterrupt:
            complete = False
    result = summarise(
        run,
        pools=pools,
        mode="open loop",
        router=type(policy).__name__,
        root=root,
        complete=complete,
        class_names=tuple(item.name for item in workload.classes),
    )
    early = "" if result.overloaded or not complete else _too_early(workload, result.throughput_per_s)
    return replace(result, reason=early) if early else result


def _too_early(workload: Workload, throughput_per_s: float) -> str:
    """A note where far fewer turns were served than come in the long run, though no queue grew: sessions have not lived out."""
    rate = workload.rate_per_s
    if workload.is_scheduled or not throughput_per_s < LIVED_OUT * rate:
        return ""
    laws = [item.sessions for item in workload.classes if item.sessions is not None]
    life_s = max((law.turns_mean - 1) * law.think_s for law in laws)
    return (
        f"{throughput_per_s:.4g} turns/s were served, the workload has {rate:.4g}/s: a run starts without sessions, which last "
        f"{life_s:.4g} s of think time on average. Figures are those of a lower rate; ask for more requests and a longer warmup."
    )


def _expected_requests(workload: Workload, requests: int | None, horizon_s: float | None) -> float:
    """Requests the run will see, infinite if only time limits it."""
    if requests is not None:
        return requests
    if isinstance(workload.arrivals, Replay) and horizon_s is None:
        return len(workload.arrivals.arrival_s)
    return math.inf


@contextmanager
def _bar(wanted: bool, total: float) -> Iterator[Callable[[int], None]]:
    if not wanted:
        yield lambda _: None
        return
    from tqdm import tqdm

    with tqdm(total=None if math.isinf(total) else int(total), unit="req", unit_scale=True) as bar:

        def report(completed: int) -> None:
            bar.update(completed - bar.n)

        yield report
