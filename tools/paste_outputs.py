"""Runs the commands of a documentation page and pastes what they print: `python -m tools.paste_outputs docs/tutorial.md`.

`<!-- file: NAME -->` before a fenced block writes the block to a file that later commands read; `<!-- output: stability ... -->`
before a fenced block asks for the command's output in it. Everything runs in a temporary folder.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

from stability.cli.main import run

BLOCK = re.compile(r"^<!-- (file|output): (.+?) -->\n```(\w+)\n(.*?)^```", re.M | re.S)


def output_of(command: str) -> str:
    """What `stability ...` prints."""
    words = shlex.split(command)
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        code = run(words[1:])
    if words[0] != "stability" or code in (2, 4):
        raise SystemExit(f"{command!r} failed with exit code {code}")
    return stream.getvalue()


def pasted(text: str) -> str:
    """`text` of a page with the outputs its commands print now."""

    def block(match: re.Match[str]) -> str:
        kind, what, language, body = match.groups()
        if kind == "file":
            Path(what).write_text(body, encoding="utf-8")
        else:
            body = output_of(what)
        return f"<!-- {kind}: {what} -->\n```{language}\n{body}```"

    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return BLOCK.sub(block, text)
        finally:
            os.chdir(here)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        page.write_text(pasted(page.read_text(encoding="utf-8")), encoding="utf-8")
