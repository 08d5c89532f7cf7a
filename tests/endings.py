"""How processes that use l2view end: ``python tests/endings.py [RUNS] [AT_ONCE] [TREE]``.

Runs of ``l2view ingest``, ``l2view sql`` and a script that opens and reads a view, several at a
time while other processes fill the processors. The threads of Tokio get a lower priority than
the rest, so that many a process is done before they are. A run that ends by a signal has died of
leaving. TREE is a folder with another version of the package.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from builders import write_swath

READ = """
import sys, l2view
view = l2view.open(sys.argv[1], authorize=True)
for name in view.names:
    view[name + "/sst"][:]
"""

QUERY = "SELECT platform, count(*) FROM meta GROUP BY platform"

NICENESS = 19
"""Of Tokio's threads, which run when others leave them a processor."""

type Run = tuple[str, subprocess.Popen[bytes]]


def start_runs(folder: Path, environment: Mapping[str, str]) -> Iterator[Run]:
    """Write swaths and a collection of them, and start one process after another on them."""
    # Python looks for modules where it is started, before it looks into TREE.
    options: dict[str, Any] = {"env": environment, "stderr": subprocess.DEVNULL, "cwd": folder}
    swaths = [str(write_swath(folder / f"s{n}.h5", n, 64, chunk=1)) for n in range(4)]
    program = [sys.executable, "-m", "l2view"]
    store = str(folder / "collection")
    done = subprocess.run(
        [*program, "ingest", *swaths, "-s", store],
        stdout=subprocess.DEVNULL,
        check=False,
        **options,
    )
    if done.returncode > 0:  # one that died of leaving had done its work
        done.check_returncode()
    for number in range(sys.maxsize):
        commands = {
            "ingest": [*program, "ingest", swaths[number % 4], "-s", str(folder / f"c{number}")],
            "sql": [*program, "sql", store, QUERY],
            "read": [sys.executable, "-c", READ, store],
        }
        for name, command in commands.items():
            yield name, subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)


@contextmanager
def busy_processors(count: int) -> Iterator[None]:
    """Let `count` processes compute at the priority of Tokio's threads."""
    command = ["nice", "-n", str(NICENESS), sys.executable, "-c", "while True: pass"]
    computing = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in computing:
            process.kill()
            process.wait()


def hold_tokio_back(process: subprocess.Popen[bytes]) -> None:
    """Lower the priority of a process's threads of Tokio; those that they start have it too."""
    for thread in Path(f"/proc/{process.pid}/task").glob("*"):
        with suppress(OSError):  # it has ended
            if (thread / "comm").read_text().startswith("tokio"):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), NICENESS)


def count_endings(
    runs: int, at_once: int, folder: Path, environment: Mapping[str, str] = os.environ
) -> Counter[tuple[str, str]]:
    """Count how `runs` processes end, `at_once` at a time.

    Returns
    -------
    Counter
        Of pairs of what runs and its ending: an exit code, or the name of a signal.
    """
    running: list[Run] = []
    counted: Counter[tuple[str, str]] = Counter()
    with busy_processors(os.cpu_count() or 1):
        starting = islice(start_runs(folder, environment), runs)
        while True:
            running.extend(islice(starting, at_once - len(running)))
            if not running:
                break
            for run in list(running):
                hold_tokio_back(run[1])
                if (code := run[1].poll()) is not None:
                    running.remove(run)
                    ending = str(code) if code >= 0 else signal.Signals(-code).name
                    counted[run[0], ending] += 1
                    if code or counted.total() % 20 == 0:
                        print(
                            f"{counted.total():>6} {run[0]:<8} {ending}",
                            file=sys.stderr,
                            flush=True,
                        )
            time.sleep(0.02)
    return counted


def main(runs: str = "1000", at_once: str = "8", tree: str = "") -> int:
    """Print a table of endings: 1 where one is other than 0."""
    environment = {**os.environ, "PYTHONPATH": tree} if tree else os.environ
    with tempfile.TemporaryDirectory() as folder:
        counted = count_endings(int(runs), int(at_once), Path(folder), environment)
    for (name, ending), count in sorted(counted.items()):
        print(f"{name:<8} {ending:<8} {count}")
    return int(any(ending != "0" for _, ending in counted))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
