"""A measured table of iteration times, interpolated."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..._types import ArrayLike, FloatArray, read_only
from ...errors import InputError, check_number
from .base import IterationLaw, LawKind, as_float
from .latex import formula, linear


@dataclass(frozen=True, init=False, eq=False)
class Table(IterationLaw):
    """Times measured on a grid of (prompt tokens, decoding requests, KV tokens), linear in between.

    Beyond the grid the outermost cell is continued linearly, never below its smallest time.

    Parameters
    ----------
    prefill_tokens, decode_tokens, kv_tokens : sequence of float >= 0, strictly increasing
        The axes; one point on an axis means the time does not depend on it.
    times_s : (n_prefill, n_decode, n_kv) array_like, > 0
        Measured times, s.
    per_prefill_context_s : float >= 0
        Added per unit of prefill attention work, s.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    Measured with 1 and 101 requests decoding; halfway between, the mean of the two:

    >>> import stability as st
    >>> law = st.iteration.Table([0], [1, 101], [0], [[[0.01], [0.03]]])
    >>> round(float(law.time_s(0, 51, 0)), 9)
    0.02
    """

    prefill_tokens: tuple[float, ...]
    decode_tokens: tuple[float, ...]
    kv_tokens: tuple[float, ...]
    times_s: FloatArray
    per_prefill_context_s: float

    def __init__(
        self,
        prefill_tokens: Sequence[float],
        decode_tokens: Sequence[float],
        kv_tokens: Sequence[float],
        times_s: ArrayLike,
        per_prefill_context_s: float = 0.0,
    ) -> None:
        axes = {"prefill_tokens": prefill_tokens, "decode_tokens": decode_tokens, "kv_tokens": kv_tokens}
        for name, axis in axes.items():
            points = [check_number(f"{name}[{i}]", v, at_least=0) for i, v in enumerate(axis)]
            if not points or any(b <= a for a, b in itertools.pairwise(points)):
                raise InputError(f"{name} = {points}, must be non-empty and strictly increasing. Sort the axis.")
            object.__setattr__(self, name, tuple(points))
        times = np.array(times_s, dtype=np.float64)
        shape = tuple(len(axis) for axis in axes.values())
        if times.shape != shape:
            raise InputError(f"times_s has shape {times.shape}, must be {shape}, the lengths of the axes.")
        if not (np.isfinite(times).all() and (times > 0).all()):
            raise InputError("times_s holds values that are not finite and > 0. Measure or drop those points.")
        object.__setattr__(self, "times_s", read_only(times))
        object.__setattr__(
            self,
            "per_prefill_context_s",
            check_number("per_prefill_context_s", per_prefill_context_s, at_least=0),
        )

    def __repr__(self) -> str:
        n, d, k = self.times_s.shape
        return f"Table({n} x {d} x {k} points, {self.times_s.min():.4g}..{self.times_s.max():.4g} s)"

    def time_s(
        self,
        prefill_tokens: ArrayLike,
        decode_tokens: ArrayLike,
        kv_tokens: ArrayLike,
        prefill_context: ArrayLike = 0.0,
    ) -> FloatArray:
        values, weights = self.times_s, []
        corners = []
        for axis, value in (
            (self.prefill_tokens, prefill_tokens),
            (self.decode_tokens, decode_tokens),
            (self.kv_tokens, kv_tokens),
        ):
            points = np.array(axis)
            x = as_float(value)
            if len(points) == 1:
                cell = np.zeros(x.shape, dtype=np.int64)
                corners.append((cell, cell))
                weights.append(np.zeros(x.shape))
                continue
            cell = np.clip(np.searchsorted(points, x, side="right") - 1, 0, len(points) - 2)
            corners.append((cell, cell + 1))
            weights.append((x - points[cell]) / (points[cell + 1] - points[cell]))
        (p0, p1), (d0, d1), (k0, k1) = corners
        u, v, w = weights
        low = _blend(
            _blend(values[p0, d0, k0], values[p1, d0, k0], u),
            _blend(values[p0, d1, k0], values[p1, d1, k0], u),
            v,
        )
        high = _blend(
            _blend(values[p0, d0, k1], values[p1, d0, k1], u),
            _blend(values[p0, d1, k1], values[p1, d1, k1], u),
            v,
        )
        time = np.maximum(_blend(low, high, w), self.times_s.min())
        return np.asarray(time + self.per_prefill_context_s * as_float(prefill_context))

    def _repr_latex_(self) -> str:
        rest = linear(((self.per_prefill_context_s, "A"),))
        shape = r" \times ".join(map(str, self.times_s.shape))
        return formula(rf"\mathrm{{table}}_{{{shape}}}(P, D, K)", rest)

    def encode(self) -> tuple[int, FloatArray]:
        sizes = np.array([len(self.prefill_tokens), len(self.decode_tokens), len(self.kv_tokens)], dtype=np.float64)
        return int(LawKind.TABLE), np.concatenate(
            [
                sizes,
                [self.per_prefill_context_s, self.times_s.min()],
                self.prefill_tokens,
                self.decode_tokens,
                self.kv_tokens,
                self.times_s.ravel(),
            ]
        )

    def scaled(self, factor: float) -> Table:
        return Table(
            self.prefill_tokens,
            self.decode_tokens,
            self.kv_tokens,
            self.times_s * factor,
            self.per_prefill_context_s * factor,
        )


def _blend(a: FloatArray, b: FloatArray, weight: FloatArray) -> FloatArray:
    return a + weight * (b - a)
