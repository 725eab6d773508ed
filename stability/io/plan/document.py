"""Plan files as a whole: reading, checking and building them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePath
from typing import Literal

from pydantic import Field

from ...errors import UnknownNameError, unknown_name
from ...model.candidate import Sizing
from ...model.fleet import Fleet
from ...model.targets import Targets
from ...model.workload import Workload
from .fleet import LinkSection, PoolSection, build_fleet
from .problems import Problems
from .reading import read_source, source_from_text
from .section import Section
from .sizing import SizingSection
from .source import Key, PlanSource
from .targets import TargetsSection
from .workload import WorkloadSection

SCHEMA = "stability/plan/1"


class PlanSection(Section):
    """A workload, a fleet to serve it, and targets."""

    schema_: Literal["stability/plan/1"] = Field(alias="schema", description=f"the format of the plan, {SCHEMA}")
    workload: WorkloadSection = Field(description="what arrives")
    fleet: list[PoolSection] = Field(min_length=1, description="pools of replicas")
    links: list[LinkSection] = Field(default=[], description="networks between prefill and decode pools")
    targets: TargetsSection = Field(default=TargetsSection(), description="limits besides stability")
    sizing: SizingSection = Field(default=SizingSection(), description="what the cheapest fleet may be built from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan file describes.

    Parameters
    ----------
    fleet : Fleet
        The pools.
    workload : Workload
        What arrives.
    targets : Targets
        Limits besides stability.
    sizing : Sizing
        What the cheapest fleet may be built from.
    path : str
        The file, or what it is called.
    notes : tuple of str
        What was done on reading the files it names.
    places : mapping of (str, str) to str
        Where each pool and each class stands, as in {("pool", "chat"): "plan.yaml:7"}.
    """

    fleet: Fleet
    workload: Workload
    targets: Targets
    path: str
    sizing: Sizing = field(default_factory=Sizing)
    notes: tuple[str, ...] = ()
    places: Mapping[tuple[str, str], str] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        return f"Plan({self.path}: {len(self.fleet.pools)} pools, {self.workload.rate_per_s:g} requests/s)"


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """The plan in a YAML or TOML file; files it names are looked for from its folder.

    Parameters
    ----------
    path : str or os.PathLike
        The file; its ending tells the format.

    Raises
    ------
    PlanSyntaxError
        If the file cannot be read, does not parse or does not fit the schema; with every problem and its line.
    PlanError
        If it fits the schema and makes no sense; with every problem and its line.
    """
    return plan_from_source(read_source(path))


def plan_from_text(
    text: str,
    *,
    format: str = "yaml",  # noqa: A002
    name: str = "plan",
    folder: str | os.PathLike[str] = ".",
) -> Plan:
    """The plan in a text.

    Parameters
    ----------
    text : str
        The content of a plan file.
    format : {"yaml", "toml"}
        Its language.
    name : str
        What messages call it.
    folder : str or os.PathLike
        Where files it names are looked for.

    Raises
    ------
    PlanSyntaxError, PlanError
        As for `read_plan`.
    """
    return plan_from_source(source_from_text(text, format=format, name=name, folder=folder))


def examples() -> dict[str, str]:
    """The bundled plans by name, and what each shows: the first line of its own comment."""
    found = {}
    for file in sorted(_examples().iterdir(), key=lambda item: item.name):
        if file.name.endswith(".yaml"):
            lines = [line[2:] for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
            about = next(line for line in lines if not line.startswith("yaml-language-server"))
            found[file.name.removesuffix(".yaml")] = about
    return found


def example_source(name: str = "chat") -> PlanSource:
    """The content of the bundled plan `name`, by default the one that runs without a plan."""
    with resources.as_file(_example(name)) as path:
        return read_source(path)


def example_plan(name: str = "chat") -> Plan:
    """The bundled plan `name`, by default the one that runs without a plan: a chat service on eight H100s."""
    return plan_from_source(example_source(name))


def example_text(name: str = "chat") -> str:
    """The file of the bundled plan `name`."""
    return _example(name).read_text(encoding="utf-8")


def _examples() -> Traversable:
    return resources.files(__package__) / "examples"


def _example(name: str) -> Traversable:
    file = _examples() / f"{name}.yaml"
    if name != PurePath(name).name or not file.is_file():
        error = unknown_name("example plan", name, examples())
        known = "" if "Known: " in str(error) else f" Known: {', '.join(examples())}."
        raise UnknownNameError(f"{error}{known}")
    return file


def plan_from_source(source: PlanSource) -> Plan:
    """The plan in parsed content.

    Parameters
    ----------
    source : PlanSource
        Content of a plan file; messages tell its lines.

    Raises
    ------
    PlanSyntaxError, PlanError
        As for `read_plan`.
    """
    problems = Problems(source)
    whole = problems.fit(PlanSection, ())
    if whole is None:  # sections that fit are built all the same, so that one report holds their problems, too
        _build_what_fits(problems)
        problems.report()
        raise AssertionError("a plan that does not fit has problems")
    workload = whole.workload.build(problems, ("workload",))
    fleet = build_fleet(whole.fleet, whole.links, problems)
    sizing = whole.sizing.build(problems, ("sizing",))
    problems.report()
    assert workload is not None
    assert fleet is not None
    assert sizing is not None
    notes = tuple(dict.fromkeys(source.notes))
    return Plan(
        fleet=fleet,
        workload=workload,
        targets=whole.targets.build(),
        sizing=sizing,
        path=source.name,
        notes=notes,
        places=_places(whole, workload, source),
    )


def _places(whole: PlanSection, workload: Workload, source: PlanSource) -> dict[tuple[str, str], str]:
    """Where pools and classes stand, for errors that are found after reading."""
    pools = {("pool", section.pool): source.place(("fleet", index)) for index, section in enumerate(whole.fleet)}
    several = whole.workload.classes is not None
    classes = {
        ("class", item.name): source.place(("workload", "classes", index) if several else ("workload", "lengths"))
        for index, item in enumerate(workload.classes)
    }
    return pools | classes


def _build_what_fits(problems: Problems) -> None:
    source = problems.source
    scratch = Problems(source)  # its misfits are known already
    if source.has(("workload",)) and (workload := scratch.fit(WorkloadSection, ("workload",))):
        workload.build(problems, ("workload",))
    pools = source.at(("fleet",)) if source.has(("fleet",)) else None
    for index in range(len(pools)) if isinstance(pools, list) else ():
        key: Key = ("fleet", index)
        if pool := scratch.fit(PoolSection, key):
            pool.build(problems, key)
