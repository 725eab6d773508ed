import math

import pytest

from stability import units
from stability.errors import InputError


@pytest.mark.parametrize(
    ("parse", "text", "expected"),
    [
        (units.count, "12k", 12_000),
        (units.count, "1e3", 1000),
        (units.count, 1e3, 1000),
        (units.count, 7, 7),
        (units.count, "1_000", 1000),
        (units.tokens, "128Ki", 131_072),
        (units.tokens, "12k tokens", 12_000),
        (units.tokens, "0.5M tok", 500_000),
        (units.seconds, "50 ms", 0.05),
        (units.seconds, "50ms", 0.05),
        (units.seconds, "10 min", 600.0),
        (units.seconds, "1.5 h", 5400.0),
        (units.seconds, "2 d", 172_800.0),
        (units.seconds, "80 ns", 8e-8),
        (units.seconds, "3 µs", 3e-6),
        (units.seconds, 2, 2.0),
        (units.seconds, "2", 2.0),
        (units.size_bytes, "80GiB", 80 * 2**30),
        (units.size_bytes, "80 GB", 80e9),
        (units.size_bytes, "64 KB", 64e3),
        (units.bandwidth, "25 GB/s", 25e9),
        (units.bandwidth, "200 Gbit/s", 25e9),
        (units.bandwidth, "200Gbps", 25e9),
        (units.rate, "600 req/min", 10.0),
        (units.rate, "40/s", 40.0),
        (units.rate, "1/s", 1.0),
        (units.rate, 40, 40.0),
        (units.share, "10%", 0.1),
        (units.share, 0.1, 0.1),
        (units.number, "-1.5", -1.5),
        (units.number, ".5", 0.5),
    ],
)
def test_units_become_si(parse, text, expected):
    assert parse("x", text) == expected


def test_bare_numbers_take_the_unit_of_their_name():
    assert units.seconds("itl_ms", 50, bare="ms") == 0.05
    assert units.seconds("itl_ms", "50", bare="ms") == 0.05
    assert units.seconds("itl_ms", "50 s", bare="ms") == 50.0


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (units.seconds, "50 mz"),
        (units.seconds, "fast"),
        (units.seconds, ""),
        (units.seconds, "ms"),
        (units.seconds, True),
        (units.seconds, None),
        (units.seconds, [1]),
        (units.seconds, math.nan),
        (units.seconds, math.inf),
        (units.seconds, "nan"),
        (units.seconds, "1e400"),
        (units.count, 1.5),
        (units.count, "1.5"),
        (units.count, True),
        (units.count, 1e400),
        (units.number, 10**400),
        (units.size_bytes, "80 GW"),
        (units.bandwidth, "25 GB"),
        (units.share, "10 percent"),
    ],
)
def test_bad_values_name_value_rule_and_way_out(parse, value):
    with pytest.raises(InputError) as caught:
        parse("limit", value)
    text = str(caught.value)
    assert text.startswith(f"limit = {value!r}, must be a")
    assert text.endswith(".")
    assert "\n" not in text
