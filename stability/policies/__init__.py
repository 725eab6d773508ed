"""Scheduling and routing policies as parameter objects: what they decide lives in theory and in simulation."""

from .fcfs import Fcfs as Fcfs
from .fcfs import scheduler_of as scheduler_of
