"""Routers for workers behind a barrier: which waiting requests join which worker when slots come free.

A step of a barrier group lasts as long as its most loaded worker's, so what counts is the envelope `M = max_g L_g` of the
workers' KV loads over time. `BalanceRoute` and `BalanceFuture` choose among the requests that wait; the others route one
request at a time. Which decision each makes is in `stability.sim.reference.dispatch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import InputError, check_choice, check_integer, check_number
from .routers import ROUTERS, Router

PREDICTORS = ("survival", "exact_match", "oracle")
"""How the remaining steps of a request are predicted: from the output lengths of all requests, of those of its own class, or known."""


class GroupRouter(Router):
    """A router that only barrier groups know."""


@dataclass(frozen=True, slots=True)
class PowerOfChoices(GroupRouter):
    """Of `choices` distinct workers drawn at random, the one with the fewest requests; ties to the lowest index.

    Parameters
    ----------
    choices : int >= 1
        How many are drawn (all of them, if there are fewer). Two is `PowerOfTwo`.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.PowerOfChoices(3).draws
    3
    """

    choices: int = 2

    code = 6
    observes = True

    def __post_init__(self) -> None:
        check_integer("choices", self.choices, at_least=1, at_most=64)

    @property
    def draws(self) -> int:  # type: ignore[override]
        """Uniform random numbers it uses for one request."""
        return self.choices


@dataclass(frozen=True, slots=True)
class LeastPredictedWork(GroupRouter):
    """The worker whose requests, waiting and running, have the fewest KV reads left by prediction; ties to the lowest index.

    Parameters
    ----------
    predictor : {"survival", "exact_match", "oracle"}
        Where the remaining output of a request is taken from: its mean given the tokens generated so far, over all
        requests or over those of its class, or its true value.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.LeastPredictedWork().predictor
    'survival'
    """

    predictor: str = "survival"

    code = 7
    observes = True

    def __post_init__(self) -> None:
        check_choice("predictor", self.predictor, PREDICTORS)


@dataclass(frozen=True, slots=True)
class LengthPartition(GroupRouter):
    """Workers kept apart by prompt length; within a part the worker with the fewest requests, ties to the lowest index.

    Parameters
    ----------
    cutoffs : sequence of int, strictly increasing
        Longest prompt of each part but the last, tokens.
    workers : sequence of int >= 1
        Workers of each part, one entry more than `cutoffs`; in order of index.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.LengthPartition(cutoffs=(1000,), workers=(6, 2)).workers
    (6, 2)
    """

    cutoffs: tuple[int, ...]
    workers: tuple[int, ...]

    code = 8
    observes = True

    def __post_init__(self) -> None:
        cutoffs = tuple(check_integer(f"cutoffs[{i}]", c, at_least=1) for i, c in enumerate(self.cutoffs))
        workers = tuple(check_integer(f"workers[{i}]", w, at_least=1) for i, w in enumerate(self.workers))
        if len(workers) != len(cutoffs) + 1 or list(cutoffs) != sorted(set(cutoffs)):
            raise InputError(
                f"cutoffs = {cutoffs} and workers = {workers}, must increase strictly and be one fewer than the parts. "
                "Give the longest prompt of each part but the last."
            )
        object.__setattr__(self, "cutoffs", cutoffs)
        object.__setattr__(self, "workers", workers)


class BalanceRouter(GroupRouter):
    """A router that chooses among the requests waiting in a central pool.

    Attributes
    ----------
    horizon : int >= 0
        Steps ahead that are projected (H).
    alpha, beta, decay : float
        Weights of the gain and of the penalty, and the discount per step ahead.
    greedy_slots : int >= 0
        Free slots in all above which requests are placed one by one on the worker with the most of them.
    window : int >= 1
        Waiting requests looked at, in order of arrival.
    predictor : str
        Where the remaining steps of running requests are taken from.
    """

    horizon: int
    alpha: float
    beta: float | None
    decay: float
    greedy_slots: int
    window: int
    predictor: str
    code = 9
    observes = True

    def _check(self) -> None:
        check_integer("horizon", self.horizon, at_least=0, at_most=MOST_STEPS_AHEAD)
        check_number("alpha", self.alpha, above=0)
        if self.beta is not None:
            check_number("beta", self.beta, above=0)
        check_number("decay", self.decay, above=0, at_most=1)
        check_integer("greedy_slots", self.greedy_slots, at_least=0, at_most=MOST_GREEDY)
        check_integer("window", self.window, at_least=1, at_most=MOST_WINDOW)
        check_choice("predictor", self.predictor, PREDICTORS)


MOST_STEPS_AHEAD, MOST_GREEDY, MOST_WINDOW = 4096, 16, 1024
"""Largest settings of a `BalanceRouter`: kernels reserve memory for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceRoute(BalanceRouter):
    r"""BalanceRoute: the set of waiting requests that lowers the imbalance of the next steps most (arXiv 2605.06113).

    With loads :math:`L_g(h)` projected h steps ahead, margins :math:`m_{g,h} = \max_g L_g(h) - L_g(h)` and D the prompt tokens of a
    set Q, the gain of placing Q on worker g is
    :math:`F_g(Q) = \alpha D \sum_h \gamma^h - \beta \sum_h \gamma^h (D - m_{g,h})_+`.
    BR-0 is horizon 0 with alpha = 1 and beta = G: F is then the fall of the imbalance :math:`G \max_g L_g - \sum_g L_g`. BR-H is a
    positive horizon.

    Parameters
    ----------
    horizon : int >= 0
        Steps ahead (H); the paper uses 0 and 80.
    alpha, beta : float > 0
        Weights of gain and penalty; `beta` is the number of workers by default. Not published: see docs/guides/routing.md.
    decay : float in (0, 1]
        Discount per step (gamma).
    greedy_slots : int >= 0
        Free slots in all above which the first stage runs (7 in code by the same authors).
    window : int >= 1
        Waiting requests looked at, in order of arrival (the paper: 4 of the pool sorted by length).
    predictor : {"survival", "exact_match", "oracle"}
        Where the remaining steps of running requests are taken from.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.BalanceRoute(horizon=80).predictor
    'survival'
    """

    horizon: int = 0
    alpha: float = 1.0
    beta: float | None = None
    decay: float = 0.9
    greedy_slots: int = 7
    window: int = 1024
    predictor: str = "survival"

    rule = 0

    def __post_init__(self) -> None:
        self._check()


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceFuture(BalanceRouter):
    """BF-IO, the heuristic of the authors' code: exact subset sums up to the least margin ahead (arXiv 2601.17855).

    Workers are served by least blended load, now and at the horizon; of the sets of exactly k requests the one with the
    largest sum up to the least margin is taken, else the smallest above it, and over k the one with the greatest gain F of
    `BalanceRoute`.

    Parameters
    ----------
    horizon : int >= 0
        Steps ahead (H; 72 in the code).
    alpha, beta : float > 0
        Weights of gain and penalty.
    decay : float in (0, 1]
        Discount per step.
    greedy_slots : int >= 0
        Free slots in all above which requests are placed greedily.
    window : int >= 1
        Waiting requests looked at, in order of arrival.
    predictor : {"survival", "exact_match", "oracle"}
        Where the remaining steps of running requests are taken from (the code knows them).
    blend : float in [0, 1]
        Weight of the load at the horizon in the order of the workers. The code uses the elapsed share of the run, which a
        stationary run does not have.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    >>> from stability import policies
    >>> policies.BalanceFuture(horizon=20).predictor
    'oracle'
    """

    horizon: int = 72
    alpha: float = 1.0
    beta: float | None = 43.0
    decay: float = 0.86
    greedy_slots: int = 7
    window: int = 1024
    predictor: str = "oracle"
    blend: float = 0.5

    rule = 1

    def __post_init__(self) -> None:
        self._check()
        check_number("blend", self.blend, at_least=0, at_most=1)


GROUP_ROUTERS: dict[str, type[Router]] = {
    **{name: router for name, router in ROUTERS.items() if name != "weighted_split"},
    "power_of_choices": PowerOfChoices,
    "least_predicted_work": LeastPredictedWork,
    "balance_route": BalanceRoute,
    "balance_future": BalanceFuture,
}
"""Routers of barrier groups by name; those that need parameters are given as objects."""


def group_router_of(router: str | Router) -> Router:
    """The policy named by `router`, a key of `GROUP_ROUTERS`; a policy is returned as it is.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if isinstance(router, Router):
        return router
    check_choice("router", router, _names())
    return GROUP_ROUTERS[router]()


def _names() -> Sequence[str]:
    return sorted(GROUP_ROUTERS)
