"""The harness itself: statuses, strict expectations, and that a broken formula turns it red."""

import math

import pytest

import stability.theory.moments as moments_module
from stability.theory import eviction, footprint, gate, solve, surplus
from validation.cases import Case, matrix
from validation.cells import Cell, Status, Task, measured, shown, with_expectations
from validation.expected import REASONS, expected, listed
from validation.matrix import cells_of
from validation.report import html_report, markdown_report, table

GATE = Case("uniform 1:1", "affine", "prompt gate")
RESERVE = Case("short", "roofline L4", "reserve")  # memory-bound, and short against a block


def capacity_of(case: Case) -> Cell:
    return next(cell for cell in cells_of(case, "quick") if cell.claim == "capacity")


@pytest.fixture(autouse=True)
def _fresh_caches():
    """Means are cached by law: a broken formula must not see, nor leave, values of the whole one."""
    caches = (moments_module.moments, surplus.surplus)
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


def test_deviation_decides_and_words_do_not_deviate() -> None:
    assert measured("c", "x", predicted=1.02, observed=1.0, tolerance=0.03).status is Status.PASS
    assert measured("c", "x", predicted=1.04, observed=1.0, tolerance=0.03).status is Status.FAIL
    assert measured("c", "x", predicted=math.nan, observed=1.0, tolerance=0.03).status is Status.FAIL
    assert math.isnan(shown("c", "x", predicted=1.0, observed=0.0).deviation)


def test_expectations_are_strict() -> None:
    bad = measured("c", "bad", predicted=2.0, observed=1.0, tolerance=0.03)
    good = measured("c", "good", predicted=1.0, observed=1.0, tolerance=0.03)
    found = with_expectations([bad, good], {"c: bad": "why", "c: good": "why"})
    assert [cell.status for cell in found] == [Status.EXPECTED_FAIL, Status.UNEXPECTED_PASS]
    assert [cell.status.is_failure for cell in found] == [False, True]
    assert listed([found[0]]) == {"other": ["c: bad"]}


def test_a_defect_in_one_task_is_a_failing_cell() -> None:
    cells = Task("t", lambda: 1 / 0, ()).run()
    assert cells[0].status is Status.FAIL
    assert "ZeroDivisionError" in cells[0].note


@pytest.mark.parametrize("size", ["quick", "full"])
def test_lists_name_cells_of_the_matrix(size: str) -> None:
    names = {case.name for case in matrix(size)}
    for name, reason in expected(size).items():
        assert reason in REASONS.values()
        claim, case = name.split(": ", 1)
        if claim in ("capacity", "verdict", "itl", "kv occupancy", "ttft"):
            assert case.split(" / load ")[0] in names


def test_reports_hold_every_failure() -> None:
    cells = [
        measured("capacity", "bad", predicted=2.0, observed=1.0, tolerance=0.03, note="because"),
        measured("capacity", "good", predicted=1.0, observed=1.0, tolerance=0.03),
    ]
    for text in (table(cells), markdown_report(cells, "quick", 1.0), html_report(cells, "quick", 1.0)):
        assert "capacity: bad" in text
    page = html_report(cells, "quick", 1.0)
    assert "data:image/png;base64," in page
    assert "http" not in page


def test_the_theory_passes() -> None:
    for case in (GATE, RESERVE):
        assert capacity_of(case).status is Status.PASS, case.name


def test_wrong_block_rounding_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(footprint, "blocks", lambda tokens, block_size: tokens - tokens % block_size)
    assert capacity_of(RESERVE).status is Status.FAIL


def test_wrong_sign_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = solve.conditions.affine_capacity
    monkeypatch.setattr(
        solve.conditions, "affine_capacity", lambda law, demand, shares: right(abs(law), -demand, shares)
    )
    assert capacity_of(RESERVE).status is Status.FAIL


def test_missing_eviction_term_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    right = eviction.evictions

    def without(*arguments, **options):
        found = right(*arguments, **options)
        return eviction.Evictions(
            per_request=0 * found.per_request,
            generated_tokens=found.generated_tokens,
            free_tokens=found.free_tokens,
        )

    monkeypatch.setattr(gate, "evictions", without)
    assert capacity_of(GATE).status is Status.FAIL
