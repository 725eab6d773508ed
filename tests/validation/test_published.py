"""Claims against published figures, real runs and deployments yield cells, and a broken theory turns them red."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stability._types import FloatArray
from stability.model.iteration import IterationTime
from stability.model.replica import Replica
from stability.theory import moments
from validation import deployments, published, real_runs
from validation.cells import Cell, Status


def named(cells: list[Cell], *words: str) -> Cell:
    """The only cell whose case has all the words."""
    (cell,) = [cell for cell in cells if all(word in cell.case for word in words)]
    return cell


def test_every_claim_has_tasks_of_unique_names() -> None:
    for module in (published, real_runs, deployments):
        names = [task.name for task in module.tasks("quick")]
        assert names
        assert len(set(names)) == len(names)


def test_printed_rates_pass_and_a_wrong_footprint_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    case = "its predicted rate"
    assert named(published.rates_of_2605_04595("1:1", "quick"), case).status is Status.PASS
    true = moments._growth_mean

    # The wrong sign of the half token that every growing footprint has: -0.1 %.
    def wrong(first: float, second: float, residues: FloatArray, block_size: int) -> float:
        return true(first, second, residues, block_size) - block_size * first

    monkeypatch.setattr(moments, "_growth_mean", wrong)
    moments.moments.cache_clear()
    try:
        assert named(published.rates_of_2605_04595("1:1", "quick"), case).status is Status.FAIL
    finally:
        moments.moments.cache_clear()


def test_closed_forms_pass_and_a_wrong_capacity_formula_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {cell.status for cell in published.closed_forms()} == {Status.PASS}
    true = published.conditions.affine_capacity
    monkeypatch.setattr(published.conditions, "affine_capacity", lambda *arguments: 1.01 * true(*arguments))
    assert named(published.closed_forms(), "2604.11001").status is Status.FAIL


def test_kv_blocks_pass() -> None:
    assert {cell.status for cell in published.kv_blocks()} == {Status.PASS}


def test_verdicts_far_from_capacity() -> None:
    cells = published.queues_of_2605_04595()
    for rate in ("at 1/s", "at 5/s", "at 20/s", "at 50/s"):
        assert named(cells, rate).status is Status.PASS


def test_preemptions_of_pull_request_44594() -> None:
    cells = published.pull_request_44594("quick")
    assert {cell.status for cell in cells} == {Status.PASS, Status.SHOWN}
    assert len(cells) == 15


SLOT_LIMITED = real_runs.RUNS[1]


def test_replay_of_a_real_run_passes(shared_data: Path) -> None:
    cells = real_runs.cells_of(SLOT_LIMITED)
    assert {cell.status for cell in cells} == {Status.PASS, Status.SHOWN}
    assert abs(named(cells, "makespan, s").deviation) < 0.05


def test_a_slower_step_time_turns_a_real_run_red(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = real_runs.Run.build

    def slower(run: real_runs.Run) -> Replica:
        replica = true(run)
        return replace(replica, iteration=replica.iteration.scaled(1.2))

    monkeypatch.setattr(real_runs.Run, "build", slower)
    cells = real_runs.cells_of(SLOT_LIMITED)
    for case in ("capacity", "makespan, s", "mean TTFT", "request-seconds waiting"):
        found = [cell for cell in cells if cell.case.endswith(case) or f": {case}" in cell.case]
        assert Status.FAIL in {cell.status for cell in found}, case


def test_without_the_data_a_claim_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module, call in ((real_runs, lambda: real_runs.cells_of(SLOT_LIMITED)), (deployments, deployments.cells_of)):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "nowhere")
        (cell,) = call()
        assert cell.status is Status.SHOWN
        assert "../shared/data" in cell.note


def test_closed_loop_of_one_request_only_decodes() -> None:
    """Alone, a request meets no prompt: base + one decode + its own mean KV, 100.5 tokens after the first of 2 tokens."""
    law = IterationTime(base_s=0.01, per_prefill_token_s=1.0, per_decode_token_s=1e-3, per_kv_token_s=1e-5)
    found = deployments.closed_loop_tpot_s(law, 100, 2, 1, 10**6)
    assert found == pytest.approx(0.01 + 1e-3 + 1e-5 * 101)


def test_closed_loop_against_the_arrival_theorem_by_hand() -> None:
    """Two requests of 100 + 11 tokens, 11 iterations each: the other adds 100 prompt tokens and 10 decodes in 11."""
    law = IterationTime(base_s=0.01, per_prefill_token_s=1e-4, per_decode_token_s=1e-3)
    found = deployments.closed_loop_tpot_s(law, 100, 11, 2, 10**6)
    assert found == pytest.approx(0.01 + 1e-4 * 100 / 11 + 1e-3 * (1 + 10 / 11))


def test_memory_limits_the_requests_in_flight() -> None:
    law = IterationTime(base_s=0.01, per_decode_token_s=1e-3)
    wide, narrow = (deployments.closed_loop_tpot_s(law, 100, 101, 64, m) for m in (10**6, 1600))
    assert narrow < wide / 2


def test_deployments_pass_by_deployment_and_say_what_is_in_sample(shared_data: Path) -> None:
    cells = deployments.cells_of()
    assert len({cell.name for cell in cells}) == len(cells)
    in_sample = named(cells, "all, law in sample")
    assert isinstance(in_sample.predicted, float)
    assert in_sample.predicted - 1 < 0.10
    judged = [cell for cell in cells if cell.status is not Status.SHOWN]
    assert all("law in sample" in cell.case or "law out of sample" in cell.case for cell in judged)
    assert np.mean([cell.status is Status.PASS for cell in judged]) > 0.5
