import math

import pytest

from stability.io.plan.yaml import parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("1.5E-4", 1.5e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-12", -12),
        ("0123", 123),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'1e3'", "1e3"),
        ('"true"', "true"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        (".inf", math.inf),
        ("50 ms", "50 ms"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    data, _ = parse_yaml(f"a: {text}", "x.yaml")
    assert data == {"a": value}
    assert type(data["a"]) is type(value)


def test_lines_of_all_values():
    _, lines = parse_yaml("a:\n  - 1\n  - b: 2\n    c:\n      [3,\n       4]\n", "x.yaml")
    assert lines == {
        (): 1,
        ("a",): 1,
        ("a", 0): 2,
        ("a", 1): 3,
        ("a", 1, "b"): 3,
        ("a", 1, "c"): 4,
        ("a", 1, "c", 0): 5,
        ("a", 1, "c", 1): 6,
    }


def test_aliases_repeat_values():
    data, _ = parse_yaml("a: &x {b: 1}\nc: *x\n", "x.yaml")
    assert data == {"a": {"b": 1}, "c": {"b": 1}}
