"""Li, Deng, Li and Peng, throughput-optimal scheduling (arXiv 2504.07347): token budgets, no memory limit.

A request of v_p prompt and v_d decode tokens costs v_p + v_d of the budget; here the first token comes from the prefill, so
that v_d = output_tokens - 1. Arrivals are evenly spaced, which makes the slope of the backlog sharp.
"""

from __future__ import annotations

import numpy as np
import pytest

from stability.model.iteration import IterationTime, Staircase
from stability.model.requests import Requests
from stability.policies import DecodeFirst, Orca, PrefillFirst, Sarathi
from tests.sim.slotted import requests_at, run_slots, steps_of

LAW = Staircase(base_s=0.01128, per_step_s=0.03547, step_tokens=128)
CAPACITY_PER_S = 512 / 0.15316


def backlog_tokens(requests: Requests, scheduled: float, until_s: float) -> float:
    """Tokens that have arrived and are not computed."""
    arrived = requests.arrival_s < until_s
    return float((requests.prompt_tokens + requests.output_tokens - 1)[arrived].sum() - scheduled)


def evenly(rate_per_s: float, until_s: float, prompt: int, decode: int) -> Requests:
    return requests_at(np.arange(0, until_s, 1 / rate_per_s), prompt, decode + 1)


@pytest.mark.parametrize("policy", [Sarathi(gate=False), Orca(gate=False)], ids=repr)
@pytest.mark.parametrize("load", [0.9, 1.1])
def test_boundary_of_work_conserving_disciplines(policy: object, load: float) -> None:
    """512/153.16 = 3.343 tokens/ms, 16.71 requests/s of (100, 100): bounded at 0.9, growing by 0.334 tokens/ms at 1.1."""
    until_s = 60.0
    requests = evenly(load * CAPACITY_PER_S / 200, until_s, 100, 100)
    run = run_slots(policy, requests, 1, law=LAW, budget=512, horizon_s=until_s)  # type: ignore[arg-type]
    steps = steps_of(run)

    def backlog(at_s: float) -> float:
        return backlog_tokens(requests, sum(s.scheduled_tokens for s in steps if s.start_s < at_s), at_s)

    if load < 1:
        assert backlog(until_s) <= 513 * 200  # the pathwise bound (b_max + 1)(v_p + v_d)
        assert backlog(until_s) < 1.1 * backlog(until_s / 2) + 1000
    else:
        slope = (backlog(until_s) - backlog(until_s / 2)) / (until_s / 2)
        assert slope == pytest.approx(0.1 * CAPACITY_PER_S, rel=0.05)
        assert np.mean([s.scheduled_tokens for s in steps if s.start_s > 30]) > 0.97 * 512


def test_prompts_first_and_decodes_first_diverge_below_the_boundary() -> None:
    """At 0.9, in batches of one kind, decodes alone do not fill 512 tokens: prompts pile up behind them (FasterTransformer), or
    decodes behind prompts (vLLM before chunked prefill)."""
    until_s = 60.0
    requests = evenly(0.9 * CAPACITY_PER_S / 200, until_s, 100, 100)
    backlog = {}
    for policy in (Sarathi(gate=False), DecodeFirst(gate=False), PrefillFirst(gate=False)):
        run = run_slots(policy, requests, 1, law=LAW, budget=512, horizon_s=until_s)
        backlog[type(policy)] = backlog_tokens(requests, sum(s.scheduled_tokens for s in steps_of(run)), until_s)
    assert backlog[DecodeFirst] > 10 * backlog[Sarathi]
    assert backlog[PrefillFirst] > 3 * backlog[Sarathi]
    assert backlog[DecodeFirst] > 0.5 * 0.9 * CAPACITY_PER_S * until_s


@pytest.mark.parametrize(
    ("policy", "budget", "batches"),
    [
        (PrefillFirst(gate=False), 4, 5),
        (DecodeFirst(gate=False), 4, 6),
        (Sarathi(gate=False), 4, 4),
        (Orca(gate=False), 5, 4),
    ],
    ids=repr,
)
def test_figure_8(policy: object, budget: int, batches: int) -> None:
    """A, B, C decode 2, 4, 3 tokens; D and E, one prompt and one decode token each, arrive in round 1."""
    requests = requests_at([0.0, 0.0, 0.0, 0.5, 0.5], 1, [3, 5, 4, 2, 2])
    run = run_slots(policy, requests, 1, law=IterationTime(base_s=1.0), budget=budget)  # type: ignore[arg-type]
    assert len(run.steps) == 1 + batches  # one more computes the prompts of A, B and C


@pytest.mark.parametrize(
    ("policy", "least", "most"), [(Sarathi(gate=False), 2030, 2046), (DecodeFirst(gate=False), 21, 21)]
)
def test_point_c(policy: object, least: int, most: int) -> None:
    """b_max = 128, (290, 990) every 467.5 ms is exactly the boundary, 1280/467.5 = 128/46.75: nearly all finish under Sarathi (the
    paper: 2038 of 2139), 21 under FasterTransformer. It takes one request at a time, since no two prompts fit: 3 chunks and 990
    decodes of 46.75 ms are 46.42 s, 21.5 of which make 1000 s."""
    assert LAW.time_s(128, 0, 0) == pytest.approx(0.04675)
    import stability as stb
    from stability.sim.engine import simulate

    engine = stb.Engine(max_num_seqs=128, max_num_batched_tokens=128, scheduler=policy)  # type: ignore[arg-type]
    fleet = stb.Fleet.of(stb.Replica(iteration=LAW, kv_capacity_tokens=10_000, engine=engine))
    count = int(1000 / 0.4675) + 1
    workload = stb.Workload.from_requests(np.arange(count) * 0.4675, [290] * count, [991] * count)
    result = simulate(fleet, workload, horizon_s=1000.0)
    assert result.arrived == 2140
    assert least <= result.completed <= most


@pytest.mark.parametrize(
    ("policy", "finish_s"),
    [(Orca(gate=False), [3.0, 5.0, 5.0, 3.0, 4.0]), (Sarathi(gate=False), [3.0, 5.0, 4.0, 3.0, 5.0])],
    ids=repr,
)
def test_who_waits_when_the_budget_is_short(policy: object, finish_s: list[float]) -> None:
    """Figure 8 at b_max = 4. Orca, round 1: prompts D and E, decodes A and B; C pauses and ends a round later. Sarathi, round 1:
    A, B, C and the prompt of D; E gets its prompt in round 3, when A is done.
    """
    requests = requests_at([0.0, 0.0, 0.0, 0.5, 0.5], 1, [3, 5, 4, 2, 2])
    run = run_slots(policy, requests, 1, law=IterationTime(base_s=1.0), budget=4)  # type: ignore[arg-type]
    assert [job.finish_s for job in run.requests] == finish_s
