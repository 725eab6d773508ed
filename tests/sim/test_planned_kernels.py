"""Compiled kernels of published disciplines against the oracle: the same decisions, the same times, the same books."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stability as stb
from stability.errors import InputError
from stability.model.engine import Scheduler
from stability.model.iteration import IterationLaw
from stability.model.requests import Requests
from stability.model.streams import Stream, generator, seed_sequence
from stability.policies import ClassBudgets, Fcfs, NestedWait, Orca, Priority, RandomBudget, Wait
from stability.policies.predictors import Noisy
from stability.policies.routers import ROUTERS, router_of
from stability.sim import run
from stability.sim.domain import INTERPRETED, limits_of, replicas_of
from stability.sim.draws import BudgetDraws
from stability.sim.engine import simulate
from stability.sim.interpreted import InterpretedRun
from stability.sim.kernels.policies import Draws
from stability.sim.reference import run_reference
from tests.sim.test_kernel import LAWS
from tests.sim.test_schedulers import same_result

KINDS = 3
small = st.integers(1, 4)
each = st.lists(small, min_size=KINDS, max_size=KINDS)
residency = st.sampled_from(("slots", "engine"))
ends = st.lists(st.integers(1, 12), min_size=1, max_size=3, unique=True).map(sorted)
POLICIES: dict[str, st.SearchStrategy[Scheduler]] = {
    "Wait": st.builds(Wait, each),
    "NestedWait": ends.flatmap(
        lambda e: st.builds(NestedWait, st.just(e), st.lists(small, min_size=len(e), max_size=len(e)))
    ),
    "ClassBudgets": st.builds(ClassBudgets, each, residency),
    "RandomBudget": st.builds(lambda low, more, how: RandomBudget(low, low + more, how), small, small, residency),
    "RandomBudget from 0": st.builds(RandomBudget, st.just(0), small, residency),
    "Orca": st.builds(Orca, st.sampled_from((True, True, False))),
    "Priority shortest": st.builds(
        Priority, predictor=st.sampled_from((stb.policies.Oracle(), Noisy(0.5))), watermark=st.sampled_from((0.0, 0.1))
    ),
    "Priority deadline": st.builds(
        Priority, st.just("deadline"), st.lists(st.sampled_from((0.5, 2.0, 9.0)), min_size=KINDS, max_size=KINDS)
    ),
    "Priority class": st.builds(Priority, st.just("class")),
}


@st.composite
def replicas(data: st.DrawFn, policies: st.SearchStrategy[Scheduler], longest: int, count: int) -> stb.Pool:
    """Few slots, budgets that often bind, memory for one to three requests of the longest kind."""
    policy = data(policies)
    block = data(st.sampled_from((1, 1, 2, 3, 16)))
    seqs = data(st.integers(1, 12))
    whole = not isinstance(policy, Orca | Priority | Fcfs)
    budget = max(seqs, longest if whole else 1) + data(st.integers(0, 30))
    capacity = longest + block + 1 + data(st.integers(0, 2 * longest))
    engine = stb.Engine(max_num_seqs=seqs, max_num_batched_tokens=budget, block_size=block, scheduler=policy)
    law: IterationLaw = data(st.sampled_from(LAWS))
    replica = stb.Replica(iteration=law, kv_capacity_tokens=-(-capacity // block) * block, engine=engine)
    return stb.Pool("pool", replica, count, weight=data(st.integers(1, 3)))


@dataclass(frozen=True)
class Case:
    """A fleet and the blocks of requests it sees."""

    fleet: stb.Fleet
    blocks: tuple[Requests, ...]

    @property
    def requests(self) -> Requests:
        return Requests(**{n: np.concatenate([getattr(b, n) for b in self.blocks]) for n in Requests.__slots__})

    def simulate(self, **options: object) -> stb.SimulationResult:
        """`simulate` these requests, whatever the workload."""
        until = options.get("horizon_s", np.inf) if "concurrency" not in options else np.inf
        blocks = [head(block, int((block.arrival_s < until).sum())) for block in self.blocks]

        def draw_blocks(*args: object, **kwargs: object) -> Iterator[Requests]:
            return iter([block for block in blocks if len(block)])

        lengths = stb.lengths.Constant(1)
        classes = [stb.RequestClass(str(k), 1.0, stb.lengths.Independent(lengths, lengths)) for k in range(KINDS)]
        with patch("stability.sim.engine.draw_blocks", draw_blocks):
            return simulate(self.fleet, stb.Workload(classes), requests=len(self.requests), rng=3, **options)  # type: ignore[arg-type]


def head(block: Requests, rows: int) -> Requests:
    return Requests(**{name: getattr(block, name)[:rows] for name in Requests.__slots__})


@st.composite
def cases(data: st.DrawFn, *policies: st.SearchStrategy[Scheduler], count: int = 1) -> Case:
    number = data(st.integers(1, 50))
    longest = data(st.sampled_from((2, 8, 25)))
    seed = data(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    gap = data(st.sampled_from((0.0, 0.02, 0.3, 3.0)))
    times = np.cumsum(rng.choice((0.0, 0.5, 1.0, 2.71), number)) * gap
    prompt, output = rng.integers(1, longest + 1, (2, number))
    kinds = rng.integers(0, KINDS, number)
    cut = data(st.integers(1, number))
    output[:cut] = np.minimum(output[:cut], 3)  # the ring grows with the second block
    whole = Requests(
        arrival_s=times,
        prompt_tokens=prompt,
        output_tokens=output,
        max_output_tokens=output,
        cached_prefix_tokens=np.zeros_like(output),
        request_class=kinds,
    )
    parts = [slice(0, cut), slice(cut, number)]
    blocks = [Requests(**{n: getattr(whole, n)[part] for n in Requests.__slots__}) for part in parts]
    fleet = [replace(data(replicas(p, 2 * longest, count)), name=f"pool {k}") for k, p in enumerate(policies)]
    return Case(stb.Fleet(fleet), tuple(block for block in blocks if len(block)))


def assert_same(case: Case, *, router: str = "round_robin", **options: object) -> None:
    """The kernel's run is the reference's, decision for decision; a run that evicts in circles is refused by both."""
    fleet, requests = case.fleet, case.requests
    assert all(limits_of(pool.replica).discipline != INTERPRETED for pool in fleet.pools)
    policy, root = router_of(router, fleet), seed_sequence(3)
    for_reference = {name: value for name, value in options.items() if name != "saturated"}
    try:
        expected = run_reference(
            [(limits_of(replica), replica.iteration) for replica in replicas_of(fleet)[0]],
            replace(requests, arrival_s=np.zeros(len(requests))) if options.get("saturated") else requests,
            router=policy,
            shares=policy.shares(fleet, KINDS),
            uniforms=generator(root, Stream.ROUTING).random((len(requests), policy.draws)),
            root=root,
            **for_reference,  # type: ignore[arg-type]
        )
    except InputError:
        with pytest.raises(InputError, match="evicts in circles"):
            case.simulate(router=router, **options)
        return
    for record_steps in (True, False):
        result = case.simulate(router=router, record_steps=record_steps, **options)
        got = result.requests
        assert got is not None
        assert len(got) == (expected.replica >= 0).sum()
        jobs = expected.requests[: len(got)]
        np.testing.assert_array_equal(got.replica, expected.replica[: len(got)])
        np.testing.assert_array_equal(got.preemptions, [job.preemptions for job in jobs])
        for name in ("arrival_s", "admitted_s", "first_token_s", "finish_s"):
            np.testing.assert_array_equal(getattr(got, name), [getattr(job, name) for job in jobs], err_msg=name)
        if record_steps:
            rows = sorted(expected.steps, key=lambda row: (row[0], row[1].start_s))
            for name in result.steps:
                values = [r if name == "replica" else getattr(step, name) for r, step in rows]
                np.testing.assert_array_equal(result.steps[name], values, err_msg=name)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=60)
@given(data=st.data())
def test_one_replica(name: str, data: st.DataObject) -> None:
    options: dict[str, object] = data.draw(st.sampled_from(({}, {}, {"horizon_s": 2.0}, {"saturated": True})))
    assert_same(data.draw(cases(POLICIES[name])), **options)


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=15)
@given(data=st.data())
def test_two_pools(name: str, data: st.DataObject) -> None:
    """Two replicas under one policy beside two that take requests as they come, under every router, open and closed."""
    case = data.draw(cases(POLICIES[name], st.just(Fcfs()), count=2))
    router = data.draw(st.sampled_from(sorted(ROUTERS)))
    assert_same(case, router=router, **data.draw(st.sampled_from(({}, {"concurrency": 1}, {"concurrency": 9}))))


LENGTHS = stb.lengths.Independent(prompt=stb.lengths.Uniform(1, 40), output=stb.lengths.Uniform(1, 60))
TIGHT = (Wait((2, 1, 2)), NestedWait((9, 30), (2, 1)), ClassBudgets((2, 1, 2)), RandomBudget(0, 3), Orca(), Priority())


@pytest.mark.parametrize("policy", TIGHT, ids=repr)
def test_both_engines_keep_the_same_books(policy: Scheduler) -> None:
    """Under overload, with evictions: means, totals and samples are those of the reference, not only the requests' times."""
    engine = stb.Engine(max_num_seqs=16, max_num_batched_tokens=64, block_size=4, scheduler=policy)
    replica = stb.Replica(iteration=LAWS[0], kv_capacity_tokens=440, engine=engine)
    fleet = stb.Fleet.of(replica, 2)
    workload = stb.Workload([stb.RequestClass(name, 20.0, LENGTHS) for name in "abc"])
    for options in ({}, {"saturated": True}, {"concurrency": 40}, {"horizon_s": 4.0}):
        arguments = {"requests": 400, "rng": 5, "record_steps": True, "resolution_s": 0.05, **options}
        got = simulate(fleet, workload, **arguments)  # type: ignore[arg-type]
        with patch.object(run, "Run", InterpretedRun):
            expected = simulate(fleet, workload, **arguments)  # type: ignore[arg-type]
        same_result(got, expected)
        assert got.preemptions > 0


