"""Granules of every format, compared with what an independent reader or the writer says."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import h5py
import netCDF4
import numpy as np
import pytest
import rasterio
import rasterio.transform
import shapely
import zarr
from astropy.io import fits
from builders import write_swath
from fsspec.implementations.reference import LazyReferenceMapper
from pyhdf.SD import SD, SDC
from rasterio.warp import transform_bounds
from scipy.io import netcdf_file

import l2view
from l2view.errors import IngestError
from l2view.ingest.entries import entries_of
from l2view.ingest.formats import detect_format
from l2view.ingest.granule import Failure

PLACE = {"bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}
DEFAULTS = {"datetime": "2025-06-01", **PLACE}


def opened(path: Path, **options: Any) -> l2view.View:
    options.setdefault("defaults", DEFAULTS)
    report = l2view.ingest(path, path.parent / "collection", **options)
    assert report.failed == []
    assert report.added.count == 1
    return l2view.open(path.parent / "collection", fields=[])


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("zipped", [False, True])
def test_zarr(tmp_path: Path, zarr_format: Any, zipped: bool) -> None:
    values = np.arange(30, dtype=">i4").reshape(5, 6)
    path = tmp_path / ("g.zarr.zip" if zipped else "g.zarr")
    store: Any = zarr.storage.ZipStore(path, mode="w") if zipped else str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dtypes without a v3 specification
        root = zarr.create_group(store, zarr_format=zarr_format, attributes={"title": "t"})
        array = root.create_array("a/b", shape=(5, 6), chunks=(2, 4), dtype=">i4", fill_value=7)
        array[:4] = values[:4]
        array.attrs["scale_factor"] = 0.5
    if zipped:
        store.close()
    view = opened(path)
    found = view[view.names[0]]
    assert found.attrs["title"] == "t"
    expected = values.copy()
    expected[4:] = 7
    np.testing.assert_array_equal(found["a/b"][...], expected)
    assert found["a/b"].attrs["scale_factor"] == 0.5


def test_folders_with_hierarchies_in_them(tmp_path: Path) -> None:
    for name in ("x/one.zarr", "x/two", "x/deep/three.zarr"):
        root = zarr.create_group(tmp_path / name)
        root.create_array("a", data=np.arange(3))
        root.create_array("scalar", data=np.array(1.0))
    zarr.create_group(tmp_path / "x/four.zarr", zarr_format=2).create_array("a", data=np.arange(3))
    write_swath(tmp_path / "x" / "s.h5", 1)
    write_swath(tmp_path / "x" / "20250601", 2)  # a file whose name could be a chunk's
    names = ["one.zarr", "two", "deep/three.zarr", "four.zarr", "s.h5", "20250601"]
    found = [entry.url for entry in entries_of(tmp_path / "x")]
    assert sorted(found) == sorted(f"{tmp_path.as_uri()}/x/{name}" for name in names)
    globbed = [entry.id for entry in entries_of(str(tmp_path / "x" / "*.zarr"))]
    assert sorted(globbed) == ["four", "one"]
    deep = [entry.id for entry in entries_of(str(tmp_path / "x" / "**" / "*.zarr"))]
    assert sorted(deep) == ["four", "one", "three"]
    assert [entry.id for entry in entries_of(str(tmp_path / "x" / "tw?"))] == ["two"]


def test_kerchunk_with_chunks_inside(tmp_path: Path) -> None:
    source = write_swath(tmp_path / "s.h5", 3)
    with h5py.File(source) as file:
        lat = file["lat"]
        offset, size, values = lat.id.get_offset(), lat.id.get_storage_size(), lat[:]
    array = {
        "shape": [12, 8],
        "chunks": [12, 8],
        "dtype": "<f8",
        "compressor": None,
        "fill_value": None,
        "filters": None,
        "order": "C",
        "zarr_format": 2,
    }
    refs = {
        ".zgroup": '{"zarr_format": 2}',
        "lat/.zarray": json.dumps(array),
        "lat/.zattrs": '{"_ARRAY_DIMENSIONS": ["row", "column"]}',
        "lat/0.0": [source.as_uri(), offset, size],
        "n/.zarray": json.dumps(array | {"shape": [2], "chunks": [2], "dtype": "|u1"}),
        "n/.zattrs": '{"_ARRAY_DIMENSIONS": ["i"]}',
        "n/0": "ab",
    }
    path = tmp_path / "k.json"
    path.write_text(json.dumps({"version": 1, "refs": refs}))
    view = opened(path)
    np.testing.assert_array_equal(view["k/lat"][...], values)
    assert view["k/n"][...].tolist() == [97, 98]


@pytest.mark.parametrize("variables", [1, 3])
@pytest.mark.parametrize("threshold", [2**20, 100])
@pytest.mark.parametrize("model", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_DATA"])
def test_records_of_netcdf3(tmp_path: Path, variables: int, threshold: int, model: Any) -> None:
    """Small records are copied; those of a single variable follow each other, as one chunk."""
    with netCDF4.Dataset(tmp_path / "r.nc", "w", format=model) as file:
        file.createDimension("obs", None)
        file.createDimension("band", 3)
        file.createVariable("wavelength", "f4", ("band",))[:] = [1, 2, 3]
        for number in range(variables):
            made = file.createVariable(f"v{number}", "i2", ("obs", "band"), fill_value=-1)
            made[:] = np.arange(6_003).reshape(-1, 3) + number
    report = l2view.ingest(
        tmp_path / "r.nc", tmp_path / "c", defaults=DEFAULTS, inline_threshold=threshold
    )
    is_slow = variables > 1 and threshold == 100
    references = {1: 1, 3: 6_003 if is_slow else 0}[variables]
    assert report.references == references + 1
    assert any("many and small" in note for note in report.notes) == is_slow
    view = l2view.open(tmp_path / "c")
    for number in range(variables):
        array = view[f"r/v{number}"]
        assert array.attrs["_FillValue"] == -1
        np.testing.assert_array_equal(array[...], np.arange(6_003).reshape(-1, 3) + number)


@pytest.mark.parametrize(
    ("fill", "missing"),
    [
        (np.float64("nan"), []),
        (np.float64("inf"), []),
        (np.float64(1e20), []),
        (0.5, []),
        (-9.0, [3]),
        (np.array([-9], "i4"), [3]),
        (np.array([-9, 2], "i4"), [2, 3]),
        ("-9", [3]),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")  # by SciPy
@pytest.mark.parametrize("is_hdf5", [False, True])
def test_fill_values_of_another_type(
    tmp_path: Path, fill: Any, missing: list[int], is_hdf5: bool
) -> None:
    """One that the type lacks hides nothing, no zeros either; each of several does."""
    values = np.array([0, 1, 2, -9], "i2")
    if is_hdf5:
        with h5py.File(tmp_path / "g.nc", "w") as hdf5:
            hdf5["red"] = values
            hdf5["red"].attrs["_FillValue"] = fill
    else:
        with netcdf_file(tmp_path / "g.nc", "w") as file:
            file.createDimension("n", 4)
            red = file.createVariable("red", "i2", ("n",))
            red[:] = values
            red._FillValue = fill
    expected = [None if n in missing else value for n, value in enumerate(values.tolist())]
    assert opened(tmp_path / "g.nc").cells("red").to_table()["value"].to_pylist() == expected


def test_large_records_of_one_variable(tmp_path: Path) -> None:
    """Chunks hold as many records as divide them."""
    with netCDF4.Dataset(tmp_path / "r.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("obs", None)
        file.createDimension("x", 50_000)
        made = file.createVariable("v", "f8", ("obs", "x"))
        made[:] = np.arange(102)[:, None] * np.ones(50_000)
    view = opened(tmp_path / "r.nc")
    assert view["r/v"].chunks == (51, 50_000)
    np.testing.assert_array_equal(view["r/v"][:, -1], np.arange(102))


def test_records_that_are_cut_off(tmp_path: Path) -> None:
    with netCDF4.Dataset(tmp_path / "r.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("obs", None)
        for name in ("v", "w"):
            file.createVariable(name, "f8", ("obs",))[:] = np.arange(200.0)
    content = (tmp_path / "r.nc").read_bytes()
    (tmp_path / "r.nc").write_bytes(content[:-4])
    report = l2view.ingest(tmp_path / "r.nc", tmp_path / "c", defaults=DEFAULTS)
    assert [name for name, _ in report.omitted] == ["w"]
    np.testing.assert_array_equal(l2view.open(tmp_path / "c")["r/v"][...], np.arange(200.0))


def test_grib_of_edition_1_is_named(tmp_path: Path) -> None:
    (tmp_path / "old.grb").write_bytes(b"GRIB\x00\x00\x60\x01" + bytes(100))
    report = l2view.ingest(tmp_path / "old.grb", tmp_path / "c", defaults=DEFAULTS)
    assert "GRIB of edition 1" in report.failed[0].reason
    assert not (tmp_path / "c").exists()


ARRAY = {"shape": [4], "chunks": [2], "dtype": "<i2", "order": "C", "zarr_format": 2}
ARRAY |= {"compressor": None, "filters": None, "fill_value": None}
ALONG_X = '{"_ARRAY_DIMENSIONS": ["x"]}'


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw files").mkdir()
    path = tmp_path / "raw files" / "raw"
    path.write_bytes(np.arange(4, dtype="<i2").tobytes())
    return path


def kerchunk(folder: Path, content: Any) -> tuple[l2view.View | None, Any]:
    """Write references, ingest them, and return the view and the report."""
    (folder / "k.json").write_text(json.dumps(content))
    shutil.rmtree(folder / "c", ignore_errors=True)
    report = l2view.ingest(folder / "k.json", folder / "c", defaults=DEFAULTS)
    return l2view.open(folder / "c", fields=[]) if report.added.count else None, report


@pytest.mark.filterwarnings("ignore:The 'fastparquet' engine")
@pytest.mark.parametrize("engine", ["fastparquet", "pyarrow"])
@pytest.mark.parametrize("inside", [False, True])
def test_kerchunk_in_parquet(tmp_path: Path, raw: Path, engine: Any, inside: bool) -> None:
    """Tables of one and of several records, with chunks inside, whole files and none."""
    folder = tmp_path / "k.parq"
    tables = LazyReferenceMapper.create(str(folder), record_size=3, engine=engine)
    tables[".zgroup"] = tables["inner/.zgroup"] = b'{"zarr_format": 2}'
    tables[".zattrs"] = b'{"title": "t"}'
    for path in ("a", "inner/b"):
        document = ARRAY | {"shape": [5, 2], "chunks": [1, 2], "fill_value": -1}
        tables[f"{path}/.zarray"] = json.dumps(document).encode()
        tables[f"{path}/.zattrs"] = b'{"_ARRAY_DIMENSIONS": ["y", "x"]}'
        tables[f"{path}/0.0"] = [raw.as_uri().replace("%20", " "), 0, 4]
        tables[f"{path}/3.0"] = [str(raw), 4, 4]
        if inside:
            tables[f"{path}/4.0"] = np.array([7, 8], "<i2").tobytes()
    tables["all/.zarray"] = json.dumps(ARRAY | {"chunks": [4]}).encode()
    tables["all/0"] = [str(raw)]
    tables["crs/.zarray"] = json.dumps(ARRAY | {"shape": [], "chunks": []}).encode()
    tables["empty/.zarray"] = json.dumps(ARRAY).encode()
    tables.flush()
    expected = [[0, 1], [-1, -1], [-1, -1], [2, 3], [7, 8] if inside else [-1, -1]]
    for granules in (folder, tmp_path / "*.parq"):
        report = l2view.ingest(granules, tmp_path / "c", defaults=DEFAULTS, on_conflict="replace")
        assert (report.failed, report.omitted) == ([], {})
        view = l2view.open(tmp_path / "c", fields=[])
        assert view["k"].attrs["title"] == "t"
        assert view["k/a"][...].tolist() == view["k/inner/b"][...].tolist() == expected
        assert view["k/all"][...].tolist() == [0, 1, 2, 3]
        assert (view["k/crs"][()], view["k/empty"][...].tolist()) == (0, [0, 0, 0, 0])
        assert view.to_datatree()["k/a"].isnull().sum() == (4 if inside else 6)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("version", [0, 1])
def test_kerchunk_of_groups(tmp_path: Path, raw: Path, zarr_format: int, version: int) -> None:
    """Groups, scalars without a chunk, other separators and orders; a bad array costs itself."""
    url = raw.as_uri() if version == 0 else "{{ folder }}/raw"
    array = {**ARRAY, "shape": [2, 2], "chunks": [2, 2], "order": "F", "dimension_separator": "/"}
    refs: dict[str, Any] = {
        ".zgroup": {"zarr_format": 2},
        "crs/.zarray": json.dumps(ARRAY | {"shape": [], "chunks": []}),
        "crs/.zattrs": '{"_ARRAY_DIMENSIONS": [], "grid_mapping_name": "latitude_longitude"}',
        "bad/.zarray": json.dumps(ARRAY | {"dtype": "<q9"}),
        "odd/.zarray": json.dumps(ARRAY),
        "odd/0": [url, 0, 4, 5],
        "inner/b/.zarray": array,
        "inner/b/0/0": [url, 0, 8],
    }
    names = {"odd", "bad"}
    if zarr_format == 3:
        memory = zarr.storage.MemoryStore()
        root = zarr.create_group(memory)
        root.create_array("inner/b", shape=(2, 2), chunks=(2, 2), dtype="i2")
        root.create_array("crs", shape=(), dtype="i2")
        refs = {
            key: value.to_bytes().decode()
            for key, value in memory._store_dict.items()
            if key.endswith("zarr.json")
        }
        document = json.loads(refs["inner/b/zarr.json"])
        order = {"name": "transpose", "configuration": {"order": [1, 0]}}
        document["codecs"] = [order, {"name": "bytes", "configuration": {"endian": "little"}}]
        refs["inner/b/zarr.json"] = document
        refs["inner/b/c/0/0"] = [url, 0, 8]
        refs["odd/zarr.json"] = document
        refs["odd/c/0"] = [url, 0, 8]
        names = {"odd"}
    templates = {"folder": raw.parent.as_uri()}
    content = refs if version == 0 else {"version": 1, "templates": templates, "refs": refs}
    view, report = kerchunk(tmp_path, content)
    assert view is not None
    assert {name for name, _ in report.omitted} == names
    assert view["k/crs"][()] == 0
    assert view["k/inner/b"][...].tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize("key", ["n/0", "n/", "n"])
def test_scalars_in_kerchunk(tmp_path: Path, raw: Path, key: str) -> None:
    """Their chunk has a key as Zarr gives it, or as VirtualiZarr does."""
    document = json.dumps(ARRAY | {"shape": [], "chunks": []})
    refs = {".zgroup": '{"zarr_format": 2}', "n/.zarray": document, key: [str(raw), 4, 2]}
    view, report = kerchunk(tmp_path, {"version": 1, "refs": refs})
    assert view is not None
    assert (view["k/n"][()], report.omitted) == (2, {})


def test_arrays_of_one_name_in_kerchunk(tmp_path: Path, raw: Path) -> None:
    """None of them is taken for the other."""
    refs = {f"{n}/.zarray": json.dumps(ARRAY) for n in ("n", "/n")}
    _, report = kerchunk(tmp_path, {"version": 1, "refs": refs})
    assert [failure.reason for failure in report.failed] == ["several of its arrays have one name"]


def test_times_in_kerchunk_that_were_not_written(tmp_path: Path) -> None:
    """Kerchunk has no fill value of what netCDF fills by default; xarray opens it all the same."""
    (tmp_path / "raw").write_bytes(np.array([1, 9.969209968386869e36]).tobytes())
    document = ARRAY | {"shape": [2], "chunks": [2], "dtype": "<f8"}
    refs = {
        ".zgroup": '{"zarr_format": 2}',
        "time/.zarray": json.dumps(document),
        "time/.zattrs": '{"_ARRAY_DIMENSIONS": ["x"], "units": "days since 2025-01-01"}',
        "time/0": [(tmp_path / "raw").as_uri(), 0, 16],
    }
    view, _ = kerchunk(tmp_path, {"version": 1, "refs": refs})
    assert view is not None
    times = view.to_datatree()["k/time"].values
    np.testing.assert_array_equal(times, np.array(["2025-01-02", "NaT"], "M8[ns]"))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"gen": [{"key": "x/{{i}}", "url": "u", "dimensions": {}}]}, "made by rules (gen)"),
        ({"version": 2}, "Kerchunk of version 2"),
        ({"templates": {"f": "{{ c }}"}, "url": "{{ f(c='text') }}"}, "isn't understood"),
        ({"url": "relative/raw"}, "no URL and no absolute path"),
        ({"url": None}, "isn't understood"),
    ],
)
def test_kerchunk_that_is_not_understood(
    tmp_path: Path, raw: Path, changes: dict[str, Any], reason: str
) -> None:
    url = changes.pop("url", raw.as_uri())
    refs = {".zgroup": '{"zarr_format": 2}', "a/.zarray": json.dumps(ARRAY), "a/0": [url, 0, 4]}
    view, report = kerchunk(tmp_path, {"version": 1, "refs": refs} | changes)
    assert view is None
    assert reason in report.failed[0].reason


def dmrpp_of(path: Path) -> str:
    """Describe an HDF5 file as OPeNDAP does, and one array that there is no describing."""
    types = {"i": "Int32", "f": "Float64"}

    def group(node: h5py.Group) -> str:
        said = ""
        for name, child in node.items():
            if isinstance(child, h5py.Group):
                said += f'<Group name="{name}">{group(child)}</Group>'
                continue
            dims = "".join(f'<Dim size="{n}"/>' for n in child.shape)
            kind = types[child.dtype.kind]
            said += (
                f'<{kind} name="{name}">{dims}<Attribute name="units" type="String">'
                f'<Value>K</Value></Attribute><dmrpp:chunks byteOrder="LE"><dmrpp:chunk '
                f'offset="{child.id.get_offset()}" nBytes="{child.id.get_storage_size()}"/>'
                f"</dmrpp:chunks></{kind}>"
            )
        return said

    with h5py.File(path) as file:
        inside = group(file)
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?><Dataset '
        'xmlns="http://xml.opendap.org/ns/DAP/4.0#" '
        'xmlns:dmrpp="http://xml.opendap.org/dap/dmrpp/1.0.0#" dapVersion="4.0" name="f.h5">'
        f'{inside}<Structure name="odd"/></Dataset>'
    )


@pytest.mark.parametrize("nested", [False, True])
def test_dmrpp(tmp_path: Path, nested: bool) -> None:
    values = np.arange(12.0).reshape(3, 4)
    source = tmp_path / "my f.h5"
    with h5py.File(source, "w") as file:
        file["x"] = values
        if nested:
            file["a/y"] = values + 1
            file["a/b/c/z"] = np.arange(5, dtype="i4")
    (tmp_path / "my f.h5.dmrpp").write_text(dmrpp_of(source))
    path = tmp_path / "my f.h5.dmrpp"
    report = l2view.ingest(path, tmp_path / "collection", defaults=DEFAULTS)
    assert report.failed == []
    assert list(report.omitted) == [("odd", "its description, as Structure, can't be parsed")]
    granule = l2view.open(tmp_path / "collection", fields=[])["my f"]
    np.testing.assert_array_equal(granule["x"][...], values)
    assert granule["x"].attrs["units"] == "K"
    if nested:
        np.testing.assert_array_equal(granule["a/y"][...], values + 1)
        assert granule["a/b/c/z"][...].tolist() == list(range(5))
    source.unlink()
    assert set(l2view.open(tmp_path / "collection").verify()) == {"my f"}


def test_fits(tmp_path: Path) -> None:
    values = np.arange(20, dtype=">i2").reshape(4, 5)
    header = fits.Header({"DATE-OBS": "2025-06-01T00:00:00", "TELESCOP": "made up"})
    images = [fits.PrimaryHDU(values, header), fits.ImageHDU(values * 1.5, name="SKY")]
    fits.HDUList(images).writeto(tmp_path / "f.fits")
    granule = opened(tmp_path / "f.fits")["f"]
    with fits.open(tmp_path / "f.fits") as file:
        expected = sorted(str(hdu.data.tolist()) for hdu in file)
    arrays = [array for _, array in granule.members(max_depth=None) if hasattr(array, "shape")]
    assert sorted(str(array[...].tolist()) for array in arrays) == expected


def test_fits_with_tables_beside_images(tmp_path: Path) -> None:
    values = np.arange(64 * 64, dtype=">i2").reshape(64, 64)
    column = fits.Column("count", "J", array=np.arange(3))
    text = fits.Column("count", "I6", array=np.arange(3), ascii=True)
    parts = [
        fits.PrimaryHDU(values),
        fits.BinTableHDU.from_columns([column], name="EVENTS"),
        fits.CompImageHDU(values, name="PACKED"),
        fits.ImageHDU(values, fits.Header({"BZERO": 0, "BSCALE": 0}), name="FLAT"),
        fits.TableHDU.from_columns([text], name="LIST"),
        fits.ImageHDU(values + 1, name="SKY"),
    ]
    parts[3].header["BSCALE"] = 0
    fits.HDUList(parts).writeto(tmp_path / "f.fits")
    report = l2view.ingest(tmp_path / "f.fits", tmp_path / "c", defaults=DEFAULTS)
    assert report.failed == []
    assert {path for path, _ in report.omitted} >= {"EVENTS", "PACKED"}
    granule = l2view.open(tmp_path / "c")["f"]
    np.testing.assert_array_equal(granule["PRIMARY"][...], values)
    np.testing.assert_array_equal(granule["SKY"][...], values + 1)


def test_hdf4(tmp_path: Path) -> None:
    values = np.arange(12, dtype="int16").reshape(3, 4)
    file = SD(str(tmp_path / "f.hdf"), SDC.WRITE | SDC.CREATE)
    made = file.create("radiance", SDC.INT16, values.shape)
    made.setcompress(SDC.COMP_DEFLATE, 5)
    made[:] = values
    made.endaccess()
    file.end()
    granule = opened(tmp_path / "f.hdf")["f"]
    back = SD(str(tmp_path / "f.hdf"), SDC.READ)
    np.testing.assert_array_equal(granule["radiance"][...], back.select("radiance")[:])
    back.end()


def grib(values: Any) -> bytes:
    """Return a GRIB2 message of 2 m temperature on a grid of degrees (WMO-No. 306, I.2)."""
    rows, columns = values.shape
    packed = values.astype(">u2").tobytes()

    def section(number: int, body: bytes) -> bytes:
        return struct.pack(">IB", len(body) + 5, number) + body

    def degrees(value: float) -> bytes:
        return struct.pack(">I", round(abs(value) * 1e6) | (0x8000_0000 if value < 0 else 0))

    identification = struct.pack(">HHBBBHBBBBBBB", 7, 0, 2, 1, 1, 2025, 6, 1, 12, 0, 0, 0, 1)
    north, west = 10.0 + rows - 1, 20.0
    grid = (
        struct.pack(">BIBBH", 0, rows * columns, 0, 0, 0)
        + struct.pack(">BBIBIBI", 6, 0, 0, 0, 0, 0, 0)
        + struct.pack(">IIII", columns, rows, 0, 0xFFFF_FFFF)
        + degrees(north)
        + degrees(west)
        + bytes([48])
        + degrees(10.0)
        + degrees(west + columns - 1)
        + struct.pack(">IIB", 1_000_000, 1_000_000, 0)
    )
    product = struct.pack(
        ">HHBBBBBHBBIBBIBBI", 0, 0, 0, 0, 2, 0, 96, 0, 0, 1, 0, 103, 0, 2, 255, 0, 0
    )
    representation = struct.pack(">IHfhhBB", rows * columns, 0, 2000.0, 0, 1, 16, 0)
    body = (
        section(1, identification)
        + section(3, grid)
        + section(4, product)
        + section(5, representation)
        + section(6, bytes([255]))
        + section(7, packed)
        + b"7777"
    )
    return b"GRIB" + struct.pack(">HBBQ", 0, 0, 2, len(body) + 16) + body


def test_grib(tmp_path: Path) -> None:
    numbers = np.arange(12).reshape(3, 4) * 10
    (tmp_path / "f.grb2").write_bytes(grib(numbers))
    granule = opened(tmp_path / "f.grb2", defaults=None)["f"]
    arrays = dict(granule.members(max_depth=None))
    (name,) = (n for n, array in arrays.items() if getattr(array, "size", 0) == 12)
    np.testing.assert_allclose(np.squeeze(arrays[name][...]), 200 + numbers / 10, rtol=1e-6)
    row = l2view.search(tmp_path / "collection").to_pylist()[0]
    assert str(row["datetime"]) == "2025-06-01 12:00:00"
    assert shapely.from_wkb(row["bbox"]).bounds == pytest.approx((19.5, 9.5, 23.5, 12.5))


def test_a_package_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f.grb2").write_bytes(grib(np.zeros((2, 2))))
    import sys

    monkeypatch.setitem(sys.modules, "gribberish", None)
    report = l2view.ingest(tmp_path / "f.grb2", tmp_path / "c")
    assert report.failed[0].reason == "GRIB needs gribberish: pip install 'l2view[grib]'"
    (tmp_path / "items.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "rustac", None)
    (failure,) = entries_of(tmp_path / "items.parquet")
    assert isinstance(failure, Failure)
    assert failure.reason == "stac-geoparquet needs rustac: pip install 'l2view[stac]'"


TIFFS = [
    {"interleave": interleave, "count": count, "dtype": dtype, "compress": compress, **tiles}
    for interleave in ("pixel", "band")
    for count in (1, 3)
    for dtype, compress in (("uint8", "none"), ("int16", "deflate"), ("float32", "zstd"))
    for tiles in ({"tiled": True, "blockxsize": 64, "blockysize": 32}, {"blockysize": 20})
] + [
    {"dtype": "int16", "compress": "lzw", "predictor": 2, "count": 1, "blockysize": 20},
    {"dtype": "uint8", "compress": "deflate", "predictor": 2, "count": 3, "interleave": "pixel"}
    | {"tiled": True, "blockxsize": 64, "blockysize": 32},
    {"dtype": "float32", "compress": "deflate", "predictor": 3, "count": 1}
    | {"tiled": True, "blockxsize": 64, "blockysize": 32},
    {"dtype": "uint16", "compress": "none", "count": 2, "ENDIANNESS": "BIG", "blockysize": 20},
]


@pytest.mark.filterwarnings("ignore:imagecodecs codecs are not in the Zarr:UserWarning")
def test_tiffs_of_many_kinds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    folder = tmp_path / "tiffs"
    folder.mkdir()
    for number, options in enumerate(TIFFS):
        shape = (options["count"], 80, 100)
        values = generator.integers(0, 255, shape).astype(options["dtype"])
        profile = {"driver": "GTiff", "height": 80, "width": 100, "crs": "EPSG:32631"}
        place = rasterio.transform.from_origin(4e5, 5e6, 10, 10)
        with rasterio.open(
            folder / f"{number:02d}.tif", "w", transform=place, **profile, **options
        ) as file:
            file.write(values)
    report = l2view.ingest(folder, tmp_path / "c", defaults={"datetime": "2025-06-01"})
    assert report.failed == []
    view = l2view.open(tmp_path / "c")
    boxes = view.table["bbox"].to_pylist()
    for name, footprint, options in zip(view.names, boxes, TIFFS, strict=True):
        with rasterio.open(folder / f"{name}.tif") as file:
            values = file.read()
            bounds = transform_bounds(file.crs, "EPSG:4326", *file.bounds)
        found = view[f"{name}/0"]
        assert found.metadata.dimension_names == ("band", "y", "x")[-found.ndim :], options
        np.testing.assert_array_equal(found[...].reshape(values.shape), values, str(options))
        assert shapely.from_wkb(footprint).bounds == pytest.approx(bounds, abs=1e-3)


def test_formats_are_told_by_content() -> None:
    assert detect_format(b"CDF\x05").name == "netCDF-3"
    assert detect_format(bytes(512) + b"\x89HDF\r\n\x1a\n").name == "HDF5"
    assert detect_format(b"MM\x00+\x00\x08").name == "TIFF"
    assert detect_format(b"SIMPLE  =                    T").name == "FITS"
    assert detect_format(b'{"version": 1, "refs": {}}').name == "Kerchunk JSON"
    assert detect_format(b'<?xml version="1.0"?><Dataset xmlns:dmrpp="x">').name == "DMR++"
    with pytest.raises(IngestError, match="its format isn't known: it is empty"):
        detect_format(b"")


def test_references_without_a_group_of_their_own(tmp_path: Path) -> None:
    """Kerchunk's of version 0, which may have keys of arrays alone."""
    document = {"shape": [2], "chunks": [2], "dtype": "<i2", "compressor": None, "filters": None}
    document |= {"fill_value": None, "order": "C", "zarr_format": 2}
    references = {"red/.zarray": json.dumps(document), "red/0": "base64:AQACAA=="}
    (tmp_path / "g.json").write_text(json.dumps(references))
    assert opened(tmp_path / "g.json")["g/red"][...].tolist() == [1, 2]


