"""`stability prefix`, and plans with sessions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stability
from stability.cli.main import run
from stability.errors import PlanError
from stability.io.plan import example_plan, plan_from_text

from .plans import SMALL

PLAN = """
schema: stability/plan/1
workload:
  rate_per_s: 3
  {body}
fleet:
  - pool: p
    kv_capacity_tokens: 240k
    iteration: {{affine: {{base_s: 20 ms, per_prefill_token_s: 100 us, per_kv_token_s: 50 ns}}}}
    engine: {{prefix_caching: true}}
"""
SESSIONS = "{turns: {geometric: {mean: 8}}, new_tokens: {uniform: [50, 350]}, output: {uniform: [20, 100]}, think_s: 30 s, limit_tokens: 16k"
BODY = f"sessions: {SESSIONS}, system_prompts: {{tokens: 1000, count: 4, zipf: 1}}}}"


def text(body: str = BODY) -> str:
    return PLAN.format(body=body)


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "plan.yaml"
    file.write_text(text(), encoding="utf-8")
    return str(file)


def test_exit_code_says_whether_a_backlog_would_stay(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prefix", path]) == 0
    assert "capacity, cold cache" in capsys.readouterr().out
    assert run(["prefix", path, "--rate", "5"]) == 1
    assert "repelling" in capsys.readouterr().out
    assert run(["prefix", path, "--rate", "50"]) == 1
    assert "a backlog is certain" in capsys.readouterr().out


def test_json_and_router(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["prefix", path, "--router", "random", "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    assert got["schema"] == "stability/prefix/1"
    assert got["router"] == "random"
    assert 0 < got["pools"][0]["equilibria"][0]["hit_rate"] < 1
    assert run(["prefix", path, "--router", "nobody"]) == 2


def test_check_shows_what_is_found(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", path, "--rate", "2"]) == 0
    out = capsys.readouterr().out
    assert "found in the prefix cache" in out
    assert "unused prefixes stay" in out


def test_the_bundled_example_is_metastable() -> None:
    plan = example_plan("sessions")
    (pool,) = stability.prefix_equilibria(plan.fleet, plan.workload).pools
    assert pool.metastable
    assert pool.warm_capacity_per_s > 1.5 * pool.cold_capacity_per_s


def test_sessions_of_a_plan() -> None:
    (item,) = plan_from_text(text()).workload.classes
    assert item.sessions is not None
    assert item.mean_rate_per_s == 3
    assert item.sessions.system_prompt_tokens == (1000,) * 4
    assert item.sessions.popularity[0] == pytest.approx(12 / 25)
    assert item.sessions.limit_tokens == 16_000
    lengths = "{prompt: 9, output: 2}"
    body = (
        f"classes: [{{name: a, rate_per_s: 1, sessions: {SESSIONS}}}}}, {{name: b, rate_per_s: 2, lengths: {lengths}}}]"
    )
    mixed = plan_from_text(text(body)).workload
    assert mixed.rate_per_s == 3
    assert [of.sessions is not None for of in mixed.classes] == [True, False]


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (BODY.replace(", limit_tokens: 16k", ""), "limit_tokens is missing"),
        (BODY + "\n  cached_prefix_tokens: 5", "must be absent with sessions"),
        (BODY + "\n  arrivals: replay", "not with sessions"),
        (BODY.replace("tokens: 1000", "tokens: [10, 20, 10, 20]") + "\n  max_output_tokens: 5", "must be >= 100"),
    ],
)
def test_what_makes_no_sense_is_named(body: str, match: str) -> None:
    with pytest.raises(PlanError, match=match):
        plan_from_text(text(body))


def test_hits_of_a_trace(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,prompt_tokens,output_tokens,prefix_hit_tokens\n0,100,5,64\n1,90,3,0\n")
    (tmp_path / "bare.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,5\n1,90,3\n")
    body = "lengths: {{trace: {}, prefix_hits: true}}"
    workload = plan_from_text(text(body.format("t.csv")), folder=tmp_path).workload
    assert workload.lengths.cached_prefix_tokens.tolist() == [64, 0]  # type: ignore[attr-defined]
    with pytest.raises(PlanError, match="records no prefix hits"):
        plan_from_text(text(body.format("bare.csv")), folder=tmp_path)


def test_a_plan_without_sessions_is_told_where_and_how(cli, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL, encoding="utf-8")
    message = cli("prefix", path).error()
    assert message.startswith(f"{path}:")
    assert "`stability schema --example sessions`" in message
