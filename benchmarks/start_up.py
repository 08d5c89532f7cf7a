"""What it takes to start: the command beside another, the package beside what it builds on."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .measure import Row

RUNS = 9


def processor_seconds(command: list[str]) -> float:
    """Return the processor time, of user and system, that a process takes."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return sum(after[2:4]) - sum(before[2:4])


def starting(_: Path) -> Iterator[Row]:
    """Start the command and import the package, in processor time."""
    python = sys.executable
    rows = {
        "l2view --version ÷ rio --version, processor time": (
            [str(Path(python).with_name("l2view")), "--version"],
            [str(Path(python).with_name("rio")), "--version"],
            0.5,
        ),
        "import l2view ÷ import xarray, zarr, processor time": (
            [python, "-c", "import l2view"],
            [python, "-c", "import xarray, zarr"],
            1.3,
        ),
    }
    for what, (ours, theirs, most) in rows.items():
        processor_seconds(ours), processor_seconds(theirs)
        pairs = [(processor_seconds(ours), processor_seconds(theirs)) for _ in range(RUNS)]
        ratio = statistics.median(a / b for a, b in pairs)
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        yield Row(what, ratio, most, ours=medians[0], theirs=medians[1])
