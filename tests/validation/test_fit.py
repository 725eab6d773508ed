"""The claim `fit`: published composition of profiles is met, and the real run's capacity is within its tolerance."""

from __future__ import annotations

from pathlib import Path

import pytest

import stability as st
from validation import fit, real_runs
from validation.cells import Status


def test_tasks_have_unique_names() -> None:
    names = [task.name for task in fit.tasks("full")]
    assert len(names) == len(set(names)) == 10


def test_composed_profile_is_the_published_one(shared_data: Path) -> None:
    """The published decode-only fit of the RTX 4090: 16.875 ms, 41.97 us, 0.149 us; 71 and 6 451 rows."""
    steps = fit.steps_of("RTX4090_Llama-3.1-8B_tp1")
    only = steps.only(steps.prefill_tokens == 0)
    assert (len(only), len(steps)) == (71, 71 + 6451)
    law = st.fit_law(only, form="affine").law
    assert isinstance(law, st.IterationTime)
    assert law.base_s == pytest.approx(16.875e-3, rel=0.002)
    assert law.per_decode_token_s == pytest.approx(41.97e-6, rel=0.02)
    assert law.per_kv_token_s == pytest.approx(0.14926e-6, rel=0.02)


def test_capacity_of_the_real_run_and_a_law_a_fifth_too_fast_fails(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fit.capacity(real_runs.RUNS[0])
    assert [cell.status for cell in found] == [Status.PASS, Status.SHOWN]
    assert all(abs(cell.deviation) < 0.10 for cell in found)
    true = fit.steps_of
    monkeypatch.setattr(fit, "steps_of", lambda name: (rows := true(name)).with_times(0.8 * rows.time_s))
    (cell,) = fit.capacity(real_runs.RUNS[0], (fit.HOST_S,))
    assert cell.status is Status.FAIL


def test_benchmark_points_are_nearer_than_the_published_fits(shared_data: Path) -> None:
    found = fit.end_to_end("quick")
    deployments = [cell for cell in found if "over deployments" not in cell.case]
    assert len(deployments) == 31
    assert {cell.status for cell in deployments} == {Status.PASS}
    (median,) = [cell for cell in found if cell.case == "end to end, median over deployments, in sample"]
    assert median.observed == pytest.approx(1.039, abs=0.001)
    assert isinstance(median.predicted, float)
    assert median.predicted < 1.025
