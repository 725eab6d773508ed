"""What a derivation offers, and the documentation page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sympy as sp

from stability.errors import InputError
from stability.theory import symbolic as sym
from stability.theory.symbolic.catalogue import markdown
from stability.theory.symbolic.symbols import QUANTITIES


@pytest.fixture(scope="module")
def sections() -> dict[str, list[sym.Derivation]]:
    return sym.derive_all()


@pytest.fixture(scope="module")
def everything(sections: dict[str, list[sym.Derivation]]) -> list[sym.Derivation]:
    return [item for section in sections.values() for item in section]


def test_every_derivation_is_complete(everything: list[sym.Derivation]) -> None:
    assert len(everything) > 80
    for item in everything:
        assert item.steps, item.title
        assert all(step.why for step in item.steps)
        assert item.standing in ("exact", "necessary", "sufficient", "approximation")
        assert all(entry.meaning and entry.unit for entry in item.quantities.values())
        assert json.loads(json.dumps(item.to_dict()))["schema"] == "stability/derivation/1"
        assert "\n" not in repr(item)
        assert item.summary().startswith(item.title)


def test_latex_is_well_formed(everything: list[sym.Derivation]) -> None:
    for item in everything:
        text = item.latex()
        assert text.count("{") == text.count("}")
        assert text.count(r"\left") == text.count(r"\right")
        assert text.count(r"\begin") == text.count(r"\end")
        assert not re.search(r"(?<!\\)[$%]", text)
        assert not re.search(r"_(\{[^{}]*\}|\w)_", text), f"{item.title}: a subscript twice"
        assert item._repr_latex_() == f"$\\displaystyle {text}$"
        for word in ("lambda", "theta", "beta", "tau"):  # Greek letters are printed as such, outside words
            formulas = re.sub(r"\\text\{[^{}]*\}", "", text)
            assert not re.search(rf"(?<![\\a-zA-Z]){word}(?![a-zA-Z])", formulas), (item.title, word)


def test_symbols_are_those_of_the_glossary(root: Path) -> None:
    rows = re.findall(
        r"^\| \$([^$]+)\$ \|[^|]*\|[^|]*\| ([^|]+) \|$",
        (root / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8"),
        re.M,
    )
    printed = {entry.latex: entry for entry in QUANTITIES.values()}
    known = {latex: unit for latex, unit in rows if latex in printed}
    assert len(known) >= 20
    for latex, unit in known.items():
        if latex == "G":
            continue  # workers of a barrier group in the glossary, where no derivation goes
        assert printed[latex].unit == unit, (
            f"{latex} has unit {printed[latex].unit}, in docs/reference/glossary.md {unit}."
        )


def test_lambdify_takes_floats_and_arrays_and_is_compiled_once() -> None:
    load = sym.load()
    function = load.lambdify("lambda", "E[W]", "c_0", "E[a_r]", "C_r")
    assert function(10.0, 0.02, 0.01, 5.0, 1.0) == pytest.approx(0.7)
    rates = np.linspace(1, 10, 4)
    np.testing.assert_allclose(function(rates, 0.02, 0.01, 5.0, 1.0), rates * 0.07)
    assert load.lambdify("lambda", "E[W]", "c_0", "E[a_r]", "C_r") is function
    assert load.lambdify() is sym.load().lambdify(*load.symbols)


def test_lambdify_of_every_derivation_agrees_with_substitution(everything: list[sym.Derivation]) -> None:
    rng = np.random.default_rng(5)
    for item in everything:
        if isinstance(item.result, sp.logic.boolalg.Boolean) or item.title.startswith("Lundberg exponent, constant"):
            continue
        values = {
            s: sp.Integer(int(v)) for s, v in zip(item.symbols, rng.integers(1, 9, len(item.symbols)), strict=True)
        }
        exact = item.at(values)
        if exact.has(sp.zoo, sp.nan, sp.oo):
            continue
        numeric = np.asarray(item.lambdify()(*(float(v) for v in values.values())), dtype=complex)
        expected = np.array(sp.Matrix([exact]).evalf(), dtype=complex).reshape(numeric.shape)
        np.testing.assert_allclose(numeric, expected, rtol=1e-9, atol=1e-9, err_msg=item.title)


def test_lambdify_names_what_it_lacks() -> None:
    with pytest.raises(InputError, match=r"lacks C_r"):
        sym.load().lambdify("lambda", "E[W]", "c_0", "E[a_r]")
    with pytest.raises(InputError, match="no symbol of the theory"):
        sym.load().lambdify("lamda")


def test_bad_names_are_refused() -> None:
    for call in (
        lambda: sym.load(resource="gpu"),
        lambda: sym.volume(convention="other"),
        lambda: sym.length_transform("lognormal"),
        lambda: sym.length_moment("zipf", 1),
        lambda: sym.equations(regime="above"),
        lambda: sym.drift_margin(resources=()),
        lambda: sym.exponent_expansion(order=9),
        lambda: sym.in_families(sym.load(), prompt="uniform", output="uniform"),
    ):
        with pytest.raises(InputError):
            call()


def test_the_documentation_page_is_up_to_date(root: Path, sections: dict[str, list[sym.Derivation]]) -> None:
    page = (root / "docs" / "theory" / "derivations.md").read_text(encoding="utf-8")
    made_with = re.search(r"sympy ([\w.]*\w)", page)
    assert made_with
    if made_with[1] != sp.__version__:
        pytest.skip(
            f"the page was made with sympy {made_with[1]}, whose order of terms may differ from {sp.__version__}"
        )
    assert page == markdown(sections), "Run `python -m stability.theory.symbolic > docs/theory/derivations.md`."


def test_import_of_the_package_loads_no_sympy(root: Path) -> None:
    code = "import sys, stability; assert 'sympy' not in sys.modules; assert 'stability.theory.symbolic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)
