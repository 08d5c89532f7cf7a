"""Processes that have used l2view end by their exit code, not by a signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from endings import count_endings

from l2view import shutdown
from l2view.ingest.executors import workers

PROGRAM = """
import sys, l2view.__main__, atexit
def command():
    {0}
l2view.__main__.run_command = command
atexit.register(print, "a later handler")
l2view.__main__.main()
"""


def run_program(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run l2view's program with another command in its place."""
    code = PROGRAM.format(command)
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONUNBUFFERED"}
    options = {"stdout": subprocess.PIPE, "env": environment, **options}
    return subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, **options
    )


@pytest.mark.skipif(not shutdown.THREADS.is_dir(), reason="priorities of threads need /proc")
def test_no_process_ends_by_a_signal(tmp_path: Path) -> None:
    """Of more of them: `python tests/endings.py`."""
    assert count_endings(6, 3, tmp_path) == {("ingest", "0"): 2, ("sql", "0"): 2, ("read", "0"): 2}


@pytest.mark.parametrize(
    ("command", "code", "errors"),
    [
        ("return", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit(257)", 1, ""),
        ("sys.exit(-1)", 255, ""),
        ("sys.exit('what to do next')", 1, "what to do next\n"),
        ("raise ValueError(3)", 1, "ValueError: 3\n"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt\n"),
    ],
)
def test_exit_codes_are_the_interpreters_own(command: str, code: int, errors: str) -> None:
    done = run_program(command)
    assert done.returncode == code
    assert done.stdout == "a later handler\n"
    assert done.stderr.endswith(errors) if errors else done.stderr == ""


def test_the_program_does_not_finalise() -> None:
    """What the interpreter would call while it finalises isn't called."""
    command = "import os; deleted = lambda self: os.write(1, b'finalised'); "
    command += "sys.modules['__main__'].last = type('Last', (), {'__del__': deleted})()"
    assert run_program(command).stdout == "a later handler\n"
    assert run_program(command + "; raise KeyboardInterrupt").stdout.endswith("finalised")


def test_output_that_can_not_be_written() -> None:
    with Path("/dev/full").open("w") as full:
        done = run_program("print(1)", stdout=full)
    assert done.returncode == 120
    assert "No space left on device" in done.stderr
    reader, writer = os.pipe()
    os.close(reader)
    done = run_program("print(1)", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (120, "")
    assert run_program("sys.stdout.close()").returncode == 0
    assert run_program("sys.stdout = None").returncode == 0


def test_worker_processes_do_not_finalise() -> None:
    made = workers(2).make
    assert made is not None
    with made() as pool:
        assert pool.submit(_recorded_code).result() == 0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(_recorded_code).result() is None


def _recorded_code() -> int | None:
    return shutdown._exit_code


def test_threads_get_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "MAX_WAIT", 20.0)
    ended = threading.Event()

    def compute() -> None:
        until = time.thread_time() + 0.2
        while time.thread_time() < until:
            pass
        ended.set()

    thread = threading.Thread(target=compute)
    thread.start()
    shutdown.wait_for_threads()
    assert ended.is_set()
    thread.join()


def test_threads_that_go_on_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "MAX_WAIT", 0.1)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: any(stop.is_set() for _ in iter(int, 1)))
    thread.start()
    started = time.monotonic()
    shutdown.wait_for_threads()
    assert time.monotonic() - started >= 0.1
    stop.set()
    thread.join()


def test_without_a_list_of_threads_it_waits_a_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutdown, "THREADS", tmp_path / "none")
    started = time.monotonic()
    shutdown.wait_for_threads()
    assert time.monotonic() - started >= shutdown.BLIND_WAIT
