"""Libraries that are installed only when asked for."""

from __future__ import annotations

import importlib.util

from .errors import MissingLibraryError

EXTRAS = {"pandas": "frames", "matplotlib": "plots", "jinja2": "report"}
"""The extra of the distribution that brings a library."""


def needs(*libraries: str) -> None:
    """Refuse to go on where one of `libraries` is not installed, with the command that installs it.

    Parameters
    ----------
    *libraries : str
        Import names.

    Raises
    ------
    MissingLibraryError
        For the first that is not there.
    """
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            raise MissingLibraryError(
                f"{name} is not installed, must be for this. Install it: pip install 'llm-stability[{EXTRAS[name]}]'.",
                name=name,
            )
