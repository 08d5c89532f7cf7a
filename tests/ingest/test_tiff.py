"""TIFFs in the layouts that GDAL writes, compared with rasterio."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import shapely
import xarray as xr
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.windows import Window

import l2view

pytestmark = pytest.mark.filterwarnings("ignore:imagecodecs codecs are not in the Zarr:UserWarning")

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}
STRIP_OFFSETS = 273
GDAL_NODATA, ASCII = 42113, 2
GRID: dict[str, Any] = {"crs": "EPSG:32616", "transform": from_origin(5e5, 4e6, 30, 30)}


def write(path: Path, values: np.ndarray[Any, Any], **options: Any) -> np.ndarray[Any, Any]:
    """Write an image of shape (band, y, x), and return what rasterio reads of it."""
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width, "dtype": values.dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **GRID, **options) as image:
        image.write(values)
    with rasterio.open(path) as image:
        return image.read()  # type: ignore[no-any-return]


def read(path: Path) -> Any:
    """Return the image as an array of a view."""
    report = l2view.ingest(path, path.parent / "collection", defaults=DEFAULTS)
    assert report.failed == []
    assert report.omitted == {}
    return l2view.open(path.parent / "collection")[f"{path.stem}/0"]


def values_of(shape: tuple[int, int, int], dtype: str) -> np.ndarray[Any, Any]:
    random = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        return random.random(shape).astype(dtype)
    return random.integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("height", [70, 71, 80])
@pytest.mark.parametrize(
    "compression",
    [{}]
    + [{"compress": name} for name in ("deflate", "lzw", "zstd", "packbits", "lzma")]
    + [{"compress": name, "predictor": 2} for name in ("deflate", "lzw", "zstd")],
    ids=lambda options: "-".join(map(str, options.values())) or "none",
)
@pytest.mark.parametrize(("bands", "interleave"), [(1, "band"), (3, "band"), (3, "pixel")])
def test_strips(
    tmp_path: Path, height: int, compression: dict[str, Any], bands: int, interleave: str
) -> None:
    """Also such that don't divide the height, as GDAL writes them unless told otherwise."""
    options = {"blockysize": 16, "interleave": interleave, **compression}
    expected = write(tmp_path / "a.tif", values_of((bands, height, 50), "uint16"), **options)
    np.testing.assert_array_equal(
        np.reshape(read(tmp_path / "a.tif")[...], expected.shape), expected
    )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint64", "int64", "float32", "float64"])
def test_the_layout_that_is_not_asked_for(tmp_path: Path, dtype: str) -> None:
    expected = write(tmp_path / "a.tif", values_of((1, 603, 627), dtype))
    array = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(array[...], expected[0])
    assert array.nchunks <= 603


def test_floats_that_are_predicted(tmp_path: Path) -> None:
    options = {"compress": "deflate", "predictor": 3, "blockysize": 16}
    expected = write(tmp_path / "a.tif", values_of((1, 71, 50), "float32"), **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[...], expected[0])


@pytest.mark.parametrize(
    ("photometric", "bands", "interleave"),
    [
        *((name, 3, "pixel") for name in ("YCBCR", "RGB", "MINISBLACK")),
        *(("MINISBLACK", bands, "pixel") for bands in (1, 2, 4)),
        *((name, 3, "band") for name in ("RGB", "MINISBLACK")),
        ("MINISWHITE", 1, "pixel"),
    ],
)
def test_jpeg(tmp_path: Path, photometric: str, bands: int, interleave: str) -> None:
    """Tables stand in the directory, the streams of tiles without them."""
    ramp = np.linspace(0, 200, 50) * np.linspace(0.2, 1, 70)[:, None]
    values = np.stack([ramp, ramp[::-1], ramp[:, ::-1], ramp])[:bands].astype("uint8")
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "JPEG"}
    options |= {"photometric": photometric, "interleave": interleave}
    expected = write(tmp_path / "a.tif", values, **options)
    np.testing.assert_array_equal(
        np.reshape(read(tmp_path / "a.tif")[...], expected.shape), expected
    )


