"""Grid files: a base plan, the keys that vary, and what to compute; and the points they stand for."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..io.plan.source import Key, PlanSource
from .keys import canonical, digest, file_digests, parse_key, substituted, version

if TYPE_CHECKING:
    from ..io.plan.problems import Problems
    from .sections import AxisSection, GridSection

MOST_ROWS = 10_000_000
"""Rows of a grid that is no slip of the keyboard."""

OUTPUTS = (".jsonl", ".parquet")

_KEYS = {"kind": "grid", "keys": "schema and axes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Arguments of `stability.simulate` that every point shares."""

    requests: int | None
    horizon_s: float | None
    saturated: bool
    concurrency: int | None
    router: str
    warmup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row to be: everything it depends on.

    Attributes
    ----------
    key : str
        Names the row: a digest of the plan, of the files it reads, of what is computed, of the seed and of the version.
    axes : mapping of str to object
        Values of the axes, by dotted key.
    seed : int or None
        None where nothing is simulated.
    plan : PlanSource
    analyze, latency : bool
    simulate : Simulation or None
    """

    key: str
    axes: Mapping[str, object]
    seed: int | None
    plan: PlanSource
    analyze: bool
    latency: bool
    simulate: Simulation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A base plan and what to vary in it.

    Attributes
    ----------
    name : str
        The file, or what it is called.
    base : PlanSource
        The plan whose keys vary.
    axes : mapping of str to tuple
        Values by dotted key, in the order of the file; the last one varies fastest.
    seeds : tuple of int
        Seeds of the simulation, fastest of all; empty where nothing is simulated.
    analyze, latency : bool
        Whether to predict verdict, capacity and load; and the time to first token.
    simulate : Simulation or None
    output : Path or None
        File of the rows.
    """

    name: str
    base: PlanSource
    axes: Mapping[str, tuple[object, ...]]
    seeds: tuple[int, ...]
    analyze: bool
    latency: bool
    simulate: Simulation | None
    output: Path | None

    def __len__(self) -> int:
        return math.prod(len(values) for values in self.axes.values()) * max(len(self.seeds), 1)

    def __repr__(self) -> str:
        return f"Grid({self.name}: {self.size()})"

    def size(self) -> str:
        """How much there is to compute, for people."""
        factors = [str(len(values)) for values in self.axes.values()]
        text = " x ".join(factors) + (" points" if factors != ["1"] else " point")
        if self.seeds:
            text += f" x {len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        text += f" = {len(self)} row{'s' if len(self) > 1 else ''}"
        if self.simulate is not None and self.simulate.requests is not None:
            text += f", {len(self) * self.simulate.requests:,} simulated requests"
        return text

    def points(self) -> Iterator[Point]:
        """Every point with every seed, in order."""
        places = {name: parse_key(name) for name in self.axes}
        common = {
            "analyze": self.analyze,
            "latency": self.latency,
            "simulate": self.simulate and asdict(self.simulate),
            "version": version(),
        }
        digests: dict[str, str] = {}
        for values in itertools.product(*self.axes.values()):
            plan = substituted(self.base, dict(zip(places.values(), values, strict=True)))
            files = file_digests(plan.data, plan.folder, digests)
            content = digest({"plan": plan.data, "files": files, **common})
            for seed in self.seeds or (None,):
                yield Point(
                    key=digest([content, seed]),
                    axes=dict(zip(places, values, strict=True)),
                    seed=seed,
                    plan=plan,
                    analyze=self.analyze,
                    latency=self.latency,
                    simulate=self.simulate,
                )


def read_grid(path: str | os.PathLike[str]) -> Grid:
    """The grid in a YAML or TOML file; files it names are looked for from its folder.

    Parameters
    ----------
    path : str or os.PathLike
        The file; its ending tells the format.

    Raises
    ------
    PlanSyntaxError, PlanError
        If the grid or its base plan cannot be read, does not fit the schema or makes no sense; with every problem and its line.
    """
    from ..io.plan import read_source

    return _build(read_source(path, **_KEYS))


def grid_from_text(
    text: str,
    *,
    format: str = "yaml",  # noqa: A002
    name: str = "grid",
    folder: str | os.PathLike[str] = ".",
) -> Grid:
    """The grid in a text.

    Parameters
    ----------
    text : str
        The content of a grid file.
    format : {"yaml", "toml"}
        Its language.
    name : str
        What messages call it.
    folder : str or os.PathLike
        Where files it names are looked for.

    Raises
    ------
    PlanSyntaxError, PlanError
        As for `read_grid`.
    """
    from ..io.plan import source_from_text

    return _build(source_from_text(text, format=format, name=name, folder=folder, **_KEYS))


