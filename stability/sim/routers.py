"""`compare_routers`: the same requests under one router after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .._extras import needs
from .._result import Described, Tabular, html_table, percent, rate, seconds, text_table
from ..errors import InputError, check_integer
from ..model.arrivals import Replay
from ..model.checks import check_pair
from ..model.fleet import Barrier, Fleet
from ..model.streams import RandomState, seed_sequence
from ..model.workload import Workload
from ..policies.balance import GROUP_ROUTERS, group_router_of
from ..policies.routers import ROUTERS, Router, router_of
from .barrier import simulate_barrier
from .engine import simulate

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterOutcome(Described):
    """One router's run.

    Attributes
    ----------
    router : str
        Name, or the policy as written.
    throughput_per_s : float
        Requests completed per second.
    tokens_per_s : float
        Output tokens per second.
    iteration_s : float
        Mean time of an iteration.
    ttft_mean_s, ttft_p99_s : float
        Time to first token.
    waiting_mean : float
        Requests waiting, over the fleet.
    waste : float or None
        Share of the workers' time spent at the barrier; None for independent replicas.
    rejected : float
        Share of the requests turned away.
    overloaded : bool or None
        Whether the backlog grew as at no load <= 1; None where it is not tested (closed loops, barrier groups).

    Examples
    --------
    See :func:`stability.compare_routers`.
    """

    router: str
    throughput_per_s: float
    tokens_per_s: float
    iteration_s: float
    ttft_mean_s: float
    ttft_p99_s: float
    waiting_mean: float
    waste: float | None
    rejected: float
    overloaded: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterComparison(Tabular):
    """Routers side by side, the one with most tokens per second first.

    Attributes
    ----------
    outcomes : tuple of RouterOutcome
    requests : int
    concurrency : int or None
        Requests in the system of a closed loop.
    seed : int

    Examples
    --------
    See :func:`stability.compare_routers`.
    """

    outcomes: tuple[RouterOutcome, ...]
    requests: int
    concurrency: int | None
    seed: int

    schema: ClassVar[str] = "stability/router-comparison/1"
    _HEADER: ClassVar[tuple[str, ...]] = (
        "router",
        "throughput",
        "tokens/s",
        "iteration",
        "TTFT",
        "TTFT 99 %",
        "waiting",
        "at barrier",
        "turned away",
        "keeps up",
    )

    def __repr__(self) -> str:
        return f"RouterComparison({len(self.outcomes)} routers, best {self.outcomes[0].router})"

    @property
    def all_overloaded(self) -> bool:
        """Whether no router keeps up, as far as that was tested."""
        return all(outcome.overloaded is True for outcome in self.outcomes)

    def rows(self) -> list[tuple[str, str]]:
        """Router and throughput, for people."""
        return [(outcome.router, rate(outcome.throughput_per_s)) for outcome in self.outcomes]

    def table_rows(self) -> list[tuple[str, ...]]:
        """One row per router."""
        words = {None: "-", True: "no", False: "yes"}
        return [
            (
                item.router,
                rate(item.throughput_per_s),
                f"{item.tokens_per_s:.5g}",
                seconds(item.iteration_s),
                seconds(item.ttft_mean_s),
                seconds(item.ttft_p99_s),
                f"{item.waiting_mean:.3g}",
                percent(item.waste),
                percent(item.rejected),
                words[item.overloaded],
            )
            for item in self.outcomes
        ]

    def summary(self) -> str:
        """The routers as a text table."""
        return text_table(self.table_rows(), self._HEADER)

    def _repr_html_(self) -> str:
        return html_table(self.table_rows(), self._HEADER)

    def to_frame(self) -> pd.DataFrame:
        """One row per router, units in column names."""
        needs("pandas")
        import pandas as pd

        return pd.DataFrame([{name: getattr(item, name) for name in item.__slots__} for item in self.outcomes])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Time to first token of each router, mean and 99 %, on `ax` (a new figure without it)."""
        from ..plots.routers import plot_routers

        return plot_routers(self, ax)


