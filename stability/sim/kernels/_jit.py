"""The compiler of all kernels, with a cache that notices an edit in any of them.

numba's cache compares a function with its own file only, so code inlined from another module could go stale. Kernels are
cached in a folder named after a hash of all their sources instead: in a checkout under `.cache/numba`, else beside the
installed package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

HERE = Path(__file__).resolve().parent
Function = TypeVar("Function", bound=Callable[..., object])


def source_hash() -> str:
    """A short hash of the sources of all kernels."""
    digest = hashlib.sha256()
    for path in sorted(HERE.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder() -> Path:
    """Where compiled kernels are kept; below `NUMBA_CACHE_DIR` if that is set."""
    chosen: str = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    if chosen:
        base = Path(chosen)
    else:
        checkout = HERE.parents[2]
        base = checkout / ".cache" / "numba" if (checkout / "pyproject.toml").is_file() else HERE / "__pycache__"
    return base / source_hash()


_FOLDER = str(cache_folder())


def kernel(function: Function) -> Function:
    """Compile `function` on first use, without fast math.

    Without numba's reference counts (`_nrt`): kernels allocate nothing, and counting references to the arrays of a
    `Machine` at every call costs fourteen times the work itself.
    """
    njit: Any = numba.njit  # the option is not in its signature
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = _FOLDER
    try:
        return cast(Function, njit(cache=True, error_model="numpy", forceinline=True, _nrt=False)(function))
    finally:
        config.CACHE_DIR = before
