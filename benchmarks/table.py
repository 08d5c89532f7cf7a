"""Fifty million rows in one repository: its indexes, a search by date and place, more rows.

The rows are written as ingest writes them; granules have no arrays.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import shapely
import zarr

from l2view.granules.layouts import LAYOUTS, declare_convention
from l2view.granules.references import GranuleReferences
from l2view.ingest.granule import Granule
from l2view.ingest.state import IDS, hash_ids
from l2view.ingest.writer import write_batch
from l2view.limits import limits
from l2view.meta.columns import Kind, create
from l2view.stores.hierarchy import META
from l2view.stores.repository import open_repository

from .measure import Row, report
from .rows import COLLECTIONS
from .stores import TEXT

COUNT = 50_000_000
ADDED = 1_000
COMMIT = 100
"""The chunks of a commit."""

FIRST = datetime(2000, 1, 1)
SECONDS = 20 * 365 * 86_400
FIELDS: dict[str, Kind] = {
    "id": "string",
    "datetime": "time",
    "collection": "string",
    "cloud_cover": "float",
    "bbox": "bytes",
    **LAYOUTS["packed"].kinds,
}
SORTED = ["datetime", "collection", "cloud_cover"]
"""What gets a sorted index beside ``id``."""


def block(start: int, stop: int, count: int) -> dict[str, Any]:
    """Return consecutive rows, their times roughly in order."""
    random = np.random.default_rng(start)
    rows = np.arange(start, stop)
    seconds = rows * (SECONDS / count) + random.uniform(-1e5, 1e5, len(rows))
    cover = random.uniform(0, 100, len(rows))
    cover[random.random(len(rows)) < 0.02] = np.nan
    west, south = random.uniform(-180, 178.5, len(rows)), random.uniform(-85, 83.5, len(rows))
    width = random.uniform(0.5, 1.5, len(rows))
    names = np.array(COLLECTIONS)[random.integers(0, len(COLLECTIONS), len(rows))]
    ids = [f"{name}_{row:08d}" for name, row in zip(names.tolist(), rows.tolist(), strict=True)]
    return {
        "id": np.array(ids, dtype=TEXT),
        "datetime": np.datetime64(FIRST, "us") + (seconds * 1e6).astype("m8[us]"),
        "collection": names.astype(TEXT),
        "cloud_cover": cover,
        "bbox": shapely.to_wkb(shapely.box(west, south, west + width, south + width)),
        "profile": np.full(len(rows), "", dtype=TEXT),
        "slot": np.full(len(rows), -(2**63)),
        IDS: hash_ids(ids),
    }


def write(path: Path, count: int = COUNT) -> None:
    """Write a collection without arrays, in commits of many rows."""
    repository = open_repository(path)
    starts = range(0, count, limits().field_chunk_rows)
    for first in range(0, len(starts), COMMIT):
        session = repository.writable_session("main")
        root = zarr.open_group(session.store, mode="a")
        if not first:
            root.attrs.update(declare_convention({}))
            meta = root.create_group(META)
            for name, kind in FIELDS.items():
                create(meta, name, kind, count)
            chunks = (limits().field_chunk_rows,)
            root.create_array(IDS, shape=(count,), chunks=chunks, dtype="uint64", compressors=None)
        arrays = {name: root[name if name == IDS else f"{META}/{name}"] for name in (*FIELDS, IDS)}
        for start in starts[first : first + COMMIT]:
            stop = min(start + limits().field_chunk_rows, count)
            for name, values in block(start, stop, count).items():
                arrays[name][start:stop] = values  # type: ignore[index]
        session.commit(f"{start:,} rows")
        print(f"{stop:,} rows", flush=True)


def build(path: Path) -> None:
    """Make all indexes: zone maps, the R-tree, and the sorted index of each field."""
    from l2view.index.commands import build_indexes

    build_indexes(path)
    build_indexes(path, SORTED)


def search(path: Path) -> None:
    """Find granules by date and place."""
    import l2view

    middle = FIRST + timedelta(seconds=SECONDS / 2)
    collection = l2view.Collection(path)
    found = collection.search(
        bbox=(5, 40, 14, 49),
        datetime=(middle.replace(tzinfo=UTC), middle.replace(tzinfo=UTC) + timedelta(days=30)),
        fields=["id"],
    )
    expected = len(collection) * 6.8e-6  # of the days, and of the area of the globe in degrees
    assert expected / 2 - 5 < found.num_rows < expected * 2 + 5, (found.num_rows, expected)


def append(path: Path) -> None:
    """Write granules that aren't there yet."""
    rows = block(0, ADDED, ADDED)
    stamp = time.time_ns()
    granules = [
        Granule(
            {
                "id": f"new_{stamp}_{number}",
                "datetime": rows["datetime"][number].item(),
                "collection": str(rows["collection"][number]),
                "cloud_cover": float(rows["cloud_cover"][number]),
                "bbox": rows["bbox"][number],
            },
            GranuleReferences((), {"": {}}),
        )
        for number in range(ADDED)
    ]
    repository = open_repository(path)
    began = time.perf_counter()
    written = write_batch(repository, granules)
    print(time.perf_counter() - began)
    assert len(written.added) == ADDED


