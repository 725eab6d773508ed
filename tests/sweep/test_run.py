"""Sweeps: rows, resumption after a kill, retries, dead workers, backends, files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import joblib
import pytest
from joblib.parallel import ThreadingBackend

import stability as st
from stability import sweep
from stability.errors import InputError
from stability.sweep import evaluate as evaluating
from stability.sweep.run import WorkersDied

running = sys.modules["stability.sweep.run"]  # the package has a function of that name

ROWS = 12

KILLED = """\
import os, signal, sys
from stability.sweep import rows, run
append = rows.Journal.append
def append_or_die(journal, row):
    append(journal, row)
    if len(journal.rows) == int(sys.argv[3]):
        journal._file.write(b'{"key": "0123')
        journal._file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
rows.Journal.append = append_or_die
run(sys.argv[1], output=sys.argv[2], jobs=int(sys.argv[4]))
"""
"""Writes some rows and half a row more, then is killed."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of the points that are computed in this process."""
    keys: list[str] = []

    def counting(point: sweep.grid.Point, tries: int) -> dict[str, Any]:
        keys.append(point.key)
        return evaluating.evaluate(point, tries)

    monkeypatch.setattr(running, "evaluate", counting)
    return keys


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_row_is_what_analyze_and_simulate_say(grid_file: Path) -> None:
    done = sweep.run(grid_file)
    assert (done.rows, done.computed, done.reused, done.invalid, done.failed) == (ROWS, ROWS, 0, 4, 0)
    rows = lines(done.output)
    axes = ("workload.rate_per_s", "fleet[0].engine.max_num_seqs", "seed")
    order = [(rate, slots, seed) for rate in (5, 20) for slots in (8, 1000, 16) for seed in (1, 2)]
    assert [tuple(row[name] for name in axes) for row in rows] == order
    text = (grid_file.parent / "plan.yaml").read_text().replace("rate_per_s: 5", "rate_per_s: 20")
    plan = st.io.plan.plan_from_text(text.replace("max_num_seqs: 8", "max_num_seqs: 16"))
    row = rows[-1]
    assert (row["status"], row["error"]) == ("ok", None)
    report = st.analyze(plan.fleet, plan.workload)
    assert row["predicted_capacity_per_s"] == report.capacity_per_s
    assert row["predicted_verdict"] == "unstable"
    result = st.simulate(plan.fleet, plan.workload, requests=60, rng=2, keep="summary")
    assert row["simulated_throughput_per_s"] == result.throughput_per_s
    assert row["simulated_ttft_p99_s"] == result.ttft_quantile_s(0.99)


def test_a_bad_point_is_a_row(grid_file: Path) -> None:
    row = lines(sweep.run(grid_file).output)[2]
    assert row["status"] == "invalid"
    assert row["error"].startswith(
        "plan.yaml:9: fleet[0].engine.max_num_batched_tokens = 512, must be >= max_num_seqs = 1000"
    )
    assert "predicted_verdict" not in row


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_killed_sweep_goes_on_where_it_was(grid_file: Path, root: Path, counted: list[str], jobs: int) -> None:
    output, whole = grid_file.parent / "killed.jsonl", grid_file.parent / "whole.jsonl"
    for rows in (3, 7):
        command = [sys.executable, "-c", KILLED, str(grid_file), str(output), str(rows), str(jobs)]
        process = subprocess.Popen(command, cwd=root, start_new_session=True)
        code = process.wait(timeout=120)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers
        assert code == -signal.SIGKILL
        text = output.read_bytes()
        assert text.count(b"\n") == rows
        assert text.endswith(b'\n{"key": "0123')
    there = {json.loads(line)["key"] for line in output.read_bytes().splitlines()[:7]}
    done = sweep.run(grid_file, output=output)
    assert (done.computed, done.reused) == (ROWS - 7, 7)
    assert len(counted) == len(set(counted)) == ROWS - 7
    assert not there & set(counted)
    sweep.run(grid_file, output=whole)
    assert output.read_bytes() == whole.read_bytes()
    counted.clear()
    assert sweep.run(grid_file, output=output).computed == 0
    assert counted == []
    assert output.read_bytes() == whole.read_bytes()


