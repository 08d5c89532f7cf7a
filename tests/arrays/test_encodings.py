"""One meaning of stored values, whoever asks: that of xarray on the original file.

The rows are encodings, the columns who decodes: xarray over a view, tables of cells, mosaics,
joined arrays of one encoding, and for latitudes and longitudes footprints and spatial subsets.
"""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import netCDF4
import numpy as np
import pytest
import shapely
import xarray as xr
import zarr
from builders import put, texts
from numpy.typing import NDArray
from zarr.storage import MemoryStore

import l2view
from l2view.arrays.cf import Packing, read_floats, zarr_attributes

pytestmark = pytest.mark.filterwarnings(
    "ignore:variable .* has multiple fill values",
    "ignore::zarr.errors.UnstableSpecificationWarning",
)

SHAPE = (2, 2)

NUMBERS: dict[str, tuple[list[float], str, dict[str, Any]]] = {
    "plain": ([1, 2, 3, -9], "i2", {}),
    "scaled": ([1, 2, 3, -9], "i2", {"scale_factor": 0.5, "add_offset": 10.0}),
    "scaled_single": (
        [1, 2, 3, -9],
        "i2",
        {"scale_factor": np.float32(0.01), "add_offset": np.float32(273.15)},
    ),
    "fill": ([1, 2, 3, -9], "i2", {"_FillValue": -9}),
    "fill_scaled": ([1, 2, 3, -9], "i2", {"scale_factor": 0.5, "_FillValue": -9}),
    "fill_float": ([1, 2, 3, -999.5], "f4", {"_FillValue": -999.5}),
    "fill_nan": ([1, 2, 3, np.nan], "f4", {"_FillValue": np.nan}),
    "fill_decimal": ([1, 2, 3, -9999.9], "f4", {"_FillValue": np.float32(-9999.9)}),
    "missing": ([1, 2, 3, -9], "i2", {"missing_value": np.int16(-9)}),
    "missing_list": ([1, 2, -8, -9], "f4", {"missing_value": np.float32([-8, -9])}),
    "missing_and_fill": ([1, 2, -8, -9], "f4", {"_FillValue": -8.0, "missing_value": -9.0}),
    "valid_range": ([1, 2, 3, 99], "f4", {"valid_range": np.float32([0, 10])}),
    "valid_min_max": ([1, 2, 3, 99], "i2", {"valid_min": np.int16(0), "valid_max": np.int16(10)}),
    "unsigned": ([1, 2, -2, -1], "i1", {"_Unsigned": "true", "_FillValue": -1}),
    "unsigned_scaled": ([1, 2, -2, -1], "i2", {"_Unsigned": "true", "scale_factor": 0.5}),
    "signed": ([1, 2, 254, 255], "u1", {"_Unsigned": "false", "_FillValue": 255}),
}
"""Stored numbers, their dtype and attributes."""

TIMES: dict[str, tuple[list[float], str, dict[str, Any]]] = {
    "time": ([0, 60, 90, -1], "i4", {"units": "seconds since 2025-01-01", "_FillValue": -1}),
    "time_scaled": (
        [0, 60, 90, 120],
        "i2",
        {"units": "hours since 2025-01-01", "calendar": "standard", "scale_factor": 0.5},
    ),
    "time_float": (
        [0, 0.5, 1.25, np.nan],
        "f8",
        {"units": "days since 2025-01-01", "calendar": "proleptic_gregorian"},
    ),
    "length": ([0, 60, 90, -1], "i4", {"units": "seconds", "dtype": "timedelta64[ns]"}),
}


def write(path: Path, arrays: dict[str, tuple[list[float], str, dict[str, Any]]]) -> None:
    """Write arrays on a grid of two by two degrees."""
    with netCDF4.Dataset(path, "w") as file:
        for name, values, units in (("lat", [1.5, 0.5], "north"), ("lon", [0.5, 1.5], "east")):
            file.createDimension(name, 2)
            axis = file.createVariable(name, "f8", (name,))
            axis[:] = values
            axis.units = f"degrees_{units}"
        for name, (values, dtype, attributes) in arrays.items():
            rest = dict(attributes)
            fill = rest.pop("_FillValue", None)
            array = file.createVariable(name, dtype, ("lat", "lon"), fill_value=fill)
            array.set_auto_maskandscale(False)
            array.setncatts(rest)
            array[:] = np.array(values, dtype).reshape(SHAPE)


