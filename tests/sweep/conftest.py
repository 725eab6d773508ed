"""A small grid: two rates and three numbers of slots, one of them impossible, with two seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..cli.plans import SMALL as PLAN

GRID = """\
schema: stability/grid/1
plan: plan.yaml
axes:
  workload.rate_per_s: [5, 20]
  fleet[0].engine.max_num_seqs: [8, 1000, 16]
seeds: [1, 2]
simulate: {requests: 60}
output: rows.jsonl
"""


@pytest.fixture
def grid_file(tmp_path: Path) -> Path:
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    (tmp_path / "grid.yaml").write_text(GRID, encoding="utf-8")
    return tmp_path / "grid.yaml"
