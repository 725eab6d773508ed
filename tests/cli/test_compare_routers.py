"""`stability compare-routers` and `compare_routers`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stability
from stability.cli.main import run
from stability.policies import BalanceRoute
from stability.policies.balance import GROUP_ROUTERS
from stability.policies.routers import ROUTERS

BARRIER = """
schema: stability/plan/1
workload:
  rate_per_s: 20
  lengths: {prompt: {lognormal: {mean: 300, cv: 1.0, max: 4000}}, output: {lognormal: {mean: 40, cv: 0.6, max: 400}}}
fleet:
  - pool: decode
    replicas: 4
    barrier: {workers: 4, sync_ms: 0.5}
    kv_capacity_tokens: 1000000
    iteration: {affine: {base_s: 5 ms, per_kv_token_s: 1 us}}
    engine: {max_num_seqs: 16}
"""


def independent() -> tuple[stability.Fleet, stability.Workload]:
    law = stability.IterationTime(base_s=0.01, per_prefill_token_s=2e-5)
    engine = stability.Engine(max_num_seqs=16)
    fleet = stability.Fleet.of(stability.Replica(iteration=law, kv_capacity_tokens=50_000, engine=engine), 3)
    lengths = stability.lengths.Independent(stability.lengths.Uniform(10, 500), stability.lengths.Uniform(10, 100))
    return fleet, stability.Workload.poisson(60.0, lengths)


def test_routers_of_independent_replicas_see_the_same_requests() -> None:
    fleet, workload = independent()
    found = stability.compare_routers(fleet, workload, requests=2000, rng=5)
    assert {outcome.router for outcome in found.outcomes} == set(ROUTERS) - {"weighted_split"}
    one = stability.simulate(fleet, workload, requests=2000, router="random", rng=5)
    random = next(outcome for outcome in found.outcomes if outcome.router == "random")
    assert random.throughput_per_s == one.throughput_per_s
    assert random.ttft_mean_s == one.ttft_mean_s
    best = min(found.outcomes, key=lambda outcome: outcome.ttft_mean_s)
    assert best.router != "random"
    assert not found.all_overloaded
    assert len(found.to_frame()) == len(found.outcomes)


def test_no_router_keeps_up_with_twice_the_capacity() -> None:
    fleet, workload = independent()
    hot = workload.scaled(rate_per_s=2 * stability.analyze(fleet, workload).capacity_per_s)
    found = stability.compare_routers(fleet, hot, routers=["round_robin", "join_shortest_queue"], requests=6000)
    assert found.all_overloaded
    closed = stability.compare_routers(fleet, hot, routers=["round_robin"], requests=500, concurrency=20)
    assert closed.outcomes[0].overloaded is None


def test_unknown_routers_are_refused_before_any_run() -> None:
    fleet, workload = independent()
    with pytest.raises(stability.InputError, match="nearest"):
        stability.compare_routers(fleet, workload, routers=["random", "nearest"])


def test_barrier_plan_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(BARRIER)
    assert run(["compare-routers", str(path), "--requests", "1500", "--concurrency", "72", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "stability/router-comparison/1"
    rates = {outcome["router"]: outcome["tokens_per_s"] for outcome in found["outcomes"]}
    assert set(rates) == set(GROUP_ROUTERS)
    assert rates["random"] < rates["join_shortest_queue"] < rates["balance_route"]
    assert all(outcome["waste"] > 0 for outcome in found["outcomes"])
    assert run(["compare-routers", str(path), "--requests", "500", "--router", "random"]) == 0
    assert "at barrier" in capsys.readouterr().out
    assert run(["compare-routers", str(path), "--router", "nearest"]) == 2
    assert run(["check", str(path)]) in (0, 3)


def test_policies_may_be_objects() -> None:
    plan = stability.example_plan()
    assert plan is not None
    law = stability.IterationTime(base_s=0.01, per_kv_token_s=1e-6)
    replica = stability.Replica(iteration=law, kv_capacity_tokens=50_000, engine=stability.Engine(max_num_seqs=4))
    fleet = stability.Fleet([stability.Pool("p", replica, 2, coupling=stability.Barrier(2))])
    _, workload = independent()
    found = stability.compare_routers(fleet, workload, routers=[BalanceRoute(window=4)], requests=300, concurrency=12)
    assert found.outcomes[0].router.startswith("BalanceRoute(")


def test_bundled_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare-routers", "--requests", "1000", "--router", "round_robin"]) == 0
    assert "round_robin" in capsys.readouterr().out


def test_bid_prices_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """The bundled plan has room: everything is admitted."""
    names = ["--router", "bid_price", "--router", "round_robin", "--requests", "300", "--json"]
    assert run(["compare-routers", *names]) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert {item["router"].split("(")[0] for item in outcomes} == {"BidPrice", "round_robin"}
    assert [item["rejected"] for item in outcomes] == [0, 0]
