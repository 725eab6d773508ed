"""Every policy is simulated, has a kernel or a stated reason, a theory or an explicit none, and its own code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from stability import policies
from stability.model.engine import Engine, Scheduler
from stability.model.iteration import IterationTime
from stability.model.replica import Replica
from stability.policies import UserScheduler
from stability.sim.domain import INTERPRETED, limits_of
from stability.sim.reference.fleet import build_servers
from stability.sim.scheduling import WITHOUT_KERNEL

POLICIES = {
    name: value
    for name, value in vars(policies).items()
    if inspect.isclass(value) and issubclass(value, Scheduler) and not inspect.isabstract(value)
}
ARGUMENTS = {
    "Wait": ((2,),),
    "NestedWait": ((1, 2), (2, 1)),
    "ClassBudgets": ((2,),),
    "RandomBudget": (0, 2),
    "AMax": (9,),
}


def example(name: str) -> Scheduler:
    return POLICIES[name](*ARGUMENTS.get(name, ()))


def test_the_walk_finds_the_policies() -> None:
    assert len(POLICIES) >= 15


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_reference_and_kernel_or_reason(name: str) -> None:
    policy = example(name)
    replica = Replica(
        iteration=IterationTime(base_s=1.0), kv_capacity_tokens=100, engine=Engine(block_size=1, scheduler=policy)
    )
    limits = limits_of(replica)
    (server,) = build_servers([(limits, replica.iteration)], np.random.SeedSequence(0))
    assert server.begin_step
    reason = WITHOUT_KERNEL.get(type(policy))
    assert (limits.discipline == INTERPRETED) == (reason is not None), (
        f"{name} has a kernel and a reason for none, or neither."
    )
    assert reason is None or len(reason) > 10


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_theory_or_explicit_none(name: str, root: Path) -> None:
    text = (root / "docs" / "guides" / "schedulers.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{name}` \|(.+)\|$", text, flags=re.MULTILINE)
    assert row, f"docs/guides/schedulers.md has no row for {name}. Say what its theory and its simulation are."
    cells = [cell.strip() for cell in row[1].split("|")]
    assert len(cells) == 4
    assert all(cells), f"{name} has an empty cell in docs/guides/schedulers.md. Write 'none'."


def test_codes_are_distinct() -> None:
    codes = [value.code for value in POLICIES.values()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_policies_are_hashable_and_encode(name: str) -> None:
    policy = example(name)
    assert hash(policy) == hash(example(name))
    assert np.isfinite(policy.parameters()).all()


def test_user_schedulers_are_listed() -> None:
    assert UserScheduler in WITHOUT_KERNEL
