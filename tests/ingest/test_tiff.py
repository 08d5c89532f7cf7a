"""TIFFs in the layouts that GDAL writes, compared with rasterio."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.transform import from_origin

import l2view

pytestmark = pytest.mark.filterwarnings("ignore:imagecodecs codecs are not in the Zarr:UserWarning")

DEFAULTS = {"datetime": "2025-06-01", "bbox": shapely.to_wkb(shapely.box(0, 0, 1, 1))}
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


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_the_layout_that_is_not_asked_for(tmp_path: Path, dtype: str) -> None:
    expected = write(tmp_path / "a.tif", values_of((1, 603, 627), dtype))
    array = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(array[...], expected[0])
    assert array.nchunks <= 603


def test_floats_that_are_predicted(tmp_path: Path) -> None:
    options = {"compress": "deflate", "predictor": 3, "blockysize": 16}
    expected = write(tmp_path / "a.tif", values_of((1, 71, 50), "float32"), **options)
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[...], expected[0])


@pytest.mark.parametrize("photometric", ["YCBCR", "RGB", "MINISBLACK"])
def test_jpeg(tmp_path: Path, photometric: str) -> None:
    """Tables stand in the directory, the streams of tiles without them."""
    bands = 1 if photometric == "MINISBLACK" else 3
    ramp = np.linspace(0, 200, 50) * np.linspace(0.2, 1, 70)[:, None]
    values = np.stack([ramp, ramp[::-1], ramp[:, ::-1]])[:bands].astype("uint8")
    options = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "JPEG"}
    options |= {"photometric": photometric, "interleave": "pixel"}
    expected = write(tmp_path / "a.tif", values, **options)
    np.testing.assert_array_equal(
        np.reshape(read(tmp_path / "a.tif")[...], expected.shape), expected
    )


def test_strips_of_jpeg_are_left_out_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", values_of((1, 70, 50), "uint8"), compress="JPEG", blockysize=16)
    report = l2view.ingest(tmp_path / "a.tif", tmp_path / "collection", defaults=DEFAULTS)
    assert "strips of JPEG don't divide its height" in report.failed[0].reason


@pytest.mark.parametrize(
    ("dtype", "text", "masked"),
    [
        *(("uint8", text, [5]) for text in ("5.0", "5", " 5", "+5", "0.5e1")),
        *(("uint8", text, []) for text in ("nan", "-99", "5.5", "300", "inf", "none", "")),
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
    read(path)
    found = l2view.open(tmp_path / "collection").to_datatree()["a/0"].to_numpy()[0]
    assert [int(v) for v, f in zip(values[0, 0], found, strict=True) if np.isnan(f)] == masked


@pytest.mark.parametrize("bits", [4, 12])
@pytest.mark.parametrize("compression", [{}, {"compress": "deflate"}])
def test_pixels_of_odd_bits_are_left_out_by_name(
    tmp_path: Path, bits: int, compression: dict[str, str]
) -> None:
    dtype = "uint8" if bits == 4 else "uint16"
    write(tmp_path / "a.tif", values_of((1, 40, 40), dtype) % 16, NBITS=bits, **compression)
    report = l2view.ingest(tmp_path / "a.tif", tmp_path / "collection", defaults=DEFAULTS)
    assert "a number of bits" in report.failed[0].reason


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
