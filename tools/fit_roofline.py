"""Fit the efficiencies of the roofline fallback to the catalog's measured laws.

    python -m tools.fit_roofline

Minimises the mean over the laws of the mean absolute error. Not fitted: the host time, 2.7 ms, which the laws of kernel
times contain, and the all-reduce, 5 us and a third of the link, as the measured ones on A100, H100, H200, B200 and L40S
(ai-dynamo/aiconfigurator: 4.4..8.2 us for small messages, 0.28..0.41 of the link for 32 MiB). The rounded result is the default of `stability.model.catalog.fallback.Efficiency`.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from stability.model.catalog import roofline_errors
from stability.model.catalog.fallback import Efficiency

SHARES = ("weights", "kv", "compute", "attention")
LATENCIES = ("layer_s",)
START = (0.75, 0.85, 0.8, 0.3, 12e-6)


def efficiency(logarithms: np.ndarray) -> Efficiency:
    """The efficiencies of a point of the search."""
    return Efficiency(**dict(zip(SHARES + LATENCIES, np.exp(logarithms).tolist(), strict=True)))


def objective(logarithms: np.ndarray) -> float:
    """Mean over the laws of the mean absolute error, %; shares above one are out of bounds."""
    if np.exp(logarithms[: len(SHARES)]).max() > 1:
        return 1e3
    return float(np.mean([100 * error.mean_error for error in roofline_errors(efficiency(logarithms))]))


def main() -> None:
    """Print the fit, and the default's error on the same measure."""
    best = minimize(
        objective, np.log(START), method="Nelder-Mead", options={"maxiter": 2000, "xatol": 1e-3, "fatol": 1e-3}
    )
    print(f"{efficiency(best.x)}\nmean error {best.fun:.2f} %")
    errors = roofline_errors()
    medians = np.array([100 * error.median_error for error in errors])
    means = np.array([100 * error.mean_error for error in errors])
    print(
        f"default: mean error {means.mean():.2f} %; median over the laws of the median error {np.median(medians):.2f} %"
    )
    for error in errors:
        record = error.record
        name = f"{record.gpu} {record.model} TP{record.tensor_parallel} {record.dtype} {record.backend} {record.basis}"
        print(
            f"{name:70} median {100 * error.median_error:5.1f} % max {100 * error.max_error:6.1f} % bias {100 * error.bias:+6.1f} %"
        )


if __name__ == "__main__":
    main()
