"""Array types used in signatures throughout the package."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ComplexArray = npt.NDArray[np.complex128]
ArrayLike = npt.ArrayLike
AnyArray = npt.NDArray[Any]


def read_only(array: AnyArray) -> AnyArray:
    """The same array, flagged read-only: results and model objects never change under their users."""
    array.flags.writeable = False
    return array


def dot(a: FloatArray, b: AnyArray) -> float:
    """Sum of products of two vectors. BLAS hands long ones to threads, which costs milliseconds on a busy machine."""
    return float(np.einsum("i,i->", a, b))
