"""Granules of products as their owners publish them, by the plain command.

Every array of HDF5 and TIFF is compared with what the format's own reader reads, to the bit, and
every decoded one of all formats with what xarray, pyhdf or GDAL make of the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
import zarr
from command_line import run
from xarray.conventions import decode_cf_variable
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


SINGLE = float(np.finfo(np.float32).eps)
"""The relative resolution of singles, in which xarray decodes what has a scale in singles.

JSON has doubles alone, so that a view decodes in these, which is closer to what the scale means.
"""


SCALING = {"scale_factor", "add_offset"}


def difference(values: xr.DataArray, expected: xr.DataArray | xr.Variable) -> str | None:
    """Return how decoded values differ from those of the original's own reader."""
    ours, theirs = values.to_numpy(), expected.to_numpy()
    kinds = {array.dtype.kind.replace("O", "S").replace("T", "S") for array in (ours, theirs)}
    if ours.shape != theirs.shape or len(kinds - {"U"}) > 1:
        return f"{ours.dtype}{ours.shape}, not {theirs.dtype}{theirs.shape}"
    if theirs.dtype.kind in "OSUT":
        texts = [
            [text.decode(errors="replace") if isinstance(text, bytes) else text for text in array]
            for array in (ours.ravel().tolist(), theirs.ravel().tolist())
        ]
        same = all(a == b or (a != a and b != b) for a, b in zip(*texts, strict=True))
    elif theirs.dtype.kind in "mM":
        within = resolution(expected.encoding)
        same = bool((np.isnat(ours) == np.isnat(theirs)).all()) and bool(
            (np.abs(ours - theirs)[~np.isnat(ours)] <= within).all()
        )
    elif theirs.dtype.kind in "fc":
        within = 16 * SINGLE if SCALING & expected.encoding.keys() else 0
        same = np.allclose(ours, theirs, rtol=within, atol=0, equal_nan=True)
    else:
        same = np.array_equal(ours, theirs)
    return None if same else f"{ours.ravel()[:3]}, not {theirs.ravel()[:3]}"


def resolution(encoding: Mapping[Any, Any]) -> np.timedelta64:
    """Return how exactly xarray decodes times: in singles, if their scale is one."""
    if not isinstance(encoding.get("scale_factor"), np.float32):
        return np.timedelta64(0, "ns")
    is_small = np.dtype(encoding["dtype"]).itemsize <= 2  # a few seconds, not decades
    return np.timedelta64(1_000, "ns") if is_small else np.timedelta64(64, "s")


UNDEFINED = "ATS_TOA"
"""The product whose undefined fill values stand for memory that nobody wrote."""

WITHOUT_ORACLE = {
    "SAFNWC_MSG3_CT___201304290415_BEL_________.h5": "h5netcdf can't open it",
    "H108_1436.nc: time": "its unit is one that xarray can't decode",
}
"""What xarray doesn't open of the originals."""


def originals_of(path: Path, group: str) -> xr.Dataset | None:
    """Return a group of a file as xarray decodes it, None where it can't open it."""
    engine = "h5netcdf" if is_hdf5(path) else "netcdf4"
    options: Any = {"phony_dims": "sort"} if engine == "h5netcdf" else {}
    dropped = [key.split(": ")[1] for key in WITHOUT_ORACLE if key.startswith(f"{path.name}: ")]
    if path.name in WITHOUT_ORACLE:
        return None
    return xr.open_dataset(
        path, engine=engine, group=f"/{group}", drop_variables=dropped, **options
    )


def test_decoded_values_of_netcdf_are_those_of_xarray(
    view: l2view.View, products: list[Path]
) -> None:
    differing, compared = [], 0
    for path in (path for path in products if is_hdf5(path)):
        granule = view[granule_id(path)]
        omitted = granule.attrs.get("omitted", {})
        for group in ("", *(inner for inner, _ in groups_of(granule))):
            original = originals_of(path, group)
            if original is None:
                continue
            ours = xr.open_zarr(
                view.store,
                group=f"{granule_id(path)}/{group}".strip("/"),
                consolidated=False,
                chunks=None,
            )
            for name in original.variables:
                member = f"{group}/{name}".strip("/")
                if member in omitted or (path.name.startswith(UNDEFINED) and not ours[name].ndim):
                    continue
                compared += 1
                if differs := difference(ours[name], original[name]):
                    differing.append(f"{path.name}: {member} is {differs}")
    assert differing == []
    assert compared > 500


def test_decoded_values_of_hdf4_are_those_of_pyhdf(view: l2view.View, products: list[Path]) -> None:
    sd = pytest.importorskip("pyhdf.SD", reason="needs pyhdf")
    differing, compared = [], 0
    for path in (path for path in products if path.suffix.startswith(".hdf")):
        ours: dict[str, list[xr.DataArray]] = {}
        granule = view[granule_id(path)]
        for group in ("", *(inner for inner, _ in groups_of(granule))):
            node = f"{granule_id(path)}/{group}".strip("/")
            opened = xr.open_zarr(view.store, group=node, consolidated=False, chunks=None)
            for name in opened.variables:
                ours.setdefault(str(name), []).append(opened[name])
        file = sd.SD(str(path))
        for number in range(len(file.datasets())):
            dataset = file.select(number)
            name, rank, shape = dataset.info()[:3]
            if 0 in np.atleast_1d(shape):  # which pyhdf doesn't read
                continue
            stored = np.asarray(dataset.get())
            attributes = dataset.attributes()
            if isinstance(attributes.get("_FillValue"), int | float):
                attributes["_FillValue"] = stored.dtype.type(attributes["_FillValue"])
            axes = [f"axis_{axis}" for axis in range(rank)]
            expected = decode_cf_variable(name, xr.Variable(axes, stored, attributes))
            compared += 1
            if all(difference(array, expected) for array in ours[name]):
                differing.append(f"{path.name}: {name}")
    assert differing == []
    assert compared > 30


def test_decoded_pixels_of_tiffs_are_those_of_gdal(view: l2view.View, products: list[Path]) -> None:
    """Masked by nodata, scaled by each band's scale and offset."""
    differing = []
    for path in (path for path in products if path.suffix.lower() in (".tif", ".tiff")):
        ours = xr.open_zarr(view.store, group=granule_id(path), consolidated=False, chunks=None)[
            "0"
        ].to_numpy()
        with rasterio.open(path) as image:
            expected = image.read(masked=True).astype(np.float64)
            scales, offsets = (np.array(n)[:, None, None] for n in (image.scales, image.offsets))
        values = (expected * scales + offsets).filled(np.nan)
        if ours.ndim == 3 and ours.shape != values.shape:
            ours = np.moveaxis(ours, -1, 0)
        if not np.allclose(ours.reshape(values.shape), values, rtol=1e-6, equal_nan=True):
            differing.append(path.name)
    assert differing == []


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
