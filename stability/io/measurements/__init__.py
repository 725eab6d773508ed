"""Measurements as files: engine steps, benchmark results, length histograms."""

from .benchmark import read_benchmark as read_benchmark
from .histogram import read_histograms as read_histograms
from .steps import read_steps as read_steps
from .table import example as example
