"""What views in other shapes cost: cubes, joined swaths, references, copies."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import icechunk
import numpy as np
import xarray as xr
import zarr
from zarr.storage import LocalStore

import l2view
from l2view.ingest.files import file_info
from l2view.ingest.granule import Granule
from l2view.ingest.writer import write_batch
from l2view.stores.repository import open_repository, with_containers

from . import stores
from .measure import Row, paired, seconds
from .scale import COUNT, granule

STACKED = 60
MANY = 10_000
MILLION = 9_260
"""Granules with 108 chunks each: a million of them."""

SWATHS = 500
ROWS, COLUMNS = 600, 200


def shapes(folder: Path) -> Iterator[Row]:
    """Yield the rows of all shapes."""
    yield from stacking(folder)
    yield from swaths(folder)
    yield from referring(folder)


def stacking(folder: Path) -> Iterator[Row]:
    """A stack whose chunks pass through, and the same granules read one by one."""
    for name, source in {
        "folder": _plain(folder / "stack.zarr"),
        "Icechunk": stores.icechunk_store(folder / "stack", _write_stack),
    }.items():
        stacked = l2view.open(source, layout="stack")["x"]
        assert isinstance(stacked, zarr.Array)
        arrays = [_array(source, f"granules/g{number:05d}/x") for number in range(STACKED)]

        def ours(stacked: Any = stacked) -> Any:
            return stacked[:]

        def theirs(arrays: Any = arrays) -> Any:
            return np.stack([array[:] for array in arrays])

        assert (ours() == theirs()).all()
        what = f"reading a stack of {STACKED} × 2 MiB, {name} ÷ reading the granules one by one"
        yield paired(what, ours, theirs, 1.1, runs=10)


def _array(source: Any, path: str) -> zarr.Array[Any]:
    return zarr.open_array(source, path=path, mode="r")


def _plain(path: Path) -> LocalStore:
    store = LocalStore(path)
    _write_stack(store)
    return store


def _write_stack(store: Any) -> None:
    root = zarr.create_group(store)
    values = np.random.default_rng(0).integers(0, 4000, stores.CHUNK).astype("float32")
    paths = [f"granules/g{number:05d}" for number in range(STACKED)]
    for path in paths:
        array = root.create_group(path).create_array(
            "x",
            shape=stores.CHUNK,
            chunks=(256, 512),
            dtype="float32",
            dimension_names=("y", "x"),
        )
        array[:] = values
    stores.write_meta(root, paths)


def swaths(folder: Path) -> Iterator[Row]:
    """Swaths in files, each packed in a way of its own: unified, and their mean with Dask."""
    files = folder / "swaths"
    files.mkdir()
    paths = [_write_swath(files / f"s{number:03d}.h5", number) for number in range(SWATHS)]
    l2view.ingest(files, folder / "swaths-collection", strict=True)
    asked: dict[str, Any] = {"layout": "stack", "encoding": "unify", "variables": "sst"}
    some = paths[:100]
    view = l2view.open(folder / "swaths-collection", limit=len(some), order_by="id", **asked)
    unified = view["sst"]
    assert isinstance(unified, zarr.Array)

    def read() -> Any:
        return unified[:]

    def decode() -> Any:
        found = []
        for path in some:
            with xr.open_dataset(path, engine="h5netcdf") as dataset:
                found.append(dataset["sst"].values)
        return np.stack(found)

    assert np.array_equal(read(), decode(), equal_nan=True)
    what = f"reading {len(some)} granules unified ÷ reading and decoding them with xarray"
    yield paired(what, read, decode, 1.0, runs=5)

    def through() -> float:
        found = l2view.open(folder / "swaths-collection", **asked)
        return float(xr.open_zarr(found.store)["sst"].mean().compute())

    @dask.delayed  # type: ignore[untyped-decorator]
    def one(path: Path) -> tuple[float, int]:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            values = dataset["sst"].values
        return float(np.nansum(values)), int(np.isfinite(values).sum())

    def loop() -> float:
        parts = dask.compute(*(one(path) for path in paths))  # type: ignore[attr-defined]
        return sum(total for total, _ in parts) / sum(count for _, count in parts)

    def together() -> float:
        options: dict[str, Any] = {"combine": "nested", "concat_dim": "granule"}
        with xr.open_mfdataset(paths, engine="h5netcdf", **options) as dataset:
            return float(dataset["sst"].mean().compute())

    assert abs(through() - loop()) < 1e-9
    assert abs(through() - together()) < 1e-9
    for name, theirs in {"a delayed loop": loop, "xr.open_mfdataset": together}.items():
        what = f"Dask mean over {SWATHS} granules through the view ÷ {name} over the files"
        yield paired(what, through, theirs, 0.7, runs=2)


def _write_swath(path: Path, number: int) -> Path:
    values = np.random.default_rng(number).integers(-2000, 2000, (ROWS, COLUMNS))
    dataset = xr.Dataset(
        {"sst": (("row", "column"), values * 0.01 * (1 + number % 5) + 280)},
        attrs={
            "time_coverage_start": f"2025-{1 + number % 12:02d}-01T10:00:00Z",
            "geospatial_lon_min": 0,
            "geospatial_lat_min": 0,
            "geospatial_lon_max": 10,
            "geospatial_lat_max": 10,
        },
    )
    encoding = {
        "dtype": "int16",
        "scale_factor": 0.01 * (1 + number % 5),
        "add_offset": 280.0,
        "_FillValue": -32768,
        "zlib": True,
        "shuffle": True,
        "chunksizes": (ROWS // 2, COLUMNS),
    }
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"sst": encoding})
    return path


def referring(folder: Path) -> Iterator[Row]:
    """A million references: told, and written as a collection; a stack of 10,000 granules."""
    collection = _collection(folder, MANY)
    l2view.open(collection, limit=1)

    def opened() -> None:
        view = l2view.open(collection, layout="stack")
        assert xr.open_zarr(view.store).sizes["granule"] == MANY

    view = l2view.open(collection, layout="stack")
    xr.open_zarr(view.store)
    only = statistics.median(seconds(lambda: xr.open_zarr(view.store)) for _ in range(5))
    yield Row(f"xr.open_zarr of a stack of {MANY:,} granules", only, 0.5, " s")
    both = statistics.median(seconds(opened) for _ in range(5))
    yield Row("the same with l2view.open", both, 0.5, " s")
    for count, most in ((1_000, 2), (MANY, 15)):
        tree = l2view.open(collection, limit=count)
        took = statistics.median(seconds(tree.to_datatree) for _ in range(2))
        yield Row(f"to_datatree of {count:,} granules × 3 arrays", took, most, " s")
    million = l2view.open(collection, limit=MILLION)

    def references() -> None:
        assert len(million.references().read_all()) == MILLION * 3 * COUNT

    took = statistics.median(seconds(references) for _ in range(3))
    yield Row("view.references() of a million chunks", took, 3, " s")

    def copy(check: bool) -> Callable[[], object]:
        def run() -> None:
            shutil.rmtree(folder / "copy", ignore_errors=True)
            million.to_icechunk(folder / "copy", check=check)

        return run

    for check, name in ((True, "a file a granule looked at"), (False, "check=False")):
        took = statistics.median(seconds(copy(check)) for _ in range(3))
        yield Row(f"view.to_icechunk of a million references, {name}", took, 10, " s")


def _collection(folder: Path, count: int) -> Path:
    """Write a collection of granules that each refer to a file of its own, of nothing."""
    files = folder / "files"
    files.mkdir()
    path = folder / "million"
    repository, _ = with_containers(open_repository(path), {(files / "a.nc").as_uri()})

    def referred(number: int) -> Granule:
        file = files / f"{number:08d}.nc"
        with file.open("wb") as empty:
            empty.truncate(COUNT * 10_000)
        url = file.as_uri()
        found = file_info(url)
        assert found is not None
        made = granule(number)
        document = {"attributes": {"units": "K", "scale_factor": 0.01}}
        arrays = tuple(
            replace(array, locations=[url] * COUNT, document={**array.document, **document})
            for array in made.references.arrays
        )
        sums = {url: found.checksum}
        references = replace(made.references, arrays=arrays, checksums=sums)
        return replace(made, row={**made.row, "href": url}, references=references)

    for start in range(0, count, 1_000):
        write_batch(repository, [referred(number) for number in range(start, start + 1_000)])
    return path


if __name__ == "__main__":
    import tempfile

    icechunk.set_logs_filter("error")
    with tempfile.TemporaryDirectory() as temporary:
        for row in shapes(Path(temporary)):
            print(row)
