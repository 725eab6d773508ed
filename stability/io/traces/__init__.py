"""Request traces: one reader per published format, and what a trace says about its traffic."""

from .read import read_trace as read_trace
from .summary import TraceSummary as TraceSummary
from .trace import Trace as Trace
