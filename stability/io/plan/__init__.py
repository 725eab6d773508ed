"""Plan files: a workload, a fleet and targets, in YAML or TOML."""

from .document import Plan as Plan
from .document import example_plan as example_plan
from .document import example_source as example_source
from .document import example_text as example_text
from .document import examples as examples
from .document import plan_from_source as plan_from_source
from .document import plan_from_text as plan_from_text
from .document import read_plan as read_plan
from .reading import read_source as read_source
from .reading import source_from_text as source_from_text
from .schema import json_schema as json_schema