def plain(dataset: xr.Dataset) -> dict[str, tuple[list[float], str, dict[str, Any]]]:
    """Return decoded values as arrays that say nothing."""
    arrays: dict[str, tuple[list[float], str, dict[str, Any]]] = {}
    for name, array in dataset.data_vars.items():
        values = array.to_numpy().ravel()
        attributes: dict[str, Any] = {}
        if values.dtype.kind == "M":
            values = (values - np.datetime64("2025-01-01")) / np.timedelta64(1, "D")
            attributes = {"units": "days since 2025-01-01"}
        elif values.dtype.kind == "m":
            values = values / np.timedelta64(1, "h")
            attributes = {"units": "hours", "dtype": "timedelta64[ns]"}
        arrays[str(name)] = (values.tolist(), "f8", attributes)
    return arrays


class Collection:
    """A file with all encodings, one with the same values decoded, and views of both."""

    def __init__(self, folder: Path) -> None:
        write(folder / "a.nc", NUMBERS | TIMES)
        self.original = xr.open_dataset(folder / "a.nc", engine="h5netcdf").load()
        write(folder / "b.nc", plain(self.original))
        when = {"datetime": "2025-01-01T00:00:00Z"}
        report = l2view.ingest([folder / "a.nc", folder / "b.nc"], folder / "store", defaults=when)
        assert report.added.count == 2, report
        self.view = l2view.open(folder / "store", fields=["id"])
        self.one = l2view.open(folder / "store", "id = 'a'", fields=["id"])
        self.tree = self.view.to_datatree()["a"].dataset
        store: Any = self.view.store
        self.opened = xr.open_dataset(store, group="a", engine="zarr", consolidated=False)
        self.joined = l2view.open(
            folder / "store", layout="stack", encoding="unify", fields=["id"]
        ).to_dataset()

    def expected(self, name: str) -> NDArray[Any]:
        return self.original[name].to_numpy()


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return Collection(tmp_path_factory.mktemp("encodings"))


def assert_same(values: NDArray[Any], expected: NDArray[Any]) -> None:
    if expected.dtype.kind in "mM":
        np.testing.assert_array_equal(values, expected)
    else:
        np.testing.assert_allclose(values, expected, rtol=1e-6)


@pytest.mark.parametrize("name", [*NUMBERS, *TIMES])
def test_xarray_over_the_view(collection: Collection, name: str) -> None:
    expected = collection.expected(name)
    for dataset in (collection.tree, collection.opened):
        assert dataset[name].dtype.kind == expected.dtype.kind
        assert_same(dataset[name].to_numpy(), expected)


@pytest.mark.parametrize("name", [*NUMBERS, *TIMES])
def test_cells(collection: Collection, name: str) -> None:
    expected = collection.expected(name).ravel()
    column = collection.one.cells(name).to_table(["value"])["value"]
    missing = np.isnat(expected) if expected.dtype.kind in "mM" else np.isnan(expected)
    assert column.is_null().to_pylist() == missing.tolist()
    values = column.drop_null().to_numpy()
    assert_same(values.astype(expected.dtype), expected[~missing])


@pytest.mark.parametrize("name", NUMBERS)
def test_mosaics(collection: Collection, name: str) -> None:
    options: Any = {"crs": "EPSG:4326", "resolution": 1, "bbox": (0, 0, 2, 2)}
    made = collection.one.mosaic(bands=name, dtype="float64", nodata=np.nan, **options)
    assert_same(made[name].to_numpy(), collection.expected(name))


@pytest.mark.parametrize("name", [*NUMBERS, *TIMES])
def test_joined_arrays_of_one_encoding(collection: Collection, name: str) -> None:
    for values in collection.joined[name].to_numpy():
        assert_same(values, collection.expected(name))


def of_float(value: float) -> str:
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


