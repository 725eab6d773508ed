"""Grid files: ranges, places in plans, and every way of getting them wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stability import sweep
from stability.errors import InputError, PlanSyntaxError
from stability.sweep.keys import canonical, parse_key, with_value


def axis(values: str) -> tuple[object, ...]:
    text = f"schema: stability/grid/1\naxes: {{workload.rate_per_s: {values}}}\n"
    return sweep.grid_from_text(text).axes["workload.rate_per_s"]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ("[3, 40/s, 5.5]", (3, "40/s", 5.5)),
        ("{from: 1, to: 3, steps: 3}", (1, 2, 3)),
        ("{from: 3, to: 1, steps: 5}", (3, 2.5, 2, 1.5, 1)),
        ("{from: 16, to: 1024, steps: 7, log: true}", (16, 32, 64, 128, 256, 512, 1024)),
        ("{from: 0.1, to: 0.3, steps: 3}", (0.1, 0.2, 0.3)),
        ("{from: 7, to: 7, steps: 1}", (7,)),
    ],
)
def test_values_of_an_axis(values: str, found: tuple[object, ...]) -> None:
    assert axis(values) == found
    assert [type(value) for value in axis(values)] == [type(value) for value in found]


def test_keys() -> None:
    assert parse_key("fleet[10].engine.max_num_seqs") == ("fleet", 10, "engine", "max_num_seqs")
    for text in ("", ".a", "a.", "a..b", "a[b]", "a[0", "[0]", "a b", "a[0]b"):
        with pytest.raises(InputError, match="is no place in a plan, must look like"):
            parse_key(text)


def test_values_are_put_in_a_copy() -> None:
    data = {"a": [{"b": 1}, {"b": 2}]}
    assert with_value(data, ("a", 1, "c", "d"), 3) == {"a": [{"b": 1}, {"b": 2, "c": {"d": 3}}]}
    assert data == {"a": [{"b": 1}, {"b": 2}]}


def test_equal_values_have_one_text() -> None:
    assert canonical({"b": 1000.0, "a": [0.1, True, None]}) == canonical({"a": [0.1, True, None], "b": 1000})
    assert canonical([1, "1", True]) == '[1,"1",true]'


def test_the_size_is_told() -> None:
    text = "schema: stability/grid/1\naxes: {workload.rate_per_s: [1, 2, 3]}\n"
    assert sweep.grid_from_text(text).size() == "3 points = 3 rows"
    more = text + "seeds: {from: 1, to: 20, steps: 20}\nsimulate: {requests: 1k}\n"
    assert sweep.grid_from_text(more).size() == "3 points x 20 seeds = 60 rows, 60,000 simulated requests"
    assert len(sweep.grid_from_text(more)) == len(list(sweep.grid_from_text(more).points())) == 60
    many = more.replace("20, steps: 20", "1M, steps: 1M").replace("[1, 2, 3]", "{from: 1, to: 99, steps: 99}")
    with pytest.raises(InputError, match=r"99,000,000 rows|must be <= 10000000 rows. Take fewer values"):
        sweep.grid_from_text(many)


WRONG = {
    "  workload.rat_per_s: [1]": "unknown key, must be one of the schema's. Did you mean 'rate_per_s'?",
    "  fleet[0.replicas: [1]": "is no place in a plan, must look like workload.rate_per_s or fleet[0].replicas.",
    "  fleet[2].replicas: [1]": "[2] asks for an item of a list of 1, must be one that the base plan holds. Count from 0.",
    "  workload[0]: [1]": "[0] asks for an item of no list, must be one that the base plan holds.",
    "  fleet[0].replicas.x: [1]": "x is a key inside 8, must be inside a mapping.",
    "  fleet[0].engine.admission: [a, b]": " = 'a', must be 'reserve', 'prompt_gate' or 'chunk_gate'.",
    "  fleet[0].replicas: [2, 2.0]": "the same value stands there twice, must stand once. Remove one.",
    "  fleet[0].replicas: 5": " = 5, must be a list. Give a list of values.",
    "  fleet[0].replicas: []": " = [], must be a list of at least 1.",
    "  fleet[0].replicas: {from: 1, to: 2}": "a range with from and to, must have from, to and steps.",
    "  fleet[0].replicas: {from: 0, to: 2, steps: 3, log: true}": "must be > 0 where log is true. Move the ends.",
    "  fleet[0].replicas: {values: [1], log: true}": "both a list of values and a range, must be one of them.",
    "  workload: [{rate_per_s: 3, lengths: azure-conv-2023}]": "",
    "  workload.rate_per_s: [1]\n  workload: [1]": "lies within the axis workload.rate_per_s or around it, must not.",
    "seeds: [1]": "given, but nothing is simulated, must be left out then.",
    "simulate: {requests: 5}\nseeds: [1, 1]": " = [1, 1], must be different integers >= 0.",
    "simulate: {requests: 5}\nseeds: [1.5]": " = [1.5], must be different integers >= 0.",
    "simulate: {saturated: true}": "neither requests nor horizon_s, must have one of them.",
    "simulate: {requests: 5, router: x}": "router = 'x', must be one of round_robin, random,",
    "output: rows.csv": " = 'rows.csv', must end in .jsonl or .parquet. Rename it.",
    "plan: absent.yaml": "absent.yaml does not exist, must be a plan file. Check the path.",
    "analyze: false": "nothing to compute, must be analyze, latency or simulate. Ask for one.",
    "outputs: a": "unknown key, must be one of the schema's. Did you mean 'output'?",
}


@pytest.mark.parametrize(("line", "message"), WRONG.items())
def test_what_is_wrong_is_said_with_its_place(line: str, message: str) -> None:
    top = "schema: stability/grid/1\naxes:\n  fleet[0].engine.max_num_seqs: [64]\n"
    if not message:
        assert len(sweep.grid_from_text(top + line, name="g.yaml")) == 1
        return
    with pytest.raises(InputError) as found:
        sweep.grid_from_text(top + line, name="g.yaml")
    assert message in str(found.value)
    place = 1 if line.startswith("analyze") else 3 + line.count("\n") + 1
    assert str(found.value).startswith(f"g.yaml:{place}: ")


def test_every_problem_is_in_one_report() -> None:
    text = "schema: stability/grid/1\naxes:\n  a b: [1]\n  workload.x: [1]\nseeds: [1]\noutput: x\n"
    with pytest.raises(InputError) as found:
        sweep.grid_from_text(text, name="g.yaml")
    assert [line.split(": ")[0] for line in str(found.value).splitlines()] == [f"g.yaml:{n}" for n in (3, 4, 5, 6)]


def test_files_that_are_no_grids(tmp_path: Path) -> None:
    for text, message in {
        "": "is empty, must hold a grid. Start from an example: `stability sweep --example` prints one.",
        "3": "holds a int, must hold a mapping with the keys schema and axes.",
        "a: [": "not valid YAML",
    }.items():
        with pytest.raises(PlanSyntaxError, match=re.escape(message)):
            sweep.grid_from_text(text)
    with pytest.raises(PlanSyntaxError, match=r"absent.yaml does not exist, must be a grid file"):
        sweep.read_grid(tmp_path / "absent.yaml")


def test_grids_of_the_documentation(root: Path, tmp_path: Path) -> None:
    grids = re.findall(
        r"^```yaml\n(.+?)^```", (root / "docs" / "guides" / "sweeps.md").read_text(encoding="utf-8"), re.M | re.S
    )
    assert grids
    for text in grids:
        (tmp_path / "plan.yaml").write_text((root / "stability/io/plan/examples/chat.yaml").read_text())
        assert len(sweep.grid_from_text(text, folder=tmp_path)) > 1
