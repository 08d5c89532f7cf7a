"""Granules of products as their owners publish them, by the plain command.

Every array of HDF5 and TIFF is compared with what the format's own reader reads, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from command_line import run

import l2view

# Of data types and codecs that products have and Zarr's specification hasn't.
pytestmark = pytest.mark.filterwarnings("ignore")

EXCLUDED = {
    "hang_min.npy": "its format isn't known",
    "README.md": "its format isn't known",
    "ATL03_indexbegin_start_end_FVs.h5": "its dimension scales lead to nothing",
}
"""What doesn't come in, with the reason."""

SUFFIXES = (".hdf5", ".nc4", ".nc", ".h5", ".he5", ".hdf4", ".hdf", ".tiff", ".tif", ".grib2")


def granule_id(path: Path) -> str:
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in SUFFIXES else path.name


def is_hdf5(path: Path) -> bool:
    return bool(h5py.is_hdf5(path))


@pytest.fixture(scope="module")
def products(shared_data: Path) -> list[Path]:
    folder = shared_data / "real"
    return sorted(path for path in folder.iterdir() if path.name not in EXCLUDED)


@pytest.fixture(scope="module")
def collection(products: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them in one collection, by one command without options."""
    store = tmp_path_factory.mktemp("products") / "collection"
    run("ingest", *map(str, products), "-s", str(store))
    return store


@pytest.fixture(scope="module")
def view(collection: Path) -> l2view.View:
    return l2view.open(collection, authorize=True)


def test_every_file_comes_in(view: l2view.View, products: list[Path]) -> None:
    assert sorted(view.names) == sorted(granule_id(path) for path in products)


def test_xarray_opens_every_granule_and_the_tree(view: l2view.View, products: list[Path]) -> None:
    tree = view.to_datatree()
    for path in products:
        name = granule_id(path)
        for group in (name, *(f"{name}/{p}" for p, _ in groups_of(view[name]))):
            opened = xr.open_zarr(view.store, group=group, consolidated=False, chunks=None)
            assert dict(opened.sizes) == dict(tree[group].to_dataset(inherit=False).sizes)
    assert xr.open_datatree(view.store, engine="zarr", consolidated=False, chunks=None)


def groups_of(group: zarr.Group, path: str = "") -> Iterator[tuple[str, zarr.Group]]:
    for name, child in group.groups():
        inner = f"{path}/{name}".strip("/")
        yield inner, child
        yield from groups_of(child, inner)


def arrays_of(group: zarr.Group, path: str = "") -> Iterator[tuple[str, zarr.Array[Any]]]:
    for name, array in group.arrays():
        yield f"{path}/{name}".strip("/"), array
    for name, child in group.groups():
        yield from arrays_of(child, f"{path}/{name}".strip("/"))


def hdf5_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the datasets of a file by path, but for dimensions without a variable."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    with h5py.File(path) as file:

        def visit(name: str, node: Any) -> None:
            if not isinstance(node, h5py.Dataset) or node.shape is None:
                return
            properties = node.id.get_create_plist()
            is_defined = properties.fill_value_defined() != h5py.h5d.FILL_VALUE_UNDEFINED
            if not node.id.get_storage_size() and not is_defined:
                return  # h5py returns what is in memory
            scale = node.attrs.get("NAME", b"")
            text = scale if isinstance(scale, bytes) else str(scale).encode()
            if text.startswith(b"This is a netCDF dimension but not a netCDF variable"):
                return
            is_text = h5py.check_string_dtype(node.dtype) is not None
            is_object = is_text and node.dtype.kind == "O"
            arrays[name.replace("_nc4_non_coord_", "")] = (
                node.asstr(errors="surrogateescape")[()] if is_object else node[()]
            )

        file.visititems(visit)
    return arrays


def test_stored_values_of_hdf5_are_those_of_h5py(view: l2view.View, products: list[Path]) -> None:
    differing = []
    for path in filter(is_hdf5, products):
        arrays = dict(arrays_of(view[granule_id(path)]))
        expected = hdf5_arrays(path)
        omitted = view[granule_id(path)].attrs.get("omitted", {})
        missing = expected.keys() - arrays.keys() - omitted.keys()
        differing.extend(f"{path.name}: {name} is missing" for name in missing)
        for name in expected.keys() & arrays.keys():
            values, stored = arrays[name][...], np.asarray(expected[name])
            kind = stored.dtype.kind
            if stored.shape != values.shape:  # shorter than an unlimited dimension
                values = values[tuple(slice(n) for n in stored.shape)]
            same = np.array_equal(values, stored, equal_nan=kind in "fc")
            if not same and kind in "OSV":
                same = values.astype(str).tolist() == stored.astype(str).tolist()
            if not same:
                differing.append(f"{path.name}: {name}")
    assert differing == []


def test_pixels_of_tiffs_are_those_of_rasterio(view: l2view.View, products: list[Path]) -> None:
    for path in products:
        if path.suffix.lower() not in (".tif", ".tiff"):
            continue
        with rasterio.open(path) as image:
            expected = image.read()
            group: Any = view[granule_id(path)]
            values = group["0"][...]
            bands_last = values.ndim == 3 and values.shape != expected.shape
            values = np.moveaxis(values, -1, 0) if bands_last else values
            np.testing.assert_array_equal(values.reshape(expected.shape), expected)
            for level, factor in enumerate(image.overviews(1), 1):
                with rasterio.open(path, overview_level=level - 1) as overview:
                    assert factor > 1
                    smaller = overview.read()
                assert any(
                    np.array_equal(
                        np.moveaxis(a[...], -1, 0)
                        if a.ndim == 3 and a.shape != smaller.shape
                        else a[...].reshape(smaller.shape),
                        smaller,
                    )
                    for _, a in arrays_of(group)
                    if a.size == smaller.size
                )
