"""The command ``l2view``, in this process and in one of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from l2view.cli import main
from l2view.shutdown import exit_code_of

PROGRAM = Path(sys.executable).parent / "l2view"
ENVIRONMENT = {"COLUMNS": "100", "TERM": "dumb"}
HIDDEN_BY_PYTHON = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)

type Done = subprocess.CompletedProcess[str]


def run(*arguments: str, code: int = 0, cwd: Path | None = None) -> Done:
    """Run the command in this process, which saves it all imports, and check its exit code."""
    output, errors = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    with (
        _as_in_a_process([str(PROGRAM), *arguments]),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
            returned = 0
        except SystemExit as error:
            returned = exit_code_of(error)
    texts = []
    for stream in (output, errors):
        stream.seek(0)
        texts.append(stream.read())
    return _checked(subprocess.CompletedProcess(arguments, returned, *texts), code)


@contextlib.contextmanager
def _as_in_a_process(argv: list[str]) -> Iterator[None]:
    """Set and restore what is of a process: arguments, environment, hooks, filters of warnings."""
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(sys, "argv", argv)
        patch.setattr(sys.modules["__main__"], "__package__", None)  # by which click names programs
        patch.setattr(sys, "excepthook", sys.excepthook)  # typer sets its own
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        warnings.simplefilter("default")
        for category in HIDDEN_BY_PYTHON:
            warnings.simplefilter("ignore", category)
        yield


def run_process(*arguments: str, code: int = 0, cwd: Path | None = None) -> Done:
    """Run the command in a process of its own, and check its exit code."""
    done = subprocess.run(
        [PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **ENVIRONMENT},
        cwd=cwd,
    )
    return _checked(done, code)


def _checked(done: Done, code: int) -> Done:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done
