"""What is imported when: names of the package, commands of the command line."""

from __future__ import annotations

import importlib
import json
import pickle
import subprocess
import sys

import cloudpickle
import pytest
from typer.testing import CliRunner

import l2view
from l2view.cli import COMMANDS, app, load_command

HEAVY = ("icechunk", "zarr", "xarray", "datafusion", "pyarrow", "numpy", "shapely")


def imported_after(code: str) -> set[str]:
    """The heavy packages that are imported after `code` in a new process."""
    code += "\nimport json, sys; print(json.dumps([n for n in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1])).intersection(HEAVY)


def run_command(*arguments: str) -> str:
    return (
        "from l2view.cli import main; import sys\n"
        f"sys.argv[1:] = {list(arguments)!r}\n"
        "try: main()\nexcept SystemExit: pass"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import l2view; l2view.__version__; l2view.QueryError; dir(l2view)",
        run_command("--version"),
        run_command("--help"),
        run_command("infos"),
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    assert imported_after(code) == set()


def test_public_names() -> None:
    assert set(l2view.__all__) <= set(dir(l2view))
    for name in l2view.__all__:
        assert getattr(l2view, name) is not None
    for name, module in l2view._DEFERRED.items():
        assert getattr(l2view, name) is getattr(importlib.import_module(module), name)
    with pytest.raises(AttributeError, match="module 'l2view' has no attribute 'opne'"):
        l2view.opne  # noqa: B018
    with pytest.raises(ImportError):
        from l2view import opne  # noqa: F401


SHARED = """
import l2view, types
import l2view.config, l2view.ingest.pipeline, l2view.mosaic.plan, l2view.search.engine
import l2view.sql.access
import l2view.search.query as query, l2view.mosaic.spec as spec, l2view.sql.session as session
from l2view.ingest import pipeline
from l2view import ingest
names = [l2view.ingest, l2view.mosaic, l2view.search, l2view.sql, l2view.config, ingest]
assert not any(isinstance(value, types.ModuleType) for value in names)
assert all(isinstance(m, types.ModuleType) for m in (pipeline, query, spec, session))
"""


@pytest.mark.parametrize("first", ["", "import l2view; l2view.ingest; l2view.mosaic"])
def test_a_name_is_the_function_beside_a_package_of_its_name(first: str) -> None:
    subprocess.run([sys.executable, "-c", f"{first}\n{SHARED}"], check=True)


def test_the_package_and_its_names_pickle() -> None:
    assert pickle.loads(pickle.dumps(l2view)) is l2view
    assert pickle.loads(pickle.dumps(l2view.View)) is l2view.View
    assert pickle.loads(pickle.dumps(l2view.open)) is l2view.open
    assert cloudpickle.loads(cloudpickle.dumps(lambda: l2view.ingest))() is l2view.ingest


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_commands_say(name: str) -> None:
    command = load_command(name)
    assert command.name == name
    assert command.help.splitlines()[0] == COMMANDS[name]
    assert COMMANDS[name].split()[0] in CliRunner().invoke(app, [name, "--help"]).output


@pytest.mark.parametrize(
    ("words", "expected"),
    [("l2view in", ["info", "ingest", "index"]), ("l2view ingest --dr", ["--dry-run"])],
)
def test_completion(words: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_L2VIEW_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    completed = CliRunner().invoke(app, [], prog_name="l2view").output
    assert completed.split() == expected