FORMS: dict[str, tuple[str, Any, dict[str, Any], list[float]]] = {
    "number": ("f4", 0, {"_FillValue": -9.0}, [1, 2, 3, np.nan]),
    "integer": ("i2", 0, {"_FillValue": -9.0}, [1, 2, 3, np.nan]),
    "decimal": ("f4", 0, {"_FillValue": -9, "scale_factor": [0.5]}, [0.5, 1, 1.5, np.nan]),
    "base64": ("f4", 0, {"_FillValue": of_float(-9)}, [1, 2, 3, np.nan]),
    "text": ("f4", 0, {"_FillValue": "-9"}, [1, 2, 3, np.nan]),
    "text NaN": ("f4", 0, {"_FillValue": "NaN"}, [1, 2, 3, -9]),
    "null": ("f4", 0, {"_FillValue": None}, [1, 2, 3, -9]),
    "not of the dtype": ("i2", 0, {"_FillValue": 99999}, [1, 2, 3, -9]),
    "unsigned, told so": ("i1", 0, {"_FillValue": 247, "_Unsigned": "true"}, [1, 2, 3, np.nan]),
    "the array's own": ("i2", -9, {}, [1, 2, 3, -9]),
    "the array's own, a float": ("f4", -9, {}, [1, 2, 3, -9]),
}
"""A dtype, an array's own fill value, attributes as writers of Zarr v3 have them, and values."""


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_fill_values_in_zarr(form: str) -> None:
    dtype, own, attributes, values = FORMS[form]
    root = zarr.create_group(MemoryStore())
    place = {"spatial:transform": [1, 0, 0, 0, -1, 2], "proj:code": "EPSG:4326"}
    array = root.create_group("granules/a").create_array(
        "red",
        data=np.array([1, 2, 3, -9], dtype).reshape(SHAPE),
        fill_value=own,
        dimension_names=("y", "x"),
        attributes={**attributes, **place},
    )
    meta = root.create_group("meta")
    put(meta, "id", texts("a"))
    put(meta, "group_path", texts(["granules/a"]))
    view = l2view.open(root.store)
    expected = np.array(values).reshape(SHAPE)
    store: Any = view.store
    opened = xr.open_dataset(store, group="a", engine="zarr", consolidated=False)
    options: Any = {"crs": "EPSG:4326", "resolution": 1, "bbox": (0, 0, 2, 2)}
    made = view.mosaic(bands="red", dtype="float64", nodata=np.nan, **options)
    cells = view.cells("red").to_table(["value"])["value"].to_pandas().to_numpy(float)
    for decoded in (
        opened["red"].to_numpy(),
        view.to_datatree()["a/red"].to_numpy(),
        cells.reshape(SHAPE),
        made["red"].to_numpy(),
        read_floats(array),
    ):
        np.testing.assert_allclose(decoded, expected)


@pytest.mark.parametrize(("fill", "scale"), [(-9, None), (0, None), (None, None), (-18, 0.5)])
@pytest.mark.parametrize("kind", ["zarr", "zip", "kerchunk", "kerchunk, by a number"])
def test_fill_values_of_zarr_v2(
    tmp_path: Path, kind: str, fill: int | None, scale: float | None
) -> None:
    values = np.array([0, 1, -9, 3], "f8" if scale else "i2").reshape(SHAPE)
    dataset = xr.Dataset({"red": (("y", "x"), values)})
    place = tmp_path / "a.zarr"
    encoding: dict[str, Any] = {"_FillValue": fill, "dtype": "i2", "compressors": None}
    encoding |= {} if scale is None else {"scale_factor": scale}
    dataset.to_zarr(place, zarr_format=2, encoding={"red": encoding})
    expected = xr.open_zarr(place)["red"].to_numpy()
    if kind == "zip":
        place = tmp_path / "a.zarr.zip"
        with zipfile.ZipFile(place, "w") as archive:
            for path in (tmp_path / "a.zarr").rglob("*"):
                archive.write(path, path.relative_to(tmp_path / "a.zarr"))
    if kind.startswith("kerchunk"):
        if "number" in kind:
            move_fill_value(place / "red")
        place = tmp_path / "a.json"
        place.write_text(references(tmp_path / "a.zarr"))
    defaults = {"datetime": "2025-01-01T00:00:00Z", "bbox": shapely.box(0, 0, 1, 1)}
    report = l2view.ingest(place, tmp_path / "store", defaults=defaults)
    assert report.added.count == 1, report
    view = l2view.open(tmp_path / "store")
    np.testing.assert_array_equal(view.to_datatree()["a/red"].to_numpy(), expected)
    cells = view.cells("red").to_table(["value"])["value"].to_pandas().to_numpy(float)
    np.testing.assert_array_equal(cells, expected.ravel())


