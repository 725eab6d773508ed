"""`simulate_barrier`: a group of workers in lock-step, step by step, under any router."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._extras import needs
from .._result import Tabular, percent, rate, seconds
from .._types import AnyArray, FloatArray, IntArray, read_only
from ..errors import InputError, NotModelledError, UnservableError, check_choice, check_integer, check_number
from ..evidence.intervals import Interval, ratio_interval
from ..model.arrivals import Replay
from ..model.checks import check_no_prefixes, check_pair
from ..model.fleet import Barrier, Fleet, Pool
from ..model.requests import Requests, draw
from ..model.streams import RandomState, Stream, generator, seed_sequence
from ..model.workload import Workload
from ..policies.balance import BalanceRouter, LeastPredictedWork, LengthPartition, group_router_of
from ..policies.routers import BidPrice, Router
from .predictors import prediction_tables

if TYPE_CHECKING:
    import pandas as pd

ASSIGNMENTS = ("central", "immediate")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BarrierResult(Tabular):
    """What a barrier group did over the measured window. Means are over its steps.

    Attributes
    ----------
    router, assignment : str
    workers : int
    throughput_per_s : float
        Requests completed per second.
    tokens_per_s : float
        Output tokens per second of the group; prefill pools elsewhere give the first token of each request.
    iteration_mean_s : float
        Mean time of a step.
    tpot_p95_s : float
        95 % quantile over requests of the mean time per output token after the first.
    waste : float
        Share of the workers' time spent waiting at the barrier.
    imbalance_tokens : float
        Mean of G max L - sum L, L the KV read by a worker's decodes.
    spread_tokens : float
        Mean of max L - min L.
    peak_ratio : float
        E[max L]/E[mean L]: by how much the barrier inflates the KV term.
    kv_peak_tokens : int
        Largest KV read by one worker in one step.
    over_capacity : float
        Share of worker-steps in which that exceeds the worker's KV cache: 0 under reservation, else not enforced.
    energy_per_token_j : float
        At 100 + 300 (L/max L)^0.7 W per worker, J.
    running_mean, waiting_mean : float
        Time averages over the group.
    completed : int
        Requests completed in the window.
    steps : int
    window_s : (float, float)
    interval : Interval
        95 % interval of `tokens_per_s`.
    worker, arrival_s, assigned_s, first_token_s, finish_s : (n,) ndarray
        By request of the whole run.
    log : mapping of str to ndarray
        Every step, if recorded: `start_s`, `end_s`, `waiting`, and by worker `prefill`, `decodes`, `kv_tokens`.
    seed : int

    Examples
    --------
    See :func:`stability.simulate_barrier`.
    """

    router: str
    assignment: str
    workers: int
    throughput_per_s: float
    tokens_per_s: float
    iteration_mean_s: float
    tpot_p95_s: float
    waste: float
    imbalance_tokens: float
    spread_tokens: float
    peak_ratio: float
    kv_peak_tokens: int
    over_capacity: float
    energy_per_token_j: float
    running_mean: float
    waiting_mean: float
    completed: int
    steps: int
    window_s: tuple[float, float]
    interval: Interval
    worker: IntArray
    arrival_s: FloatArray
    assigned_s: FloatArray
    first_token_s: FloatArray
    finish_s: FloatArray
    log: Mapping[str, AnyArray]
    seed: int

    schema: ClassVar[str] = "stability/barrier/1"

    def __repr__(self) -> str:
        return (
            f"BarrierResult({self.router}, {self.workers} workers, {self.tokens_per_s:.4g} tokens/s, "
            f"waste {100 * self.waste:.1f} %)"
        )

    def rows(self) -> list[tuple[str, str]]:
        """The main figures by name, for people."""
        return [
            ("router", f"{self.router}, {self.assignment} assignment"),
            ("workers", str(self.workers)),
            (
                "throughput",
                f"{rate(self.throughput_per_s)}, {self.tokens_per_s:.4g} +- {self.interval.half_width:.2g} tokens/s",
            ),
            ("iteration", seconds(self.iteration_mean_s)),
            ("time per output token, 95 %", seconds(self.tpot_p95_s)),
            ("idle at the barrier", percent(self.waste)),
            ("KV load, max over mean", f"{self.peak_ratio:.4f}"),
            ("KV load, max - min", f"{self.spread_tokens:.4g} tokens"),
            ("energy per token", f"{self.energy_per_token_j:.4g} J"),
            ("running, waiting", f"{self.running_mean:.4g}, {self.waiting_mean:.4g}"),
            (
                "worker-steps beyond the KV cache",
                percent(self.over_capacity) + (", not enforced" if self.over_capacity else ""),
            ),
        ]

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe mapping of the figures, tagged with its schema; requests and steps are left out."""
        from .._result import json_safe

        left_out = ("worker", "arrival_s", "assigned_s", "first_token_s", "finish_s", "log")
        return {
            "schema": self.schema,
            **{name: json_safe(getattr(self, name)) for name in self.__slots__ if name not in left_out},
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per request, units in column names."""
        needs("pandas")
        import pandas as pd

        names = ("worker", "arrival_s", "assigned_s", "first_token_s", "finish_s")
        return pd.DataFrame({name: getattr(self, name) for name in names})


def simulate_barrier(
    fleet: Fleet,
    workload: Workload,
    *,
    router: str | Router = "join_shortest_kv",
    assignment: str | None = None,
    requests: int | None = None,
    concurrency: int | None = None,
    saturated: bool = False,
    warmup: float = 0.2,
    record_steps: bool = False,
    rng: RandomState = None,
) -> BarrierResult:
    """Simulate one group of workers behind a barrier, token by token.

    Slots and token budget limit each worker. So does its KV cache with `admission="reserve"`: a request joins a worker only where its
    prompt and output limit fit beside those of the running ones (in the order of the queue; a balancing router's placement that does not
    fit is put off). The gates, which evict, have no counterpart here: under them the KV cache is watched (`over_capacity`), not enforced.

    Parameters
    ----------
    fleet : Fleet
        One pool, coupled by a `Barrier` of as many workers as it has replicas; its role is mixed, or decode, where requests
        arrive with their prompt computed and their first token given (those of one token never arrive).
    workload : Workload
        A replay is simulated as it is; other workloads are drawn.
    router : str or Router
        A key of `GROUP_ROUTERS` or an object, see `stability.policies`.
    assignment : {"central", "immediate"}, optional
        One queue whose requests are assigned when a slot is free (pull), or a queue at each worker that requests join on
        arrival (push). Balancing routers need, and default to, the first; others default to the second.
    requests : int >= 1, optional
        How many; needed unless the workload is a replay.
    concurrency : int >= 1, optional
        Closed loop: this many requests in the system, each replaced when it completes.
    saturated : bool
        All requests wait at time 0.
    warmup : float in [0, 1)
        Share of the completions left out of the figures.
    record_steps : bool
        Keep every step in `log`.
    rng : int, SeedSequence, Generator or None
        Seed; runs with one seed see the same requests whatever the fleet and the router.

    Returns
    -------
    BarrierResult
        Figures of the window from the warm-up to the last arrival (saturated: until a worker runs out of waiting requests).

    Raises
    ------
    InputError
        If an argument breaks its rule.
    NotModelledError
        If the fleet is not one barrier group.
    UnservableError
        If a worker that reserves can never hold a request.

    Examples
    --------
    Two workers with one slot each, 10 ms a step and 1 ms per KV token; prompts are computed elsewhere. Each step waits for the
    longer request: 10 + 11, 10 + 12 ms.

    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01, per_kv_token_s=1e-3)
    >>> engine = st.Engine(max_num_seqs=1, max_num_batched_tokens=1, block_size=1)
    >>> replica = st.Replica(iteration=law, kv_capacity_tokens=100, engine=engine)
    >>> fleet = st.Fleet([st.Pool("decode", replica, 2, role="decode", coupling=st.Barrier(2))])
    >>> trace = st.Workload.from_requests([0.0, 0.0], [10, 4], [3, 3])
    >>> st.simulate_barrier(fleet, trace, router="round_robin").finish_s.round(3).tolist()
    [0.043, 0.043]
    """
    check_pair(fleet, workload)
    check_no_prefixes(workload, "barrier groups")
    pool = _pool(fleet)
    policy = group_router_of(router)
    if isinstance(policy, BidPrice):
        raise NotModelledError(
            "BidPrice admits to pools of independent replicas: behind a barrier every worker pays for the most loaded one, so that a "
            "request has no price at its own worker alone. Admit before the group."
        )
    central = _central(policy, assignment, pool.replicas)
    share = check_number("warmup", warmup, at_least=0, below=1)
    if concurrency is not None:
        concurrency = check_integer("concurrency", concurrency, at_least=1)
        if saturated:
            raise InputError("saturated and concurrency are both given, must be one of them. Drop one.")
    if requests is None:
        if not isinstance(workload.arrivals, Replay):
            raise InputError("requests is missing, must be given unless the workload is a replay. Say how many.")
        requests = len(workload.arrivals.arrival_s)
    root = seed_sequence(rng)
    drawn = draw(workload, requests=requests, rng=root)
    if pool.role == "decode":
        drawn = _longer_than_one(drawn)
    if len(drawn) == 0:
        raise InputError(
            "no request has more than one output token, some must for a decode pool. Lengthen the outputs."
        )
    _check_fits(pool, drawn)
    from .group import GroupRun

    run = GroupRun(
        pool=pool,
        policy=policy,
        central=central,
        requests=drawn,
        concurrency=len(drawn) if saturated else concurrency or 0,
        uniforms=generator(root, Stream.ROUTING).random((len(drawn), policy.draws)),
        shares=policy.shares(fleet, len(workload.classes)),
        tables=tables_for(policy, workload),
    )
    run.go(steps=0, warmup=share)
    if record_steps:
        run.go(steps=run.steps, warmup=share)
    return _result(run, type(policy).__name__, "central" if central else "immediate", root)


def _result(run: Any, router: str, assignment: str, root: np.random.SeedSequence) -> BarrierResult:
    begin, end = run.window()
    gained = {name: end[name] - begin[name] for name in end}
    span, count, workers = gained["time_s"], max(gained["steps"], 1.0), run.workers
    outcome = run.jobs
    inside = (outcome.finish_s > begin["at_s"]) & (outcome.finish_s <= end["at_s"]) & (outcome.output > 1)
    per_token = (outcome.finish_s - outcome.first_token_s)[inside] / (outcome.output[inside] - 1)
    marks = run.batches(begin, end)
    interval = ratio_interval(np.diff(marks["tokens"]), np.diff(marks["time_s"]))
    return BarrierResult(
        router=router,
        assignment=assignment,
        workers=workers,
        throughput_per_s=_ratio(gained["completed"], span),
        tokens_per_s=_ratio(gained["tokens"], span),
        iteration_mean_s=span / count,
        tpot_p95_s=float(np.quantile(per_token, 0.95)) if len(per_token) else math.nan,
        waste=_ratio(gained["idle_s"], workers * span),
        imbalance_tokens=gained["imbalance"] / count,
        spread_tokens=gained["spread"] / count,
        peak_ratio=_ratio(gained["largest"], gained["mean"]),
        kv_peak_tokens=run.peak,
        over_capacity=gained["over"] / (workers * count),
        energy_per_token_j=_ratio(gained["energy_j"], gained["tokens"]),
        running_mean=_ratio(gained["running_area"], span),
        waiting_mean=_ratio(gained["waiting_area"], span),
        completed=int(gained["completed"]),
        steps=int(gained["steps"]),
        window_s=(begin["at_s"], end["at_s"]),
        interval=interval,
        worker=read_only(outcome.worker),
        arrival_s=read_only(outcome.arrival_s),
        assigned_s=read_only(outcome.assigned_s),
        first_token_s=read_only(outcome.first_token_s),
        finish_s=read_only(outcome.finish_s),
        log=run.log(),
        seed=root.entropy if isinstance(root.entropy, int) else 0,
    )


def _ratio(a: float, b: float) -> float:
    return a / b if b > 0 else math.nan


def _pool(fleet: Fleet) -> Pool:
    pool = fleet.pools[0]
    if len(fleet.pools) > 1 or fleet.links or not isinstance(pool.coupling, Barrier):
        raise NotModelledError(
            f"the fleet has {len(fleet.pools)} pools and couples the first by {pool.coupling!r}, must be one pool behind a "
            "Barrier. Simulate pools of independent replicas with simulate()."
        )
    if pool.coupling.workers != pool.replicas or pool.role == "prefill":
        raise NotModelledError(
            f"pool {pool.name!r} has {pool.replicas} replicas of role {pool.role!r} in groups of {pool.coupling.workers}, "
            "must be one group, mixed or decode. Simulate one group."
        )
    return pool


def _central(policy: Router, assignment: str | None, workers: int) -> bool:
    balancing = isinstance(policy, BalanceRouter)
    chosen = assignment or ("central" if balancing else "immediate")
    check_choice("assignment", chosen, ASSIGNMENTS)
    if balancing and chosen == "immediate":
        raise InputError(
            f"assignment = 'immediate', must be 'central' for {policy!r}. It chooses among waiting requests."
        )
    if isinstance(policy, LengthPartition) and sum(policy.workers) != workers:
        raise InputError(
            f"the parts of {policy!r} have {sum(policy.workers)} workers, must have {workers}. Share them out."
        )
    return chosen == "central"


def tables_for(policy: Router, workload: Workload) -> FloatArray:
    """The predictions a router needs, shape (n_classes, m); empty if it needs none or knows the future."""
    if isinstance(policy, LeastPredictedWork):
        return prediction_tables(workload, policy.predictor, math.inf)
    if isinstance(policy, BalanceRouter) and policy.horizon > 0:
        return prediction_tables(workload, policy.predictor, policy.horizon)
    return np.empty((len(workload.classes), 0))


def _check_fits(pool: Pool, requests: Requests) -> None:
    """Raise if an empty worker that reserves has no room for some request."""
    engine = pool.replica.engine
    needed = requests.prompt_tokens + requests.max_output_tokens
    if engine.admission == "reserve" and engine.scheduler is None and int(needed.max()) > pool.replica.usable_kv_tokens:
        row = int(np.argmax(needed))
        raise UnservableError(
            f"request {row} needs {needed[row]} KV tokens (prompt and output limit), must fit the "
            f"{pool.replica.usable_kv_tokens} of a worker of pool {pool.name!r}. Shorten it or enlarge the KV cache."
        )


def _longer_than_one(requests: Requests) -> Requests:
    keep = requests.output_tokens > 1
    return Requests(**{name: getattr(requests, name)[keep] for name in Requests.__slots__})
