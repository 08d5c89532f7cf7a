"""``python -m benchmarks [NAME …]``: run the benchmarks, all or those named."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import icechunk
import xarray as xr
import zarr
from rich.console import Console
from zarr.storage import LocalStore

import l2view

from . import memory, stores
from .cells import tables
from .ingest import ingesting
from .measure import Row, paired, report
from .mosaics import mosaics
from .search import searching
from .shapes import shapes
from .start_up import starting


def reading(folder: Path) -> Iterator[Row]:
    """Whole arrays of 2 MiB chunks, through a view and directly."""
    local = LocalStore(folder / "local.zarr")
    stores.large_array(local, compressed=False)
    compressed = LocalStore(folder / "compressed.zarr")
    stores.large_array(compressed, compressed=True)
    native = stores.icechunk_store(
        folder / "native", lambda store: stores.large_array(store, compressed=False)
    )
    sources = {
        "folder": local,
        "folder, zstd": compressed,
        "Icechunk": native,
        "Icechunk, virtual": stores.virtual_array(folder),
    }
    for name, source in sources.items():
        direct = zarr.open_array(source, path="granules/a/x", mode="r")
        through = l2view.open(source)["granule_0000000/x"]
        assert isinstance(through, zarr.Array)
        assert (through[:2, :2] == direct[:2, :2]).all()
        yield paired(
            f"reading 64 MiB in 2 MiB chunks, {name} ÷ directly",
            _read(through),
            _read(direct),
            1.05,
            runs=100,
        )


def _read(array: zarr.Array[Any]) -> Callable[[], object]:
    return lambda: array[:]


def opening(folder: Path) -> Iterator[Row]:
    """A search that finds 10,000 granules, and opening as many groups."""
    count = 10_000
    written: dict[str, Any] = {
        "folder": LocalStore(folder / "groups.zarr"),
        "Icechunk": None,
    }
    stores.groups(written["folder"], count)
    written["Icechunk"] = stores.icechunk_store(
        folder / "groups", lambda store: stores.groups(store, count)
    )
    for name, source in written.items():

        def ours(source: Any = source) -> None:
            assert l2view.open(source, "cloud_cover >= 0").table.num_rows == count

        def theirs(source: Any = source) -> None:
            root = zarr.open_group(source, mode="r", use_consolidated=False)
            for number in range(count):
                root[f"granules/g{number:05d}"]

        what = f"open with 10,000 matches, {name} ÷ opening the groups one by one"
        yield paired(what, ours, theirs, 0.01, runs=2)


def trees(folder: Path) -> Iterator[Row]:
    """A DataTree of 1,000 granules of two arrays."""
    arrays = ("red", "nir")
    local = LocalStore(folder / "trees.zarr")
    stores.groups(local, 1_000, arrays)
    icechunk_source = stores.icechunk_store(
        folder / "trees", lambda store: stores.groups(store, 1_000, arrays)
    )
    for name, source in {"folder": local, "Icechunk": icechunk_source}.items():

        def ours(source: Any = source) -> None:
            assert len(l2view.open(source).to_datatree().children) == 1_000

        def theirs(source: Any = source) -> None:
            options = {"group": "granules", "consolidated": False}
            assert len(xr.open_datatree(source, engine="zarr", **options).children) == 1_000

        what = f"to_datatree of 1,000 granules × 2 arrays, {name} ÷ xr.open_datatree of the source"
        yield paired(what, ours, theirs, 0.3, runs=2)


def holding(folder: Path) -> Iterator[Row]:
    """The memory of a view of a million granules, in a process of its own."""
    path = folder / "million.zarr"
    memory.write(path)
    command = [sys.executable, "-m", "benchmarks.memory", str(path)]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    beyond, table = (float(value) for value in found.split())
    Console().print(f"(the Arrow table itself: {table:.0f} bytes a granule)")
    yield Row("memory of a view of 1,000,000, beyond its Arrow table", beyond, 300, " B/granule")


BENCHMARKS = {
    function.__name__: function
    for function in (
        starting,
        reading,
        opening,
        trees,
        holding,
        shapes,
        tables,
        ingesting,
        searching,
        mosaics,
    )
}


def main(names: list[str]) -> None:
    """Run the benchmarks called `names`, all where none is."""
    icechunk.set_logs_filter("error")
    warnings.simplefilter("ignore")
    rows = []
    console = Console(stderr=True)
    for name in names or BENCHMARKS:
        with tempfile.TemporaryDirectory() as folder, console.status(name):
            rows.extend(BENCHMARKS[name](Path(folder)))
    report(rows)


if __name__ == "__main__":
    main(sys.argv[1:])
