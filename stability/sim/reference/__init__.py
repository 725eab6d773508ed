"""The oracle: continuous batching per request and per iteration, in plain Python. Slow, and meant to be read."""

from .fleet import ReferenceRun as ReferenceRun
from .fleet import run_reference as run_reference
from .replica import ReferenceReplica as ReferenceReplica
from .replica import ReferenceRequest as ReferenceRequest
from .replica import Step as Step