@pytest.mark.parametrize("fill", [0, 1 + 2j, complex("nan"), 5])
@pytest.mark.parametrize("dtype", ["<c8", ">c8", "<c16"])
def test_complex_fill_values_of_zarr_v2(dtype: str, fill: complex) -> None:
    root = zarr.create_group(MemoryStore(), zarr_format=2)
    options: Any = {"fill_value": fill, "attributes": {"_ARRAY_DIMENSIONS": ["y", "x"]}}
    array = root.create_array("granules/a/red", shape=(2, 2), dtype=dtype, **options)
    array[...] = [[0, 1 + 2j], [3, 5]]
    put(root.create_group("meta"), "group_path", texts(["granules/a"]))
    expected = xr.open_zarr(root.store, group="granules/a", consolidated=False)["red"].to_numpy()
    view = l2view.open(root.store)
    opened = xr.open_zarr(view.store, group="0", consolidated=False)["red"].to_numpy()
    for decoded in (
        opened,
        view.to_datatree()["0/red"].to_numpy(),
        Packing.of_array(array).decode(array[...]),
    ):
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("data_type", ["int16", "string"])
@pytest.mark.parametrize("name", ["scale_factor", "add_offset"])
def test_a_scale_that_is_no_number_is_kept(data_type: str, name: str) -> None:
    attributes = {name: "a tenth", "_FillValue": None}
    assert zarr_attributes(attributes, data_type) == {name: "a tenth"}


def move_fill_value(array: Path) -> None:
    """Write an array's fill value as an attribute, as Kerchunk does from HDF5."""
    document, attributes = (json.loads((array / n).read_text()) for n in (".zarray", ".zattrs"))
    if document["fill_value"] is not None:
        attributes["_FillValue"] = float(document["fill_value"])
    (array / ".zarray").write_text(json.dumps({**document, "fill_value": None}))
    (array / ".zattrs").write_text(json.dumps(attributes))


def references(place: Path) -> str:
    """Return Kerchunk's references to a hierarchy with one chunk."""
    refs: dict[str, Any] = {
        str(path.relative_to(place)): path.read_text()
        for path in place.rglob(".z*")
        if path.name != ".zmetadata"
    }
    chunk = place / "red/0.0"
    refs["red/0.0"] = [chunk.as_uri(), 0, chunk.stat().st_size]
    return json.dumps({"version": 1, "refs": refs})


PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("f8", {}),
    "scaled": ("i2", {"scale_factor": 0.5, "add_offset": 10.0}),
    "fill": ("i2", {"scale_factor": 0.5, "_FillValue": -900}),
    "fill_float": ("f4", {"_FillValue": -900.0}),
    "missing_list": ("f4", {"missing_value": np.float32([-900, -901])}),
    "unsigned": ("i1", {"_Unsigned": "true", "_FillValue": -1}),
    "signed": ("u1", {"_Unsigned": "false", "_FillValue": 128}),
}
"""How latitudes and longitudes are stored."""


