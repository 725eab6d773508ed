"""Every module that registers a claim."""

from . import matrix  # noqa: F401
