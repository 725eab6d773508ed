"""Pictures that commands draw: the option and the file."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURES = (".png", ".svg", ".pdf")


def _picture(ctx: click.Context, parameter: click.Parameter, value: str | None) -> Path | None:  # noqa: ARG001
    if value is None:
        return None
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("--plot needs matplotlib, must find it. Install it: pip install 'llm-stability[plots]'.")
    path = Path(value)
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"--plot = {value!r}, must end in one of {', '.join(PICTURES)}. Name a picture file.")
    if not path.parent.is_dir():
        raise InputError(f"--plot = {value!r}, must be in a folder that exists. Create {str(path.parent)!r} first.")
    return path


def picture_option(text: str) -> Callable[[Any], Any]:
    """`--plot FILE`, checked before anything runs."""
    return click.option("--plot", callback=_picture, metavar="FILE", help=text)


def save_picture(ax: Axes, path: Path) -> None:
    """The figure of `ax` as a file."""
    figure = ax.get_figure()
    assert figure is not None
    try:
        figure.savefig(path, dpi=150)  # type: ignore[union-attr]
    except OSError as error:
        raise InputError(
            f"--plot = {str(path)!r} cannot be written ({error.strerror}), must be a writable file."
        ) from None
