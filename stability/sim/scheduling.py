"""What the simulator reads from a scheduling policy: its conventions, and the output lengths it is told."""

from __future__ import annotations

import numpy as np

from .._types import IntArray
from ..errors import InputError
from ..model.engine import Scheduler
from ..model.streams import Stream, generator
from ..policies.disciplines import DecodeFirst, Orca, PrefillFirst, Sarathi
from ..policies.fcfs import Fcfs
from ..policies.flow_control import ClassBudgets
from ..policies.predictors import Oracle, Predictor
from ..policies.priority import Priority
from ..policies.residency import EXTRA_TOKENS
from ..policies.shortest_first import AMax, AMin, SortedF
from ..policies.user import UserScheduler
from ..policies.wait import Wait

UNLIMITED_BLOCKS = 1 << 40
"""KV blocks of a replica whose policy knows no memory limit."""

MOST_IN_VAIN = 10_000
MOST_IN_VAIN_A_REQUEST = 100
"""Evictions since a request last completed, and those allowed beyond for each request present."""


def evicts_in_circles(evictions: int) -> InputError:
    """The error of a policy that evicts and gets nowhere."""
    return InputError(
        f"{evictions} evictions since a request last completed, must be <= {MOST_IN_VAIN} and "
        f"{MOST_IN_VAIN_A_REQUEST} a request present. "
        "The policy evicts in circles: give it more KV, or thresholds and budgets that need less."
    )


CHUNKING = (Fcfs, Sarathi, Orca, DecodeFirst, Priority, UserScheduler)
"""Policies that may split prompts; the others compute them whole."""


def limits_memory(policy: Scheduler) -> bool:
    """Whether the KV cache limits what `policy` admits."""
    return bool(getattr(policy, "gate", True))


def extra_tokens(policy: Scheduler) -> int:
    """Tokens `policy` charges to every resident request beyond those whose KV is stored."""
    return EXTRA_TOKENS[str(getattr(policy, "residency", "engine"))]


def whole_tokens(policy: Scheduler, prompt_tokens: IntArray, output_tokens: IntArray) -> IntArray:
    """Most tokens of each request that `policy` must be able to compute in one iteration."""
    if isinstance(policy, CHUNKING):
        return np.ones_like(prompt_tokens)
    if isinstance(policy, PrefillFirst) and policy.gate:
        return prompt_tokens + output_tokens - 1  # an evicted request is computed again with what it generated
    return prompt_tokens


def check_classes(policy: Scheduler, classes: int) -> None:
    """Raise unless `policy` has an entry for each of `classes` request classes where it has entries by class."""
    entries = {
        Wait: ("thresholds", getattr(policy, "thresholds", ())),
        ClassBudgets: ("budgets", getattr(policy, "budgets", ())),
        Priority: ("deadlines_s", getattr(policy, "deadlines_s", ())),
    }.get(type(policy))
    if entries is not None and entries[1] and len(entries[1]) < classes:
        raise InputError(
            f"{entries[0]} = {entries[1]}, must have {classes} entries, one for each request class. Add the missing ones."
        )


def predicted(
    policy: Scheduler,
    prompt_tokens: IntArray,
    output_tokens: IntArray,
    request_class: IntArray,
    rng: np.random.Generator,
) -> IntArray:
    """The output length that `policy` is told of each request."""
    told: Predictor | int = getattr(policy, "predictor", Oracle())
    if isinstance(policy, AMax):
        told = policy.upper
    elif isinstance(policy, AMin):
        told = policy.lower
    if not isinstance(told, Predictor):
        return np.full(len(output_tokens), told, dtype=np.int64)
    lengths = np.asarray(told.predict_requests(prompt_tokens, output_tokens, request_class, rng))
    if lengths.shape != output_tokens.shape or (lengths < 1).any():
        raise InputError(f"{told!r} predicts {lengths!r}, must predict one length >= 1 for each request. Correct it.")
    return lengths.astype(np.int64)


class Predictions:
    """Predicted output lengths under several policies, block by block, in order of arrival."""

    def __init__(self, policies: list[Scheduler | None], root: np.random.SeedSequence) -> None:
        self.policies = policies
        self.rngs = {policy: generator(root, Stream.PREDICTIONS) for policy in policies if policy is not None}
        self.first = 0
        self.columns: dict[Scheduler, IntArray] = {}

    def receive(self, prompt_tokens: IntArray, output_tokens: IntArray, request_class: IntArray, first: int) -> None:
        """Predict the requests numbered from `first` on."""
        self.first = first
        self.columns = {
            p: predicted(p, prompt_tokens, output_tokens, request_class, rng) for p, rng in self.rngs.items()
        }

    def of(self, replica: int, index: int) -> int:
        """What the policy of `replica` is told of request `index`; 0 for a replica without a planner."""
        policy = self.policies[replica]
        return 0 if policy is None else int(self.columns[policy][index - self.first])


WITHOUT_KERNEL: dict[type, str] = {
    SortedF: "search='exact' solves a knapsack of about n**2 M cells for every batch whenever requests arrive: offline, and array work in "
    "the reference already (search='prefix' is compiled)",
    UserScheduler: "it is Python",
}
"""Policies that only the reference runs, with the reason. All others have a kernel."""
