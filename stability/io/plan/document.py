"""Plan files as a whole: reading, checking and building them."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...errors import PlanSyntaxError, check_choice
from ...model.fleet import Fleet
from ...model.targets import Targets
from ...model.workload import Workload
from .fleet import LinkSection, PoolSection, build_fleet
from .problems import Problems
from .section import Section
from .source import Key, PlanSource
from .targets import TargetsSection
from .workload import WorkloadSection
from .yaml import parse_yaml

SCHEMA = "stability/plan/1"

FORMATS = {".yaml": "yaml", ".yml": "yaml", ".json": "yaml", ".toml": "toml"}
"""Format of a plan file by the end of its name; JSON is YAML, too."""


class PlanSection(Section):
    """A workload, a fleet to serve it, and targets."""

    schema_: Literal["stability/plan/1"] = Field(alias="schema", description=f"the format of the plan, {SCHEMA}")
    workload: WorkloadSection = Field(description="what arrives")
    fleet: list[PoolSection] = Field(min_length=1, description="pools of replicas")
    links: list[LinkSection] = Field(default=[], description="networks between prefill and decode pools")
    targets: TargetsSection = Field(default=TargetsSection(), description="limits besides stability")


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
    path : str
        The file, or what it is called.
    notes : tuple of str
        What was done on reading the files it names.
    """

    fleet: Fleet
    workload: Workload
    targets: Targets
    path: str
    notes: tuple[str, ...] = ()

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
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise PlanSyntaxError(f"{file} ends in {file.suffix!r}, must end in {', '.join(FORMATS)}. Rename the file.")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PlanSyntaxError(f"{file} does not exist, must be a plan file. Check the path.") from None
    except IsADirectoryError:
        raise PlanSyntaxError(f"{file} is a folder, must be a plan file. Name the file in it.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PlanSyntaxError(
            f"{file}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8, the file must be. Save it as UTF-8."
        ) from None
    except OSError as error:
        raise PlanSyntaxError(f"{file} cannot be read ({error.strerror or error}). Check the file.") from None
    return plan_from_text(text, format=FORMATS[file.suffix.lower()], name=str(path), folder=file.parent)


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
    if check_choice("format", format, ("yaml", "toml")) == "yaml":
        data, lines = parse_yaml(text, name)
    else:
        data, lines = _parse_toml(text, name), {}
    if not data and not isinstance(data, int | float):
        raise PlanSyntaxError(f"{name} is empty, must hold a plan. Start from the example that `stability check` runs.")
    if not isinstance(data, dict):
        raise PlanSyntaxError(
            f"{name} holds a {type(data).__name__}, must hold a mapping with the keys schema, workload and fleet. Write one."
        )
    return _build(PlanSource(name=name, folder=Path(folder), data=data, lines=lines))


def example_plan() -> Plan:
    """The plan that runs without a plan: a chat service on eight H100s."""
    with resources.as_file(resources.files(__package__) / "examples" / "chat.yaml") as path:
        return read_plan(path)


def example_text() -> str:
    """The file of the plan that runs without a plan."""
    return (resources.files(__package__) / "examples" / "chat.yaml").read_text(encoding="utf-8")


def _build(source: PlanSource) -> Plan:
    problems = Problems(source)
    whole = problems.fit(PlanSection, ())
    if whole is None:  # sections that fit are built all the same, so that one report holds their problems, too
        _build_what_fits(problems)
        problems.report()
        raise AssertionError("a plan that does not fit has problems")
    workload = whole.workload.build(problems, ("workload",))
    fleet = build_fleet(whole.fleet, whole.links, problems)
    problems.report()
    assert workload is not None
    assert fleet is not None
    notes = tuple(dict.fromkeys(source.notes))
    return Plan(fleet=fleet, workload=workload, targets=whole.targets.build(), path=source.name, notes=notes)


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


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanSyntaxError(f"{name}: not valid TOML ({error}). Correct the line.") from None
    except RecursionError:
        raise PlanSyntaxError(f"{name}: nested too deeply, must be a plan. Correct the file.") from None
