"""The Prometheus text format and OpenMetrics, one scrape or many after another.

Lines are parsed by `prometheus_client`. What tells the scrapes of a file apart, in this order:

1. time stamps on the samples (`name{...} value stamp`): milliseconds in the text format, seconds in OpenMetrics (a file that
   holds a line `# EOF`), as both standards say. `promtool tsdb dump-openmetrics` writes the latter; `promtool tsdb dump`, with
   `{__name__="..."}`, the former.
2. comment lines `# scrape TIME` (Unix time, s) before each scrape, as this loop writes them:
   `while sleep 5; do echo "# scrape $(date +%s.%N)"; curl -s localhost:8000/metrics; done >> recording.prom`
3. otherwise a new scrape begins where a series comes up again, or after `# EOF`; then `interval_s` must say how far apart they are.

https://prometheus.io/docs/instrumenting/exposition_formats/, https://prometheus.io/docs/specs/om/open_metrics_spec/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import InputError
from .names import CACHE_CONFIG, ENGINES, base_of, plain, spellings
from .samples import Samples, labels_of

KNOWN = frozenset(name for engine in ENGINES for name in spellings(engine)) | {CACHE_CONFIG}

_MARK = re.compile(r"#\s*scrape\s+(\S+)\s*$")
_DUMPED = re.compile(r'\{__name__="([^"]+)"(?:,\s*)?')
_EXEMPLAR = re.compile(r"\s#\s\{.*$")


def wanted(name: str) -> bool:
    """Whether a sample's name is one that is read."""
    name = plain(name)
    return name in KNOWN or base_of(name) in KNOWN


@dataclass(slots=True)
class _Scrape:
    """Lines of one scrape, with their numbers, and its time if marked."""

    time_s: float | None
    lines: list[tuple[int, str]] = field(default_factory=list)


def add_exposition(
    samples: Samples, text: str, *, time_s: float | None = None, interval_s: float | None = None, offset: int = 0
) -> int:
    """Add the samples of a text to `samples` and return how many scrapes it held.

    Parameters
    ----------
    samples : Samples
        What they are added to; `samples.where` names the source in messages.
    text : str
        One scrape or several.
    time_s : float, optional
        Time of a single scrape without time stamps, s.
    interval_s : float > 0, optional
        Seconds between scrapes that tell no time.
    offset : int
        Scrapes without a time that came before, for `interval_s`.

    Raises
    ------
    InputError
        If a line does not parse, or nothing tells when the scrapes were taken.
    """
    scrapes, openmetrics = _split(samples.where, text)
    scale = 1000.0 if openmetrics else 1.0  # the parser divides stamps by 1000
    untimed = 0
    for scrape in scrapes:
        when = scrape.time_s
        if when is None and time_s is not None and len(scrapes) == 1:
            when = time_s
        if when is None and interval_s is not None:
            when = (offset + untimed) * interval_s
            untimed += 1
        for name, labels, value, stamp in _parsed(samples.where, scrape.lines):
            at = stamp * scale if stamp is not None else when
            if at is None:
                raise InputError(
                    f"{samples.where} does not tell when its scrapes were taken, must do so. Give the interval between them "
                    '(--interval, interval_s), or write a line "# scrape UNIX_TIME" before each.'
                )
            samples.add(plain(name), labels_of(labels.items()), at, value)
    return len(scrapes)


def _split(where: str, text: str) -> tuple[list[_Scrape], bool]:
    """The lines that matter, by scrape; and whether the text is OpenMetrics."""
    scrapes = [_Scrape(None)]
    seen: set[str] = set()
    openmetrics = ended = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("#"):
            mark = _MARK.match(line)
            if mark is not None:
                scrapes.append(_Scrape(_time_of(where, number, mark[1])))
                seen.clear()
            elif line == "# EOF":
                openmetrics = ended = True
            continue
        if line.startswith("{"):
            line = _DUMPED.sub(r"\1{", line, count=1)
        name = re.split(r"[{\s]", line, maxsplit=1)[0]
        if not name or not wanted(name):
            continue
        line = _EXEMPLAR.sub("", line)
        head, _, tail = line.rpartition("}")
        words = tail.split()
        series = head if head else name
        stamped = len(words) > (1 if head else 2)
        if not stamped and (series in seen or ended):
            scrapes.append(_Scrape(None))
            seen.clear()
        ended = False
        seen.add(series)
        scrapes[-1].lines.append((number, line))
    return [scrape for scrape in scrapes if scrape.lines], openmetrics


def _time_of(where: str, number: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(
            f"{where}:{number}: time {text!r} of a scrape, must be seconds since 1970. Write `# scrape $(date +%s.%N)`."
        ) from None


def _parsed(where: str, lines: list[tuple[int, str]]) -> Iterator[tuple[str, dict[str, str], float, float | None]]:
    """Name, labels, value and stamp (s, as if it were milliseconds) of each line."""
    from prometheus_client.parser import text_string_to_metric_families

    def parse(text: str) -> list[tuple[str, dict[str, str], float, float | None]]:
        return [
            (
                sample.name,
                sample.labels,
                float(sample.value),
                None if sample.timestamp is None else float(sample.timestamp),
            )
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    try:
        yield from parse("".join(f"{line}\n" for _, line in lines))
    except (ValueError, IndexError, KeyError):
        for number, line in lines:
            try:
                parse(f"{line}\n")
            except (ValueError, IndexError, KeyError):
                raise InputError(
                    f"{where}:{number}: {line[:80]!r} is no sample, must be `name{{labels}} value [time]`. Mend or drop the line."
                ) from None
        raise