@pytest.mark.parametrize(
    ("dtype", "text", "masked"),
    [
        *(("uint8", text, [5]) for text in ("5.0", "5", " 5", "+5", "0.5e1", "5.5")),
        *(("uint8", text, []) for text in ("nan", "-99", "300", "inf", "none", "")),
        ("uint8", "1e2", [100]),
        ("uint16", "-1", []),
        ("int16", "-99", [-99]),
        ("float32", "-99", [-99]),
        ("float32", "1.#QNAN", []),
    ],
)
def test_nodata_is_read_as_gdal_reads_it(
    tmp_path: Path, dtype: str, text: str, masked: list[int]
) -> None:
    path = tmp_path / "a.tif"
    values = np.array([[[5, 100, 1, 233 if dtype[0] == "u" else -99]]], dtype)
    write(path, np.repeat(values, 16, 1), nodata=123)
    data = path.read_bytes()
    entry = data.index(struct.pack("<HH", GDAL_NODATA, ASCII)) + 4
    where = struct.pack("<II", len(text) + 5, len(data))  # longer than what fits in the entry
    path.write_bytes(data[:entry] + where + data[entry + 8 :] + text.encode() + b"\0" * 5)
    with rasterio.open(path) as image:
        hidden = np.ma.getmaskarray(image.read(masked=True)[0, 0])
    assert values[0, 0, hidden].tolist() == masked
    read(path)
    found = l2view.open(tmp_path / "collection").to_datatree()["a/0"].to_numpy()[0]
    assert [int(v) for v, f in zip(values[0, 0], found, strict=True) if np.isnan(f)] == masked


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
@pytest.mark.parametrize("compression", [{}, {"compress": "deflate"}])
@pytest.mark.parametrize(("bands", "interleave"), [(1, "band"), (3, "band"), (3, "pixel")])
def test_pixels_of_odd_bits(
    tmp_path: Path, bits: int, compression: dict[str, str], bands: int, interleave: str
) -> None:
    values = values_of((bands, 41, 43), "uint8" if bits < 8 else "uint16") % 2**bits
    options = {"NBITS": bits, "interleave": interleave, "blockysize": 16, **compression}
    expected = write(tmp_path / "a.tif", values, **options)
    array = read(tmp_path / "a.tif")
    assert array.dtype == expected.dtype
    np.testing.assert_array_equal(np.reshape(array[...], expected.shape), expected)


@pytest.mark.parametrize(
    ("dtype", "options", "reason"),
    [
        ("uint8", {"compress": "JPEG", "blockysize": 16}, "don't divide its height"),
        ("uint32", {"NBITS": 24}, "have 24 bits"),
        ("uint16", {"NBITS": 12, "compress": "JPEG", "tiled": True}, "12 bits are predicted, or"),
        ("uint8", {"photometric": "CMYK", "bands": 4}, "of colours"),
        ("uint8", {"photometric": "CIELAB", "bands": 3}, "of colours"),
        ("complex_int16", {}, "complex integers"),
    ],
)
def test_what_no_codec_reads_as_gdal_does_is_left_out_by_name(
    tmp_path: Path, dtype: str, options: dict[str, Any], reason: str
) -> None:
    bands = options.pop("bands", 1)
    shape = {"count": bands, "height": 70, "width": 50, "dtype": dtype}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape, **GRID, **options):
        pass
    report = l2view.ingest(tmp_path / "a.tif", tmp_path / "collection", defaults=DEFAULTS)
    assert reason in report.failed[0].reason


@pytest.mark.parametrize("nodata", [None, 7])
@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 32}, {}])
def test_tiles_that_a_file_leaves_out_are_nodata(
    tmp_path: Path, nodata: int | None, layout: dict[str, Any]
) -> None:
    shape = {"count": 2, "height": 70, "width": 50, "dtype": "int16"}
    options = {**shape, **GRID, **layout, "blockysize": 32, "nodata": nodata, "SPARSE_OK": True}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **options) as image:
        if layout:
            image.write(np.full((32, 32), 5, "int16"), 1, window=Window(0, 32, 32, 32))
    with rasterio.open(tmp_path / "a.tif") as image:
        expected = image.read()
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[...], expected)


SCALED = {"old": (2000, 1e-4, 0.0), "new": (3000, 1e-4, -0.1)}  # of the same reflectance


def test_gdals_scale_means_the_same_in_every_room(tmp_path: Path) -> None:
    for place, (name, (number, scale, offset)) in enumerate(SCALED.items()):
        shape = {"count": 1, "height": 32, "width": 32, "dtype": "uint16", "nodata": 0}
        grid = {"crs": "EPSG:32616", "transform": from_origin(480000 + 960 * place, 4.2e6, 30, 30)}
        values = np.full((1, 32, 32), number, "uint16")
        values[:, 0] = 0
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", **shape, **grid) as image:
            image.write(values)
            image.scales, image.offsets, image.units = [scale], [offset], ["1"]
    collection = tmp_path / "collection"
    l2view.ingest(tmp_path / "*.tif", collection, defaults={"datetime": "2025-06-01"})
    view = l2view.open(collection)
    for name, (number, _, _) in SCALED.items():
        options = {"mask_and_scale": True, "masked": True}
        expected = rioxarray.open_rasterio(tmp_path / f"{name}.tif", **options)[0].to_numpy()
        assert view[f"{name}/0"][1, 0] == number
        tree = view.to_datatree()[f"{name}/0"]
        store = xr.open_zarr(view.store, group=name, consolidated=False)["0"]
        for values in (tree, store):
            np.testing.assert_allclose(values, expected, rtol=1e-6)
        assert tree.attrs["units"] == "1"
    stack = l2view.open(collection, layout="stack", encoding="unify")
    decoded = xr.open_zarr(stack.store, consolidated=False)["0"].to_numpy()
    mosaic = view.mosaic(crs="EPSG:32616", resolution=30, bands="0")["0"].to_numpy()
    rows = l2view.sql(collection, "SELECT max(value) AS high, min(value) AS low FROM cells('0')")
    for values in (decoded[..., 1:, :], mosaic[1:], *rows.to_pydict().values()):
        np.testing.assert_allclose(values, 0.2, rtol=1e-6)
    assert np.isnan(mosaic[0]).all()


