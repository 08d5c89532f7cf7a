"""The stores that benchmarks read, made anew in a folder of their own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import shapely
import zarr
from zarr.abc.store import Store
from zarr.dtype import VariableLengthBytes
from zarr.storage import LocalStore

TEXT = np.dtypes.StringDType()
CHUNK = (1024, 512)
"""A chunk of float32 of 2 MiB."""

GRID = (8, 4)
"""Chunks along each axis of the array that is read: 64 MiB."""


def put(group: zarr.Group, name: str, values: Any, dtype: Any = None, chunk: int = 65_536) -> None:
    """Write one field."""
    dtype = dtype or ("string" if values.dtype.kind == "T" else values.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bytes have no v3 specification
        array = group.create_array(name, shape=(len(values),), chunks=(chunk,), dtype=dtype)
        array[:] = values


def write_meta(root: zarr.Group, paths: list[str]) -> None:
    """Write id, path, time, cloud cover and footprint of as many granules as `paths`."""
    count = len(paths)
    numbers = np.arange(count)
    meta = root.create_group("meta")
    put(meta, "id", np.array([f"granule_{n:07d}" for n in numbers], dtype=TEXT))
    put(meta, "group_path", np.array(paths, dtype=TEXT))
    put(meta, "datetime", np.datetime64("2020-01-01", "ms") + (numbers * 60_000).astype("m8[ms]"))
    put(meta, "cloud_cover", (numbers * 7919 % 1000) / 10)
    west, south = numbers * 0.37 % 350 - 180, numbers * 0.11 % 170 - 90
    outlines = shapely.to_wkb(shapely.box(west, south, west + 3, south + 3))
    put(meta, "bbox", np.asarray(outlines, dtype=object), VariableLengthBytes())


def large_array(store: Store, *, compressed: bool) -> None:
    """Write one granule with one array of 64 MiB in chunks of 2 MiB."""
    root = zarr.create_group(store)
    group = root.create_group("granules/a")
    options: dict[str, Any] = {} if compressed else {"compressors": None}
    shape = (GRID[0] * CHUNK[0], GRID[1] * CHUNK[1])
    array = group.create_array("x", shape=shape, chunks=CHUNK, dtype="float32", **options)
    generator = np.random.default_rng(0)
    values = generator.integers(0, 4000, shape).astype("float32")
    array[:] = values
    write_meta(root, ["granules/a"])


def virtual_array(folder: Path) -> Store:
    """Write the same array into one file, and a repository that refers to its chunks."""
    source = LocalStore(folder / "chunks.zarr")
    large_array(source, compressed=False)
    files = folder / "files"
    files.mkdir()
    prefix = f"{files.as_uri()}/"
    config = icechunk.RepositoryConfig.default()
    local = icechunk.local_filesystem_store(str(files))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, local))
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(folder / "virtual")),
        config=config,
        authorize_virtual_chunk_access={prefix: icechunk.credentials.LocalFileSystemAccess},
    )
    session = repository.writable_session("main")
    root = zarr.create_group(session.store)
    shape = (GRID[0] * CHUNK[0], GRID[1] * CHUNK[1])
    root.create_group("granules/a").create_array(
        "x", shape=shape, chunks=CHUNK, dtype="float32", compressors=None
    )
    size = CHUNK[0] * CHUNK[1] * 4
    with (files / "a.bin").open("wb") as file:
        for row in range(GRID[0]):
            for column in range(GRID[1]):
                key = f"granules/a/x/c/{row}/{column}"
                session.store.set_virtual_ref(
                    key, f"{prefix}a.bin", offset=file.tell(), length=size
                )
                file.write((folder / "chunks.zarr" / key).read_bytes())
    write_meta(root, ["granules/a"])
    session.commit("one virtual granule")
    return repository.readonly_session("main").store


def icechunk_store(path: Path, write: Any) -> Store:
    """Write a repository and return its store, opened anew for reading."""
    storage = icechunk.local_filesystem_storage(str(path))
    session = icechunk.Repository.create(storage).writable_session("main")
    write(session.store)
    session.commit("written")
    return icechunk.Repository.open(storage).readonly_session("main").store


def groups(store: Store, count: int, arrays: tuple[str, ...] = ()) -> None:
    """Write `count` granules as groups, each with `arrays` of 1,024 × 1,024."""
    root = zarr.create_group(store)
    granules = root.create_group("granules")
    attributes = {"scale_factor": 0.1, "add_offset": 0.0, "_FillValue": -1, "units": "1"}
    paths = []
    for number in range(count):
        group = granules.create_group(f"g{number:05d}", attributes={"platform": "A"})
        paths.append(group.path)
        for name in arrays:
            group.create_array(
                name,
                shape=(1024, 1024),
                chunks=(512, 512),
                dtype="int16",
                dimension_names=("y", "x"),
                attributes=attributes,
            )
    write_meta(root, paths)
