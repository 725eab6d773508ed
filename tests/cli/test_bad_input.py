"""Bad input: one clear error on standard error, exit code 2, never a traceback."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from .plans import CATALOG, HEADER, SMALL, with_trace


def one_line(message: str) -> str:
    """A single problem is a single line of what is wrong, the rule and the way out."""
    assert "\n" not in message
    assert " must " in message or "unknown" in message
    assert message.endswith((".", "?"))
    return message


@pytest.mark.parametrize(
    ("rows", "place", "part"),
    [
        ("", "", "holds no requests, must hold at least one"),
        ("0,-5,3\n", ":2", "prompt_tokens = -5, must be between 0 and"),
        ("0,5,3\n1,5,-3\n", ":3", "output_tokens = -3, must be between 0 and"),
        ("0,nan,3\n", ":2", "prompt_tokens = nan, must be between 0 and"),
        ("0,1e15,3\n", ":2", "prompt_tokens = 1e+15, must be between 0 and"),
        ("0,1.5,3\n", ":2", "prompt_tokens = 1.5, must be a whole number"),
        ("0,x,3\n", ":2", "prompt_tokens = 'x', must be a number"),
        ("0,5\n", ":2", "2 fields, must be 3"),
        ("5,10,3\n1,2,3\n", ":3", "arrival at 1 s after one at 5 s, must not decrease"),
        ("-5,10,3\n", ":2", "arrival_s = -5, must be >= 0"),
        ("0,10,3\ninf,2,3\n", ":3", "arrival_s = inf, must be a finite time"),
        ("0,10,0\n", "", "without prompt or output tokens, must hold one with both"),
    ],
)
def test_bad_traces(cli, tmp_path: Path, rows: str, place: str, part: str) -> None:
    trace, plan = tmp_path / "t.csv", tmp_path / "plan.yaml"
    trace.write_text(HEADER + rows)
    plan.write_text(with_trace("t.csv"))
    message = one_line(cli("trace", trace).error())
    assert message.startswith(f"{trace}{place}")
    assert part in message
    inside = one_line(cli("check", plan).error())
    assert inside.startswith(f"{plan}:3: workload.lengths: ")
    assert inside.endswith(message)


@pytest.mark.parametrize("command", ["check", "trace"])
def test_files_that_are_not_there(cli, tmp_path: Path, command: str) -> None:
    missing = tmp_path / "missing.yaml"
    assert f"{missing} does not exist, must be a " in one_line(cli(command, missing).error())
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    assert f"{folder} is a folder, must be a " in one_line(cli(command, folder).error())


@pytest.mark.parametrize("command", ["check", "trace"])
def test_empty_files(cli, tmp_path: Path, command: str) -> None:
    empty = tmp_path / "empty.yaml"
    empty.write_text("")
    assert f"{empty} is empty, must hold a" in one_line(cli(command, empty).error())


@pytest.mark.parametrize("command", ["check", "trace"])
def test_files_that_are_not_utf8(cli, tmp_path: Path, command: str) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes((HEADER if command == "trace" else SMALL).encode() + b"# caf\xe9\n")
    message = cli(command, path).error()
    assert "byte 0xe9 is not UTF-8" in message


def test_a_broken_archive(cli, tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "0,1,1\n" * 10_000).encode())[:60])
    assert str(path) in one_line(cli("trace", path).error())


def test_an_unknown_header_and_an_unknown_format(cli, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b,c\n1,2,3\n")
    assert "is no known header" in cli("trace", path).error()
    assert "format = 'azur', must be one of" in cli("trace", path, "--format", "azur").error()


@pytest.mark.parametrize(
    ("base", "old", "new", "line", "part"),
    [
        (SMALL, "rate_per_s: 5", "rate_per_s: 0", 3, "rate_per_s = 0, must be > 0"),
        (SMALL, "rate_per_s: 5", "rate_per_s: 5\n  rate_per_s: 6", 4, "the key 'rate_per_s' stands in line 3 already"),
        (SMALL, "rate_per_s: 5", "rat_per_s: 5", 3, "workload.rat_per_s: unknown key"),
        (SMALL, "prompt: 100", "prompt: -100", 4, "must be >= 1"),
        (SMALL, "prompt: 100", "prompt: .nan", 4, "must be a whole number of tokens"),
        (SMALL, "prompt: 100", "prompt: 1e15", 4, "must be <= 2.14748e+09"),
        (
            SMALL,
            "kv_capacity_tokens: 100k",
            "kv_capacity_tokens: 100k\n    replicas: 0",
            9,
            "replicas = 0, must be >= 1",
        ),
        (SMALL, "stability/plan/1", "stability/plan/9", 1, "must be 'stability/plan/1'"),
        (SMALL, "max_num_seqs: 8", "max_num_seqs: 600", 9, "max_num_batched_tokens"),
        (CATALOG, "Llama-3.1-8B", "Llama-3.1-70B", 6, "leaves no room for KV on H100-SXM"),
        (CATALOG, "H100-SXM", "H100-SXN", 7, "unknown GPU 'H100-SXN'. Did you mean H100-SXM"),
    ],
)
def test_bad_plans(cli, tmp_path: Path, base: str, old: str, new: str, line: int, part: str) -> None:
    path = tmp_path / "plan.yaml"
    assert old in base
    path.write_text(base.replace(old, new))
    message = one_line(cli("check", path).error())
    assert message.startswith(f"{path}:{line}: ")
    assert part in message


@pytest.mark.parametrize("headroom", ["-0.1", "1", "1.5", "150%", ".nan", "ten"])
def test_headroom_out_of_range(cli, tmp_path: Path, headroom: str) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL + f"targets: {{headroom: {headroom}}}\n")
    assert "targets.headroom = " in one_line(cli("check", path).error())


def test_scientific_notation_is_a_number(cli, tmp_path: Path) -> None:
    """Plain YAML reads `1e3` as a text; here it is a thousand."""
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL.replace("rate_per_s: 5", "rate_per_s: 1e3"))
    found = cli("check", path, "--json")
    assert found.code == 1
    assert found.json["report"]["rate_per_s"] == 1000


def test_a_request_longer_than_the_kv_cache(cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL.replace("prompt: 100", "prompt: 200k"))
    message = one_line(cli("check", path).error())
    assert message.startswith(f"{path}:4: class 'requests' has requests")
    assert "requests that take up to 200080 KV tokens, must fit in the 100000 of pool 'a'" in message


def test_errors_of_the_analysis_name_the_line_of_their_class_or_pool(cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    classes = """\
  classes:
    - {name: short, rate_per_s: 1, lengths: {prompt: 100, output: 80}}
    - name: "it's long"
      rate_per_s: 1
      lengths: {prompt: 200k, output: 80}
