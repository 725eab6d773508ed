r"""What one unit of admitted requests holds and computes at each age: the coefficients of the fluid recursion.

Age a counts iterations since admission; n = ceil(s/B) + o - 1 iterations are spent. All columns are expectations over the
joint law of (s, o) *per request admitted*, so the survivors P(n > a) are in them (their ratio is one minus the hazard of the
output law), and so is the mean prompt of those still alive, whatever the correlation of prompts and outputs.

With ages in bins of `width` iterations a request is admitted at a uniform place of its first bin. Compositions are
averaged over the bin (second-order accurate), occupancies are those of the bin's last iteration, so that a full bin is
full at its end and the recursion has the roots of the exact one. At width 1 the columns are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..._types import FloatArray, IntArray, read_only
from ...errors import InputError
from ...model.lengths import AtomPart, Lengths, ProductPart
from ..footprint import blocks
from .kernels.columns import N_COLUMNS, Column

LONGEST = 1 << 18
"""Most iterations a request may be resident."""

NEGLIGIBLE = 1e-12
"""Share of requests still resident at which the table ends; they complete there."""


@dataclass(frozen=True, slots=True, eq=False)
class AgeTable:
    """Columns by age for one kind of request.

    Attributes
    ----------
    columns : (ages, 10) ndarray
        See `Column`.
    width : int
        Iterations in a bin of ages.
    """

    columns: FloatArray
    width: int

    def __len__(self) -> int:
        return len(self.columns)

    def mixed_with(self, others: list[AgeTable], shares: FloatArray) -> AgeTable:
        """The table of a request that is of this kind or one of `others` with probabilities `shares`."""
        tables = [self, *others]
        total = np.zeros((max(len(table) for table in tables), N_COLUMNS))
        for share, table in zip(shares.tolist(), tables, strict=True):
            total[: len(table)] += share * table.columns
        return AgeTable(read_only(total), self.width)


@lru_cache(maxsize=32)
def age_table(
    lengths: Lengths, chunk: int, block_size: int = 1, max_output_tokens: int | None = None, width: int = 1
) -> AgeTable:
    """The table of requests drawn from `lengths`.

    Parameters
    ----------
    lengths : Lengths
        Joint law of prompt and output.
    chunk : int >= 1
        Most prompt tokens of one request in an iteration.
    block_size : int >= 1
        KV block, tokens.
    max_output_tokens : int, optional
        Output limit that reservation sets aside; without it each request's own output.
    width : int >= 1
        Iterations in a bin of ages.
    """
    if width > 1:
        return _binned(age_table(lengths, chunk, block_size, max_output_tokens).columns, width)
    pieces: list[tuple[int, FloatArray]] = []
    for part in lengths.parts():
        if isinstance(part, ProductPart):
            pieces += _product(part, chunk, block_size, max_output_tokens)
        else:
            pieces += _atoms(part, chunk, block_size, max_output_tokens)
    total = np.zeros((max(len(piece) for _, piece in pieces), N_COLUMNS))
    for _, piece in pieces:
        total[: len(piece)] += piece
    total[0, [Column.BOUNDARY, Column.RESIDENT]] = 1.0  # to round-off
    kept = int(np.searchsorted(-total[:, Column.RESIDENT], -NEGLIGIBLE))
    return AgeTable(read_only(total[:kept].copy()), 1)


def _product(
    part: ProductPart, chunk: int, block_size: int, max_output_tokens: int | None
) -> list[tuple[int, FloatArray]]:
    """One table per number of chunks; prompts and outputs are independent within each."""
    s, ps = part.prompt.values, part.prompt.probabilities
    o, po = part.output.values, part.output.probabilities
    mass = np.zeros(int(o[-1]) + 1)
    mass[o] = po
    alive = np.maximum(_beyond(mass), 0.0)  # P(o > g), g = 0 ..
    pieces = []
    count = -(-s // chunk)
    for m in np.unique(count).tolist():
        mine = count == m
        weight = part.weight * float(ps[mine].sum())
        if weight <= 0:
            continue
        p = ps[mine] / ps[mine].sum()
        v = s[mine]
        residues = np.bincount(v % block_size, weights=p, minlength=block_size).astype(np.float64)
        pad = _pads(residues, block_size)
        g = np.arange(len(alive))
        rounded = float(p @ v) + g + pad[g % block_size]  # E of the blocks of s + g
        if max_output_tokens is None:
            reserved = _beyond(mass * (float(p @ v) + g + pad[g % block_size]))
        else:
            reserved = alive * float(p @ blocks(v + max_output_tokens, block_size))
        first, square = float(p @ v), float(p @ (v.astype(np.float64) ** 2))
        pieces.append(
            (
                m,
                weight
                * _columns(m, chunk, block_size, alive, alive * first, alive * square, alive * rounded, reserved),
            )
        )
    return pieces


def _atoms(part: AtomPart, chunk: int, block_size: int, max_output_tokens: int | None) -> list[tuple[int, FloatArray]]:
    """The same for observed pairs: sums over the pairs whose output is longer than each g."""
    s, o = part.prompt_tokens, part.output_tokens
    weights = np.full(len(s), 1.0 / len(s)) if part.probabilities is None else part.probabilities
    weights = part.weight * weights / weights.sum()
    pieces = []
    count = -(-s // chunk)
    for m in np.unique(count).tolist():
        mine = np.flatnonzero(count == m)
        v, out, w = s[mine], o[mine], weights[mine]
        size = int(out.max()) + 1

        def over(values: FloatArray, out: IntArray = out, size: int = size) -> FloatArray:
            return _beyond(np.bincount(out, weights=values, minlength=size).astype(np.float64))

        x = v.astype(np.float64)
        alive, first, square = over(w), over(w * x), over(w * x * x)
        g = np.arange(size)
        rounded = first + g * alive
        residues = v % block_size
        for r in np.unique(residues).tolist():
            rounded += over(np.where(residues == r, w, 0.0)) * ((-(r + g)) % block_size)
        limit = out if max_output_tokens is None else np.full(len(out), max_output_tokens)
        reserved = over(w * blocks(v + limit, block_size))
        pieces.append((m, _columns(m, chunk, block_size, alive, first, square, rounded, reserved)))
    return pieces


def _columns(
    m: int,
    chunk: int,
    block_size: int,
    alive: FloatArray,
    first: FloatArray,
    square: FloatArray,
    rounded: FloatArray,
    reserved: FloatArray,
) -> FloatArray:
    """The table of requests of `m` chunks from sums over those with o > g, g = 0 ..: of 1, s, s**2, blocks(s + g), R."""
    ages = m - 1 + len(alive) - 1
    if ages > LONGEST:
        raise InputError(
            f"requests are resident for up to {ages} iterations, must be <= {LONGEST}. Truncate the lengths with limit=..."
        )
    table = np.zeros((ages, N_COLUMNS))
    generated = np.arange(len(alive) - 1, dtype=np.float64)  # before the iteration
    last = slice(m - 1, ages)
    table[: m - 1, Column.RESIDENT] = alive[0]
    table[last, Column.RESIDENT] = alive[:-1]
    table[: m - 1, Column.RESERVED] = reserved[0]
    table[last, Column.RESERVED] = reserved[:-1]
    done = np.arange(m - 1) * float(chunk)
    table[: m - 1, Column.HELD] = alive[0] * blocks(np.arange(1, m) * chunk, block_size)
    table[last, Column.HELD] = rounded[:-1]
    table[: m - 1, Column.PREFILL] = alive[0] * chunk
    table[m - 1, Column.PREFILL] = first[0] - (m - 1) * chunk * alive[0]
    table[: m - 1, Column.CONTEXT] = alive[0] * chunk * (done + chunk / 2)
    table[m - 1, Column.CONTEXT] = (square[0] - ((m - 1) * chunk) ** 2 * alive[0]) / 2
    table[m:, Column.DECODE] = alive[1:-1]
    table[last, Column.TOKENS] = alive[:-1]
    table[m:, Column.READ] = first[1:-1] + generated[1:] * alive[1:-1]
    table[: m - 1, Column.REDO] = alive[0] * done
    table[m - 1, Column.REDO] = alive[0] * (m - 1) * chunk
    table[m:, Column.REDO] = table[m:, Column.READ] - alive[1:-1]
    table[:, Column.BOUNDARY] = table[:, Column.RESIDENT]
    return table


def _beyond(mass: FloatArray) -> FloatArray:
    """Sum over indices greater than g, for g = 0 ..; summed from the far end, where the terms are small."""
    tail = np.cumsum(mass[::-1])[::-1]
    return np.append(tail[1:], 0.0)


def _pads(residues: FloatArray, block_size: int) -> FloatArray:
    """E[-(s + g) mod b] by g mod b, from the law of s mod b."""
    r = np.arange(block_size)
    return np.asarray([(residues * ((-(r + g)) % block_size)).sum() for g in range(block_size)])


def _binned(columns: FloatArray, width: int) -> AgeTable:
    """Ages taken `width` at a time."""
    bins = -(-(len(columns) + width - 1) // width)
    padded = np.zeros(((bins + 1) * width, N_COLUMNS))
    padded[width : width + len(columns)] = columns
    # Row `width + a` holds age a. A request admitted u iterations into its bin has age j width + v - u in iteration v of bin j.
    sums = np.concatenate((np.zeros((1, N_COLUMNS)), np.cumsum(padded, axis=0)))
    found = np.empty((bins, N_COLUMNS))
    last = np.arange(1, bins + 1) * width + width  # one past age j width + width - 1
    at_end = (sums[last] - sums[last - width]) / width
    ends = [Column.RESIDENT, Column.HELD, Column.RESERVED]
    found[:, ends] = at_end[:, ends]
    begin = np.arange(bins) * width + 1 + width  # one past age j width
    at_begin = (sums[begin] - sums[begin - width]) / width
    begins = [Column.BOUNDARY, Column.REDO]
    found[:, begins] = at_begin[:, begins]
    found[0, Column.BOUNDARY], found[0, Column.REDO] = 1.0, 0.0
    averaged = [Column.DECODE, Column.READ, Column.PREFILL, Column.CONTEXT, Column.TOKENS]
    total = np.zeros((bins, N_COLUMNS))
    for v in range(width):
        upper = np.arange(bins) * width + v + 1 + width
        total += sums[upper] - sums[upper - width]
    found[:, averaged] = total[:, averaged] / width**2
    return AgeTable(read_only(found), width)
