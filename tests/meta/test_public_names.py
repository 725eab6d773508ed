"""Every public name is documented: sentence, parameters, what it returns; dataclasses are frozen; units close names."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Iterator
from enum import Enum
from types import ModuleType
from typing import Any

import pytest

import stability
from stability.model.iteration import IterationLaw

SECTIONS = ("Parameters", "Attributes", "Returns", "Yields", "Raises", "Notes", "References", "Examples", "See Also")
FOREIGN_UNITS = re.compile(r"_(ms|us|ns|sec|secs|seconds|minutes|kb|mb|gb|kib|mib|gib|per_min|per_minute|percent)$")
RESULT_PACKAGES = ("theory", "evidence", "control")


def public_objects(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """(dotted name, object) of the names a module re-exports, submodules walked as well."""
    names = set(getattr(module, "__all__", ())) or re.findall(r"\bimport (\w+) as \1\b", inspect.getsource(module))
    for name in sorted(names):
        value = getattr(module, name)
        label = f"{module.__name__}.{name}"
        if inspect.ismodule(value):
            yield from ((f"{label}.{n.rpartition('.')[2]}", v) for n, v in public_objects(value))
        else:
            yield label, value


def callables(objects: dict[str, Any]) -> Iterator[tuple[str, Callable[..., Any], bool]]:
    """(name, callable, is it a method) of the functions, constructors and public methods among `objects`."""
    for label, value in objects.items():
        if inspect.isfunction(value):
            yield label, value, False
        elif inspect.isclass(value):
            if not issubclass(value, BaseException) and not issubclass(value, Enum):
                yield label, value, False
            for name in dir(value):
                member = inspect.getattr_static(value, name)
                if isinstance(member, classmethod | staticmethod):
                    member = member.__func__
                ours = inspect.isfunction(member) and member.__module__.startswith("stability")
                if ours and not name.startswith("_"):
                    yield f"{label}.{name}", getattr(value, name), True


def sections(text: str) -> dict[str, str]:
    """The numpydoc sections of a docstring by title; the leading text under ''."""
    parts = re.split(rf"^({'|'.join(SECTIONS)})\n-+\n", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def listed(section: str) -> set[str]:
    """Names that open the entries of a numpydoc section."""
    heads = [line.split(":")[0] for line in section.splitlines() if line and not line.startswith(" ")]
    return {name.strip(" *") for head in heads for name in head.split(",")}


def documented(text: str, *, method: bool) -> set[str]:
    """Parameters a docstring documents; a method may also name them in its text."""
    found = sections(text)
    names = listed(found.get("Parameters", ""))
    if method:
        names.update(re.findall(r"\w+", found[""]))
    return names


def parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [p for p in inspect.signature(function).parameters.values() if p.name != "self"]


OBJECTS = dict(public_objects(stability))
CALLABLES = {label: (function, method) for label, function, method in callables(OBJECTS)}
ATTRIBUTES = {
    name for value in OBJECTS.values() if inspect.isclass(value) for name in dir(value) if not name.startswith("_")
} | {field.name for value in OBJECTS.values() if dataclasses.is_dataclass(value) for field in dataclasses.fields(value)}
PARAMETERS = {p.name for function, _ in CALLABLES.values() for p in parameters(function)}


def test_the_walk_reaches_functions_methods_and_submodules() -> None:
    assert {"stability.Workload", "stability.Workload.scaled", "stability.lengths.Uniform"} <= {*OBJECTS, *CALLABLES}
    assert len(CALLABLES) > 60


@pytest.mark.parametrize("label", sorted({*OBJECTS, *CALLABLES}))
def test_docstring(label: str) -> None:
    value = CALLABLES[label][0] if label in CALLABLES else OBJECTS[label]
    if not (inspect.isclass(value) or callable(value)):
        return  # constants are documented where they are defined
    text = inspect.getdoc(value) or ""
    first = text.split("\n")[0]
    assert first.endswith((".", "?", ":", ",")) or len(text.split("\n\n")[0].splitlines()) > 1, (
        f"{label} has docstring {first!r}, must open with a sentence. Say what it is or returns."
    )
    assert not text.startswith(f"{label.rpartition('.')[2]}("), f"{label} has only the generated dataclass docstring."


@pytest.mark.parametrize("label", sorted(CALLABLES))
def test_every_parameter_is_documented(label: str) -> None:
    function, method = CALLABLES[label]
    names = {p.name for p in parameters(function)}
    if method:
        names.discard("rng")  # one meaning everywhere
    text = inspect.getdoc(function) or ""
    missing = names - documented(text, method=method)
    if inspect.isclass(function):  # results list their fields as attributes: users read them, and build none
        missing -= listed(sections(text).get("Attributes", ""))
    assert not missing, (
        f"{label} does not document {sorted(missing)}. Add a numpydoc Parameters section with units and shapes"
        f"{', or name them in its text' if method else ''}."
    )


@pytest.mark.parametrize("label", sorted(CALLABLES))
def test_documented_parameters_exist(label: str) -> None:
    function, _ = CALLABLES[label]
    known = {p.name for p in parameters(function)}
    stale = listed(sections(inspect.getdoc(function) or "").get("Parameters", "")) - known
    assert not stale, f"{label} documents {sorted(stale)}, which its signature lacks. Correct the docstring."


@pytest.mark.parametrize("label", [label for label, value in OBJECTS.items() if inspect.isfunction(value)])
def test_functions_say_what_they_return(label: str) -> None:
    found = sections(inspect.getdoc(OBJECTS[label]) or "")
    returns = inspect.signature(OBJECTS[label]).return_annotation
    assert returns in (None, "None") or {"Returns", "Yields"} & set(found), f"{label} has no Returns section."


def shown_elsewhere(text: str) -> str | None:
    """The public function whose example shows a result or record: "See :func:`stability.name`." in its Examples."""
    found = re.match(r"See :func:`(stability\.[\w.]+)`", sections(text).get("Examples", ""))
    return found[1] if found else None


@pytest.mark.parametrize(
    "label", [label for label, v in OBJECTS.items() if inspect.isclass(v) or inspect.isfunction(v)]
)
def test_every_public_name_has_an_example(label: str) -> None:
    """Functions and what users build show a doctest; results and records may point to the function that makes them."""
    text = inspect.getdoc(OBJECTS[label]) or ""
    target = shown_elsewhere(text)
    if target is not None:
        assert inspect.isclass(OBJECTS[label]), f"{label} is a function, must show an example of its own."
        assert target in OBJECTS, f"{label} points to {target}, which is no public name."
        text = inspect.getdoc(OBJECTS[target]) or ""
    assert ">>> " in sections(text).get("Examples", ""), (
        f"{label} has no example. Add an Examples section with a doctest, or for a result 'See :func:`stability.maker`.'"
    )


def raises(value: Any) -> bool:
    """Whether a function, or the constructor of a class, raises or checks its arguments in its own body."""
    body = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    if isinstance(body, ast.ClassDef):
        built = [n for n in body.body if isinstance(n, ast.FunctionDef) and n.name in ("__init__", "__post_init__")]
    else:
        built = [body]  # type: ignore[list-item]
    called = [node for part in built for node in ast.walk(part)]
    names = [getattr(n.func, "id", getattr(n.func, "attr", "")) for n in called if isinstance(n, ast.Call)]
    return any(isinstance(n, ast.Raise) for n in called) or any(re.match("_?check", name) for name in names)


@pytest.mark.parametrize(
    "label", [label for label, v in OBJECTS.items() if inspect.isclass(v) or inspect.isfunction(v)]
)
def test_what_raises_says_so(label: str) -> None:
    value = OBJECTS[label]
    if raises(value):
        assert "Raises" in sections(inspect.getdoc(value) or ""), (
            f"{label} raises. Add a Raises section that says when."
        )


@pytest.mark.parametrize("label", sorted(CALLABLES))
def test_signatures_are_explicit(label: str) -> None:
    for parameter in parameters(CALLABLES[label][0]):
        assert parameter.kind is not parameter.VAR_KEYWORD, f"{label} takes **{parameter.name}. Name its parameters."


def test_units_are_si() -> None:
    foreign = sorted(name for name in ATTRIBUTES | PARAMETERS if FOREIGN_UNITS.search(name))
    assert not foreign, f"{foreign} end in units that are not SI. Use seconds, tokens and bytes inside."


@pytest.mark.parametrize("label", [label for label, value in OBJECTS.items() if dataclasses.is_dataclass(value)])
def test_public_dataclasses_are_frozen(label: str) -> None:
    assert OBJECTS[label].__dataclass_params__.frozen, f"{label} is mutable. Freeze it."


def result_classes() -> dict[str, type]:
    """Public dataclasses of the packages that compute results; of the simulator, those it shows to users."""
    shown = {label: value for label, value in OBJECTS.items() if inspect.isclass(value)}
    found = {label: value for label, value in shown.items() if value.__module__.startswith("stability.sim.")}
    for info in pkgutil.walk_packages(stability.__path__, "stability."):
        if info.name.split(".")[1] not in RESULT_PACKAGES:
            continue
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            own = inspect.isclass(value) and value.__module__ == info.name and dataclasses.is_dataclass(value)
            if own and not name.startswith("_"):
                found[f"{info.name}.{name}"] = value
    return found


@pytest.mark.parametrize(("label", "value"), sorted(result_classes().items()))
def test_results_are_frozen_and_slotted_and_public_ones_keyword_only(label: str, value: Any) -> None:
    settings = value.__dataclass_params__
    assert settings.frozen, f"{label} is mutable. Results are frozen."
    assert "__slots__" in vars(value), f"{label} has no slots. Results are slotted."
    if value in OBJECTS.values():
        fields = [f for f in dataclasses.fields(value) if f.init]
        assert all(f.kw_only for f in fields), f"{label} takes positional arguments. Results are keyword-only."


PUBLIC_RESULTS = {label: value for label, value in result_classes().items() if value in OBJECTS.values()}
NOUNS = (
    "Fleet",
    "Pool",
    "Replica",
    "Engine",
    "Workload",
    "RequestClass",
    "Targets",
    "Candidate",
    "lengths.Lengths",
    "lengths.Length",
)


@pytest.mark.parametrize("label", [*sorted(PUBLIC_RESULTS), *(f"stability.{name}" for name in NOUNS)])
def test_results_and_nouns_are_tables_in_notebooks(label: str) -> None:
    value = PUBLIC_RESULTS.get(label, OBJECTS.get(label))
    assert hasattr(value, "_repr_html_"), (
        f"{label} has no _repr_html_. Inherit from Tabular or Described of stability/_result.py."
    )
    assert inspect.isabstract(value) or "__repr__" in {name for base in value.__mro__[:-1] for name in vars(base)}, (
        f"{label} has no one-line repr."
    )


@pytest.mark.parametrize(
    "label", [label for label, v in OBJECTS.items() if inspect.isclass(v) and issubclass(v, IterationLaw)]
)
def test_laws_are_formulas_in_notebooks(label: str) -> None:
    value = OBJECTS[label]
    if label != "stability.iteration.IterationLaw":
        assert hasattr(value, "_repr_latex_"), f"{label} has no _repr_latex_. See stability/model/iteration/latex.py."
