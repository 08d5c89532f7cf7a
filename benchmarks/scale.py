"""A million granules in one collection: what a batch costs, and what a search of it costs.

References are made, not parsed: the files that they name are nowhere.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

import icechunk
import numpy as np
import shapely

from benchmarks.measure import Row, report
from l2view.granules.references import ArrayReferences, GranuleReferences
from l2view.ingest.granule import Granule
from l2view.ingest.writer import write_batch
from l2view.stores.repository import open_repository, with_containers

PREFIX = "file:///archive/"
BATCH = 1_000
SMALL = 10_000
GRID = (6, 6)
CHUNK = 100
COUNT = GRID[0] * GRID[1]
OFFSETS = np.arange(COUNT, dtype=np.uint64) * 10_000
LENGTHS = np.full(COUNT, 10_000, dtype=np.uint64)
DOCUMENT = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [GRID[0] * CHUNK, GRID[1] * CHUNK],
    "data_type": "int16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK, CHUNK]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": -1,
    "codecs": [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "zstd", "configuration": {"level": 3, "checksum": False}},
    ],
    "dimension_names": ["y", "x"],
}


def granule(number: int) -> Granule:
    """Return a granule of three arrays of 36 chunks."""
    url = f"{PREFIX}{number:08d}.nc"
    attributes = {"units": "K", "scale_factor": 0.01 * (1 + number % 7)}
    arrays = tuple(
        ArrayReferences(
            name, {**DOCUMENT, "attributes": attributes}, [url] * COUNT, OFFSETS, LENGTHS
        )
        for name in ("blue", "green", "red")
    )
    west, south = number * 7 % 350 - 180, number * 13 % 170 - 90
    row = {
        "id": f"g{number:08d}",
        "datetime": datetime(2000, 1, 1) + timedelta(minutes=number),
        "bbox": shapely.to_wkb(shapely.box(west, south, west + 5, south + 5)),
        "cloud_cover": number * 37 % 10_000 / 100,
        "href": url,
    }
    return Granule(row, GranuleReferences(arrays, {"": {"n": number}}, {url: '""1-2-3""'}))


def batch_seconds(repository: icechunk.Repository, start: int, count: int = BATCH) -> float:
    """Return how long a batch takes to write, its references made before."""
    granules = [granule(number) for number in range(start, start + count)]
    began = time.perf_counter()
    written = write_batch(repository, granules)
    assert len(written.added) == count
    return time.perf_counter() - began


SEARCH = """
import sys, time
import l2view
began = time.perf_counter()
view = l2view.open(sys.argv[1], "datetime >= $first AND datetime < $last",
                   params={"first": sys.argv[2], "last": sys.argv[3]}, authorize=False)
assert len(view.names) == 100, len(view.names)
array = view[f"{view.names[50]}/red"]
assert array.shape == (600, 600)
print(time.perf_counter() - began)
"""


def search_seconds(path: Path, total: int) -> float:
    """Return how long a process takes to open the collection and find 100 granules in it."""
    first = datetime(2000, 1, 1) + timedelta(minutes=total // 2)
    times = [(first + timedelta(minutes=n)).isoformat() for n in (0, 100)]
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, str(path), *times]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def resident() -> float:
    """Return the most memory that this process has held, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def scale(total: int) -> list[Row]:
    """Build a collection of `total` granules, and measure on the way."""
    folder = Path(tempfile.mkdtemp(prefix="l2view-scale-"))
    try:
        repository, _ = with_containers(
            open_repository(folder / "collection"), {granule(0).row["href"]}
        )
        began = time.perf_counter()
        seconds: list[float] = []
        appended: dict[int, float] = {}
        held: dict[int, float] = {}
        written = 0
        while written < total:
            seconds.append(batch_seconds(repository, written))
            written += BATCH
            if written == SMALL or written >= total:
                taken = [batch_seconds(repository, written + n, 1) for n in range(5)]
                appended[len(appended)] = statistics.median(taken)
                held[len(held)] = resident()
                written += len(taken)
                # As before, a batch fills the slots of one manifest.
                written += BATCH - len(taken)
                batch_seconds(repository, written - BATCH + len(taken), BATCH - len(taken))
            if len(seconds) % 25 == 0:
                print(
                    f"{written:,} granules, {seconds[-1]:.2f} s, {resident():.2f} GiB", flush=True
                )
        built = time.perf_counter() - began
        small = statistics.median(seconds[5 : SMALL // BATCH])
        large = statistics.median(seconds[-10:])
        found = statistics.median(search_seconds(folder / "collection", total) for _ in range(3))
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{total:,} granules, {total * 3 * COUNT:,} references, {size / 1e9:.2f} GB")
        at = f"at {total:,} ÷ at {SMALL:,}"
        return [
            Row(f"a batch of 1,000 {at}", large / small, 1.5, ours=large, theirs=small),
            Row(
                f"appending one {at}",
                appended[1] / appended[0],
                2,
                ours=appended[1],
                theirs=appended[0],
            ),
            Row(f"appending one at {total:,}", appended[1], 0.5, "s"),
            Row(f"building {total:,}", built / 60, 20, "minutes"),
            Row("resident memory", held[1], 4, "GiB"),
            Row(f"resident memory {at}", held[1] / held[0], 1.5),
            Row("cold open and a search that finds 100", found, 2, "s"),
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    icechunk.set_logs_filter("error")
    rows = scale(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
    report(rows, "scale")
    print(json.dumps([row.what for row in rows if row.value > row.most]))
