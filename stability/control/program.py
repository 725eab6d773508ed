"""The variables that routing programs share: rates x_ik of the pairs that fit, sums that must arrive, rows that must hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._types import FloatArray, IntArray
from .rows import FleetRows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RoutingVariables:
    """Shares z_ik of a class on a type, for the m pairs that fit and classes that arrive.

    Attributes
    ----------
    type_, class_ : (m,) ndarray of int
    load : (n*R, m) sparse array
        Load of each row by a share: T_irk lambda_k / (n_i b_i).
    once : (K', m) sparse array
        Shares of each class that arrives; they sum to 1.
    shape : (int, int)
        n, K.
    """

    type_: IntArray
    class_: IntArray
    load: Any
    once: Any
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        """Pairs."""
        return len(self.type_)

    def matrix(self, point: FloatArray) -> FloatArray:
        """Shares as a matrix (n, K)."""
        shares = np.zeros(self.shape)
        shares[self.type_, self.class_] = point
        return shares


def routing_variables(system: FleetRows, rates_per_s: FloatArray, caps: FloatArray) -> RoutingVariables:
    """The variables at given rates, with the load of each type relative to its cap.

    Parameters
    ----------
    system : FleetRows
    rates_per_s : (K,) ndarray
    caps : (n,) ndarray, >= 0
        Largest load b_i of each type; 0 for types that may not be used.
    """
    from scipy import sparse

    n, height, classes = system.seconds.shape
    type_, class_ = np.nonzero(system.fits & (rates_per_s > 0) & (caps > 0)[:, None])
    columns = np.arange(len(type_))
    per_share = system.seconds[type_, :, class_] * (rates_per_s[class_] / (system.replicas * caps)[type_])[:, None]
    row = (type_[:, None] * height + np.arange(height)).ravel()
    load = sparse.csr_array((per_share.ravel(), (row, np.repeat(columns, height))), shape=(n * height, len(columns)))
    once = sparse.csr_array((np.ones(len(columns)), (class_, columns)), shape=(classes, len(columns)))
    return RoutingVariables(
        type_=type_, class_=class_, load=load, once=once[np.flatnonzero(rates_per_s > 0)], shape=(n, classes)
    )