def one_of_each() -> Case:
    """A fleet with a pool under every discipline, each short of memory."""
    rng = np.random.default_rng(8)
    number = 200
    prompt, output = rng.integers(1, 26, (2, number))
    requests = Requests(
        arrival_s=np.cumsum(rng.choice((0.0, 0.01, 0.05), number)),
        prompt_tokens=prompt,
        output_tokens=output,
        max_output_tokens=output,
        cached_prefix_tokens=np.zeros_like(output),
        request_class=rng.integers(0, KINDS, number),
    )
    policies = (*TIGHT, Priority("deadline", (9.0, 0.5, 3.0)), Fcfs("chunk_gate"))
    pools = []
    for k, policy in enumerate(policies):
        engine = stb.Engine(max_num_seqs=6, max_num_batched_tokens=40, block_size=1 + k % 3, scheduler=policy)
        replica = stb.Replica(iteration=LAWS[k % len(LAWS)], kv_capacity_tokens=60, engine=engine)
        pools.append(stb.Pool(f"pool {k}", replica))
    return Case(stb.Fleet(pools), (requests,))


def compare_one_of_each() -> None:
    """To be called in a process of its own."""
    case = one_of_each()
    for options in ({}, {"concurrency": 60}):
        assert_same(case, router="round_robin", **options)
    result = case.simulate(record_steps=True)
    preempted = np.bincount(result.steps["replica"], weights=result.steps["preempted"])
    assert (preempted > 0).sum() >= 5, preempted


