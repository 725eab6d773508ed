"""Metrics of serving engines (vLLM, SGLang) as Prometheus collects them: recorded, queried, or scraped from a server."""

from .fit import MetricsFit as MetricsFit
from .fit import fit_metrics as fit_metrics
from .reading import read_metrics as read_metrics
from .series import MetricsHistogram as MetricsHistogram
from .series import MetricsSeries as MetricsSeries
from .steps import StepMeans as StepMeans
from .steps import step_means as step_means
