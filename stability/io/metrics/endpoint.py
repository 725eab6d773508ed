"""Scraping a /metrics endpoint over HTTP."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from ...errors import InputError, check_integer, check_number
from .reading import text_metrics
from .samples import Samples

MOST_BYTES = 64 << 20
"""Largest page that is read."""


def is_address(target: str) -> bool:
    """Whether a target is an http(s) address rather than a file."""
    return target.casefold().startswith(("http://", "https://"))


class Endpoint:
    """A server's /metrics page.

    Parameters
    ----------
    address : str
        http:// or https://; without a path, /metrics is meant.
    timeout_s : float > 0
        Longest wait for an answer, s.
    retries : int >= 0
        Further attempts, a second apart and then twice as long each time, before giving up.
    pause : callable
        Called with seconds to wait.
    """

    def __init__(
        self, address: str, *, timeout_s: float = 5.0, retries: int = 2, pause: Callable[[float], None] = time.sleep
    ) -> None:
        self.address = address if "/" in address.split("://", 1)[1].rstrip("/") else f"{address.rstrip('/')}/metrics"
        self.timeout_s = check_number("timeout", timeout_s, above=0)
        self.retries = check_integer("retries", retries, at_least=0)
        self._pause = pause

    def scrape(self, time_s: float | None = None) -> Samples:
        """The page now, at `time_s` (Unix time by default).

        Raises
        ------
        InputError
            If the server does not answer, answers with an error, or not with metrics.
        """
        text = self._text()
        return text_metrics(text, where=self.address, time_s=time.time() if time_s is None else time_s)

    def _text(self) -> str:
        reason = ""
        for attempt in range(self.retries + 1):
            if attempt:
                self._pause(2.0 ** (attempt - 1))
            try:
                request = urllib.request.Request(self.address, headers={"Accept": "text/plain;version=0.0.4"})
                with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:
                    return str(answer.read(MOST_BYTES).decode("utf-8"))
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}"
                error.close()
                if error.code < 500:
                    break
            except (urllib.error.URLError, OSError, ValueError) as error:
                reason = str(getattr(error, "reason", error))
        raise InputError(
            f"{self.address} does not answer ({reason}), must be a reachable /metrics page. Check host, port and path"
            " (vLLM: port 8000; SGLang: port 30000 with --enable-metrics)."
        )
