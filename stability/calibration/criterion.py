r"""Which form the data call for: the Bayesian information criterion of Huber's distribution.

Log residuals e_i = log(t_i/m_i) of every form are taken to have Huber's least favourable density,
f(e) proportional to exp(-rho(e/sigma))/sigma: normal in the middle, with exponential tails. Then

.. math:: \mathrm{BIC} = 2 \Bigl( n \log\sigma + \sum_i \rho(e_i/\sigma) \Bigr) + k \log n

at the likeliest sigma, k the coefficients above zero, the bend and sigma; terms common to all forms are left out.
Decode-only and mixed rows count alike however many of each there are, since service, not the plan of the measurements, says how
often each occurs: their losses have weights that make the two sums equal, and n is Kish's effective number of rows,
4/(1/n_decode + 1/n_mixed). A form with more coefficients is taken only if it lowers the BIC by more than `MARGIN`, "very strong evidence" in the words of Kass
and Raftery: rows of one run are not independent, so n overstates the evidence.

References: Schwarz, Annals of Statistics 6 (1978) 461. Kass and Raftery, JASA 90 (1995) 773, section 3.2.
"""

from __future__ import annotations

import numpy as np

from .._types import FloatArray
from .observations import StepObservations
from .robust import HUBER, LEAST_SCALE

MARGIN = 10.0
"""BIC by which a form of more coefficients must be better."""


def information_criterion(steps: StepObservations, fitted_s: FloatArray, parameters: int) -> float:
    """BIC of a fit with `parameters` coefficients, the smaller the better."""
    only = steps.mixed_share == 0
    counts = np.bincount(only, minlength=2)[only.astype(np.int64)]
    share = 1 / counts / np.sum(1 / counts)
    n = 1 / float(np.sum(share * share))
    least = 1e-3 * float(np.median(steps.time_s))
    error = np.abs(np.log(steps.time_s / np.maximum(fitted_s, least))) * np.sqrt(steps.weights / steps.weights.mean())
    sigma = max(float(np.sqrt(np.sum(share * error * error))), LEAST_SCALE)
    for _ in range(100):  # d/d sigma = 0: n sigma^2 = sum of e psi(e/sigma) sigma
        bounded = np.minimum(error / sigma, HUBER)
        before, sigma = sigma, max(float(np.sum(share * error * bounded)), LEAST_SCALE)
        if abs(sigma - before) <= 1e-10 * before:
            break
    z = error / sigma
    rho = np.where(z <= HUBER, z * z / 2, HUBER * z - HUBER * HUBER / 2)
    return float(2 * n * (np.log(sigma) + np.sum(share * rho)) + (parameters + 1) * np.log(n))