"""
    path.write_text(SMALL.replace("  rate_per_s: 5\n  lengths: {prompt: 100, output: 80}\n", classes))
    for command in ("check", "tune", "ramp", "simulate", "validate"):
        message = one_line(cli(command, path).error())
        where = 9 if command == "simulate" else 5  # which only knows the request and the pool
        assert message.startswith(f"{path}:{where}: "), (command, message)
    good = tmp_path / "good.yaml"
    good.write_text(SMALL)
    for pair in ((good, path), (path, good)):
        assert cli("compare", *pair).error().startswith(f'{path}:5: class "it\'s long" has requests')


@pytest.mark.parametrize(("rows", "code"), [("5,10,3\n", 3), ("5,10,3\n5,20,3\n", 0)])
def test_a_replay_of_one_instant_has_no_rate(cli, tmp_path: Path, rows: str, code: int) -> None:
    """Given a rate, two requests give a verdict; of a single one nothing is known but itself."""
    (tmp_path / "t.csv").write_text(HEADER + rows)
    path = tmp_path / "plan.yaml"
    path.write_text(with_trace("t.csv"))
    message = one_line(cli("check", path).error())
    assert "arrive at one instant, must come at a rate. Give one" in message
    assert "once, must span some time to be scaled" in one_line(cli("check", path, "--rate", 5).error())
    path.write_text(with_trace("t.csv").replace("workload:\n", "workload:\n  arrivals: poisson\n  rate_per_s: 5\n"))
    assert cli("check", path).code == code


def test_all_problems_of_a_plan_come_at_once(cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(SMALL.replace("rate_per_s: 5", "rate_per_s: -1").replace("base_s: 10 ms", "base_s: 10 mz"))
    message = cli("check", path).error()
    assert [line.split(": ")[0] for line in message.splitlines()] == [f"{path}:3", f"{path}:7"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["chek"], "unknown command 'chek'. Did you mean check"),
        (["check", "--foo"], "No such option"),
        (["check", "a.yaml", "b.yaml"], "unexpected extra argument"),
        (["compare", "a.yaml"], "Missing argument 'SECOND'"),
        (["trace"], "Missing argument 'FILE'"),
        (["catalog", "gpu"], "unknown kind of catalog 'gpu'. Did you mean gpus"),
        (["check", "plan.txt"], "ends in '.txt', must end in"),
    ],
)
def test_bad_usage(cli, arguments: list[str], part: str) -> None:
    assert part in cli(*arguments).error()
