"""The compiler of all kernels, with a cache that notices an edit in any of them.

numba's cache compares a function with its own file only, so code inlined from another module could go stale. Kernels are
cached in a folder named after a hash of all the sources of their package instead: in a checkout under `.cache/numba`, else
beside the installed package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., object])


class Compiler(Protocol):
    """A decorator that compiles and keeps the signature."""

    def __call__(self, function: Function, /) -> Function: ...


def source_hash(package: Path) -> str:
    """A short hash of the sources of the kernels in folder `package`."""
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.py")):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def cache_folder(package: Path) -> Path:
    """Where the compiled kernels of folder `package` are kept; below `NUMBA_CACHE_DIR` if that is set."""
    chosen: str = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    if chosen:
        base = Path(chosen)
    else:
        checkout = Path(__file__).resolve().parents[1]
        base = checkout / ".cache" / "numba" if (checkout / "pyproject.toml").is_file() else package / "__pycache__"
    return base / source_hash(package)


def compiler(package: Path, *, inline: bool = True) -> Compiler:
    """A decorator that compiles a kernel of folder `package` on first use, without fast math.

    Inlined everywhere, unless told otherwise: a large function called from several places then compiles in a fraction of the time.

    Without numba's reference counts (`_nrt`): kernels allocate nothing, and counting references to the arrays of a
    tuple at every call can cost fourteen times the work itself.
    """
    folder = str(cache_folder(package))

    def kernel(function: Function) -> Function:
        njit: Any = numba.njit  # the option is not in its signature
        config: Any = numba.config
        before = config.CACHE_DIR
        config.CACHE_DIR = folder
        try:
            return cast(Function, njit(cache=True, error_model="numpy", forceinline=inline, _nrt=False)(function))
        finally:
            config.CACHE_DIR = before

    return kernel
