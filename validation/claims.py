"""Every module that registers a claim."""

from . import deployments, fluid, matrix, published, real_runs  # noqa: F401
from .peers import compare  # noqa: F401
