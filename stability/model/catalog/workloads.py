"""Workloads: lengths of published traces as quantile grids joined by a Gaussian copula."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np

from ..._result import Described
from ...errors import InputError
from ..lengths import GaussianCopula, Lengths, ProductPart, Quantiles
from .files import find, read_text


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthMoments:
    """Means of functions of prompt (s) and output (o) lengths, in tokens or tokens squared.

    None stands for what is not known: where the pairs were not published, nothing is said of them jointly.

    Parameters
    ----------
    prompt_mean, output_mean : float, optional
        E[s], E[o].
    product_mean : float, optional
        E[so].
    prompt_square_mean, output_square_mean : float, optional
        E[s^2], E[o^2].
    footprint_mean : float, optional
        E[so + o^2/2], the resident KV volume for long lengths.

    Examples
    --------
    See :func:`stability.catalog.workload`.
    """

    prompt_mean: float | None
    output_mean: float | None
    product_mean: float | None
    prompt_square_mean: float | None
    output_square_mean: float | None
    footprint_mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRecord(Described):
    """Lengths and mean rate of a published workload.

    Parameters
    ----------
    name, description : str
        Its name and what it is.
    aliases : tuple of str
        Other spellings.
    lengths : Lengths
        The joint length law: quantile grids joined by a Gaussian copula. Its longest request may be as long as the longest
        prompt and the longest output together.
    mean_rate_per_s : float
        Requests per second of the published service as a whole.
    requests : int, optional
        Rows of the trace behind it.
    joint : bool
        Whether prompt and output lengths were published as pairs; if not they are taken as independent.
    spearman : float, optional
        Measured rank correlation. The copula in `lengths` uses the one at which it has the trace's E[so]: real pairs are
        not joined by a Gaussian copula, and capacity depends on E[so].
    exact : LengthMoments
        Moments of the trace itself (from the published means and coefficients of variation where `joint` is false).
    prompt_max_tokens, output_max_tokens, total_max_tokens : int, optional
        Longest prompt, output, and prompt + output of one request in the trace.
    source : str
        Where the numbers come from.

    Examples
    --------
    See :func:`stability.catalog.workload`.
    """

    name: str
    description: str
    lengths: Lengths
    mean_rate_per_s: float
    requests: int | None
    joint: bool
    spearman: float | None
    exact: LengthMoments
    prompt_max_tokens: int | None
    output_max_tokens: int | None
    total_max_tokens: int | None
    source: str
    aliases: tuple[str, ...] = ()

    def moments(self) -> LengthMoments:
        """The moments of `lengths`."""
        product, square = _moment(self.lengths, 1, 1), _moment(self.lengths, 0, 2)
        return LengthMoments(
            prompt_mean=_moment(self.lengths, 1, 0),
            output_mean=_moment(self.lengths, 0, 1),
            product_mean=product,
            prompt_square_mean=_moment(self.lengths, 2, 0),
            output_square_mean=square,
            footprint_mean=product + square / 2,
        )

    def relative_errors(self) -> LengthMoments:
        """Error of each moment of `lengths` against `exact`, as a fraction of it."""
        grid = self.moments()
        return LengthMoments(
            **{f.name: _relative(getattr(grid, f.name), getattr(self.exact, f.name)) for f in fields(grid)}
        )

    def summary(self) -> str:
        """The grid against the trace, as a table."""
        grid, errors = self.moments(), self.relative_errors()
        lines = [f"{self.name}: {self.description}", f"{'':20}{'trace':>16}{'grid':>16}{'error':>9}"]
        for f in fields(grid):
            exact, error = getattr(self.exact, f.name), getattr(errors, f.name)
            shown = ("not known", "") if exact is None else (f"{exact:,.1f}", f"{error:+.2%}")
            lines.append(f"{f.name:20}{shown[0]:>16}{getattr(grid, f.name):>16,.1f}{shown[1]:>9}")
        if not self.joint:
            lines.append("prompt and output lengths were not published as pairs: taken as independent")
        return "\n".join(lines)


@cache
def workloads() -> tuple[WorkloadRecord, ...]:
    """Every workload of the catalog."""
    return tuple(_record(entry) for entry in json.loads(read_text("workloads.json")))


def workload(name: str) -> WorkloadRecord:
    """The workload of a name, in any case.

    Parameters
    ----------
    name : str
        Name or alias.

    Returns
    -------
    WorkloadRecord

    Raises
    ------
    UnknownNameError
        If the catalog has none; the message gives the nearest names.

    Examples
    --------
    >>> import stability as st
    >>> st.catalog.workload("azure-conv-2023").name
    'azure-conv-2023'
    """
    if not isinstance(name, str):
        raise InputError(f"workload = {name!r}, must be a name. Give a name such as 'azure-conv-2023'.")
    return find("workload", name, workloads())


def lengths(name: str) -> Lengths:
    """The joint length law of a workload of the catalog.

    Parameters
    ----------
    name : str
        Name or alias.

    Returns
    -------
    Lengths
        Joint law of prompt and output, tokens.

    Raises
    ------
    UnknownNameError
        If the catalog has none; the message gives the nearest names.

    Examples
    --------
    >>> round(lengths("azure-conv-2023").output_mean_tokens, 1)
    211.1
    """
    return workload(name).lengths


def _record(entry: dict[str, Any]) -> WorkloadRecord:
    exact = entry["exact"]
    product, square = exact["product_mean"], exact["output_square_mean"]
    return WorkloadRecord(
        name=entry["name"],
        description=entry["description"],
        lengths=GaussianCopula(Quantiles(*entry["prompt"]), Quantiles(*entry["output"]), entry["copula_spearman"]),
        mean_rate_per_s=entry["mean_rate_per_s"],
        requests=entry["requests"],
        joint=entry["spearman"] is not None,
        spearman=entry["spearman"],
        exact=LengthMoments(
            prompt_mean=exact["prompt_mean"],
            output_mean=exact["output_mean"],
            product_mean=product,
            prompt_square_mean=exact["prompt_square_mean"],
            output_square_mean=square,
            footprint_mean=None if product is None else product + square / 2,
        ),
        prompt_max_tokens=exact["prompt_max"],
        output_max_tokens=exact["output_max"],
        total_max_tokens=exact["total_max"],
        source=entry["source"],
    )


def _moment(law: Lengths, prompt_order: int, output_order: int) -> float:
    """E[s^i o^j]; of independent lengths without visiting the pairs."""
    total = 0.0
    for part in law.parts():
        if isinstance(part, ProductPart):
            mean = part.prompt.moment(prompt_order) * part.output.moment(output_order)
        else:
            mean = part.mean(lambda s, o: s.astype(np.float64) ** prompt_order * o.astype(np.float64) ** output_order)
        total += part.weight * mean
    return total


def _relative(value: float, exact: float | None) -> float | None:
    return None if exact is None else value / exact - 1
