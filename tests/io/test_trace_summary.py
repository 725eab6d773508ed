import json
import math

import numpy as np
import pytest

from stability.io.traces import Trace


def trace_of(arrival, prompt, output, **more):
    return Trace(
        arrival_s=np.array(arrival, float), prompt_tokens=np.array(prompt), output_tokens=np.array(output), **more
    )


def test_hand_numbers():
    found = trace_of([0, 0.5, 0.75, 3], [1, 2, 3, 6], [4, 4, 2, 3]).describe()
    assert (found.rows, found.span_s, found.rate_per_s) == (4, 3.0, 1.0)
    gaps = [0.5, 0.25, 2.25]
    assert found.gap_cv == pytest.approx(np.std(gaps) / 1.0)
    seconds, minutes, tens = found.windows
    # whole windows [0, 1), [1, 2), [2, 3) hold 3, 0 and 0 arrivals
    assert (seconds.window_s, seconds.windows, seconds.peak_per_s) == (1.0, 3, 3.0)
    assert seconds.dispersion == pytest.approx(2.0)
    assert (minutes.peak_per_s, minutes.dispersion, tens.windows) == (None, None, 0)
    assert found.prompt.mean_tokens == 3.0
    assert found.prompt.cv == pytest.approx(math.sqrt(3.5) / 3)
    assert (found.prompt.min_tokens, found.prompt.max_tokens) == (1, 6)
    assert dict(found.prompt.percentiles)[50.0] == 2.5
    assert found.pearson == pytest.approx(np.corrcoef([1, 2, 3, 6], [4, 4, 2, 3])[0, 1])
    # ranks 1 2 3 4 against 3.5 3.5 1 2
    assert found.spearman == pytest.approx(np.corrcoef([1, 2, 3, 4], [3.5, 3.5, 1, 2])[0, 1])


def test_poisson_arrivals_have_dispersion_one():
    rng = np.random.default_rng(5)
    arrival = np.cumsum(rng.exponential(0.01, 400_000))
    tokens = rng.integers(1, 100, 400_000)
    found = trace_of(arrival, tokens, tokens[::-1]).describe()
    # sd of the dispersion over n windows is sqrt(2/n): 0.022 of 4000 windows; five of them leave 6e-7
    assert found.windows[0].dispersion == pytest.approx(1, abs=0.11)
    assert found.gap_cv == pytest.approx(1, abs=0.01)
    assert found.rate_per_s == pytest.approx(100, rel=0.01)
    assert abs(found.spearman) < 0.01


def test_peaks_of_a_burst():
    quiet = np.arange(0, 1800, 10.0)
    burst = np.arange(600, 660, 0.1)
    found = trace_of(np.sort(np.concatenate((quiet, burst))), np.full(780, 5), np.full(780, 5)).describe()
    assert found.windows[1].peak_per_s == pytest.approx(10.1)
    assert found.windows[2].peak_per_s == pytest.approx(660 / 600)
    assert found.windows[1].dispersion > 100
    assert found.pearson is None
    assert found.spearman is None


def test_all_at_once():
    found = trace_of([5, 5], [1, 2], [2, 1]).describe()
    assert found.rate_per_s is None
    assert found.gap_cv is None
    assert "mean rate      - /s" in found.summary()


def test_forms_of_a_summary():
    found = trace_of([0, 1, 2], [1, 2, 3], [3, 2, 2], notes=("a <note>",), source="t.csv").describe()
    text = found.summary()
    assert text.splitlines()[0] == "t.csv"
    assert "note: a <note>" in text
    assert "p99.9" in text
    assert found._repr_html_().count("&lt;note&gt;") == 1
    assert repr(found) == "TraceSummary(3 requests, 1/s, prompt mean 2, output mean 2)"
    tagged = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert tagged["schema"] == "stability/trace-summary/1"
    assert tagged["prompt"]["mean_tokens"] == 2.0
