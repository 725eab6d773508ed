"""Which tokens a resident request is charged for: the engine's count, or that of the slotted models."""

from __future__ import annotations

RESIDENCIES = ("engine", "slots")
"""`engine`: prompt + j - 1 tokens in the iteration that gives token j (the last token's KV is never stored), peak s + o - 1.
`slots`: prompt + j, peak s + o, as in the papers that count time in slots."""

EXTRA_TOKENS = {"engine": 0, "slots": 1}
"""Tokens charged to a request beyond those whose KV the engine stores."""
