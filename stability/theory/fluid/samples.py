"""What the recursion records of a step."""

from __future__ import annotations

SAMPLE_COLUMNS = (
    "time_s",
    "waiting",
    "running",
    "kv_tokens",
    "iteration_s",
    "decoding",
    "prefill_tokens",
    "arrived",
    "admitted",
    "completed",
    "evicted",
    "generated_tokens",
    "busy_s",
)
"""What is recorded of a step. The state is that of the step, counts are those before it."""

STATES = range(1, 7)
"""Columns that are states."""

COUNTS = range(7, len(SAMPLE_COLUMNS))
"""Columns that are counts since the start."""

AT = {name: column for column, name in enumerate(SAMPLE_COLUMNS)}
"""Column of each name."""
