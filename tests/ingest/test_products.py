"""Granules of products as their owners publish them, by the plain command.

Every array of HDF5 and TIFF is compared with what the format's own reader reads, to the bit, and
every decoded one of all formats with what xarray, pyhdf or GDAL make of the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from command_line import run
from oracles import (
    arrays_of,
    difference,
    groups_of,
    hdf4_differences,
    is_hdf5,
    netcdf_differences,
    stored_differences,
    tiff_difference,
)
from zarr.core.sync import sync

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


def test_stored_values_of_hdf5_are_those_of_h5py(view: l2view.View, products: list[Path]) -> None:
    for path in filter(is_hdf5, products):
        assert stored_differences(view[granule_id(path)], path) == [], path.name


UNDEFINED = "ATS_TOA"
"""The product whose undefined fill values stand for memory that nobody wrote."""

WITHOUT_ORACLE = {
    "SAFNWC_MSG3_CT___201304290415_BEL_________.h5": None,  # h5netcdf can't open it
    "H108_1436.nc": ["time"],  # its unit is one that xarray can't decode
}
"""What xarray doesn't open of the originals."""


def test_decoded_values_of_netcdf_are_those_of_xarray(
    view: l2view.View, products: list[Path]
) -> None:
    differing, compared = [], 0
    for path in filter(is_hdf5, products):
        dropped = WITHOUT_ORACLE.get(path.name, [])
        for name, differs in netcdf_differences(view, granule_id(path), path, dropped):
            is_undefined = path.name.startswith(UNDEFINED) and not view[granule_id(path)][name].ndim
            compared += not is_undefined
            if differs and not is_undefined:
                differing.append(f"{path.name}: {name} is {differs}")
    assert differing == []
    assert compared > 500


def test_decoded_values_of_hdf4_are_those_of_pyhdf(view: l2view.View, products: list[Path]) -> None:
    paths = [path for path in products if path.suffix.startswith(".hdf")]
    compared = [pair for path in paths for pair in hdf4_differences(view, granule_id(path), path)]
    assert [pair for pair in compared if pair[1]] == []
    assert len(compared) > 30


def test_decoded_pixels_of_tiffs_are_those_of_gdal(view: l2view.View, products: list[Path]) -> None:
    """Masked by nodata, scaled by each band's scale and offset."""
    for path in (path for path in products if path.suffix.lower() in (".tif", ".tiff")):
        assert tiff_difference(view, granule_id(path), path) is None, path.name


def test_decoded_values_of_grib_are_those_of_gdal(view: l2view.View, products: list[Path]) -> None:
    compared = 0
    for path in (path for path in products if path.suffix == ".grib2"):
        with rasterio.open(path) as image:
            bands: dict[str, list[int]] = {}
            for number in image.indexes:
                element = image.tags(number)["GRIB_ELEMENT"].lower()
                bands.setdefault(element, []).append(number)
            for name, array in arrays_of(view[granule_id(path)]):
                numbers = bands.get(name.rpartition("/")[2], [])
                fields = np.reshape(array, (-1, *image.shape)) if numbers else ()
                for number, ours in zip(numbers, fields, strict=True):
                    expected = image.read(number, masked=True).filled(np.nan)
                    np.testing.assert_allclose(ours, expected, rtol=1e-6)
                    compared += 1
            assert compared == image.count


