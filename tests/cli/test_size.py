"""`stability size`."""

from __future__ import annotations

from pathlib import Path

import pytest

import stability as st

from .plans import SMALL

PRICED = SMALL + "    price_per_hour: 2\n"
"""9 certain requests/s a replica, 2 an hour."""

CHOICE = (
    PRICED.replace("rate_per_s: 5", "rate_per_s: 30")
    + """\
sizing:
  spares: 1
  candidates:
    - candidate: small
      iteration: {affine: {base_s: 10 ms, per_prefill_token_s: 100 us}}
      kv_capacity_tokens: 100k
      engine: {max_num_seqs: 8, max_num_batched_tokens: 512, admission: reserve, block_size: 1}
      price_per_hour: 1
      at_most: 4
    - candidate: big
      iteration: {affine: {base_s: 10 ms, per_prefill_token_s: 25 us}}
      kv_capacity_tokens: 100k
      engine: {max_num_seqs: 32, max_num_batched_tokens: 512, admission: reserve, block_size: 1}
      price_per_hour: 3
      at_least: 1
"""
)


@pytest.fixture
def plan(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_pools_of_the_plan_are_the_candidates(cli, plan) -> None:
    found = cli("size", plan(PRICED.replace("rate_per_s: 5", "rate_per_s: 40")))
    assert (found.code, found.err) == (0, "")
    assert "5 a" in found.out
    assert "10/h" in found.out
    answer = cli("size", plan(PRICED), "--json").json
    assert answer["schema"] == "stability/sizing/1"
    assert answer["verdict"] == "stable"
    assert (answer["cost_per_hour"], answer["replicas"]) == (2.0, [[1]])


def test_candidates_spares_and_quotas(cli, plan) -> None:
    """30/s with any one lost: two big ones (36 each, 6 an hour) beat a big and four small ones (7); one big alone has no spare."""
    path = plan(CHOICE)
    answer = cli("size", path, "--json").json
    assert {pool["name"]: pool["replicas"] for pool in answer["pools"]} == {"big": 2}
    assert answer["spares"] == 1
    alone = cli("size", path, "--spares", "0", "--json").json
    assert alone["cost_per_hour"] == 3.0
    assert st.read_plan(path).sizing.candidates[0].at_most == 4


def test_a_plan_without_prices(cli, plan) -> None:
    path = plan(SMALL)
    text = cli("size", path).error()
    assert text == (
        f"{path}:6: pool 'a' has no price_per_hour, must have one to be compared. "
        "Give each the price of a replica, all of its GPUs together."
    )


def test_a_plan_that_cannot_be_met(cli, plan) -> None:
    found = cli("size", plan(PRICED + "targets: {itl_ms: 9}\n"))
    assert found.code == 1
    assert "the target for the inter-token latency binds: 9 ms" in found.out
    assert cli("size", plan(PRICED + "targets: {itl_ms: 9}\n"), "--json").json["feasible"] is False
    assert "there is no fleet" in cli("size", plan(PRICED + "targets: {itl_ms: 9}\n"), "--plot", "x.png").error()


def test_fronts_and_pictures(cli, plan, tmp_path: Path) -> None:
    path = plan(PRICED.replace("rate_per_s: 5", "rate_per_s: 40") + "targets: {itl_ms: 20}\n")
    picture = tmp_path / "front.png"
    found = cli("size", path, "--front", "headroom", "--plot", picture, "--json").json
    assert [fleet["cost_per_hour"] for fleet in found["fleets"]] == [10, 10, 12, 14, 16, 18]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "ITL target" in cli("size", path, "--front", "itl").out
    assert "itl_ms is missing" in cli("size", plan(PRICED), "--front", "itl").error()
    assert "cannot be written" in cli("size", path, "--plot", tmp_path / "no" / "x.png").error()


def test_a_fleet_that_follows_the_schedule(cli, plan) -> None:
    schedule = "  schedule: {windows: [{start: 0 h, rate_per_s: 8}, {start: 12 h, rate_per_s: 44}], end: 24 h}\n"
    path = plan(PRICED.replace("  rate_per_s: 5\n", schedule))
    assert cli("size", path, "--json").json["replicas"] == [[5], [5]]
    moving = cli("size", path, "--switching-cost", "0.5")
    assert "12 h" in moving.out
    assert "of it starts" in moving.out
    assert "must come with a rate schedule" in cli("size", plan(PRICED), "--switching-cost", "1").error()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--spares", "-1"], "--spares = -1"),
        (["--switching-cost", "-1"], "--switching-cost = -1"),
        (["--time-limit", "0"], "> 0"),
    ],
)
def test_bad_options(cli, plan, arguments: list[str], match: str) -> None:
    assert match in cli("size", plan(PRICED), *arguments).error()


def test_the_printed_example_is_a_plan(cli, plan) -> None:
    path = plan(cli("size", "--example").out)
    assert len(st.read_plan(path).sizing.candidates) == 3


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("at_most: 4", "at_most: 0.5"),
        ("at_least: 1", "at_least: 5\n      at_most: 3"),
        ("candidate: big", "candidate: small"),
        ("spares: 1", "spares: -1"),
        ("candidate: big", "kandidate: big"),
    ],
)
def test_mistakes_in_the_sizing_section_name_their_line(cli, plan, given: str, match: str) -> None:
    text = cli("size", plan(CHOICE.replace(given, match))).error()
    assert "plan.yaml:" in text
    assert "sizing" in text
