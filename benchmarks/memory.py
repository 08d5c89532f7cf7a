"""The memory that a view of many granules takes, measured where nothing else runs."""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import pyarrow as pa
import zarr
from zarr.storage import LocalStore

import l2view

from .stores import write_meta

COUNT = 1_000_000


def write(path: Path) -> None:
    """Write a collection of metadata alone."""
    root = zarr.create_group(LocalStore(path))
    write_meta(root, [f"granules/{number:07d}" for number in range(COUNT)])


def resident() -> int:
    """Return the bytes that this process holds, after what is free was given back."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def measure(path: Path) -> tuple[float, float]:
    """Return the bytes a granule that a view takes beyond its table, and that the table takes."""
    collection = l2view.Collection(path)
    collection.open("cloud_cover < 1", limit=100)["granule_0000000"]  # what is loaded once
    before = resident()
    view = collection.open("cloud_cover >= 0")
    # A name was looked for, a granule read: what the view makes for that counts.
    view["granule_0500000"]
    after = resident()
    assert view.table.num_rows == COUNT
    table = view.table.nbytes
    return (after - before - table) / COUNT, table / COUNT


if __name__ == "__main__":
    beyond, table = measure(Path(sys.argv[1]))
    print(beyond, table)
