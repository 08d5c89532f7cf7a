"""What SQL over arrays costs: sums, corners, and arrays larger than memory is allowed to be."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore, WrapperStore

import l2view
from l2view import zarr_cells

from .measure import Row, paired

SIDE = 10_000
CHUNK = 1_000
PEER = Path(__file__).parent / "peers-xarray-sql" / "bin" / "python"
SUM = "SELECT SUM(value) FROM zarr_cells('value')"

CODECS: dict[str, Any] = {
    "uncompressed": None,
    "LZ4": zarr.codecs.BloscCodec(cname="lz4"),
    "Zstandard": zarr.codecs.ZstdCodec(),
}


def tables(folder: Path) -> Iterator[Row]:
    """Yield the rows of SQL over arrays."""
    for name, codec in CODECS.items():
        path = folder / f"{name}.zarr"
        _write(path, codec)
        yield from _summing(path, name)
    yield _corner(folder / "uncompressed.zarr")
    yield _peak(folder / "large.zarr")
    yield from _granules(folder)


def _write(path: Path, codec: Any) -> None:
    """Write 100 million temperatures in tenths of kelvins, and their axes."""
    root = zarr.create_group(path)
    array = root.create_array(
        "value",
        shape=(SIDE, SIDE),
        chunks=(CHUNK, CHUNK),
        dtype="float32",
        compressors=codec,
        dimension_names=("y", "x"),
    )
    random = np.random.default_rng(0)
    for start in range(0, SIDE, CHUNK):
        values = np.round(random.normal(280, 10, (CHUNK, SIDE)), 1)
        array[start : start + CHUNK] = values.astype("float32")
    for name in ("y", "x"):
        root.create_array(name, data=np.linspace(0, 1, SIDE), dimension_names=(name,))


def _summing(path: Path, name: str) -> Iterator[Row]:
    """SUM of all cells, against zarr with NumPy, and against xarray-sql."""
    array = zarr.open_array(path, path="value", mode="r")

    def ours() -> Any:
        return l2view.sql(path, SUM).to_arrow_table().column(0)[0].as_py()

    def theirs() -> Any:
        return array[:].sum(dtype="float64")  # type: ignore[union-attr]

    np.testing.assert_allclose(ours(), theirs())
    what = f"SUM of 100 M cells, {name} ÷ zarr-python and NumPy"
    yield paired(what, ours, theirs, 1.5, runs=10)
    yield _against_xarray_sql(path, name)


def _against_xarray_sql(path: Path, name: str) -> Row:
    """Medians of processes that take turns, each of which runs the query many times."""
    if not PEER.exists():
        raise SystemExit("xarray-sql has an environment of its own: make bench-peers")
    found: dict[str, list[list[float]]] = {"l2view": [], "xarray-sql": []}
    for _ in range(5):
        for engine, python in (("l2view", sys.executable), ("xarray-sql", str(PEER))):
            script = Path(__file__).with_name("cells_side.py")
            command = [python, str(script), engine, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[engine].append(json.loads(done.stdout))
    sums = {round(run[0]) for runs in found.values() for run in runs}
    assert len(sums) == 1, sums
    ours, theirs = (statistics.median(run[1] for run in runs) for runs in found.values())
    what = f"SUM of 100 M cells, {name} ÷ xarray-sql"
    return Row(what, ours / theirs, 0.5, ours=ours, theirs=theirs)


class Counting(WrapperStore[LocalStore]):
    """A store that counts the bytes of chunks."""

    nbytes = 0

    def get_sync(self, key: str, **options: Any) -> Any:
        return self._counted(key, super().get_sync(key, **options))

    async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
        return self._counted(key, await super().get(key, *arguments, **options))

    def _counted(self, key: str, found: Any) -> Any:
        if key.startswith("value/c/"):
            self.nbytes += len(found)
        return found


def _corner(path: Path) -> Row:
    """A filter that selects a thousandth of the cells, in one corner."""
    store = Counting(LocalStore(path))
    table = zarr_cells(zarr.open_array(store, path="value"))
    side = round(SIDE * 0.001**0.5)
    axis = np.linspace(0, 1, SIDE)
    query = f"SELECT count(value) n FROM corner WHERE y < {axis[side]} AND dim_1 < {side}"
    session = l2view.sql(path, query, tables={"corner": table})
    assert session.to_pydict() == {"n": [side * side]}
    chunks = -(-side // CHUNK)
    held = sum(
        (path / f"value/c/{row}/{column}").stat().st_size
        for row in range(chunks)
        for column in range(chunks)
    )
    what = "bytes fetched for 0.1 % of the cells in a corner ÷ bytes of the chunks that hold them"
    return Row(what, store.nbytes / held, 1.0)


def _peak(path: Path) -> Row:
    """The most memory that a process holds that goes through 1,000 million cells."""
    root = zarr.create_group(path)
    array = root.create_array(
        "value", shape=(32_000, 32_000), chunks=(CHUNK, CHUNK), dtype="float32"
    )
    band = np.random.default_rng(0).integers(0, 4000, (CHUNK, 32_000)).astype("float32")
    for start in range(0, 32_000, CHUNK):
        array[start : start + CHUNK] = band
    script = Path(__file__).with_name("cells_side.py")
    command = [sys.executable, str(script), "l2view", str(path), "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    total, _, peak = json.loads(done.stdout)
    assert total == band.sum(dtype="float64") * 32
    return Row("peak memory of a process that sums 1,024 M cells", peak, 512, "MiB")


def _granules(folder: Path) -> Iterator[Row]:
    """The mean of a variable over many granules by a field, against a loop with xarray."""
    root = zarr.create_group(folder / "granules.zarr")
    count = 1_000
    random = np.random.default_rng(0)
    for number in range(count):
        group = root.create_group(f"granules/g{number:04d}")
        group.create_array(
            "sst",
            data=random.integers(0, 3000, (200, 100)).astype("int16"),
            chunks=(200, 100),
            attributes={"scale_factor": 0.01, "_FillValue": -1},
            dimension_names=("row", "column"),
        )
    meta = root.create_group("meta")
    names = [f"g{number:04d}" for number in range(count)]
    for name, values in {"id": names, "group_path": [f"granules/{n}" for n in names]}.items():
        texts = np.array(values, dtype=np.dtypes.StringDType())
        meta.create_array(name, data=texts, chunks=(count,))
    meta.create_array("orbit", data=np.arange(count) // 100, chunks=(count,))
    collection = l2view.Collection(folder / "granules.zarr")
    query = "SELECT orbit, avg(value) v FROM cells('sst') GROUP BY orbit ORDER BY orbit"

    def ours() -> Any:
        return collection.sql(query).to_pydict()["v"]

    def theirs() -> Any:
        sums = np.zeros(count // 100)
        for number in range(count):
            path = f"granules/g{number:04d}"
            with xr.open_zarr(root.store, group=path, consolidated=False, chunks=None) as one:
                sums[number // 100] += float(one["sst"].mean())
        return sums / 100

    np.testing.assert_allclose(ours(), theirs())
    what = "mean of 1,000 granules by orbit in SQL ÷ a loop with xarray"
    yield paired(what, ours, theirs, 0.5, runs=3)
