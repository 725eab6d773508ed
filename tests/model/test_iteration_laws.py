"""Step-time laws: hand numbers, scaling, encoding, interpolation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stability import InputError, IterationTime
from stability.model.iteration import BatchLaw, Hinge, IterationLaw, LawKind, Roofline, Staircase, Table, TwoPhase

AFFINE = IterationTime(
    base_s=0.01,
    per_prefill_token_s=1e-4,
    per_decode_token_s=2e-5,
    per_kv_token_s=1e-7,
    per_prefill_context_s=1e-9,
)
HINGE = Hinge(base_s=0.01, per_token_s=1e-4, threshold_tokens=100, per_kv_token_s=1e-7, per_prefill_context_s=1e-9)
STAIRCASE = Staircase(base_s=0.01, per_step_s=0.02, step_tokens=100, per_kv_token_s=1e-7)
ROOFLINE = Roofline(overhead_s=0.001, weights_s=0.005, per_token_compute_s=2e-5, per_token_s=1e-6, per_kv_token_s=1e-7)
EXPERTS = Roofline(weights_s=0.002, per_token_compute_s=2e-5, experts_s=0.01, expert_share=1 / 16)
TWO_PHASE = TwoPhase(decode=IterationTime(base_s=0.008, per_kv_token_s=1e-7), mixed=AFFINE)
TABLE = Table([0, 512, 2048], [1, 64], [0, 1e5], np.arange(1, 13).reshape(3, 2, 2) / 1000, 1e-9)
LAWS: list[IterationLaw] = [AFFINE, HINGE, STAIRCASE, ROOFLINE, EXPERTS, TWO_PHASE, TABLE]
every_law = pytest.mark.parametrize("law", LAWS, ids=lambda law: type(law).__name__)


@pytest.mark.parametrize(
    ("law", "composition", "time_s"),
    [
        (AFFINE, (200, 50, 10_000, 20_000), 0.01 + 0.02 + 0.001 + 0.001 + 0.00002),
        (HINGE, (60, 40, 10_000, 0), 0.01 + 0.001),
        (HINGE, (160, 40, 0, 20_000), 0.01 + 0.01 + 0.00002),
        (STAIRCASE, (0, 100, 0, 0), 0.03),
        (STAIRCASE, (1, 100, 10_000, 0), 0.05 + 0.001),
        (ROOFLINE, (0, 100, 0, 0), 0.001 + 0.0001 + 0.005),
        (ROOFLINE, (400, 100, 0, 0), 0.001 + 0.0005 + 0.01),
        (EXPERTS, (0, 1, 0, 0), 0.002 + 0.01 / 16),
        (EXPERTS, (0, 2, 0, 0), 0.002 + 0.01 * (1 - (15 / 16) ** 2)),
        (EXPERTS, (2000, 0, 0, 0), 0.04),
        (TWO_PHASE, (0, 50, 10_000, 0), 0.009),
        (TWO_PHASE, (1, 50, 10_000, 0), 0.01 + 0.0001 + 0.001 + 0.001),
        (TABLE, (0, 1, 0, 0), 0.001),
        (TABLE, (2048, 64, 1e5, 1e6), 0.012 + 0.001),
        (TABLE, (256, 1, 0, 0), 0.003),  # half-way from 1 ms to 5 ms
        (TABLE, (3584, 1, 0, 0), 0.013),  # the last cell, 5 ms to 9 ms, continued by its own length
        (TABLE, (0, 1, -1e9, 0), 0.001),  # never below the smallest time
    ],
)
def test_hand_numbers(law: IterationLaw, composition: tuple[float, float, float, float], time_s: float) -> None:
    assert float(law.time_s(*composition)) == pytest.approx(time_s, rel=1e-12)


def test_staircase_breaks_monotony_in_slots() -> None:
    """10 ms + 20 ms per started hundred: 100 decodes give 3333 tokens/s, 101 give 2020."""
    law = Staircase(base_s=0.010, per_step_s=0.020, step_tokens=100)
    assert 100 / float(law.time_s(0, 100, 0)) == pytest.approx(3333.3, abs=0.1)
    assert 101 / float(law.time_s(0, 101, 0)) == pytest.approx(2020.0, abs=0.1)


@every_law
@given(factor=st.floats(0.1, 10), p=st.integers(0, 4000), d=st.integers(1, 300), k=st.integers(0, 10**6))
def test_scaled(law: IterationLaw, factor: float, p: int, d: int, k: int) -> None:
    slower = law.scaled(factor)
    assert type(slower) is type(law)
    assert float(slower.time_s(p, d, k, 10.0 * p)) == pytest.approx(factor * float(law.time_s(p, d, k, 10.0 * p)))


@every_law
def test_vectorised_equals_one_by_one(law: IterationLaw) -> None:
    rng = np.random.default_rng(5)
    p, d, k = rng.integers(0, 3000, 50), rng.integers(1, 300, 50), rng.integers(0, 10**6, 50)
    together = law.time_s(p, d, k, p * 7.0)
    alone = [float(law.time_s(*row)) for row in zip(p, d, k, p * 7.0, strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-14)
    assert law.time_s(p[:, None], d, 0).shape == (50, 50)
    assert (together > 0).all()


@every_law
def test_encoding_is_a_kind_and_a_flat_vector(law: IterationLaw) -> None:
    kind, coefficients = law.encode()
    assert LawKind(kind).name.replace("_", "").casefold() in ("affine", type(law).__name__.casefold())
    assert coefficients.dtype == np.float64
    assert coefficients.ndim == 1
    assert np.isfinite(coefficients).all()


def test_encodings_hold_every_coefficient() -> None:
    assert AFFINE.encode()[1].tolist() == [0.01, 1e-4, 2e-5, 1e-7, 1e-9]
    assert HINGE.encode()[1].tolist() == [0.01, 1e-4, 100, 1e-7, 1e-9]
    assert STAIRCASE.encode()[1].tolist() == [0.01, 0.02, 100, 1e-7, 0]
    assert ROOFLINE.encode()[1].tolist() == [0.001, 0.005, 2e-5, 1e-6, 0, 0, 1e-7, 0]
    assert TWO_PHASE.encode()[1].tolist() == [0.008, 0, 0, 1e-7, 0, 0.01, 1e-4, 2e-5, 1e-7, 1e-9]
    kind, flat = TABLE.encode()
    assert kind == LawKind.TABLE
    assert flat[:5].tolist() == [3, 2, 2, 1e-9, 0.001]
    assert len(flat) == 5 + 3 + 2 + 2 + 12


@given(
    axes=st.tuples(*(st.lists(st.integers(0, 5000), min_size=1, max_size=4, unique=True).map(sorted) for _ in "pdk")),
    seed=st.integers(0, 1000),
)
def test_table_is_exact_at_its_nodes_and_linear_between(axes: tuple[list[int], ...], seed: int) -> None:
    times = np.random.default_rng(seed).uniform(0.001, 0.1, [len(axis) for axis in axes])
    table = Table(axes[0], axes[1], axes[2], times)
    nodes = np.meshgrid(*axes, indexing="ij")
    np.testing.assert_allclose(table.time_s(*nodes), times, rtol=1e-9)
    if len(axes[0]) > 1:
        middle = table.time_s((axes[0][0] + axes[0][1]) / 2, axes[1][0], axes[2][0])
        assert float(middle) == pytest.approx((times[0, 0, 0] + times[1, 0, 0]) / 2, rel=1e-9)


def test_table_of_an_affine_law_is_that_law() -> None:
    p, d, k = [0.0, 100, 2000], [0.0, 256], [0.0, 1e6]
    table = Table(p, d, k, AFFINE.time_s(*np.meshgrid(p, d, k, indexing="ij")), AFFINE.per_prefill_context_s)
    rng = np.random.default_rng(6)
    points = *(rng.random((3, 40)) * [[4000.0], [500.0], [2e6]]), np.arange(40.0) * 1e4
    np.testing.assert_allclose(table.time_s(*points), AFFINE.time_s(*points), rtol=1e-9)


@pytest.mark.parametrize("law", [HINGE, STAIRCASE, ROOFLINE, EXPERTS], ids=lambda law: type(law).__name__)
@given(most=st.integers(1, 1500))
def test_breakpoints_determine_the_lower_hull(law: BatchLaw, most: int) -> None:
    """The hull of phi at the breakpoints, linear in between, is never above phi."""
    points = law.breakpoints(most)
    assert points[0] == 1
    assert points[-1] == most
    assert (np.diff(points) > 0).all()
    phi = law.of_batch_s(np.arange(1, most + 1))
    hull = lower_hull(points.tolist(), law.of_batch_s(points).tolist())
    below = np.interp(np.arange(1, most + 1), [x for x, _ in hull], [y for _, y in hull])
    assert (below <= phi * (1 + 1e-12)).all()


def lower_hull(x: list[int], y: list[float]) -> list[tuple[int, float]]:
    hull: list[tuple[int, float]] = []
    for point in zip(x, y, strict=True):
        while len(hull) > 1 and slope(hull[-2], point) <= slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(point)
    return hull


def slope(a: tuple[int, float], b: tuple[int, float]) -> float:
    return (b[1] - a[1]) / (b[0] - a[0])


def test_hinge_with_a_threshold_between_tokens() -> None:
    law = Hinge(base_s=0.01, per_token_s=1e-3, threshold_tokens=10.5)
    assert float(law.of_batch_s(10)) == 0.01
    assert float(law.of_batch_s(11)) == pytest.approx(0.0105)
    assert {10, 11} <= set(law.breakpoints(100).tolist())


def test_laws_are_immutable_and_hashable() -> None:
    assert len({hash(law) for law in LAWS}) == len(LAWS)
    with pytest.raises(AttributeError):
        AFFINE.base_s = 1.0  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        TABLE.times_s[0, 0, 0] = 1.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (IterationTime, "are all 0, one must be > 0"),
        (lambda: IterationTime(base_s=-1), "base_s = -1, must be a finite number and >= 0"),
        (lambda: IterationTime(base_s=math.inf), "base_s = inf"),
        (lambda: IterationTime(base_s=True), "base_s = True"),
        (lambda: Hinge(base_s=0, per_token_s=1, threshold_tokens=1), "base_s = 0"),
        (lambda: Hinge(base_s=1, per_token_s=1, threshold_tokens=math.nan), "threshold_tokens = nan"),
        (lambda: Staircase(base_s=0, per_step_s=0, step_tokens=1), "per_step_s = 0"),
        (lambda: Staircase(base_s=0, per_step_s=1, step_tokens=0), "step_tokens = 0"),
        (lambda: Roofline(weights_s=0, per_token_compute_s=0), "are all 0"),
        (lambda: Roofline(weights_s=1, per_token_compute_s=0, expert_share=1.5), "expert_share = 1.5"),
        (lambda: Table([], [0], [0], []), "prefill_tokens = .*must be non-empty and strictly increasing"),
        (lambda: Table([0, 0], [0], [0], [[[1]], [[1]]]), "strictly increasing"),
        (lambda: Table([0, 1], [0], [0], [[[1]]]), r"times_s has shape \(1, 1, 1\), must be \(2, 1, 1\)"),
        (lambda: Table([0], [0], [0], [[[0.0]]]), "not finite and > 0"),
        (lambda: Table([0], [0], [0], [[[math.nan]]]), "not finite and > 0"),
    ],
)
def test_bad_input(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