def test_a_grid_that_grows_computes_what_is_new(grid_file: Path, counted: list[str]) -> None:
    sweep.run(grid_file)
    counted.clear()
    text = grid_file.read_text()
    grid_file.write_text(text.replace("[5, 20]", "[5, 10, 20.0]"))
    assert (sweep.run(grid_file).computed, len(counted)) == (6, 6)
    grid_file.write_text(text)
    with pytest.raises(
        InputError, match=r"has 6 rows of another grid or version, must have only rows of .*Name another"
    ):
        sweep.run(grid_file)
    done = sweep.run(grid_file, prune=True)
    assert (done.computed, len(lines(done.output))) == (0, ROWS)


def test_the_key_holds_everything_a_row_depends_on(grid_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        return next(sweep.read_grid(grid_file).points()).key

    folder, text, plan = grid_file.parent, grid_file.read_text(), (grid_file.parent / "plan.yaml").read_text()
    (folder / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,10\n4,300,30\n")
    keys = [key()]
    for changed in ("requests: 61", "requests: 60, saturated: true"):
        grid_file.write_text(text.replace("requests: 60", changed))
        keys.append(key())
    for changed in ("analyze: false\n", "latency: true\n"):
        grid_file.write_text(text + changed)
        keys.append(key())
    grid_file.write_text(text.replace("seeds: [1", "seeds: [3"))
    keys.append(key())
    grid_file.write_text(text)
    (folder / "plan.yaml").write_text(plan.replace("output: 80", "output: 81"))
    keys.append(key())
    (folder / "plan.yaml").write_text(plan.replace("{prompt: 100, output: 80}", "{trace: trace.csv}"))
    keys.append(key())
    (folder / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,100,10\n4,300,31\n")
    keys.append(key())
    monkeypatch.setattr("stability.sweep.grid.version", lambda: "another")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    (folder / "plan.yaml").write_text("# the same\n" + plan.replace("rate_per_s: 5", "rate_per_s: 7"))
    monkeypatch.undo()
    assert key() == keys[0]  # the axis sets the rate


def failing(times: int) -> Callable[[Any], dict[str, Any]]:
    """Figures that fail so many times first."""
    left = [times]
    figures = evaluating._figures

    def fail(point: Any) -> dict[str, Any]:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("the disk is away")
        return figures(point)

    return fail


def test_what_fails_for_a_while_is_tried_again(grid_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sweep.run(grid_file, output=grid_file.parent / "whole.jsonl").output.read_bytes()
    monkeypatch.setattr(evaluating, "PAUSE_S", 0)
    monkeypatch.setattr(evaluating, "_figures", failing(2))
    assert sweep.run(grid_file, tries=3).failed == 0
    assert (grid_file.parent / "rows.jsonl").read_bytes() == whole
    (grid_file.parent / "rows.jsonl").unlink()
    monkeypatch.setattr(evaluating, "_figures", failing(3))
    done = sweep.run(grid_file, tries=3)
    assert (done.failed, done.invalid) == (1, 4)
    row = lines(done.output)[0]
    assert (row["status"], row["error"]) == ("failed", "OSError: the disk is away")
    done = sweep.run(grid_file)
    assert (done.computed, done.failed) == (1, 0)
    assert done.output.read_bytes() == whole


def test_half_a_simulation_is_no_row(grid_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted:
        complete = False

    monkeypatch.setattr("stability.sim.engine.simulate", lambda *_, **__: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        sweep.run(grid_file)
    assert (grid_file.parent / "rows.jsonl").read_bytes() == b""


def test_dead_workers_are_replaced(grid_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = running._rows
    lives = iter([2, 0, 1, 0, 0])

    def dying(points: Any, jobs: Any, tries: int) -> Any:
        alive = rows(points, jobs, tries)
        for _ in range(next(lives)):
            yield next(alive)
        raise RuntimeError("a worker was killed")

    monkeypatch.setattr(running, "_rows", dying)
    with pytest.raises(WorkersDied, match=r"workers died 3 times in a row \(RuntimeError\), must finish a row between"):
        sweep.run(grid_file, tries=3)
    assert next(lives, None) is None
    assert len(lines(grid_file.parent / "rows.jsonl")) == 3
    monkeypatch.setattr(running, "_rows", rows)
    assert sweep.run(grid_file).computed == ROWS - 3


class Listing(ThreadingBackend):  # type: ignore[misc]
    """As Ray's and multiprocessing's: results come as lists."""

    supports_return_generator = False


def test_backends_that_only_give_lists(grid_file: Path) -> None:
    whole = sweep.run(grid_file, output=grid_file.parent / "whole.jsonl").output.read_bytes()
    joblib.register_parallel_backend("listing", Listing)
    with joblib.parallel_config(backend="listing", n_jobs=2):
        assert sweep.run(grid_file).output.read_bytes() == whole


@pytest.mark.parametrize("name", ["loky", "dask", "ray"])
@pytest.mark.filterwarnings("default")  # of the clusters' own
def test_backends_give_the_same_rows(grid_file: Path, name: str) -> None:
    if name != "loky":
        pytest.importorskip({"dask": "distributed", "ray": "ray"}[name], reason=f"needs {name}, an optional extra")
    whole = sweep.run(grid_file, output=grid_file.parent / "whole.jsonl").output.read_bytes()
    with sweep.backend(name, jobs=2):
        assert sweep.run(grid_file).output.read_bytes() == whole


def test_one_sweep_at_a_time(grid_file: Path) -> None:
    output = grid_file.parent / "rows.jsonl"
    with (
        sweep.rows.Journal(output),
        pytest.raises(InputError, match="is being written by another sweep, must be by one at a time"),
    ):
        sweep.run(grid_file)


@pytest.mark.parametrize("text", ["hello", "hello\n", "[1]\n", '{"key": 1}\n', '{"key": "a", "status": "ok"}\n\n'])
def test_other_files_are_left_alone(grid_file: Path, text: str) -> None:
    output = grid_file.parent / "rows.jsonl"
    output.write_text(text)
    with pytest.raises(InputError, match=r"rows.jsonl:[12] is no row of a sweep"):
        sweep.run(grid_file)
    assert output.read_text() == text


def test_parquet_holds_the_same_figures(grid_file: Path) -> None:
    pytest.importorskip("pyarrow", reason="needs pyarrow, an optional extra")
    grid_file.write_text(
        grid_file.read_text().replace("seeds:", "  workload.lengths.output: [80, {uniform: [10, 90]}]\nseeds:")
    )
    done = sweep.run(grid_file, output=grid_file.parent / "rows.parquet")
    frame, plain = done.to_frame(), sweep.read(grid_file.parent / "rows.jsonl")
    assert len(frame) == 2 * ROWS
    assert frame.columns.tolist() == plain.columns.tolist()
    assert frame["simulated_itl_mean_s"].equals(plain["simulated_itl_mean_s"])
    assert frame["workload.lengths.output"].tolist()[:3:2] == ["80", '{"uniform": [10, 90]}']
    assert sweep.run(grid_file, output=grid_file.parent / "rows.parquet").computed == 0


def test_an_unfinished_file_can_be_read(grid_file: Path) -> None:
    done = sweep.run(grid_file)
    text = done.output.read_bytes()
    done.output.write_bytes(text[:-9])
    assert len(sweep.read(done.output)) == ROWS - 1
    assert len(done.to_frame()) == ROWS - 1


def test_predictions_need_no_compiler(grid_file: Path, root: Path) -> None:
    text = grid_file.read_text().replace("seeds: [1, 2]\nsimulate: {requests: 60}\n", "latency: true\n")
    grid_file.write_text(text)
    code = "import sys; from stability import sweep; sweep.run(sys.argv[1]); sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(grid_file)], cwd=root, check=False).returncode == 0
    rows = lines(grid_file.parent / "rows.jsonl")
    assert [row["seed"] for row in rows] == [None] * 6
    assert rows[0]["predicted_ttft_mean_s"] > 0


def test_arguments(grid_file: Path) -> None:
    with pytest.raises(InputError, match=r"jobs = 0, must be an integer >= 1. -1 takes every processor"):
        sweep.run(grid_file, jobs=0)
    with pytest.raises(InputError, match="tries = 0"):
        sweep.run(grid_file, tries=0)
    with pytest.raises(InputError, match=r"output = '.*rows.csv', must end in .jsonl or .parquet"):
        sweep.run(grid_file, output=grid_file.parent / "rows.csv")
    with pytest.raises(InputError, match="names no output, must be told where rows go"):
        sweep.run(sweep.example_grid())
    with pytest.raises(InputError, match="is no file, must be the output of a sweep"):
        sweep.read(grid_file.parent / "absent.jsonl")
