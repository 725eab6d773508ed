"""The compiler of the simulator's kernels."""

from __future__ import annotations

from pathlib import Path

from ..._jit import compiler

kernel = compiler(Path(__file__).resolve().parent)
called = compiler(Path(__file__).resolve().parent, inline=False)