def test_bands_of_different_scale_are_not_decoded_by_one_of_them(tmp_path: Path) -> None:
    shape = {"count": 2, "height": 32, "width": 32, "dtype": "int16"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape, **GRID) as image:
        image.write(np.ones((2, 32, 32), "int16"))
        image.scales, image.units, image.descriptions = [0.1, 0.2], ["K", "m"], ["t", "h"]
    report = l2view.ingest(tmp_path / "a.tif", tmp_path / "collection", defaults=DEFAULTS)
    assert [note.partition(" by ")[0] for note in report.notes] == ["0 isn't decoded"]
    array = l2view.open(tmp_path / "collection")["a/0"]
    assert array.attrs["undecoded_scale_factor"] == [0.1, 0.2]
    assert array.attrs["units"] == ["K", "m"]
    assert array.attrs["DESCRIPTION"] == ["t", "h"]
    view = l2view.open(tmp_path / "collection")
    assert (view.to_datatree()["a/0"] == 1).all()
    with pytest.warns(l2view.UndecodedArrayWarning, match="differ in scale"):
        mosaic = view.mosaic(crs="EPSG:32616", resolution=30, bands={"t": "0[0]"}, nodata=0)
    assert mosaic["t"].max() == 1


def test_another_page_is_no_overview(tmp_path: Path) -> None:
    for number, (height, width) in enumerate(((64, 64), (32, 48))):
        options = {"APPEND_SUBDATASET": "YES"} if number else {}
        write(tmp_path / "a.tif", values_of((1, height, width), "uint8"), **options)
    l2view.ingest(tmp_path / "a.tif", tmp_path / "collection", defaults=DEFAULTS)
    group = l2view.open(tmp_path / "collection")["a"]
    assert sorted(group.array_keys()) == ["0", "1"]
    assert "multiscales" not in group.attrs


def test_complex_pixels_with_nodata(tmp_path: Path) -> None:
    expected = write(tmp_path / "a.tif", np.ones((1, 16, 16), "complex64"), nodata=0)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[...], expected[0])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("reach", [1.0, 0.8])
@pytest.mark.parametrize("east", [0.0, 176.0])
@pytest.mark.parametrize("point", [False, True])
def test_ground_control_points_are_a_place(
    tmp_path: Path, reach: float, east: float, point: bool
) -> None:
    """Of a rotated image, like those of Sentinel-1, also where they don't reach its edges."""
    height, width = 40, 60
    place = Affine.translation(3 + east, 41) * Affine.rotation(-12) * Affine.scale(0.1, -0.08)
    rows, columns = (
        length / 2 + (np.linspace(0, length, 5) - length / 2) * reach for length in (height, width)
    )
    points = [
        GroundControlPoint(row, column, (x + 180) % 360 - 180, y)
        for row in rows
        for column in columns
        for x, y in [place * (column, row)]
    ]
    shape = {"count": 1, "height": height, "width": width, "dtype": "uint8"}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape) as image:
        image.gcps = points, CRS.from_epsg(4326)
        image.update_tags(AREA_OR_POINT="Point" if point else "Area")
        image.write(np.ones((1, height, width), "uint8"))
    report = l2view.ingest(tmp_path / "a.tif", tmp_path / "c", defaults={"datetime": "2025-06-01"})
    assert not report.notes
    (place_wkb,) = l2view.sql(tmp_path / "c", "SELECT bbox FROM meta").to_pydict()["bbox"]
    footprint = shapely.from_wkb(place_wkb)
    with rasterio.open(tmp_path / "a.tif") as image:  # GDAL moves those of points
        shift = points[0].col - image.gcps[0][0].col
    place = place * Affine.translation(shift, shift)
    x, y = place * np.meshgrid(np.arange(width + 1), np.arange(height + 1))
    assert shapely.intersects_xy(footprint, (x + 180) % 360 - 180, y).all()
    outline = shapely.Polygon([place * corner for corner in ((0, 0), (60, 0), (60, 40), (0, 40))])
    assert footprint.area <= (1.05 if point else 1.02) * outline.area  # whose points lie beyond
    view = l2view.open(tmp_path / "c")
    with pytest.raises(l2view.QueryError, match="don't say where the cells"):
        view.mosaic(crs="EPSG:4326", resolution=0.1, bands="0")


def test_tags_that_async_tiff_cannot_read(tmp_path: Path) -> None:
    """A strip's offset as a text."""
    write(tmp_path / "a.tif", np.ones((1, 16, 16), "uint8"))
    data = (tmp_path / "a.tif").read_bytes()
    entry = data.index(struct.pack("<H", STRIP_OFFSETS), 8)
    (tmp_path / "a.tif").write_bytes(data[: entry + 2] + b"\2\0" + data[entry + 4 :])
    report = l2view.ingest(tmp_path / "a.tif", tmp_path / "c")
    assert report.failed[0].reason == "async-tiff can't read its tags, which may be damaged"
