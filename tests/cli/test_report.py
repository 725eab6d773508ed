"""`stability check --report`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from .plans import SMALL


def test_the_page_beside_the_table(cli, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(SMALL.replace("pool: a", 'pool: "a <i>&"'))
    plain = cli("check", tmp_path / "plan.yaml")
    found = cli("check", tmp_path / "plan.yaml", "--report", tmp_path / "out.html", "--rate", 4)
    assert found.code == plain.code == 0
    assert found.err == ""
    assert found.out.endswith(f"report in {tmp_path / 'out.html'}\n")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "<code>stability check plan.yaml --rate 4 --report out.html</code>" in page
    assert str(tmp_path) not in page
    assert "a &lt;i&gt;&amp;" in page
    assert "pool: &#34;a &lt;i&gt;&amp;&#34;" in page  # the plan itself
    assert "a <i>" not in page


@pytest.mark.parametrize(
    ("name", "part"),
    [("out.pdf", "must end in .html"), ("none/out.html", "must be in a folder that exists"), (".html", "must end in")],
)
def test_pages_that_cannot_be(cli, tmp_path: Path, name: str, part: str) -> None:
    assert part in cli("check", "--report", tmp_path / name).error()


@pytest.mark.parametrize("library", ["matplotlib", "jinja2"])
def test_a_missing_library_says_what_to_install(cli, tmp_path: Path, monkeypatch, library: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == library else find(name, *a))
    message = cli("check", "--report", tmp_path / "out.html").error()
    assert message.startswith(f"{library} is not installed, must be for this. Install it: pip install 'llm-stability[")
