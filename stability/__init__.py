"""Is an LLM serving fleet stable under its workload, by how much, what binds, and what to change?"""

from . import policies as policies
from .errors import InputError as InputError
from .errors import PlanError as PlanError
from .errors import PlanSyntaxError as PlanSyntaxError
from .errors import StabilityError as StabilityError
from .model import iteration as iteration
from .model import lengths as lengths
from .model.arrivals import RateSchedule as RateSchedule
from .model.engine import Engine as Engine
from .model.fleet import Barrier as Barrier
from .model.fleet import Fleet as Fleet
from .model.fleet import Link as Link
from .model.fleet import Pool as Pool
from .model.iteration import IterationTime as IterationTime
from .model.replica import Replica as Replica
from .model.workload import RequestClass as RequestClass
from .model.workload import Workload as Workload
