"""Files that hold plans, or grids of plans, as raw content with its lines."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from ...errors import PlanSyntaxError, check_choice
from .source import PlanSource
from .yaml import parse_yaml

FORMATS = {".yaml": "yaml", ".yml": "yaml", ".json": "yaml", ".toml": "toml"}
"""Format of a plan file by the end of its name; JSON is YAML, too."""

PLAN_KEYS = "schema, workload and fleet"


def read_source(path: str | os.PathLike[str], *, kind: str = "plan", keys: str = PLAN_KEYS) -> PlanSource:
    """The content of a YAML or TOML file.

    Parameters
    ----------
    path : str or os.PathLike
        The file; its ending tells the format.
    kind, keys : str
        What the file is, and the keys it must have, for messages.

    Raises
    ------
    PlanSyntaxError
        If the file cannot be read or parsed.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise PlanSyntaxError(f"{file} ends in {file.suffix!r}, must end in {', '.join(FORMATS)}. Rename the file.")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise PlanSyntaxError(f"{file} does not exist, must be a {kind} file. Check the path.") from None
    except IsADirectoryError:
        raise PlanSyntaxError(f"{file} is a folder, must be a {kind} file. Name the file in it.") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise PlanSyntaxError(
            f"{file}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8, the file must be. Save it as UTF-8."
        ) from None
    except OSError as error:
        raise PlanSyntaxError(f"{file} cannot be read ({error.strerror or error}). Check the file.") from None
    language = FORMATS[file.suffix.lower()]
    return source_from_text(text, format=language, name=str(path), folder=file.parent, kind=kind, keys=keys)


def source_from_text(
    text: str,
    *,
    format: str = "yaml",  # noqa: A002
    name: str = "plan",
    folder: str | os.PathLike[str] = ".",
    kind: str = "plan",
    keys: str = PLAN_KEYS,
) -> PlanSource:
    """The content of a text.

    Parameters
    ----------
    text : str
        The content of a file.
    format : {"yaml", "toml"}
        Its language.
    name : str
        What messages call it.
    folder : str or os.PathLike
        Where files it names are looked for.
    kind, keys : str
        What the text is, and the keys it must have, for messages.

    Raises
    ------
    PlanSyntaxError
        If the text does not parse or holds no mapping.
    """
    if check_choice("format", format, ("yaml", "toml")) == "yaml":
        data, lines = parse_yaml(text, name)
    else:
        data, lines = _parse_toml(text, name), {}
    if not data and not isinstance(data, int | float):
        hint = f"Start from an example: `stability {'sweep' if kind == 'grid' else 'schema'} --example` prints one."
        raise PlanSyntaxError(f"{name} is empty, must hold a {kind}. {hint}")
    if not isinstance(data, dict):
        raise PlanSyntaxError(
            f"{name} holds a {type(data).__name__}, must hold a mapping with the keys {keys}. Write one."
        )
    return PlanSource(name=name, folder=Path(folder), data=data, lines=lines)


def _parse_toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PlanSyntaxError(f"{name}: not valid TOML ({error}). Correct the line.") from None
    except RecursionError:
        raise PlanSyntaxError(f"{name}: nested too deeply, must be a plan. Correct the file.") from None
