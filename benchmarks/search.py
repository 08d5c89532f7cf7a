"""Searches of ten million rows, l2view beside its peers; each run in a process of its own.

zarr-datafusion-search runs with an older DataFusion: `make bench-peers` gives it an environment of
its own, and without that its rows are left out.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from zarr.core.buffer import Buffer
from zarr.storage import LocalStore, WrapperStore

import l2view
from l2view.cache import CACHE

from . import rows
from .measure import Row
from .remote import remote
from .side import SHOWN, WHERE

PEER = Path(__file__).parent / "peers" / "bin" / "python"
SIDE = Path(__file__).parent / "side.py"
PAIRS = 4
HELD = "b'x' * (1 << 30)"
"""Run before each: a virtual machine may be slow to give memory that nothing held of late, and
whoever comes first would pay for it."""

AGAINST_PEER = {
    ("date", "l2view"): 0.25,
    ("place", "l2view"): 0.02,
    ("place", "unindexed"): 0.8,
    ("corners", "l2view"): 0.8,
    ("text", "l2view"): 0.8,
    ("group", "l2view"): 0.8,
    ("order", "l2view"): 0.8,
}
AGAINST_DUCKDB = {"date": 1, "corners": 1, "text": 1, "group": 1.5, "order": 1.5}


def side(engine: str, query: str, folder: Path) -> tuple[int, float, float, float]:
    """Return the rows that an engine found, cold and warm seconds, and the peak in MiB."""
    python = str(PEER) if engine.startswith("zarr-datafusion-search") else sys.executable
    command = [python, str(SIDE), engine, query, str(folder)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    count, cold, warm, peak = json.loads(found.splitlines()[-1])
    return int(count), float(cold), float(warm), float(peak)


def compared(
    ours: str, theirs: str, query: str, folder: Path, pairs_run: int = PAIRS
) -> list[list[float]]:
    """Return the medians of cold, warm and peak of both sides, each first in turn."""
    pairs = []
    for turn in range(pairs_run):
        found = {}
        for engine in (ours, theirs) if turn % 2 else (theirs, ours):
            subprocess.run([sys.executable, "-c", HELD], check=True)
            found[engine] = side(engine, query, folder)
        assert found[ours][0] == found[theirs][0], (query, found)
        pairs.append((found[ours][1:], found[theirs][1:]))
    return [
        [statistics.median(pair[which][figure] for pair in pairs) for figure in range(3)]
        for which in range(2)
    ]


class Counting(WrapperStore[LocalStore]):
    """A store that counts what is asked of it."""

    requests = 0
    nbytes = 0

    async def get(self, *arguments: Any, **options: Any) -> Buffer | None:
        return self._counted(await super().get(*arguments, **options))

    def get_sync(self, *arguments: Any, **options: Any) -> Buffer | None:
        return self._counted(self._store.get_sync(*arguments, **options))

    def _counted(self, found: Buffer | None) -> Buffer | None:
        self.requests += 1
        self.nbytes += 0 if found is None else len(found)
        return found


def fetched(query: str, folder: Path) -> tuple[int, int, int, int]:
    """Return what a cold search finds, asks for, and gets in bytes, and what it had to.

    The last is the bytes of the chunks that hold a match, of all fields that the query names.
    """
    store = Counting(LocalStore(folder / "indexed.zarr", read_only=True))
    CACHE.clear()
    found = l2view.search(store, WHERE[query], fields=SHOWN[query])
    chunks = np.unique(found.column("idx").to_numpy() // rows.CHUNK)
    named = {name for name in rows.DTYPES if re.search(rf"\b{name}\b", WHERE[query])}
    meta = folder / "indexed.zarr" / "meta"
    paths = [meta / name / f"c/{n}" for name in {*named, SHOWN[query]} for n in chunks.tolist()]
    needed = sum(path.stat().st_size for path in paths)
    return found.num_rows, store.requests, store.nbytes, needed


def searching(folder: Path) -> Iterator[Row]:
    """Searches, beside zarr-datafusion-search and DuckDB."""
    rows.write(folder)
    if PEER.exists():
        for (query, ours), most in AGAINST_PEER.items():
            one, other = compared(ours, "zarr-datafusion-search", query, folder)
            name = f"{query}, {ours} ÷ zarr-datafusion-search"
            for what, at in (("cold", 0), ("warm", 1)):
                ratio = one[at] / other[at]
                yield Row(f"{name}, {what}", ratio, most, ours=one[at], theirs=other[at])
            yield Row(f"{name}, peak memory", one[2] / other[2], 1)
        # Its own R-trees are in our format: it finds the same where ours is.
        name = "place, l2view ÷ zarr-datafusion-search with our index, cold"
        one, other = compared("l2view", "zarr-datafusion-search, indexed", "place", folder, 2)
        yield Row(name, one[0] / other[0], 1, ours=one[0], theirs=other[0])
    else:
        Console(stderr=True).print("without zarr-datafusion-search: make bench-peers installs it")
    for query, most in AGAINST_DUCKDB.items():
        one, other = compared("l2view", "duckdb", query, folder, 2)
        ratio = one[1] / other[1]
        name = f"{query}, l2view ÷ DuckDB on Parquet, warm"
        yield Row(name, ratio, most, ours=one[1], theirs=other[1])
    for query, most in AGAINST_DUCKDB.items():
        # For scale: DataFusion itself, on Parquet.
        one, other = compared("l2view", "datafusion", query, folder, 2)
        ratio = one[1] / other[1]
        name = f"{query}, l2view ÷ DataFusion on Parquet, warm"
        yield Row(name, ratio, most, ours=one[1], theirs=other[1])
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("query", "found", "requests", "bytes", "of chunks with a match"):
        table.add_column(column, justify="left" if column == "query" else "right")
    for query in WHERE:
        table.add_row(query, *(f"{number:,}" for number in fetched(query, folder)))
    Console().print(table)
    yield from remote(folder)
