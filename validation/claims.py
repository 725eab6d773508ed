"""Every module that registers a claim."""

from . import deployments, evictions, fluid, matrix, published, real_runs, routers, routing, tuning  # noqa: F401
from .peers import compare  # noqa: F401
