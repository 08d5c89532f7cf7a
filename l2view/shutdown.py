"""How a process that has used l2view ends, without a fault of Tokio's threads.

Icechunk, obstore and DataFusion answer from threads of Tokio, which nobody joins. Up to CPython
3.13 a thread that wants the GIL while the interpreter finalises is ended by ``pthread_exit``: its
stack unwinds through Rust, frees a Python object without a thread state, and the process dies by
SIGSEGV after its work is done (pyo3-async-runtimes issue 40).

So the command and l2view's worker processes don't finalise, and any other process gives such
threads their turn before it does. Import this before what starts threads or registers handlers:
the ``atexit`` handler that was registered first runs last.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from pathlib import Path

THREADS = Path("/proc/self/task")
INTERVAL = 0.005  # the seconds between two looks at the threads
MAX_WAIT = 1.0  # the most seconds that threads get
BLIND_WAIT = 0.05  # the seconds that threads get where the system doesn't list them

_exit_code: int | None = None


def exit_without_finalization(code: int) -> None:
    """Let this process end by ``os._exit(code)``, once all other ``atexit`` handlers have run."""
    global _exit_code
    _exit_code = code


def exit_code_of(error: SystemExit) -> int:
    """Return the exit code that the interpreter gives a process for `error`."""
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


@atexit.register
def _before_finalization() -> None:
    if _exit_code is not None:
        _exit(_exit_code)
    if sys.version_info < (3, 14):  # from there on such a thread hangs, which harms nobody
        wait_for_threads()


def _exit(code: int) -> None:
    """End the process; return where finalisation is to report that output can't be written."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None and not stream.closed:
                stream.flush()
    except BrokenPipeError:  # the reader of a pipe has seen enough: the interpreter's own code
        os._exit(120)
    except OSError:
        return
    os._exit(code)


def wait_for_threads() -> None:
    """Release the GIL until no other thread runs, twice `INTERVAL` apart, `MAX_WAIT` at most."""
    if not THREADS.is_dir():
        time.sleep(BLIND_WAIT)
        return
    if len(list(THREADS.iterdir())) == 1:
        return
    deadline, idle, own = time.monotonic() + MAX_WAIT, 0, str(threading.get_native_id())
    while idle < 2 and time.monotonic() < deadline:
        time.sleep(INTERVAL)
        others = [thread for thread in THREADS.iterdir() if thread.name != own]
        idle = 0 if any(map(_is_running, others)) else idle + 1


def _is_running(thread: Path) -> bool:
    """Whether a thread computes, waits for a processor (R), or for a disk (D)."""
    try:
        stat = (thread / "stat").read_bytes()
    except OSError:  # it has ended
        return False
    return stat[stat.rindex(b")") + 2 :][:1] in b"RD"