@pytest.mark.parametrize("model", ["NETCDF3_CLASSIC", "NETCDF4"])
def test_characters_are_masked_as_in_the_original(model: Any, tmp_path: Path) -> None:
    """By the tree, and by tables; xarray's own Zarr backend has no fill value of bytes."""
    path = tmp_path / "argo.nc"
    with netCDF4.Dataset(path, "w", format=model) as file:
        file.createDimension("N_PROF", 3)
        file.createDimension("STRING4", 4)
        flags = file.createVariable("QC", "S1", ("N_PROF",), fill_value=b" ")
        flags[:] = np.array([b"1", b" ", b"2"])
        names = file.createVariable("PARAM", "S1", ("N_PROF", "STRING4"), fill_value=b" ")
        names[:] = np.array([list("PRES"), list("T   "), list("    ")], "S1")
    run("ingest", str(path), "-s", str(tmp_path / "c"))
    view = l2view.open(tmp_path / "c", authorize=True, fields=["id"])
    with xr.open_dataset(path, engine="netcdf4") as original:
        tree = view.to_datatree()["argo"].to_dataset()
        assert {name: difference(tree[name], original[name]) for name in original.variables} == {
            "QC": None,
            "PARAM": None,
        }
    assert sorted(map(str, view.cells("QC").to_table()["value"].to_pylist())) == ["1", "2", "None"]
    xr.open_zarr(view.store, group="argo", consolidated=False).load()


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


NOT_OF_CELLS = ("SC", "bound")  # in the names of latitudes


def pairs_of(arrays: Mapping[str, zarr.Array[Any]]) -> Iterator[tuple[str, str]]:
    """Yield the paths of latitudes and longitudes of cells by their names alone."""
    for path, array in arrays.items():
        group, slash, name = path.rpartition("/")
        other = name
        for latitude, longitude in (("Lat", "Long"), ("latitude", "longitude"), ("lat", "lon")):
            other = other.replace(latitude, longitude)
        longitudes = arrays.get(other := f"{group}{slash}{other}")
        is_other = other != path and not any(text in name for text in NOT_OF_CELLS)
        if is_other and longitudes is not None and longitudes.ndim == array.ndim > 0:
            yield path, other


def test_crops_keep_arrays_and_coordinates_together(collection: Path, view: l2view.View) -> None:
    """A quarter of each footprint: one window along each dimension, and no cell is lost."""
    pairs_with_cells = 0
    for row in l2view.Collection(collection).search("bbox IS NOT NULL").to_pylist():
        west, south, east, north = shapely.from_wkb(row["bbox"]).bounds
        bbox, name = (west, south, (west + east) / 2, (south + north) / 2), row["id"]
        arrays = dict(arrays_of(view[name]))
        crop = view.sel(bbox=bbox, exact=True)
        tree = crop.store.tree
        windows = sync(tree.crop.windows(tree.reader, view.names.index(name)))
        shown: dict[tuple[str, int], set[tuple[int, int]]] = {}
        for path, array in arrays.items():
            own = windows.setdefault(path, tuple((0, length) for length in array.shape))
            expected = array[tuple(slice(*window) for window in own)]
            values = np.asarray(crop[f"{name}/{path}"][...])
            is_float = array.dtype.kind == "f"
            assert np.array_equal(values, expected, equal_nan=is_float), (name, path)
            names = array.metadata.dimension_names or ()
            for key, window in zip(zip(names, array.shape, strict=True), own, strict=True):
                shown.setdefault(key, set()).add(window)
        assert [key for key, own in shown.items() if len(own) > 1] == [], name
        for paths in pairs_of(arrays):
            lat, lon = (decoded(view, f"{name}/{path}") for path in paths)
            own = windows[paths[0]]
            if len({arrays[path].metadata.dimension_names for path in paths}) > 1:  # axes
                lat, lon = np.meshgrid(lat, lon, indexing="ij")
                own += windows[paths[1]]
            lon = (lon + 180) % 360 - 180
            inside = (lat > bbox[1]) & (lat < bbox[3]) & (lon > bbox[0]) & (lon < bbox[2])
            assert inside[tuple(slice(*window) for window in own)].sum() == inside.sum(), paths
            pairs_with_cells += bool(inside.any())
    assert pairs_with_cells > 12


def decoded(view: l2view.View, path: str) -> np.ndarray[Any, Any]:
    group, _, name = path.rpartition("/")
    opened = xr.open_zarr(
        view.store, group=group, consolidated=False, decode_times=False, chunks=None
    )
    return opened.reset_coords()[name].values
