"""`stability compare-schedulers`: table, picture, JSON and bad input."""

from __future__ import annotations

PLAN = """\
schema: stability/plan/1
workload:
  rate_per_s: 20
  lengths: {prompt: 100, output: 8}
fleet:
  - pool: a
    iteration: {affine: {base_s: 10 ms, per_prefill_token_s: 50 us, per_decode_token_s: 10 us, per_kv_token_s: 100 ns}}
    kv_capacity_tokens: 20k
"""
FEW = ("--requests", 100, "--replications", 2)


def test_a_plan_with_a_picture(cli, tmp_path) -> None:
    path, picture = tmp_path / "plan.yaml", tmp_path / "s.svg"
    path.write_text(PLAN)
    found = cli("compare-schedulers", path, "--policies", "engine, wait,orca", *FEW, "--plot", picture)
    assert (found.code, found.err) == (0, "")
    for text in ("latency, 99 %", "evictions", "wait: Wait(thresholds=(1,))", "picture in", "differs"):
        assert text in found.out
    assert picture.read_text().startswith("<?xml")


def test_json_is_the_same_for_the_same_seed(cli, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    call = ("compare-schedulers", path, "--policies", "engine,reserve", *FEW, "--json")
    first, second, other = cli(*call), cli(*call), cli(*call, "--seed", 2)
    assert first.json == second.json
    assert first.json["schema"] == "stability/scheduler-comparison/1"
    assert first.json["outcomes"] != other.json["outcomes"]
    assert cli(*call, "--rate", "10").json["rate_per_s"] == 10


def test_the_example_and_the_names(cli) -> None:
    found = cli("compare-schedulers", "--policies", "engine", *FEW)
    assert found.code == 0
    assert found.out.startswith("bundled example\n")
    names = cli("compare-schedulers", "--policies", "list")
    assert "nested-wait (default)" in names.out


def test_bad_input(cli, tmp_path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    assert "Did you mean" in cli("compare-schedulers", path, "--policies", "wiat").error()
    assert ">= 100" in cli("compare-schedulers", path, "--requests", 5).error()
    assert ".png" in cli("compare-schedulers", path, "--plot", tmp_path / "s.txt").error()
    long = PLAN.replace("prompt: 100", "prompt: 20000")
    path.write_text(long)
    assert "must fit" in cli("compare-schedulers", path, "--policies", "engine", *FEW).error()