@pytest.mark.parametrize("form", ["HDF5", "Zarr v2", "Zarr v3", "ZIP", "Kerchunk"])
def test_arrays_of_too_many_chunks_cost_themselves_alone(tmp_path: Path, form: str) -> None:
    """VirtualiZarr holds all of a grid, of which few chunks may be stored."""
    path, shape, chunks = tmp_path / "g", (10**6, 10**6), (10, 10)
    if form == "HDF5":
        with h5py.File(path, "w") as file:
            file.create_dataset("sparse", shape, "f4", chunks=chunks)[5, 5] = 1.0
            file["w"] = np.arange(3)
    elif form == "Kerchunk":
        zarray = {"zarr_format": 2, "dtype": "<f4", "fill_value": 0, "order": "C"}
        zarray |= {"compressor": None, "filters": None}
        arrays = {
            "sparse/.zarray": json.dumps(zarray | {"shape": shape, "chunks": chunks}),
            "w/.zarray": json.dumps(zarray | {"shape": [3], "chunks": [3]}),
        }
        values = {"w/0": "base64:" + base64.b64encode(np.arange(3, dtype="<f4").tobytes()).decode()}
        path.write_text(json.dumps({"version": 1, "refs": {".zgroup": "{}", **arrays, **values}}))
    else:
        store: Any = zarr.storage.ZipStore(path, mode="w") if form == "ZIP" else str(path)
        group = zarr.create_group(store, zarr_format=2 if form == "Zarr v2" else 3)
        group.create_array("sparse", shape=shape, chunks=chunks, dtype="f4")[5, 5] = 1.0
        group.create_array("w", data=np.arange(3))
        if form == "ZIP":
            store.close()
    report = l2view.ingest(path, tmp_path / "c")
    assert [name for name, _ in report.omitted] == ["sparse"]
    assert "10,000,000,000 chunks" in str(report.omitted)
    assert l2view.open(tmp_path / "c")["g/w"][...].tolist() == [0, 1, 2]  # type: ignore[index]
