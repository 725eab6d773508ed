"""Reading a request trace, whatever published format it is in."""

from __future__ import annotations

import os

from ...errors import TraceError, check_choice
from .azure import Azure
from .burstgpt import BurstGpt
from .mooncake import Mooncake
from .requests import RequestsCsv
from .rows import RowChecks, TraceFormat
from .source import TraceSource
from .trace import Trace

FORMATS: tuple[type[TraceFormat], ...] = (RequestsCsv, Azure, BurstGpt, Mooncake)


def read_trace(path: str | os.PathLike[str], *, format: str | None = None, sort: bool = False) -> Trace:  # noqa: A002
    """The requests of a trace file, plain or compressed with gzip or zstd.

    Rows without prompt or without output tokens (failed requests) are dropped and counted in `Trace.notes`.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    format : {"requests", "azure", "burstgpt", "mooncake"}, optional
        Its format; told by the first line if omitted.
    sort : bool
        Whether to sort rows that are not in order of arrival, which raise otherwise.

    Returns
    -------
    Trace
        Arrivals and lengths, one entry a request.

    Raises
    ------
    TraceError
        If the file cannot be read, has no known header, or holds a value that makes no sense; with file and line.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import stability as st
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "requests.csv")
    ...     _ = path.write_text(chr(10).join(["arrival_s,prompt_tokens,output_tokens", "0.0,100,20", "2.0,300,40"]))
    ...     trace = st.read_trace(path)
    >>> trace.workload().lengths.prompt_mean_tokens
    200.0
    """
    source = TraceSource(path)
    if format is not None:
        check_choice("format", format, [known.name for known in FORMATS])
    form = _format_of(source, format)
    checks = RowChecks(source, form, sort=sort)
    for rows in form.read(source):
        checks.add(rows)
    return checks.trace()


def _format_of(source: TraceSource, name: str | None) -> TraceFormat:
    first = next(source.blocks(), None)
    head = first.data.partition(b"\n")[0].decode().strip() if first else ""
    if first is None or not first.data.strip():
        raise TraceError(f"{source.name} is empty, must hold a header and requests. Check the file.")
    candidates = [known() for known in FORMATS if name in (None, known.name)]
    for form in candidates:
        if form.recognises(head):
            return form
    known = "; ".join(form.header for form in candidates)
    raise source.error(1, f"the first line {head[:80]!r} is no known header. Recognised: {known}.")
