"""`stability ramp`: bursts, outages, schedules; exit codes, JSON, pictures, bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from .plans import SMALL


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL, encoding="utf-8")
    return path


def test_a_burst_that_drains(cli, plan):
    found = cli("ramp", plan, "--burst", "3", "--burst-for", "1min", "--json")
    assert found.code == 0
    assert found.json["schema"] == "stability/transient/1"
    assert found.json["load_during"] == pytest.approx(15 / 9.091, rel=1e-3)
    assert found.json["peak_backlog"] == pytest.approx(60 * (15 - 9.091), rel=0.05)
    assert found.json["recovery_s"] == pytest.approx(60 * (15 - 9.091) / (9.091 - 5), rel=0.05)
    assert "backlog gone" in cli("ramp", plan, "--burst", "3", "--burst-for", "1min").out


def test_the_default_is_a_burst_and_the_example_runs(cli, plan):
    assert cli("ramp", plan, "--json").json["end_s"] == 720.0
    assert cli("ramp", "--horizon", "5min").code == 0


def test_an_outage_that_does_not_end(cli, plan):
    found = cli("ramp", plan, "--outage", "a", "--horizon", "10min")
    assert found.code == 1
    assert "no replica is up" in found.out
    assert cli("ramp", plan, "--outage", "1", "--outage-for", "30s").code == 0
    assert cli("ramp", plan, "--outage", "a:all", "--outage-for", "30s").code == 0


def test_a_schedule_is_followed(cli, tmp_path):
    plan = tmp_path / "plan.yaml"
    windows = "[{start: 0, rate_per_s: 2}, {start: 5min, rate_per_s: 12}, {start: 10min, rate_per_s: 2}]"
    plan.write_text(SMALL.replace("rate_per_s: 5", f"schedule: {{windows: {windows}}}"), encoding="utf-8")
    found = cli("ramp", plan, "--wait", "30s", "--json")
    assert found.code == 0
    assert found.json["path"]["time_s"][-1] == 900.0
    assert found.json["peak_backlog"] == pytest.approx(300 * (12 - 9.091), rel=0.05)
    assert 300 < found.json["shed_from_s"] < 600


def test_a_picture(cli, plan, tmp_path):
    picture = tmp_path / "ramp.png"
    assert cli("ramp", plan, "--at", "10s", "--burst-for", "30s", "--plot", picture).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "can be written" in cli("ramp", plan, "--horizon", "5min", "--plot", tmp_path / "ramp.xyz").error()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--outage", "b"), "unknown pool 'b'"),
        (("--outage", "2"), "stops 2 replicas"),
        (("--outage", "0"), "--outage"),
        (("--burst", "-1"), "factor"),
        (("--burst-for", "soon"), "--burst-for"),
        (("--horizon", "0"), "horizon_s"),
        (("--burst", "2", "--burst-for", "0"), "duration_s"),
    ],
)
def test_bad_input(cli, plan, arguments, message):
    assert message in cli("ramp", plan, *arguments).error()
