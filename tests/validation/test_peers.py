"""The driver of the peers: environments are made once, and what cannot run is skipped with its reason.

No test installs or runs a peer: that is for `python -m validation --full --only peers`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from validation.cells import Status
from validation.peers import compare, environment


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts run in this very interpreter."""
    monkeypatch.setattr(environment, "interpreter", lambda peer: Path(sys.executable))


def test_quick_runs_skip_the_peers() -> None:
    (task,) = compare.tasks("quick")
    (cell,) = task.run()
    assert cell.status is Status.SHOWN
    assert "skipped" in cell.note


def test_every_peer_has_a_requirement_and_a_script() -> None:
    assert {task.name for task in compare.tasks("full")} == set(environment.REQUIREMENTS)
    folder = Path(environment.__file__).parent
    assert {path.name for path in folder.glob("*_*.py")} - {"__init__.py"} == {
        "aisimulate_capacity.py",
        "ciw_queue.py",
        "line_queue.py",
        "simpy_queue.py",
    }


def test_scripts_import_nothing_of_this_project() -> None:
    for path in Path(environment.__file__).parent.glob("*_*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import stability" not in text
        assert "from stability" not in text
        assert "from ." not in text


def test_a_failing_peer_is_skipped_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], *, timeout_s: float, text: str = "") -> str:
        raise environment.PeerUnavailableError("pip install failed: no such package")

    monkeypatch.setattr(environment, "_run", fail)
    for cells in (compare.queue_cells("ciw"), compare.engine_cells()):
        (cell,) = cells
        assert cell.status is Status.SHOWN
        assert "no such package" in cell.note


def test_an_environment_is_made_once_and_again_when_the_requirement_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    commands: list[list[str]] = []

    def note(command: list[str], *, timeout_s: float, text: str = "") -> str:
        commands.append(command)
        if "venv" in command:
            Path(command[-1]).mkdir(parents=True)
        return ""

    monkeypatch.setattr(environment, "_run", note)
    python = environment.interpreter("ciw")
    assert tmp_path in python.parents
    assert "--only-binary" in commands[1]
    assert commands[1][0] == str(python)
    environment.interpreter("ciw")
    assert len(commands) == 2
    monkeypatch.setitem(environment.REQUIREMENTS, "ciw", "ciw==3.3.*")
    environment.interpreter("ciw")
    assert len(commands) == 4


@pytest.mark.usefixtures("here")
def test_a_script_whose_package_is_missing_is_unavailable() -> None:
    with pytest.raises(environment.PeerUnavailableError, match="failed"):
        environment.ask("ciw", "no_such_script", {})


@pytest.mark.usefixtures("here")
def test_an_answer_that_is_not_json_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_run", lambda *arguments, **options: "warning: hello")
    with pytest.raises(environment.PeerUnavailableError, match="must be JSON"):
        environment.ask("ciw", "ciw_queue", {})


def test_a_wrong_peer_turns_its_cells_red(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {"M/D/1": 0.3 / (2 * 0.7), "M/M/1": 0.3 / 0.7}
    monkeypatch.setattr(compare, "QUEUES", {name: compare.QUEUES[name] for name in exact})
    monkeypatch.setattr(compare, "LOADS", (0.3,))
    for factor, status in ((1.0, Status.PASS), (1.2, Status.FAIL)):

        def answer(peer: str, script: str, job: dict[str, object], factor: float = factor) -> dict[str, float]:
            return {"wait_mean_s": factor * exact["M/D/1" if job["service"] == "constant" else "M/M/1"]}

        monkeypatch.setattr(compare, "ask", answer)
        assert {cell.status for cell in compare.queue_cells("line")} == {status}
