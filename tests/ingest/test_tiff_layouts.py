"""TIFFs of any layout: what rasterio reads of them, a view shows, or the report names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.transform import from_origin

import l2view

DTYPES = (
    *("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"),
    *("float16", "float32", "float64", "complex64", "complex128", "complex_int16"),
)
BITS = {"uint8": [1, 2, 4, 7], "uint16": [9, 12], "uint32": [24]}
NODATA = [0, 5, -1, 300, 2.5, float("nan"), -9999]

SETTINGS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def images(draw: st.DrawFn) -> dict[str, Any]:
    """Return options of rasterio's, some of which GDAL refuses together."""
    dtype = draw(st.sampled_from(DTYPES))
    options: dict[str, Any] = {
        "dtype": dtype,
        "count": draw(st.integers(1, 5)),
        "height": draw(st.sampled_from([16, 33, 70])),
        "width": draw(st.sampled_from([16, 33, 50])),
        "interleave": draw(st.sampled_from(["band", "pixel"])),
        "ENDIANNESS": draw(st.sampled_from(["LITTLE", "BIG"])),
        "BIGTIFF": draw(st.sampled_from(["YES", "NO"])),
        "SPARSE_OK": draw(st.booleans()),
        "tiled": draw(st.booleans()),
    }
    if options["tiled"]:
        options |= {"blockxsize": draw(st.sampled_from([16, 32])), "blockysize": 16}
    else:
        options["blockysize"] = draw(st.sampled_from([1, 7, 16, 100]))
    compressions = ["deflate", "lzw", "zstd", "packbits", "lzma", "lerc", "lerc_zstd", "jpeg"]
    if compression := draw(st.sampled_from([None, *compressions])):
        options["compress"] = compression
    if compression in ("deflate", "lzw", "zstd"):
        options["predictor"] = draw(st.sampled_from([1, 2, 3] if "float" in dtype else [1, 2]))
    if draw(st.booleans()):
        options["photometric"] = draw(st.sampled_from(["MINISWHITE", "MINISBLACK", "RGB"]))
    if dtype in BITS and draw(st.booleans()):
        options["NBITS"] = draw(st.sampled_from(BITS[dtype]))
    if "complex" not in dtype and draw(st.booleans()):
        options["nodata"] = draw(st.sampled_from(NODATA))
    return options


def values_of(options: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return pixels, of which a corner is 0, so that tiles may be left out."""
    random = np.random.default_rng(0)
    shape = options["count"], options["height"], options["width"]
    values = random.integers(0, min(2 ** options.get("NBITS", 8), 120), shape)
    values[:, :32, :32] = 0
    name = {"complex_int16": "complex64"}.get(options["dtype"], options["dtype"])
    return values.astype(name)


@pytest.mark.filterwarnings("ignore")
@SETTINGS
@given(options=images(), scale=st.sampled_from([None, (0.5, 0.0), (1e-4, -0.1)]))
def test_what_rasterio_reads_a_view_shows(
    options: dict[str, Any], scale: tuple[float, float] | None, tmp_path_factory: Any
) -> None:
    folder: Path = tmp_path_factory.mktemp("tiff")
    path, grid = folder / "a.tif", {"crs": "EPSG:32616", "transform": from_origin(5e5, 4e6, 30, 30)}
    try:
        with rasterio.open(path, "w", driver="GTiff", **options, **grid) as image:
            image.write(values_of(options))
            if scale is not None:
                image.scales = [scale[0]] * image.count
                image.offsets = [scale[1]] * image.count
        with rasterio.open(path) as image:
            expected, bounds = image.read(), image.bounds
            has_alpha = MaskFlags.alpha in image.mask_flag_enums[0]  # which mosaics know
            masked = np.ma.asarray(expected) if has_alpha else image.read(masked=True)
    except (RasterioError, ValueError, OverflowError):
        return  # GDAL doesn't write it
    report = l2view.ingest(path, folder / "c", defaults={"datetime": "2025-06-01"})
    if report.failed:
        assert ": its " in report.failed[0].reason
        return
    view = l2view.open(folder / "c")
    stored = view["a/0"]
    assert stored.dtype == expected.dtype
    np.testing.assert_array_equal(np.reshape(stored[...], expected.shape), expected)
    tree = view.to_datatree()["a/0"].to_numpy()
    if scale is not None:
        masked = masked.astype("c16" if masked.dtype.kind == "c" else "f8") * scale[0] + scale[1]
    hidden = np.ma.getmaskarray(masked)
    decoded = tree.reshape(masked.shape)
    assert not hidden.any() or np.isnan(decoded[hidden]).all()
    rtol = 1e-3 if stored.dtype == "float16" else 2e-6
    np.testing.assert_allclose(decoded[~hidden], masked.data[~hidden], rtol=rtol, atol=1e-7)
    (place,) = l2view.sql(folder / "c", "SELECT bbox FROM meta").to_pydict()["bbox"]
    corners = rasterio.warp.transform_bounds("EPSG:32616", "EPSG:4326", *bounds)
    np.testing.assert_allclose(shapely.from_wkb(place).bounds, corners, atol=1e-3)
