"""Scraping a server at intervals and watching it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

from ..errors import InputError, check_number
from ..io.metrics.assemble import assemble
from ..io.metrics.endpoint import Endpoint
from ..io.metrics.samples import Samples
from .readings import reading
from .result import WatchPoint
from .watch import Watch, uncounted_error

MOST_FAILURES = 5
"""Scrapes in a row that may fail before the watch gives up."""

MOST_UNCOUNTED = 12
"""Scrapes in a row with requests, but without a counter of ended ones, before the watch gives up."""


def live(
    endpoint: Endpoint,
    seen: Watch,
    *,
    interval_s: float,
    for_s: float | None = None,
    labels: Mapping[str, str] | None = None,
    failed: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.time,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[WatchPoint]:
    """Scrape, show, wait; for `for_s` seconds, or for ever.

    Parameters
    ----------
    endpoint : Endpoint
        What is scraped.
    seen : Watch
        Takes the readings.
    interval_s : float > 0
        Between the beginnings of two scrapes, s.
    for_s : float > 0, optional
        How long, s.
    labels : mapping of str to str, optional
        Only series with these labels.
    failed : callable
        Called with a sentence for each scrape that failed after the first; the fifth in a row raises.
    clock, pause : callable
        Time now, and waiting, s.

    Yields
    ------
    WatchPoint

    Raises
    ------
    InputError
        If the first scrape fails, or five in a row do; if requests are there at twelve scrapes in a row, and no counter of
        ended ones (SGLang shows it once a request has ended).
    """
    check_number("interval", interval_s, above=0)
    before: Samples | None = None
    begun = due = clock()
    failures = uncounted = 0
    while True:
        try:
            now = endpoint.scrape(clock())
            assemble(now, labels=labels)  # a page without the metrics is a scrape that failed
        except InputError as error:
            failures += 1
            if before is None or failures >= MOST_FAILURES:
                raise
            failed(str(error))
        else:
            failures = 0
            series = assemble(_merged(before, now), labels=labels)
            busy = series.running[-1] + series.waiting[-1] > 0
            uncounted = uncounted + 1 if busy and math.isnan(series.finished[-1]) else 0
            if uncounted >= MOST_UNCOUNTED:
                raise uncounted_error(series)
            yield seen.update(reading(series, len(series) - 1))
            before = now
        due += interval_s
        if for_s is not None and due > begun + for_s:
            return
        pause(max(due - clock(), 0.0))


def _merged(before: Samples | None, now: Samples) -> Samples:
    """Two scrapes as one source, so that differences can be taken."""
    if before is None:
        return now
    both = Samples(now.where, {key: dict(values) for key, values in before.series.items()}, before.times | now.times)
    for key, values in now.series.items():
        both.series.setdefault(key, {}).update(values)
    return both
