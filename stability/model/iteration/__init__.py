"""Step-time laws: how long one engine iteration takes, from what it computes."""

from .affine import IterationTime as IterationTime
from .base import IterationLaw as IterationLaw
from .base import LawKind as LawKind
from .batch import BatchLaw as BatchLaw
from .batch import Hinge as Hinge
from .batch import Roofline as Roofline
from .batch import Staircase as Staircase
from .table import Table as Table
from .two_phase import TwoPhase as TwoPhase
