"""The answer of `check` as one HTML page that opens anywhere: pictures first, no network, no scripts."""

from .page import html_report as html_report
