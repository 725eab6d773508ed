"""Human units in files and on the command line, turned into SI: `"80GiB"`, `"12k"`, `"50 ms"`, `"25 GB/s"`, `"10 min"`.

Each function takes the name of what it parses, for the message, and a number or a text. Numbers are in the function's
bare unit (seconds, bytes, ... unless `bare` says otherwise); texts without a unit are, too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from types import MappingProxyType

from .errors import InputError

_LARGEST = 1e300
"""Beyond it a value overflows on its way to SI."""

_TEXT = re.compile(r"\s*([-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*(.*?)\s*")

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_PREFIXES = _DECIMAL | {"K": 1e3} | _BINARY

COUNTS = MappingProxyType(_PREFIXES)
"""Multiples of a plain number; `k` is 1000 and `Ki` is 1024."""

TOKENS = MappingProxyType({p + word: s for p, s in _PREFIXES.items() for word in ("", "tok", "token", "tokens")})
"""Multiples of a token."""

TIMES = MappingProxyType(
    {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
)
"""Seconds in each unit of time."""

BYTES = MappingProxyType({prefix + "B": scale for prefix, scale in _PREFIXES.items()})
"""Bytes in each unit of memory; `GB` is 1e9 and `GiB` is 2**30."""

BANDWIDTHS = MappingProxyType(
    {unit + "/s": scale for unit, scale in BYTES.items()}
    | {prefix + bit: scale / 8 for prefix, scale in _DECIMAL.items() for bit in ("bit/s", "bps")}
)
"""Bytes per second in each unit of bandwidth."""

RATES = MappingProxyType(
    {item + "/" + unit: 1.0 / TIMES[unit] for item in ("", "1", "req", "requests") for unit in ("s", "min", "h", "d")}
)
"""Events per second in each unit of rate."""

SHARES = MappingProxyType({"%": 0.01})
"""What a percentage is of one."""


def count(name: str, value: object) -> int:
    """A whole number, e.g. `256` or `"12k"`.

    Examples
    --------
    >>> count("requests", "12k")
    12000
    """
    return _whole(name, value, COUNTS, "a whole number, as in 256 or '12k'")


def tokens(name: str, value: object) -> int:
    """A whole number of tokens, e.g. `8192`, `"128Ki"` or `"12k tokens"`.

    Examples
    --------
    >>> tokens("kv_capacity_tokens", "128Ki")
    131072
    """
    return _whole(name, value, TOKENS, "a whole number of tokens, as in 8192, '12k' or '128Ki'")


def seconds(name: str, value: object, *, bare: str = "s") -> float:
    """A time in seconds, e.g. `"50 ms"` or `"10 min"`; numbers are in `bare`.

    Examples
    --------
    >>> seconds("itl", "50 ms"), seconds("itl_ms", 50, bare="ms")
    (0.05, 0.05)
    """
    return _quantity(name, value, TIMES, bare, "a time, as in '50 ms', '2 s' or '10 min'")


def size_bytes(name: str, value: object) -> float:
    """A memory size in bytes, e.g. `"80GiB"`.

    Examples
    --------
    >>> size_bytes("memory", "1.5 GB")
    1500000000.0
    """
    return _quantity(name, value, BYTES, "B", "a memory size, as in '80 GB' or '2GiB'")


def bandwidth(name: str, value: object) -> float:
    """A bandwidth in bytes per second, e.g. `"25 GB/s"` or `"200 Gbit/s"`.

    Examples
    --------
    >>> bandwidth("bandwidth", "200 Gbit/s")
    25000000000.0
    """
    return _quantity(name, value, BANDWIDTHS, "B/s", "a bandwidth, as in '25 GB/s' or '200 Gbit/s'")


def rate(name: str, value: object) -> float:
    """A rate per second, e.g. `40`, `"40/s"` or `"600 req/min"`.

    Examples
    --------
    >>> rate("rate_per_s", "600 req/min")
    10.0
    """
    return _quantity(name, value, RATES, "/s", "a rate, as in 40, '40/s' or '600 req/min'")


def share(name: str, value: object) -> float:
    """A share of one, e.g. `0.1` or `"10%"`.

    Examples
    --------
    >>> share("headroom", "10%")
    0.1
    """
    return _quantity(name, value, SHARES | {"": 1.0}, "", "a share, as in 0.1 or '10%'")


def number(name: str, value: object) -> float:
    """A plain number, e.g. `1.5`, `"1e3"` or `"12k"`.

    Examples
    --------
    >>> number("price_per_hour", "1e3")
    1000.0
    """
    return _quantity(name, value, COUNTS, "", "a number, as in 1.5, 1e3 or '12k'")


def _whole(name: str, value: object, units: Mapping[str, float], kind: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value  # a float would round large ones
    found = _quantity(name, value, units, "", kind)
    if not found.is_integer():
        raise InputError(f"{name} = {value!r}, must be {kind}. Round it.")
    return int(found)


def _quantity(name: str, value: object, units: Mapping[str, float], bare: str, kind: str) -> float:
    scale = units[bare]
    amount: object = value
    if isinstance(value, str):
        match = _TEXT.fullmatch(value)
        if match is None:
            raise InputError(f"{name} = {value!r}, must be {kind}. Write a number and its unit.")
        amount = float(match[1].replace("_", ""))
        unit = match[2].replace(" ", "")
        if unit and unit not in units:
            raise InputError(f"{name} = {value!r}, must be {kind}. Correct the unit {unit!r}.")
        scale = units[unit] if unit else scale
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise InputError(f"{name} = {value!r}, must be {kind}. Write a number and its unit.")
    if not abs(amount) <= _LARGEST:  # also false for NaN
        raise InputError(f"{name} = {value!r}, must be {kind}. Give a finite value.")
    return _scaled(float(amount), scale)


def _scaled(amount: float, scale: float) -> float:
    """`amount * scale`, dividing by whole factors so that 50 ms is 0.05 s to the last bit."""
    inverse = round(1.0 / scale) if scale < 1 else 0
    return amount / inverse if inverse and math.isclose(inverse * scale, 1.0, rel_tol=1e-12) else amount * scale
