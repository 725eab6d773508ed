"""GPUs: memory, bandwidth and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from ..._result import Described
from ...errors import InputError, check_number
from .files import find, number_or_none, read_rows, split_names

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu(Described):
    """One accelerator. Build one to plan with hardware the catalog lacks.

    Parameters
    ----------
    name : str
        Its name.
    memory_bytes : float > 0
        Memory as an engine sees it, bytes. Vendors print the same number with GB: an 80 GB card holds 80 GiB. Cards that keep
        their error-correcting code in GDDR6 (A10G, A40, L4, L40S) have a sixteenth less.
    bandwidth_bytes_per_s : float > 0
        Memory bandwidth, bytes/s.
    bf16_flops_per_s : float > 0
        Dense 16-bit tensor rate, operations/s (a multiply-add counts two).
    fp8_flops_per_s, fp4_flops_per_s : float > 0, optional
        Dense 8-bit and 4-bit rates, operations/s; without one, weights of that type are computed at the next wider rate.
    link_bytes_per_s : float > 0
        Bandwidth to the other GPUs of a tensor-parallel group, both directions together as vendors quote it, bytes/s.
    power_w : float > 0, optional
        Rated power, W.
    aliases : tuple of str
        Other spellings.
    source : str
        Where the numbers come from.

    Raises
    ------
    InputError
        If a value breaks the rule stated for it.

    Examples
    --------
    See :func:`stability.catalog.gpu`.
    """

    name: str
    memory_bytes: float
    bandwidth_bytes_per_s: float
    bf16_flops_per_s: float
    fp8_flops_per_s: float | None = None
    fp4_flops_per_s: float | None = None
    link_bytes_per_s: float = 64e9
    power_w: float | None = None
    aliases: tuple[str, ...] = ()
    source: str = "given by the user"

    def __post_init__(self) -> None:
        for field in ("memory_bytes", "bandwidth_bytes_per_s", "bf16_flops_per_s", "link_bytes_per_s"):
            check_number(field, getattr(self, field), above=0)
        for field in ("fp8_flops_per_s", "fp4_flops_per_s", "power_w"):
            if getattr(self, field) is not None:
                check_number(field, getattr(self, field), above=0)

    def flops_per_s(self, dtype: str) -> float:
        """Rate at which weights of `dtype` ("bf16", "fp8", "fp4") are multiplied, operations/s."""
        rates = {"fp4": self.fp4_flops_per_s, "fp8": self.fp8_flops_per_s, "bf16": self.bf16_flops_per_s}
        widths = tuple(rates)
        return next(rate for width in widths[widths.index(dtype) :] if (rate := rates[width]) is not None)


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every GPU of the catalog."""
    return tuple(
        Gpu(
            name=row["name"],
            memory_bytes=float(row["memory_gib"]) * GIB,
            bandwidth_bytes_per_s=float(row["bandwidth_gb_s"]) * 1e9,
            bf16_flops_per_s=float(row["bf16_tflops"]) * 1e12,
            fp8_flops_per_s=_scaled(row["fp8_tflops"]),
            fp4_flops_per_s=_scaled(row["fp4_tflops"]),
            link_bytes_per_s=float(row["link_gb_s"]) * 1e9,
            power_w=number_or_none(row["power_w"]),
            aliases=split_names(row["aliases"]),
            source=row["source"],
        )
        for row in read_rows("gpus.csv")
    )


def gpu(name: str | Gpu) -> Gpu:
    """The GPU of a name or alias, in any case; a `Gpu` is returned as it is.

    Parameters
    ----------
    name : str or Gpu
        Name or alias.

    Returns
    -------
    Gpu

    Raises
    ------
    UnknownNameError
        If the catalog has none; the message gives the nearest names.

    Examples
    --------
    >>> gpu("h100_sxm").name
    'H100-SXM'
    """
    if isinstance(name, Gpu):
        return name
    if not isinstance(name, str):
        raise InputError(f"gpu = {name!r}, must be a name or a Gpu. Give a name such as 'H100-SXM'.")
    return find("GPU", name, gpus())


def _scaled(teraflops: str) -> float | None:
    number = number_or_none(teraflops)
    return None if number is None else number * 1e12
