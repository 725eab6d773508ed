"""`stability sweep`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .plans import SMALL

GRID = """\
schema: stability/grid/1
plan: plan.yaml
axes: {workload.rate_per_s: [5, 50]}
seeds: [1, 2, 3]
simulate: {requests: 50}
"""


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(SMALL)
    (tmp_path / "grid.yaml").write_text(GRID)
    return tmp_path / "grid.yaml"


def test_rows_go_beside_the_grid_and_are_kept(cli, grid: Path) -> None:
    found = cli("sweep", grid, "--jobs", 1)
    assert found.code == 0
    assert found.err == f"{grid}: 2 points x 3 seeds = 6 rows, 300 simulated requests\n"
    assert "rows           6\ncomputed       6 in " in found.out
    assert found.out.endswith(f"rows in {grid.with_suffix('.jsonl')}\n")
    text = grid.with_suffix(".jsonl").read_bytes()
    assert text.count(b"\n") == 6
    answer = cli("sweep", grid, "--jobs", 1, "--json").json
    assert answer["schema"] == "stability/sweep/1"
    assert (answer["rows"], answer["computed"], answer["reused"]) == (6, 0, 6)
    assert grid.with_suffix(".jsonl").read_bytes() == text


def test_the_table_shows_what_was_computed(cli, grid: Path) -> None:
    head, _, *rows = cli("sweep", grid, "--jobs", 1).out.split("\n\n")[0].splitlines()
    assert head.split("  ")[0] == "workload.rate_per_s"
    assert "simulated, 1/s" in head
    assert [row.split()[:4] for row in rows[::3]] == [["5", "1", "ok", "STABLE"], ["50", "1", "ok", "UNSTABLE"]]


def test_a_row_with_an_error_is_a_no(cli, grid: Path) -> None:
    grid.write_text(GRID.replace("[5, 50]", "[5, -1]"))
    found = cli("sweep", grid, "--jobs", 1)
    assert found.code == 1
    assert "3 rows: plan.yaml: workload.rate_per_s = -1" in found.out


def test_the_example_keeps_its_rows_in_its_answer(cli) -> None:
    answer = cli("sweep", "--jobs", 1, "--json").json
    assert answer["output"] is None
    assert len(answer["results"]) == answer["rows"] == 24
    assert {row["predicted_verdict"] for row in answer["results"]} == {"stable", "undetermined", "unstable"}


def test_the_printed_example_is_a_grid(cli, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(cli("sweep", "--example").out)
    assert cli("sweep", tmp_path / "grid.yaml", "--jobs", 1, "--json").json["rows"] == 24


def test_bad_input(cli, grid: Path) -> None:
    assert cli("sweep", "absent.yaml").error() == "absent.yaml does not exist, must be a grid file. Check the path."
    grid.write_text(GRID.replace("rate_per_s", "rat_per_s"))
    assert cli("sweep", grid).error().startswith(f"{grid}:3: axes.workload.rat_per_s: unknown key")
    grid.write_text(GRID)
    assert "--jobs = 0, must be an integer >= 1" in cli("sweep", grid, "--jobs", 0).error()
    assert "'nowhere' is not one of 'loky', 'dask', 'ray'" in cli("sweep", grid, "--backend", "nowhere").error()
    assert not grid.with_suffix(".jsonl").exists()


def test_rows_of_another_grid_are_refused(cli, grid: Path) -> None:
    assert cli("sweep", grid, "--jobs", 1).code == 0
    grid.write_text(GRID.replace("[5, 50]", "[5]"))
    found = cli("sweep", grid, "--jobs", 1)
    assert (found.code, "3 rows of another grid or version" in found.err) == (2, True)
    assert cli("sweep", grid, "--jobs", 1, "--prune").code == 0
    assert [json.loads(line)["seed"] for line in grid.with_suffix(".jsonl").read_text().splitlines()] == [1, 2, 3]
