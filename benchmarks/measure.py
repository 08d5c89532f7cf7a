"""Pairs of runs, and what is said of them."""

from __future__ import annotations

import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    what
        What was measured.
    value
        The figure: a ratio, or a quantity in `unit`.
    most
        What the figure may be at most.
    unit
        The figure's unit, empty for a ratio.
    ours, theirs
        The medians that the ratio was made of, in seconds.
    """

    what: str
    value: float
    most: float
    unit: str = ""
    ours: float | None = None
    theirs: float | None = None


def paired(
    what: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    most: float,
    *,
    runs: int = 5,
) -> Row:
    """Run two sides in turn, and return the median of the ratios.

    Each side runs once before it counts, and twice for a ratio: first and last, or both in
    between, so that what the run before leaves behind counts for neither.
    """
    ours(), theirs()
    pairs = []
    for turn in range(runs):
        outer, inner = (ours, theirs) if turn % 2 == 0 else (theirs, ours)
        around, between = seconds(outer), seconds(inner)
        between = (between + seconds(inner)) / 2
        around = (around + seconds(outer)) / 2
        pairs.append((around, between) if outer is ours else (between, around))
    ratio = statistics.median(a / b for a, b in pairs)
    medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
    return Row(what, ratio, most, ours=medians[0], theirs=medians[1])


def seconds(side: Callable[[], object]) -> float:
    """Return how long one run takes, without what the last one left to collect."""
    gc.collect()
    start = time.perf_counter()
    side()
    return time.perf_counter() - start


def report(rows: list[Row], name: str = "bench") -> None:
    """Print the rows, and write them as JSON."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("what", "figure", "at most", "l2view", "without"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        color = "green" if row.value <= row.most else "red"
        times = ["" if t is None else f"{t * 1e3:,.1f} ms" for t in (row.ours, row.theirs)]
        figure = f"[{color}]{row.value:,.3g}{row.unit}[/]"
        table.add_row(row.what, figure, f"{row.most:,g}{row.unit}", *times)
    Console(width=140, highlight=False).print(table)
    RESULTS.mkdir(exist_ok=True)
    names = ("zarr", "icechunk", "xarray", "datafusion", "pyarrow", "zarrista")
    said = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "versions": {package: version(package) for package in names},
        "rows": [asdict(row) for row in rows],
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(said, indent=2) + "\n")
    Console().print(f"written to {path}", soft_wrap=True)
