"""Scheduling and routing policies as parameter objects: what they decide lives in theory and in simulation."""

from .balance import BalanceFuture as BalanceFuture
from .balance import BalanceRoute as BalanceRoute
from .balance import LeastPredictedWork as LeastPredictedWork
from .balance import LengthPartition as LengthPartition
from .balance import PowerOfChoices as PowerOfChoices
from .fcfs import Fcfs as Fcfs
from .fcfs import scheduler_of as scheduler_of
from .routers import JoinShortestKv as JoinShortestKv
from .routers import JoinShortestQueue as JoinShortestQueue
from .routers import PowerOfTwo as PowerOfTwo
from .routers import Random as Random
from .routers import RoundRobin as RoundRobin
from .routers import Router as Router
from .routers import WeightedSplit as WeightedSplit
