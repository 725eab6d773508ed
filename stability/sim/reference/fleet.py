"""Replicas, a router and a stream of requests, event by event."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..._types import FloatArray, IntArray
from ...model.iteration import IterationLaw
from ...model.requests import Requests
from ...model.streams import Stream, generator
from ...policies.routers import (
    BidPrice,
    JoinShortestKv,
    JoinShortestQueue,
    PowerOfTwo,
    PrefixAffinity,
    Random,
    RoundRobin,
    Router,
    WeightedSplit,
)
from ..domain import Limits
from ..scheduling import Predictions, extra_tokens
from .planned import PlannedReplica
from .planners import planner_of
from .prefix_cache import PrefixCacheReplica
from .replica import ReferenceReplica, ReferenceRequest, Step


@dataclass(slots=True, kw_only=True, eq=False)
class ReferenceRun:
    """What happened: every request, in order of arrival, and every step with its replica, in order of decision."""

    requests: list[ReferenceRequest]
    replica: IntArray
    steps: list[tuple[int, Step]] = field(default_factory=list)


def run_reference(
    replicas: Sequence[tuple[Limits, IterationLaw]],
    requests: Requests,
    *,
    router: Router | None = None,
    shares: FloatArray | None = None,
    uniforms: FloatArray | None = None,
    concurrency: int | None = None,
    horizon_s: float = math.inf,
    max_waiting: int | None = None,
    root: np.random.SeedSequence | None = None,
) -> ReferenceRun:
    """Simulate `requests` to the end, or all steps that start before `horizon_s`.

    Parameters
    ----------
    replicas : sequence of (Limits, IterationLaw)
    requests : Requests
        Arrival times are ignored in closed loop.
    router : Router, optional
        Round robin by default.
    shares : (n_classes, n_replicas) array, optional
        Cumulative probabilities of a weighted split.
    uniforms : (n, router.draws) array, optional
        The router's random numbers, one row a request.
    concurrency : int, optional
        Closed loop: this many requests at time 0, and a new one at every completion.
    max_waiting : int, optional
        A replica at which so many wait turns arrivals away; their `replica` stays -1.
    root : SeedSequence, optional
        Where the random numbers of policies and predictors come from; seed 0 by default.
    """
    root = root or np.random.SeedSequence(0)
    servers = build_servers(replicas, root)
    predictions = Predictions([limits.scheduler for limits, _ in replicas], root)
    predictions.receive(requests.prompt_tokens, requests.output_tokens, requests.request_class, 0)
    jobs = [
        ReferenceRequest(
            index=i,
            arrival_s=float(requests.arrival_s[i]),
            prompt_tokens=int(requests.prompt_tokens[i]),
            output_tokens=int(requests.output_tokens[i]),
            max_output_tokens=int(requests.max_output_tokens[i]),
            request_class=int(requests.request_class[i]),
            cached_prefix_tokens=int(requests.cached_prefix_tokens[i]),
        )
        for i in range(len(requests))
    ]
    run = ReferenceRun(requests=jobs, replica=np.full(len(jobs), -1, dtype=np.int64))

    def arrive(job: ReferenceRequest, now_s: float) -> None:
        row = uniforms[job.index] if uniforms is not None else np.empty(0)
        chosen = choose(router or RoundRobin(), servers, job, row, shares)
        job.arrival_s = now_s
        if chosen == len(servers):
            return
        if max_waiting is not None and len(servers[chosen].waiting) >= max_waiting:
            return
        job.predicted_output_tokens = predictions.of(chosen, job.index)
        run.replica[job.index] = chosen
        servers[chosen].enqueue(job, now_s)

    pending = deque(jobs)
    if concurrency is None:
        while pending and pending[0].arrival_s < horizon_s:
            job = pending.popleft()
            _advance(run, servers, job.arrival_s)
            arrive(job, job.arrival_s)
    else:
        for _ in range(min(concurrency, len(pending))):
            arrive(pending.popleft(), 0.0)
        while pending:
            # The earliest step to start or to end; everything at that instant, ends first, then arrivals, then starts.
            now_s = min(s.step.end_s if s.step else s.next_start_s for s in servers)
            if now_s >= horizon_s:
                break
            done = [job for s in servers if s.step and s.step.end_s == now_s for job in s.finish_step()]
            for _ in range(min(len(done), len(pending))):
                arrive(pending.popleft(), now_s)
            for index, server in enumerate(servers):
                if server.step is None and server.next_start_s == now_s:
                    _begin(run, index, server)
    _advance(run, servers, horizon_s)
    for server in servers:
        if server.step:
            server.finish_step()
    return run


def _advance(run: ReferenceRun, servers: list[ReferenceReplica], until_s: float) -> None:
    """Take every replica to `until_s`: steps that end by then are done, steps that start before are begun."""
    for index, server in enumerate(servers):
        while True:
            if server.step:
                if server.step.end_s > until_s:
                    break
                server.finish_step()
            if not server.next_start_s < until_s:
                break
            _begin(run, index, server)


def _begin(run: ReferenceRun, index: int, server: ReferenceReplica) -> None:
    step = server.begin_step()
    if step is not None:
        run.steps.append((index, step))


def build_servers(
    replicas: Sequence[tuple[Limits, IterationLaw]], root: np.random.SeedSequence
) -> list[ReferenceReplica]:
    """Idle replicas, each under its own policy."""
    servers: list[ReferenceReplica] = []
    for index, (limits, law) in enumerate(replicas):
        if limits.scheduler is not None:
            planner = planner_of(limits.scheduler, generator(root, Stream.SCHEDULING, index))
            extra = extra_tokens(limits.scheduler)
            servers.append(PlannedReplica(limits=limits, law=law, planner=planner, extra_tokens=extra))
        else:
            kind = PrefixCacheReplica if limits.prefix_caching else ReferenceReplica
            servers.append(kind(limits=limits, law=law))
    return servers


def choose(
    router: Router,
    servers: Sequence[ReferenceReplica],
    job: ReferenceRequest,
    uniforms: FloatArray,
    shares: FloatArray | None,
) -> int:
    """Index of the replica that `job` joins."""
    count = len(servers)
    match router:
        case RoundRobin():
            return job.index % count
        case Random():
            return int(uniforms[0] * count)
        case JoinShortestQueue():
            return min(range(count), key=lambda i: servers[i].requests())
        case PrefixAffinity():
            tokens = [server.tokens() for server in servers]
            score = [s.matched(job) - router.balance * t for s, t in zip(servers, tokens, strict=True)]
            return min(range(count), key=lambda i: (-score[i], tokens[i]))
        case JoinShortestKv():
            return min(range(count), key=lambda i: servers[i].tokens())
        case PowerOfTwo():
            if count == 1:
                return 0
            first = int(uniforms[0] * count)
            second = int(uniforms[1] * (count - 1))
            second += second >= first
            return min(sorted((first, second)), key=lambda i: servers[i].requests())
        case WeightedSplit() | BidPrice():  # beyond the last replica: turned away
            assert shares is not None
            return int(np.searchsorted(shares[job.request_class], uniforms[0], side="right"))
    raise TypeError(f"{router!r} has no reference")
