"""Every module that registers a claim."""

from . import (  # noqa: F401
    deployments,
    evictions,
    fit,
    fluid,
    matrix,
    prefix,
    published,
    real_runs,
    routers,
    routing,
    schedulers,
    tuning,
    watch,
)
from .peers import compare  # noqa: F401
