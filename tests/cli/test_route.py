"""`stability region` and `stability route`."""

from __future__ import annotations

from pathlib import Path

import pytest

MIXED = """\
schema: stability/plan/1
workload:
  classes:
    - {name: chat, rate_per_s: 8, lengths: {prompt: 400, output: 200}, value: 1}
    - {name: document, rate_per_s: 2, lengths: {prompt: 3000, output: 300}, value: 6}
fleet:
  - pool: fast
    iteration: {affine: {base_s: 9 ms, per_prefill_token_s: 15 us, per_kv_token_s: 40 ns}}
    kv_capacity_tokens: 160k
    price_per_hour: 4
    engine: {max_num_seqs: 96, admission: reserve}
  - pool: slow
    iteration: {affine: {base_s: 25 ms, per_prefill_token_s: 40 us, per_kv_token_s: 200 ns}}
    kv_capacity_tokens: 70k
    price_per_hour: 1
    replicas: 2
    engine: {max_num_seqs: 96, admission: reserve}
targets: {itl_ms: 60}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(MIXED)
    return path


def test_region(cli, plan: Path, tmp_path: Path) -> None:
    picture = tmp_path / "region.png"
    found = cli("region", plan, "--plot", picture)
    assert (found.code, found.err) == (0, "")
    for word in ("largest factor", "one GB of KV", "to fast", f"picture in {picture}"):
        assert word in found.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    answer = cli("region", plan, "--rows", "bound", "--json").json
    assert answer["schema"] == "stability/region/1"
    assert answer["kind"] == "bound"
    assert answer["factor"] > 1
    assert 0 <= answer["gap"] <= 1e-7


def test_region_exits_with_1_outside(cli, plan: Path) -> None:
    factor = cli("region", plan, "--json").json["factor"]
    more = {f"rate_per_s: {rate},": f"rate_per_s: {rate * factor * 1.01:.6g}," for rate in (8, 2)}
    text = MIXED
    for old, new in more.items():
        text = text.replace(old, new)
    plan.write_text(text)
    assert cli("region", plan).code == 1
    found = cli("route", plan)
    assert found.code == 1
    assert "least change: rates times 0.9" in found.out


@pytest.mark.parametrize("objective", ["slack", "itl", "congestion", "waiting", "cost"])
def test_route(cli, plan: Path, objective: str) -> None:
    found = cli("route", plan, "--objective", objective)
    assert (found.code, found.err) == (0, "")
    assert "of document" in found.out
    answer = cli("route", plan, "--objective", objective, "--json").json
    assert (answer["objective"], answer["feasible"]) == (objective, True)
    assert all(sum(column) == pytest.approx(1) for column in zip(*answer["shares"], strict=True))


def test_route_for_uncertain_rates(cli, plan: Path) -> None:
    loads = [
        cli("route", plan, *more, "--json").json["load"] for more in ((), ("--spread", "0.2"), ("--spread", "20%"))
    ]
    assert loads[0] < loads[1] == loads[2]
    assert "--spread = 'much'" in cli("route", plan, "--spread", "much").error()
    assert "must be with 'slack'" in cli("route", plan, "--spread", "0.1", "--objective", "cost").error()


def test_admission(cli, plan: Path, tmp_path: Path) -> None:
    picture = tmp_path / "admission.svg"
    found = cli("route", plan, "--admission", "--plot", picture)
    assert found.code == 0
    assert "always" in found.out
    assert picture.exists()
    plan.write_text(MIXED.replace("rate_per_s: 8,", "rate_per_s: 300,"))
    found = cli("route", plan, "--admission")
    assert found.code == 1
    assert "below the threshold" in found.out


def test_bundled_example_and_bad_input(cli, plan: Path, tmp_path: Path) -> None:
    assert "bundled example" in cli("region").out
    assert "bundled example" in cli("route").out
    assert "must end in one of" in cli("region", plan, "--plot", tmp_path / "region.xyz").error()
    assert "cannot be written" in cli("region", plan, "--plot", tmp_path / "nowhere" / "region.png").error()
    assert "nothing is proved" in cli("region", "--rows", "proved").error()