def grow(path: Path) -> None:
    """Write as many as indexes are told of."""
    from l2view.limits import limits

    for _ in range(-(-limits().segment_rows // ADDED)):
        append(path)


def extend(path: Path) -> None:
    """Let the indexes know of them."""
    from l2view.index.commands import extend as extended

    assert len(extended(open_repository(path))) == 1 + len(SORTED) + 1


def measured(what: str, path: Path) -> tuple[float, float]:
    """Return the seconds that a step takes in a process of its own, and its peak in GiB."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.table", what, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, peak = json.loads(found.splitlines()[-1])
    return float(seconds), float(peak)


def scale(count: int) -> list[Row]:
    """Measure each step on `count` rows."""
    folder = Path(tempfile.mkdtemp(prefix="l2view-table-"))
    try:
        path = folder / "collection"
        write(path, count)
        built, held = measured("build", path)
        found = [measured("search", path) for _ in range(3)]
        appended = [measured("append", path) for _ in range(3)]
        again = [measured("search", path) for _ in range(3)]
        measured("grow", path)
        extended, held_then = measured("extend", path)
        later = [measured("search", path) for _ in range(3)]
        at = f"at {count:,} rows"
        return [
            Row(f"building all indexes {at}", built / 60, 10, " minutes"),
            Row(f"building all indexes {at}, peak memory", held, 6, " GiB"),
            Row(f"date and place, cold, {at}", statistics.median(s for s, _ in found), 1, " s"),
            Row(f"date and place, peak memory, {at}", max(p for _, p in found), 1, " GiB"),
            Row("appending 1,000", statistics.median(s for s, _ in appended), 1, " s"),
            Row("appending 1,000, peak memory", max(p for _, p in appended), 1, " GiB"),
            Row("date and place, cold, then", statistics.median(s for s, _ in again), 1, " s"),
            Row("indexing 66,000 more", extended, 60, " s"),
            Row("indexing 66,000 more, peak memory", held_then, 1, " GiB"),
            Row("date and place, cold, then", statistics.median(s for s, _ in later), 1, " s"),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


STEPS = {function.__name__: function for function in (write, build, search, append, grow, extend)}


def main(arguments: list[str]) -> None:
    """Measure all, or do one step and say what it took."""
    icechunk.set_logs_filter("error")
    warnings.simplefilter("ignore")
    if arguments and arguments[0] in STEPS:
        began = time.perf_counter()
        STEPS[arguments[0]](Path(arguments[1]))
        taken = time.perf_counter() - began
        status = Path("/proc/self/status").read_text().splitlines()
        peak = next(line for line in status if line.startswith("VmHWM")).split()[1]
        print(json.dumps([taken, int(peak) / 2**20]))
    else:
        report(scale(int(arguments[0]) if arguments else COUNT), "table")


if __name__ == "__main__":
    main(sys.argv[1:])
