"""The command as a process: exit codes of defects and interruptions, streams, closed pipes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stability.cli import main
from stability.cli.main import INTERRUPTED

COMMAND = [sys.executable, "-c", "from stability.cli import main; main()"]


def test_check_as_a_process(root: Path) -> None:
    done = subprocess.run([*COMMAND, "check", "--json"], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["report"]["verdict"] == "stable"


def test_bad_input_as_a_process(root: Path) -> None:
    done = subprocess.run([*COMMAND, "check", "missing.yaml"], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: missing.yaml does not exist, must be a plan file. Check the path.\n"


def test_a_closed_pipe_does_not_change_the_answer(root: Path) -> None:
    """As under `stability check | head -0`: the fleet is stable all the same, and click alone would exit with 1."""
    process = subprocess.Popen([*COMMAND, "check"], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), errors) == (0, b"")


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("stability.theory.check.check", fail)


def test_a_defect_is_not_a_verdict(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, ZeroDivisionError("division by zero"))
    found = cli("check")
    assert (found.code, found.out) == (4, "")
    assert found.err == (
        "internal error: ZeroDivisionError: division by zero. This is a defect; set STABILITY_TRACEBACK=1 to see where.\n"
    )
    monkeypatch.setenv("STABILITY_TRACEBACK", "1")
    assert "Traceback" in cli("check").err


def test_an_interruption_is_not_a_verdict(cli, monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, KeyboardInterrupt())
    found = cli("check")
    assert (found.code, found.out) == (INTERRUPTED, "")
    assert found.code == 128 + signal.SIGINT
    assert found.err.strip() == "interrupted"


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as exit_code:
        main(["schema"])
    assert exit_code.value.code == 0