def test_every_discipline_in_one_fleet_not_compiled(root: Path) -> None:
    """The kernels as plain Python, so that a mixture of all need not be compiled."""
    code = "from tests.sim.test_planned_kernels import compare_one_of_each; compare_one_of_each()"
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_budgets_are_drawn_as_one_by_one() -> None:
    limits = limits_of(
        stb.Replica(
            iteration=LAWS[0], kv_capacity_tokens=500, engine=stb.Engine(scheduler=RandomBudget(1, 7), block_size=1)
        )
    )
    root = np.random.SeedSequence(9)
    draws = BudgetDraws([limits], root)
    draws.columns = 64
    state = Draws(np.zeros((1, 0), dtype=np.int32), np.zeros(1, dtype=np.int64))
    rng, got = generator(root, Stream.SCHEDULING, 0), []
    for wanted in (40, 33, 64, 1, 50):
        state = draws.refilled(state)
        taken = min(wanted, draws.left(state))
        got += state.budgets[0, state.used[0] : state.used[0] + taken].tolist()
        state.used[0] += taken
    assert got == [int(rng.integers(1, 8)) for _ in got]
    assert len(got) > 150


def test_a_policy_that_evicts_in_circles_is_found_out() -> None:
    engine = stb.Engine(block_size=1, scheduler=NestedWait((2, 9), (1, 2)))
    fleet = stb.Fleet.of(stb.Replica(iteration=LAWS[0], kv_capacity_tokens=20, engine=engine))
    for options in ({}, {"concurrency": 9}):
        with pytest.raises(InputError, match="evicts in circles"):
            simulate(fleet, stb.Workload.from_requests(np.zeros(9), [10] * 9, [8] * 9), requests=9, **options)  # type: ignore[arg-type]