def compare_routers(
    fleet: Fleet,
    workload: Workload,
    *,
    routers: Sequence[str | Router] = (),
    requests: int | None = None,
    concurrency: int | None = None,
    rng: RandomState = 0,
) -> RouterComparison:
    """Simulate the same requests under each of several routers.

    Parameters
    ----------
    fleet : Fleet
        Pools of independent replicas, or one pool behind a barrier.
    workload : Workload
        What arrives.
    routers : sequence of str or Router
        All that need no parameters, if none are given.
    requests : int >= 1, optional
        How many; 20 000 unless the workload is a replay, which is simulated whole.
    concurrency : int >= 1, optional
        Closed loop: this many requests in the system instead of arrivals at the workload's rate.
    rng : int, SeedSequence, Generator or None
        Seed of all runs.

    Returns
    -------
    RouterComparison
        Most tokens per second first.

    Raises
    ------
    InputError
        If a router is unknown.

    Examples
    --------
    >>> import stability as st
    >>> law = st.IterationTime(base_s=0.01)
    >>> fleet = st.Fleet.of(st.Replica(iteration=law, kv_capacity_tokens=1000), 2)
    >>> trace = st.Workload.from_requests([0.0, 0.0], [10, 10], [5, 2])
    >>> compare_routers(fleet, trace, routers=["round_robin"]).outcomes[0].ttft_mean_s
    0.01
    """
    check_pair(fleet, workload)
    grouped = any(isinstance(pool.coupling, Barrier) for pool in fleet.pools)
    known = sorted(GROUP_ROUTERS if grouped else ROUTERS)
    weighted = all(pool.weight is not None for pool in fleet.pools)
    chosen = list(routers) or [name for name in known if name != "weighted_split" or weighted]
    for router in chosen:  # before the first run
        group_router_of(router) if grouped else router_of(router, fleet)
    if requests is None:
        replayed = isinstance(workload.arrivals, Replay)
        requests = len(workload.arrivals.arrival_s) if replayed else 20_000  # type: ignore[union-attr]
    requests = check_integer("requests", requests, at_least=1)
    root = seed_sequence(rng)
    run = _grouped if grouped else _independent
    outcomes = [run(fleet, workload, router, requests, concurrency, root) for router in chosen]
    return RouterComparison(
        outcomes=tuple(sorted(outcomes, key=lambda outcome: -outcome.tokens_per_s)),
        requests=requests,
        concurrency=concurrency,
        seed=root.entropy if isinstance(root.entropy, int) else 0,
    )


def _independent(
    fleet: Fleet,
    workload: Workload,
    router: str | Router,
    requests: int,
    concurrency: int | None,
    root: np.random.SeedSequence,
) -> RouterOutcome:
    got = simulate(fleet, workload, router=router, requests=requests, concurrency=concurrency, rng=root)
    return RouterOutcome(
        router=router if isinstance(router, str) else repr(router),
        throughput_per_s=got.throughput_per_s,
        tokens_per_s=got.throughput_per_s * got.generated_tokens / max(got.completed, 1),
        iteration_s=got.iteration_mean_s,
        ttft_mean_s=got.ttft_mean_s,
        ttft_p99_s=float(got.ttft_quantile_s(0.99)),
        waiting_mean=got.waiting_mean,
        waste=None,
        rejected=got.rejected / max(got.arrived, 1),
        overloaded=got.overloaded if concurrency is None else None,
    )


def _grouped(
    fleet: Fleet,
    workload: Workload,
    router: str | Router,
    requests: int,
    concurrency: int | None,
    root: np.random.SeedSequence,
) -> RouterOutcome:
    got = simulate_barrier(fleet, workload, router=router, requests=requests, concurrency=concurrency, rng=root)
    begin, end = got.window_s
    inside = (got.finish_s > begin) & (got.finish_s <= end)
    if not inside.any():
        raise InputError(f"requests = {requests}, too few complete to measure. Ask for more.")
    first = (got.first_token_s - got.arrival_s)[inside]
    return RouterOutcome(
        router=router if isinstance(router, str) else repr(router),
        throughput_per_s=got.throughput_per_s,
        tokens_per_s=got.tokens_per_s,
        iteration_s=got.iteration_mean_s,
        ttft_mean_s=float(first.mean()),
        ttft_p99_s=float(np.quantile(first, 0.99)),
        waiting_mean=got.waiting_mean,
        waste=got.waste,
        rejected=0.0,
        overloaded=None,
    )