def example_text() -> str:
    """The file of the grid that runs without a grid."""
    return (resources.files(__package__) / "examples" / "rates.yaml").read_text(encoding="utf-8")


def example_grid() -> Grid:
    """The grid that runs without a grid: the bundled plan at several rates and numbers of slots."""
    return grid_from_text(example_text(), name="bundled example")


def _build(source: PlanSource) -> Grid:
    from ..io.plan.problems import Problems
    from .sections import GridSection

    problems = Problems(source)
    whole = problems.fit(GridSection, ())
    problems.report()
    assert whole is not None
    if not (whole.analyze or whole.latency or whole.simulate):
        problems.note((), "nothing to compute, must be analyze, latency or simulate. Ask for one.")
    seeds = problems.attempt(("seeds",), lambda: _seeds(whole)) or ()
    output = problems.attempt(("output",), lambda: _output(whole.output, source.folder))
    base = problems.attempt(("plan",), lambda: _base(whole.plan, source.folder))
    axes: dict[str, tuple[object, ...]] = {}
    if base is not None:
        axes = _axes(whole.axes, base, problems)
    problems.report()
    assert base is not None
    grid = Grid(
        name=source.name,
        base=base,
        axes=axes,
        seeds=seeds,
        analyze=whole.analyze,
        latency=whole.latency,
        simulate=None if whole.simulate is None else Simulation(**whole.simulate.model_dump()),
        output=output,
    )
    if len(grid) > MOST_ROWS:
        raise InputError(f"{source.name}: {grid.size()}, must be <= {MOST_ROWS} rows. Take fewer values.")
    return grid


def _base(plan: str | None, folder: Path) -> PlanSource:
    from ..io.plan import example_source, read_source

    source = example_source() if plan is None else read_source(folder / plan)
    # Rows hold messages, which are not to depend on where the grid is; workers may run in other folders.
    return replace(source, name=plan or "bundled plan", folder=source.folder.resolve())


def _seeds(whole: GridSection) -> tuple[int, ...]:
    if whole.simulate is None:
        if whole.seeds is not None:
            raise InputError("given, but nothing is simulated, must be left out then. Add simulate or drop the seeds.")
        return ()
    values = whole.seeds.expand() if whole.seeds else (1,)
    seeds = [value for value in values if isinstance(value, int) and not isinstance(value, bool) and value >= 0]
    if len(seeds) < len(values) or len(set(seeds)) < len(seeds):
        raise InputError(f" = {list(values)!r}, must be different integers >= 0. Write some, as in [1, 2, 3].")
    return tuple(seeds)


def _output(output: str | None, folder: Path) -> Path | None:
    return None if output is None else check_output(folder / output, name="")


def check_output(path: Path, *, name: str = "output") -> Path:
    """The path, if a sweep can write rows to a file of this kind."""
    if path.suffix not in OUTPUTS:
        raise InputError(f"{name} = {str(path)!r}, must end in {' or '.join(OUTPUTS)}. Rename it.")
    return path


def _axes(sections: Mapping[str, AxisSection], base: PlanSource, problems: Problems) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    places: dict[Key, str] = {}
    for name, section in sections.items():
        at: Key = ("axes", name)
        place = problems.attempt(at, lambda name=name: parse_key(name))  # type: ignore[misc]
        if place is None:
            continue
        overlap = next(
            (name for key, name in places.items() if all(a == b for a, b in zip(key, place, strict=False))), None
        )
        if overlap is not None:
            problems.note(at, f"lies within the axis {overlap} or around it, must not. Drop one.")
        places[place] = name
        values = section.expand()
        if len({canonical(value) for value in values}) < len(values):
            problems.note(at, "the same value stands there twice, must stand once. Remove one.")
        problems.attempt(at, lambda place=place, values=values: _check_values(base, place, values))  # type: ignore[misc]
        found[name] = values
    return found


def _check_values(base: PlanSource, place: Key, values: tuple[object, ...]) -> None:
    """Refuse an axis none of whose values fits its place in the schema, such as a key that plans do not have."""
    from ..io.plan.document import PlanSection
    from ..io.plan.problems import Problems

    first = ""
    for value in values:
        problems = Problems(substituted(base, {place: value}))
        problems.fit(PlanSection, ())
        here = [problem for problem in problems.found if problem.key[: len(place)] == place]
        if not here:
            return
        first = first or here[0].text
    raise InputError(first)
