"""Reading recorded metrics: a file or folder of scrapes, or answers to a range query."""

from __future__ import annotations

import gzip
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path

from ...errors import InputError, check_number
from .assemble import assemble
from .exposition import add_exposition
from .range_query import add_range_query
from .samples import Samples
from .series import MetricsSeries

_STAMP = re.compile(r"(\d{10,13})(?:[.]\d+)?")


def read_metrics(
    path: str | os.PathLike[str],
    *,
    labels: Mapping[str, str] | None = None,
    interval_s: float | None = None,
) -> MetricsSeries:
    r"""Metrics of vLLM or SGLang over time from what was recorded of them.

    Understood, plain or gzipped: the Prometheus text format and OpenMetrics with time stamps on the samples, or one scrape after
    another with a line `# scrape UNIX_TIME` before each (or `interval_s` apart); JSON answers of Prometheus to
    `/api/v1/query_range`, one or a list; and a folder of such files, in order of their names, where a number of 10 to 13 digits in
    a name is the Unix time of its scrape (s, or ms).

    Parameters
    ----------
    path : str or os.PathLike
        File or folder.
    labels : mapping of str to str, optional
        Only series with these labels, {"model_name": "..."} or {"engine": "0"} say; all are summed otherwise.
    interval_s : float > 0, optional
        Seconds between scrapes that tell no time.

    Returns
    -------
    MetricsSeries
        One row a scrape.

    Raises
    ------
    InputError
        If the file is missing, does not parse, does not tell its times, or lacks the metrics needed.

    Examples
    --------
    >>> import tempfile
    >>> page = "vllm:num_requests_running 4\nvllm:num_requests_waiting {}\nvllm:request_success_total {}\n"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "two.prom")
    ...     _ = file.write_text(page.format(0, 10) + page.format(6, 14))
    ...     series = read_metrics(file, interval_s=2.0)
    >>> series.waiting.tolist(), series.arrivals.tolist()[1]  # 4 ended, 6 more are inside
    ([0.0, 6.0], 10.0)
    >>> series.rate_of("arrivals")
    5.0
    """
    if interval_s is not None:
        interval_s = check_number("interval_s", interval_s, above=0)
    root = Path(path)
    if not root.exists():
        raise InputError(f"{root} does not exist, must be a file or folder of recorded metrics. Check the path.")
    samples = Samples(str(root))
    files = sorted(p for p in root.iterdir() if p.is_file() and not p.name.startswith(".")) if root.is_dir() else [root]
    if not files:
        raise InputError(f"{root} is empty, must hold recorded metrics. Check the path.")
    scrapes = 0
    for file in files:
        samples.where = str(file)
        scrapes += _add_file(samples, file, interval_s, scrapes, single=len(files) == 1)
    samples.where = str(root)
    return assemble(samples, labels=labels)


def text_metrics(text: str, *, where: str, time_s: float | None = None) -> Samples:
    """The samples of one page of the text format, scraped at `time_s`."""
    samples = Samples(where)
    add_exposition(samples, text, time_s=time_s)
    return samples


def _add_file(samples: Samples, file: Path, interval_s: float | None, scrapes: int, *, single: bool) -> int:
    try:
        data = file.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}), must be text, plain or gzipped. Check the file.") from None
    if text.lstrip()[:1] in ("{", "[") and not text.lstrip().startswith("{__name__"):
        add_range_query(samples, text)
        return 0
    return add_exposition(
        samples,
        text,
        time_s=None if single else _time_in(file.name),
        interval_s=interval_s,
        offset=scrapes,
    )


def _time_in(name: str) -> float | None:
    match = _STAMP.search(name)
    if match is None:
        return None
    value = float(match[0])
    return value / 1000 if len(match[1]) == 13 else value
