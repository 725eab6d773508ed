"""Virtual environments of the peers, made when first asked for, in the user's cache folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

REQUIREMENTS = {
    "ciw": "ciw==3.2.*",
    "simpy": "simpy==4.1.*",
    "line": "line-solver==3.0.*",
    "aisimulate": "aisimulate>=0.13.0.dev0,<0.14",
}
"""Package of each peer."""

INSTALL_S, RUN_S = 900, 600
"""Longest time to install a peer, and for one of its answers."""


class PeerUnavailableError(RuntimeError):
    """The environment of a peer cannot be made, or the peer does not run; the message says why."""


def cache_folder() -> Path:
    """Where the environments live: XDG_CACHE_HOME or ~/.cache, then llm-stability/peers."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "llm-stability" / "peers"


def interpreter(peer: str) -> Path:
    """Python of the peer's environment, which is made if it does not exist.

    Raises
    ------
    PeerUnavailableError
        If it cannot be made.
    """
    requirement = REQUIREMENTS[peer]
    folder = cache_folder() / f"{peer}-{sys.version_info.major}.{sys.version_info.minor}"
    python, done = folder / "bin" / "python", folder / "installed"
    if done.is_file() and done.read_text(encoding="utf-8") == requirement:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    # Wheels only: a peer must not run build scripts of its dependencies.
    install = [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", requirement]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        _run(command, timeout_s=INSTALL_S)
    done.write_text(requirement, encoding="utf-8")
    return python


def ask(peer: str, script: str, job: Mapping[str, object]) -> dict[str, float]:
    """The answer of a peer's script to a job.

    Raises
    ------
    PeerUnavailableError
        If the peer cannot be installed, fails or does not answer in JSON.
    """
    path = Path(__file__).with_name(f"{script}.py")
    text = _run([str(interpreter(peer)), str(path)], timeout_s=RUN_S, text=json.dumps(job))
    try:
        answer: dict[str, float] = json.loads(text)
    except json.JSONDecodeError as error:
        raise PeerUnavailableError(f"{script} printed {text[:200]!r}, must be JSON ({error}).") from error
    return answer


def _run(command: list[str], *, timeout_s: float, text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, check=True)
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "no message").strip().splitlines()[-1]
        raise PeerUnavailableError(f"{' '.join(command[:4])} ... failed: {last}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerUnavailableError(f"{' '.join(command[:4])} ... failed: {error}") from error
    return done.stdout
