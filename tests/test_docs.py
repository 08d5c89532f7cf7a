"""The code in the README and the documentation runs, and prints what it says it prints."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import pkgutil
import re
import runpy
import shlex
import warnings
from pathlib import Path

import pytest
from command_line import run

import l2view

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n*```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)

SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def demo(demo_run: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which ``l2view demo`` was run, and the working directory."""
    monkeypatch.chdir(demo_run[0])
    return demo_run[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("demo")
def test_pages(page: Path) -> None:
    blocks = BLOCK.findall(page.read_text())
    named = ("README", "ingest", "mosaics", "quickstart", "search", "store", "view")
    if page.stem in named or page.parent.name == "views":
        assert blocks
    names: dict[str, object] = {}
    for code, expected in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            exec(compile(code, str(page), "exec"), names)
        assert printed.getvalue() == expected, f"{page.name}:\n{code}"


def test_commands_of_the_pages(demo: Path) -> None:
    """Each ``l2view`` line of a shell block exits with 0."""
    lines = {
        line
        for page in PAGES
        for block in SHELL_BLOCK.findall(page.read_text())
        for line in re.findall(r"^l2view (?!demo|ingest).*$", block, re.M)
    }
    assert len(lines) >= 6
    for line in sorted(lines):
        run(*shlex.split(line.replace("$PWD", str(demo)))[1:])


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem
)
@pytest.mark.usefixtures("demo")
def test_examples(path: Path) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(path), run_name="__main__")
    said = re.search(r'^"""(.*?)"""', path.read_text(), re.DOTALL)
    assert said
    expected = said.group(1).partition("Prints::\n\n")[2]
    assert expected
    lines = [line.removeprefix("    ").rstrip() for line in expected.rstrip().splitlines()]
    assert [line.rstrip() for line in printed.getvalue().splitlines()] == lines


def test_docstrings() -> None:
    """Examples in docstrings are true."""
    failed = tried = 0
    for module in pkgutil.walk_packages(l2view.__path__, "l2view."):
        if ".cli" not in module.name:
            result = doctest.testmod(importlib.import_module(module.name))
            failed, tried = failed + result.failed, tried + result.attempted
    assert tried >= 3
    assert failed == 0


def test_every_public_name_is_documented() -> None:
    api = (ROOT / "docs" / "api.md").read_text()
    for name in l2view.__all__:
        assert name in api
        assert getattr(l2view, name).__doc__
