"""`stability init`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from stability.io.plan import read_plan

FLAGS = ("--gpu", "H100-SXM", "--model", "Llama-3.1-8B", "--rate", "600/min", "--lengths", "1k/200")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "plan.yaml"


def test_a_plan_from_options(cli, out: Path) -> None:
    options = ("--replicas", 2, "--tensor-parallel", 2, "--itl", "50ms", "--ttft-p99", "2 s", "--headroom", "10%")
    engine = ("--max-num-seqs", 64, "--max-num-batched-tokens", "4k", "--admission", "reserve", "--watermark", "1%")
    found = cli("init", *FLAGS, *options, *engine, "--pool", "chat: 1", "--out", out)
    assert (found.code, found.err) == (0, "")
    assert f"  stability check {out} " in found.out
    plan = read_plan(out)
    (pool,) = plan.fleet.pools
    assert (pool.name, pool.replicas, pool.replica.gpus, pool.replica.gpu) == ("chat: 1", 2, 2, "H100-SXM")
    settings = pool.replica.engine
    assert (settings.max_num_seqs, settings.max_num_batched_tokens, settings.admission) == (64, 4000, "reserve")
    assert settings.watermark == 0.01
    assert (plan.workload.rate_per_s, plan.workload.classes[0].lengths.prompt_mean_tokens) == (10, 1000)
    assert (plan.targets.itl_s, plan.targets.ttft_p99_s, plan.targets.headroom) == (0.05, 2.0, 0.1)
    assert cli("check", out).code == 0


def test_few_options_are_enough_and_all_have_defaults(cli, out: Path) -> None:
    assert cli("init", *FLAGS, "--out", out).code == 0
    plan = read_plan(out)
    assert plan.fleet.replicas == 1
    assert plan.targets.itl_s is None
    answer = cli("init", "--yes", "--out", out, "--force", "--json").json
    assert answer["plan"] == out.read_text()
    assert answer["next"][0] == f"stability check {out}"
    assert read_plan(out).fleet.replicas == 8


def test_a_file_that_is_there_is_kept(cli, out: Path) -> None:
    out.write_text("mine")
    assert "exists already, must be a new file" in cli("init", *FLAGS, "--out", out).error()
    assert out.read_text() == "mine"
    assert cli("init", *FLAGS, "--out", out, "--force").code == 0


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--gpu", "H200X"), "unknown GPU 'H200X'. Did you mean H200-SXM"),
        (("--gpu", "none"), "unknown GPU 'none'"),
        (("--model", "Llama-8B"), "Did you mean Llama-3.1-8B, Llama-2-7B"),
        (("--lengths", "azure-conv"), "Did you mean azure-conv-2023"),
        (("--lengths", "0/5"), "--lengths = 0, must be an integer >= 1"),
        (("--lengths", "missing.csv"), "missing.csv"),
        (("--rate", "0"), "--rate = 0.0, must be a finite number and > 0"),
        (("--replicas", "0"), "--replicas = 0, must be an integer >= 1"),
        (("--headroom", "110%"), "--headroom = 1.1, must be"),
        (("--model", "Llama-3.1-70B"), "leaves no room for KV on H100-SXM"),
        (("--max-num-seqs", "5k"), "max_num_batched_tokens = 2048, must be >= max_num_seqs = 5000"),
        (("--out", "plan.txt"), "must end in .yaml"),
        (("--out", "none/plan.yaml"), "must be in a folder that exists"),
    ],
)
def test_what_makes_no_plan_is_not_written(cli, out: Path, monkeypatch, options: tuple[str, ...], part: str) -> None:
    monkeypatch.chdir(out.parent)
    assert part in cli("init", *FLAGS, *options).error()
    assert not list(out.parent.iterdir())


def test_nobody_to_ask(cli, out: Path) -> None:
    message = cli("init", "--gpu", "L4", "--rate", 3, "--out", out).error()
    assert message.startswith("--model, --lengths missing, must be given where nobody can be asked")


def test_questions_on_a_terminal(out: Path, root: Path) -> None:
    """Wrong answers are asked for again, empty ones take the default, options are not asked for."""
    import pty

    child, terminal = pty.fork()
    if child == 0:
        os.chdir(root)
        arguments = ["-m", "stability", "init", "--model", "Llama-3.1-8B", "--out", str(out)]
        os.execv(sys.executable, [sys.executable, *arguments])
    answers = iter(["H200X", "A100-80GB-SXM", "", "3", "12", "azure-code-2023", "none", ""])
    seen = ""
    for _ in range(400):
        try:
            seen += os.read(terminal, 4096).decode()
        except OSError:  # the other end has closed
            break
        if seen.endswith("]: "):
            os.write(terminal, next(answers).encode() + b"\n")
            seen += "\n"
        time.sleep(0.01)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, seen
    assert "Did you mean H200-SXM" in seen
    plan = read_plan(out)
    assert (plan.fleet.pools[0].replica.gpu, plan.fleet.replicas) == ("A100-80GB-SXM", 3)
    assert (plan.workload.rate_per_s, plan.targets.itl_s, plan.targets.headroom) == (12, None, 0.1)
