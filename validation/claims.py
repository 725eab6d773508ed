"""Every module that registers a claim."""

from . import deployments, matrix, published, real_runs, routing  # noqa: F401
from .peers import compare  # noqa: F401
