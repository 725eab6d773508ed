"""What notebooks show of nouns and laws."""

from __future__ import annotations

import numpy as np
import pytest
import sympy

import stability as st

LENGTHS = st.lengths.Independent(st.lengths.Constant(100), st.lengths.Uniform(1, 3))


def test_affine_law_is_its_formula() -> None:
    law = st.IterationTime(base_s=0.012, per_prefill_token_s=1e-4, per_kv_token_s=8e-8)
    assert law._repr_latex_() == r"$\displaystyle \tau = 0.012 + 0.0001\,P + 8 \cdot 10^{-8}\,K\ \mathrm{s}$"


@pytest.mark.parametrize(
    ("law", "part"),
    [
        (st.iteration.Hinge(base_s=0.01, per_token_s=1e-4, threshold_tokens=100), r"0.01 + 0.0001 \max(0, b - 100)"),
        (st.iteration.Staircase(base_s=0.01, per_step_s=0.02, step_tokens=128), r"0.02 \lceil b / 128 \rceil"),
        (st.iteration.Roofline(weights_s=0.01, per_token_compute_s=1e-4), r"\max(0.01,\ 0.0001\,b)"),
        (
            st.iteration.TwoPhase(decode=st.IterationTime(base_s=0.01), mixed=st.IterationTime(base_s=0.03)),
            r"0.03 & P > 0",
        ),
        (st.iteration.Table([0], [1, 101], [0], [[[0.01], [0.03]]]), r"\mathrm{table}_{1 \times 2 \times 1}"),
    ],
)
def test_other_laws(law: st.iteration.IterationLaw, part: str) -> None:
    text = law._repr_latex_()  # type: ignore[attr-defined]
    assert part in text
    assert text.count("$") % 2 == 0
    assert text.count("{") == text.count("}")


def test_fleet_and_workload_are_tables() -> None:
    replica = st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000, gpu="L40S")
    html = st.Fleet([st.Pool("a<b", replica, 3)])._repr_html_()
    assert "a&lt;b" in html, "names are escaped"
    assert "L40S" in html
    table = st.Workload([st.RequestClass("chat", 3.0, LENGTHS)])._repr_html_()
    assert "chat" in table
    assert ">100<" in table
    assert ">2<" in table


def test_long_fields_are_cut() -> None:
    trace = st.Workload.from_requests(np.arange(50.0), np.full(50, 10), np.full(50, 2))
    fleet = st.Fleet.of(st.Replica(iteration=st.IterationTime(base_s=0.01), kv_capacity_tokens=1000))
    html = st.simulate(fleet, trace).requests._repr_html_()
    assert "array of shape (50,)" in html


def test_lengths_show_means() -> None:
    assert ">2<" in LENGTHS._repr_html_() or "2" in LENGTHS._repr_html_()
    assert "2 tokens" in st.lengths.Uniform(1, 3)._repr_html_()


def test_derivations_are_latex() -> None:
    from stability.theory import symbolic

    assert symbolic.capacity()._repr_latex_().startswith("$")
    assert isinstance(symbolic.capacity().result, sympy.Basic)