@pytest.mark.parametrize("name", PLACES)
def test_latitudes_and_longitudes(tmp_path: Path, name: str) -> None:
    dtype, attributes = PLACES[name]
    lat, lon = np.array(np.meshgrid(np.arange(8.0), np.arange(130.0, 120, -1), indexing="ij"))
    if name == "signed":
        lon -= 150
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w") as file:
        for dimension, length in zip(("row", "column"), lat.shape, strict=True):
            file.createDimension(dimension, length)
        for what, values in (("lat", lat), ("lon", lon)):
            rest = dict(attributes)
            fill = rest.pop("_FillValue", None)
            array = file.createVariable(what, dtype, ("row", "column"), fill_value=fill)
            array.set_auto_maskandscale(False)
            array.setncatts({**rest, "units": f"degrees_{'north' if what == 'lat' else 'east'}"})
            packed = (values - rest.get("add_offset", 0)) / rest.get("scale_factor", 1)
            stored = np.round(packed).astype("i8").astype(dtype)
            missing = fill if fill is not None else np.ravel(rest.get("missing_value", [np.nan]))[0]
            if missing == missing:
                stored[0, 0] = missing
            array[:] = stored
        file.createVariable("data", "i4", ("row", "column"))[:] = np.arange(80).reshape(8, 10)
    original = xr.open_dataset(path, engine="h5netcdf", decode_coords=False)
    north, east = original["lat"].to_numpy(), original["lon"].to_numpy()
    when = {"datetime": "2025-01-01T00:00:00Z"}
    report = l2view.ingest(path, tmp_path / "store", defaults=when)
    assert report.added.count == 1, report
    view = l2view.open(tmp_path / "store")
    outline = shapely.from_wkb(view.table["bbox"][0].as_py())
    bounds = (np.nanmin(east), np.nanmin(north), np.nanmax(east), np.nanmax(north))
    np.testing.assert_allclose(outline.bounds, bounds, atol=1.1)
    box = (bounds[0] + 2.75, 1.75, bounds[0] + 5.25, 4.25)
    inside = (east > box[0]) & (east < box[2]) & (north > box[1]) & (north < box[3])
    cropped = view.sel(bbox=box, exact=True)
    found: Any = cropped["a/data"]
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    expected = original["data"].to_numpy()[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    np.testing.assert_array_equal(found[...], expected)
    for column, values in (("lat", north), ("lon", east)):
        table = view.cells("data").to_table(["value", column])
        cells = table.sort_by("value")[column].to_pandas().to_numpy(float)
        np.testing.assert_allclose(cells, values.ravel())


def test_scales_that_are_texts_of_numbers_scale() -> None:
    """GDAL keeps a netCDF file's attributes as texts."""
    stored = np.array([0, 2], np.int16)
    packing = Packing.of({"scale_factor": "0.5", "add_offset": "1"}, stored.dtype)
    assert packing.decode(stored).tolist() == [1, 2]
    with pytest.raises(ValueError, match="scale_factor or add_offset is 'a half'"):
        _ = Packing.of({"scale_factor": "a half"}, stored.dtype).decoded_dtype


def test_scales_that_are_texts_mean_the_same_everywhere(
    collection: Collection, tmp_path: Path
) -> None:
    values, dtype, attributes = NUMBERS["scaled"]
    texts = {name: str(value) for name, value in attributes.items()}
    write(tmp_path / "a.nc", {"scaled": (values, dtype, texts)})
    when = {"datetime": "2025-01-01T00:00:00Z"}
    assert l2view.ingest(tmp_path / "a.nc", tmp_path / "c", defaults=when).failed == []
    view = l2view.open(tmp_path / "c")
    store: Any = view.store
    expected = collection.expected("scaled")
    opened = xr.open_dataset(store, group="a", engine="zarr", consolidated=False)
    assert_same(opened["scaled"].to_numpy(), expected)
    assert_same(view.to_datatree()["a/scaled"].to_numpy(), expected)
    assert_same(view.cells("scaled").to_table()["value"].to_numpy(), expected.ravel())
    options: Any = {"crs": "EPSG:4326", "resolution": 1, "bbox": (0, 0, 2, 2)}
    made = view.mosaic(bands="scaled", dtype="float64", nodata=np.nan, **options)
    assert_same(made["scaled"].to_numpy(), expected)


@pytest.mark.parametrize("name", ["_FillValue", "missing_value", "scale_factor", "add_offset"])
def test_what_equals_another_value_is_read_for_itself(name: str) -> None:
    """Packings are remembered by values, of which 1, 1.0 and True are equal."""
    for value in (1, True, 1.0, "1", [1, 2], [1.0], None, 1):
        document = {"data_type": "int16", "attributes": {name: value}}
        expected = Packing.of(document["attributes"], np.dtype("int16"))
        assert repr(Packing.of_document(document).attributes) == repr(expected.attributes)
