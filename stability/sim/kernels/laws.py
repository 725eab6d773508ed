"""Step-time laws inside kernels, in the order of operations of `stability.model.iteration`: equal to the last bit."""

from __future__ import annotations

import numpy as np

from ..._types import FloatArray
from ...errors import NotModelledError
from ...model.iteration import BatchLaw, IterationLaw, IterationTime, LawKind, Table, TwoPhase
from ._jit import kernel

AFFINE = int(LawKind.AFFINE)
TWO_PHASE = int(LawKind.TWO_PHASE)
TABLE = int(LawKind.TABLE)
BATCH = -1
"""Laws of the batched tokens, tabulated: (ck, ca, phi(0), phi(1), ...). A power taken by numpy and one taken by the C
library may differ in the last bit, so phi is evaluated once, by the law itself."""


def encode(law: IterationLaw, max_tokens: int) -> tuple[int, FloatArray]:
    """`law` as (kind, coefficients) for batches of up to `max_tokens`."""
    if isinstance(law, BatchLaw):
        phi = law.of_batch_s(np.arange(max_tokens + 1))
        return BATCH, np.concatenate(([law.per_kv_token_s, law.per_prefill_context_s], phi))
    if isinstance(law, IterationTime | TwoPhase | Table):
        return law.encode()
    raise NotModelledError(
        f"iteration = {law!r} has no kernel, must be a law of stability.iteration. Tabulate it as iteration.Table."
    )


@kernel
def step_time(
    laws: FloatArray, kind: int, start: int, prompt: int, decodes: int, kv_tokens: int, prompt_context: float
) -> float:
    """Seconds of one iteration."""
    if kind == BATCH:
        phi = laws[start + 2 + prompt + decodes]
        return float(phi + laws[start] * kv_tokens + laws[start + 1] * prompt_context)
    if kind == TABLE:
        return _table(laws, start, float(prompt), float(decodes), float(kv_tokens), prompt_context)
    if kind == TWO_PHASE and prompt > 0:
        start += 5
    return float(
        laws[start]
        + laws[start + 1] * prompt
        + laws[start + 2] * decodes
        + laws[start + 3] * kv_tokens
        + laws[start + 4] * prompt_context
    )


@kernel
def decode_base(laws: FloatArray, kind: int, start: int, decodes: int) -> float:
    """The part of a decode-only iteration's time that does not depend on KV (no such part in a table)."""
    if kind == BATCH:
        return float(laws[start + 2 + decodes])
    return float(laws[start] + laws[start + 2] * decodes)


@kernel
def decode_slope(laws: FloatArray, kind: int, start: int) -> float:
    """Seconds per KV token of a decode-only iteration (not for a table)."""
    if kind == BATCH:
        return float(laws[start])
    return float(laws[start + 3])


@kernel
def _cell(axis: FloatArray, x: float) -> int:
    """Index of the interval of `axis` that holds `x`, or the nearest one."""
    if len(axis) == 1:
        return 0
    return min(max(int(np.searchsorted(axis, x, side="right")) - 1, 0), len(axis) - 2)


@kernel
def _weight(axis: FloatArray, cell: int, x: float) -> float:
    if len(axis) == 1:
        return 0.0
    return float((x - axis[cell]) / (axis[cell + 1] - axis[cell]))


@kernel
def _blend(a: float, b: float, weight: float) -> float:
    return a + weight * (b - a)


@kernel
def _table(laws: FloatArray, start: int, prompt: float, decodes: float, kv_tokens: float, context: float) -> float:
    n_p, n_d, n_k = int(laws[start]), int(laws[start + 1]), int(laws[start + 2])
    at = start + 5
    axis_p, axis_d = laws[at : at + n_p], laws[at + n_p : at + n_p + n_d]
    axis_k = laws[at + n_p + n_d : at + n_p + n_d + n_k]
    values = laws[at + n_p + n_d + n_k : at + n_p + n_d + n_k + n_p * n_d * n_k]
    p0, d0, k0 = _cell(axis_p, prompt), _cell(axis_d, decodes), _cell(axis_k, kv_tokens)
    p1, d1, k1 = min(p0 + 1, n_p - 1), min(d0 + 1, n_d - 1), min(k0 + 1, n_k - 1)
    u, v, w = _weight(axis_p, p0, prompt), _weight(axis_d, d0, decodes), _weight(axis_k, k0, kv_tokens)
    low = _blend(
        _blend(values[(p0 * n_d + d0) * n_k + k0], values[(p1 * n_d + d0) * n_k + k0], u),
        _blend(values[(p0 * n_d + d1) * n_k + k0], values[(p1 * n_d + d1) * n_k + k0], u),
        v,
    )
    high = _blend(
        _blend(values[(p0 * n_d + d0) * n_k + k1], values[(p1 * n_d + d0) * n_k + k1], u),
        _blend(values[(p0 * n_d + d1) * n_k + k1], values[(p1 * n_d + d1) * n_k + k1], u),
        v,
    )
    return float(max(_blend(low, high, w), laws[start + 4]) + laws[start + 3] * context)
