"""The roofline fallback set against every measured law."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..._types import FloatArray
from ...errors import InputError
from ..iteration import IterationLaw
from .fallback import Efficiency, roofline
from .gpus import gpu as find_gpu
from .laws import LawRecord, laws
from .memory import kv_capacity
from .models import model as find_model

DECODES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (512, 1024, 2048, 4096, 8192)
CHUNKS = (0, 512, 1024, 2048)
"""Compositions compared: decoding requests, KV tokens of each, and prompt tokens (as the first chunk of a prompt)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RooflineError:
    """How far the roofline is from one measured law over typical batches.

    Parameters
    ----------
    record : LawRecord
        The measured law.
    median_error, mean_error, max_error : float
        Absolute error of the roofline over the measured law.
    bias : float
        Median signed error: positive where the roofline is slower than the measurement.
    compositions : int
        Batches compared: those whose KV fits on the GPUs.

    Examples
    --------
    See :func:`stability.catalog.roofline_errors`.
    """

    record: LawRecord
    median_error: float
    mean_error: float
    max_error: float
    bias: float
    compositions: int


def roofline_errors(efficiency: Efficiency | None = None) -> tuple[RooflineError, ...]:
    """The roofline's error against every law of the catalog that has a KV term.

    Parameters
    ----------
    efficiency : Efficiency, optional
        Another set of efficiencies.

    Returns
    -------
    tuple of RooflineError
        One per law whose model fits its GPUs, in the catalog's order.

    Examples
    --------
    >>> import stability as st
    >>> errors = st.catalog.roofline_errors()
    >>> len(errors) > 50, all(item.median_error <= item.max_error for item in errors)
    (True, True)
    """
    return tuple(_errors(efficiency))


def _errors(efficiency: Efficiency | None) -> Iterator[RooflineError]:
    for record in laws():
        if not record.has_kv_term:
            continue
        batches = _compositions(record)
        if batches is None:
            continue
        predicted = roofline(
            record.gpu,
            record.model,
            tensor_parallel=record.tensor_parallel,
            dtype=record.dtype,
            efficiency=efficiency,
        )
        error = _times(predicted, batches) / _times(record.law, batches) - 1
        yield RooflineError(
            record=record,
            median_error=float(np.median(np.abs(error))),
            mean_error=float(np.mean(np.abs(error))),
            max_error=float(np.max(np.abs(error))),
            bias=float(np.median(error)),
            compositions=len(error),
        )


def _compositions(record: LawRecord) -> FloatArray | None:
    """Rows (P, D, K, A) that fit into the KV cache; None if the model itself does not."""
    try:
        capacity = kv_capacity(
            find_gpu(record.gpu),
            find_model(record.model),
            tensor_parallel=record.tensor_parallel,
            dtype=record.dtype,
        )
    except InputError:
        return None
    rows = [
        (chunk, decodes, decodes * context, chunk * chunk / 2)
        for decodes in DECODES
        for context in CONTEXTS
        for chunk in CHUNKS
        if decodes * context + chunk <= capacity
    ]
    return np.array(rows, dtype=np.float64) if rows else None


def _times(law: IterationLaw, batches: FloatArray) -> FloatArray:
    return law.time_s(*batches.T)
