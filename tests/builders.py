"""Collections as others write them: granules as groups, fields as 1-D arrays."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import icechunk
import numpy as np
import shapely
import xarray as xr
import zarr
from zarr.dtype import VariableLengthBytes
from zarr.storage import MemoryStore

import l2view
from l2view.geolocation.footprint import footprint_of
from l2view.geolocation.granule import LocatedGranule
from l2view.granules.references import ArrayReferences, GranuleReferences
from l2view.ingest.granule import Granule
from l2view.ingest.harvest.descriptions import descriptions
from l2view.ingest.writer import write_batch
from l2view.stores.repository import config

GRANULES = 20
MISSING = 3
"""The granule whose arrays are not in the store."""

STRING = np.dtypes.StringDType()


def texts(values: Any) -> np.ndarray[Any, Any]:
    return np.array(list(values), dtype=STRING)


def boxes(count: int) -> Any:
    """Footprints from west to east, the last ones beyond the antimeridian's west."""
    west = np.arange(count) * 15.0 - 150
    return shapely.box(west, west / 4, west + 10, west / 4 + 8)


def put(group: zarr.Group, name: str, values: Any, dtype: Any = None, **options: Any) -> Any:
    """Write one field."""
    values = np.asarray(values)
    if dtype is None:
        dtype = "string" if values.dtype.kind == "T" else values.dtype
    options.setdefault("chunks", tuple(max(1, min(length, 7)) for length in values.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = group.create_array(name, shape=values.shape, dtype=dtype, **options)
        array[...] = values
    return array


def put_wkb(group: zarr.Group, name: str, shapes: Any, **options: Any) -> Any:
    values = np.array(list(shapely.to_wkb(shapes)), dtype=object)
    return put(group, name, values, VariableLengthBytes(), **options)


def write_granule(group: zarr.Group, number: int) -> None:
    """Write two packed bands of a length of their own, and a nested group."""
    rows = 10 + number
    named = group.metadata.zarr_format == 3
    for band, name in enumerate(("red", "nir")):
        attributes: dict[str, Any] = {"scale_factor": 0.1 * (1 + number), "units": "1"}
        options: dict[str, Any] = {"dimension_names": ("y", "x")} if named else {}
        if not named:
            attributes["_ARRAY_DIMENSIONS"] = ["y", "x"]
        array = group.create_array(
            name,
            shape=(rows, 8),
            chunks=(4, 4),
            dtype="int16",
            attributes=attributes,
            fill_value=-1,
            **options,
        )
        array[:] = np.arange(rows * 8).reshape(rows, 8) + 1000 * band + number
    quality = group.create_group("quality", attributes={"method": "made up"})
    options = {"dimension_names": ("z",)} if named else {"attributes": {"_ARRAY_DIMENSIONS": ["z"]}}
    flag = quality.create_array("flag", shape=(3,), chunks=(2,), dtype="uint8", **options)
    flag[:] = [1, 2, number]


def write_collection(
    store: zarr.abc.store.Store, count: int = GRANULES, *, zarr_format: Any = 3
) -> zarr.Group:
    """Write `count` granules and their fields."""
    root = zarr.create_group(store, zarr_format=zarr_format)
    granules = root.create_group("granules")
    for number in range(count):
        if number != MISSING:
            attributes = {"title": f"granule {number}", "platform": "of the file"}
            group = granules.create_group(f"g{number:03d}", attributes=attributes)
            write_granule(group, number)
    numbers = np.arange(count)
    meta = root.create_group("meta")
    put(meta, "id", texts(f"S2A/{number:03d}" for number in numbers))
    put(meta, "group_path", texts(f"granules/g{number:03d}" for number in numbers))
    put(meta, "datetime", np.datetime64("2025-06-01T10:00", "ms") + numbers.astype("m8[D]"))
    put(meta, "cloud_cover", np.where(numbers % 7 == 0, np.nan, numbers * 5.0), chunks=(5,))
    put(meta, "eo:cloud_cover", (numbers * 3).astype("int16"))
    put(meta, "platform", texts("AB"[number % 2] for number in numbers))
    orbit_attributes = {"_FillValue": 5, "long_name": "absolute orbit"}
    put(meta, "orbit", numbers.astype("int32"), attributes=orbit_attributes)
    if zarr_format == 3:
        put_wkb(meta, "bbox", boxes(count))
    else:
        put(meta, "bbox", texts(shapely.to_wkt(boxes(count), rounding_precision=-1)))
    return root


def virtual_repository(folder: Any, **options: Any) -> tuple[icechunk.Repository, str]:
    """Write one granule whose chunk lies in a file of `folder`; return it and the prefix."""
    files = folder / "files"
    files.mkdir()
    np.arange(12, dtype="<f4").tofile(files / "a.bin")
    prefix = f"{files.as_uri()}/"
    config = icechunk.RepositoryConfig.default()
    store = icechunk.local_filesystem_store(str(files))
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    repository = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(folder / "repository")), config=config, **options
    )
    session = repository.writable_session("main")
    root = zarr.create_group(session.store)
    granule = root.create_group("granules/a")
    granule.create_array(
        "x", shape=(12,), chunks=(12,), dtype="float32", compressors=None, dimension_names=("i",)
    )
    session.store.set_virtual_ref(
        "granules/a/x/c/0", f"{prefix}a.bin", offset=0, length=48, validate_container=True
    )
    meta = root.create_group("meta")
    put(meta, "id", texts(["a"]))
    put(meta, "group_path", texts(["granules/a"]))
    session.commit("one virtual granule")
    return repository, prefix


