"""Every module that registers a claim."""

from . import deployments, evictions, matrix, published, real_runs, schedulers, tuning  # noqa: F401
from .peers import compare  # noqa: F401