def write_swath(path: Path, number: int, rows: int = 12, *, chunk: int | None = None) -> Path:
    """Write an HDF5 swath with a length, packing and start of its own."""
    lat = np.linspace(0, 10, rows)[:, None] + np.linspace(0, 1, 8) + number % 40
    lon = np.linspace(0, 5, 8)[None, :] + np.zeros((rows, 1)) + (number * 7) % 340 - 180
    values = np.arange(rows * 8).reshape(rows, 8) % 200 + number % 100
    dataset = xr.Dataset(
        {"sst": (("row", "column"), values * 0.01 * (1 + number % 5))},
        coords={"lat": (("row", "column"), lat), "lon": (("row", "column"), lon)},
        attrs={
            "time_coverage_start": f"2025-06-{1 + number % 28:02d}T10:00:00Z",
            "time_coverage_end": f"2025-06-{1 + number % 28:02d}T10:05:00Z",
            "platform": "AB"[number % 2],
            "orbit_number": number,
        },
    )
    dataset["lat"].attrs["units"] = "degrees_north"
    dataset["lon"].attrs["units"] = "degrees_east"
    encoding: dict[str, Any] = {
        "dtype": "int16",
        "scale_factor": 0.01 * (1 + number % 5),
        "_FillValue": -32768,
        "zlib": True,
        "chunksizes": (min(chunk or rows, rows), 8),
    }
    dataset.to_netcdf(path, engine="h5netcdf", encoding={"sst": encoding})
    return path


def references_of(group: zarr.Group) -> GranuleReferences:
    """Return a granule of a store in memory, each of whose chunks travels with it."""
    stored = group.store._store_dict  # type: ignore[attr-defined]
    attributes = {"": dict(group.attrs)}
    arrays = []
    for path, node in group.members(max_depth=None):
        if isinstance(node, zarr.Group):
            attributes[path] = dict(node.attrs)
            continue
        document = json.loads(stored[f"{node.path}/zarr.json"].to_bytes())
        inlined = {}
        for index in np.ndindex(*node._chunk_grid_shape):
            chunk = stored.get(f"{node.path}/{'/'.join(['c', *map(str, index)])}")
            if chunk is not None:
                inlined[index] = chunk.to_bytes()
        count = math.prod(node._chunk_grid_shape)
        nothing = np.zeros(count, dtype=np.uint64)
        arrays.append(ArrayReferences(path, document, [""] * count, nothing, nothing, inlined))
    return GranuleReferences(tuple(arrays), attributes)


def packed_store(
    root: zarr.Group, rows: Sequence[Mapping[str, Any]], storage: icechunk.Storage | None = None
) -> icechunk.Repository:
    """Write the granules of a group into a packed collection, in memory; ids name them."""
    repository = icechunk.Repository.create(storage or icechunk.in_memory_storage(), config())
    granules = []
    for row in rows:
        group = root[row["id"]]
        assert isinstance(group, zarr.Group)
        granules.append(Granule(row, references_of(group)))
    written = write_batch(repository, granules)
    assert not written.failed, written.failed
    return repository


def decoded(store: Any) -> list[xr.Dataset]:
    """Return each granule as xarray decodes it."""
    view = l2view.open(store)
    return [
        xr.open_zarr(view.store, group=name, consolidated=False, chunks=None).load()
        for name in view.names
    ]


def collection_of(
    fields: dict[str, Any], zarr_format: int = 3, **options: Any
) -> l2view.Collection:
    """Return a collection in memory with these fields."""
    root = zarr.create_group(MemoryStore(), zarr_format=zarr_format)
    meta = root.create_group("meta")
    for name, values in fields.items():
        put(meta, name, values, **options)
    return l2view.Collection(root.store)


def outline_of(group: zarr.Group) -> shapely.Geometry | None:
    """Return where a granule lies by its arrays and all that its file says."""
    return footprint_of(LocatedGranule(group), descriptions(group))[0]
