"""TIFFs in mosaics, compared with rasterio."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy
from rasterio.transform import from_origin

import l2view

pytestmark = pytest.mark.filterwarnings("ignore:imagecodecs codecs are not in the Zarr:UserWarning")

CRS, SIZE = "EPSG:32616", 128
TILED = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
MASK = np.zeros((SIZE, SIZE), np.uint8)
MASK[8:, : SIZE // 2] = 255
BANDS = {"alpha": 4, "separate alpha": 4, "grey and alpha": 2, "alpha of five": 5}


def write(path: Path, value: int, kind: str, mask: np.ndarray[Any, Any]) -> None:
    """Write a scene of one value, which is valid where a mask says so."""
    grid = {"crs": CRS, "transform": from_origin(480000, 4.2e6, 10, 10), "dtype": "uint8"}
    options: dict[str, Any] = {"driver": "GTiff", "height": SIZE, "width": SIZE, **grid, **TILED}
    values = np.full((BANDS.get(kind, 1), SIZE, SIZE), value, np.uint8)
    if kind in BANDS:
        values[-1] = mask
        options |= {"alpha": "YES", "interleave": "band" if "separate" in kind else "pixel"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=len(values), **options) as image,
    ):
        image.write(values)
        if kind not in BANDS:
            image.write_mask(mask)
        if kind in ("mask and overviews", "COG"):
            image.build_overviews([2, 4], Resampling.nearest)
    if kind == "COG":
        options = {"driver": "COG", "blocksize": 32, "overviews": "FORCE_USE_EXISTING"}
        copy(path, path.with_suffix(".cog"), **options)
        path.with_suffix(".cog").rename(path)


def ingest(folder: Path, kind: str) -> l2view.View:
    write(folder / "a.tif", 7, kind, MASK)
    write(folder / "b.tif", 9, kind, np.full_like(MASK, 255))
    report = l2view.ingest(folder / "*.tif", folder / "c", defaults={"datetime": "2025-06-01"})
    assert report.added.count == 2
    assert report.omitted == {}
    return l2view.open(folder / "c", order_by="id")


@pytest.mark.filterwarnings("ignore:.*says no fill value")
@pytest.mark.parametrize("kind", ["mask", "mask and overviews", "COG", *BANDS])
@pytest.mark.parametrize("resolution", [10, 40])
@pytest.mark.parametrize("bbox", [None, (-87.225, 37.94, -87.222, 37.945)])
def test_what_a_mask_hides_shows_what_lies_below(
    tmp_path: Path, kind: str, resolution: int, bbox: tuple[float, ...] | None
) -> None:
    view = ingest(tmp_path, kind)
    band = "0[0]" if kind in BANDS else "0"
    place = view if bbox is None else view.sel(bbox=bbox)
    mosaic = place.mosaic(crs=CRS, resolution=resolution, bands={"grey": band})["grey"]
    with rasterio.open(tmp_path / "a.tif") as image:
        (column, row), step = ~image.transform * (mosaic.x[0], mosaic.y[0]), resolution // 10
        window = np.s_[int(row) :: step, int(column) :: step]
        expected = np.where(image.read_masks(1), 7, 9)[window]
    assert {*np.unique(expected)} == ({7} if kind == "alpha of five" else {7, 9})
    expected = expected[: mosaic.shape[0], : mosaic.shape[1]]
    np.testing.assert_array_equal(mosaic, expected)
    assert "1" not in view.mosaic(crs=CRS, resolution=40) if kind not in BANDS else True


def test_masks_have_values_of_their_own(tmp_path: Path) -> None:
    np.testing.assert_array_equal(ingest(tmp_path, "mask")["a/1"][...], MASK // 255)


def test_alpha_is_a_band_that_nothing_masks(tmp_path: Path) -> None:
    view = ingest(tmp_path, "alpha")
    mosaic = view.mosaic(crs=CRS, resolution=10, bands={"alpha": "0[3]"}, nodata=1)
    np.testing.assert_array_equal(mosaic["alpha"], MASK)


@pytest.mark.parametrize(
    ("wests", "width", "first"),
    [
        ((350, -2), 144, -9.95),  # on both sides of the prime meridian, one counted to 360°
        ((-2, 350), 144, -9.95),
        ((172, -178), 164, 172.05),  # and of the antimeridian
        ((190, 350), 1664, 190.05),
        ((10, 30), 264, 10.05),
        ((-180, -60, 60), 3600, None),
    ],
)
def test_scenes_on_both_sides_of_a_seam_lie_beside_each_other(
    tmp_path: Path, wests: tuple[int, ...], width: int, first: float | None
) -> None:
    columns = 1200 if first is None else 64
    for number, west in enumerate(wests):
        grid = {"crs": "EPSG:4326", "transform": from_origin(west, 45, 0.1, 0.1), "nodata": 0}
        shape = {"count": 1, "height": 64, "width": columns, "dtype": "int16"}
        path = tmp_path / f"{number}.tif"
        with rasterio.open(path, "w", driver="GTiff", **shape, **grid) as image:
            image.write(np.full((1, 64, columns), number + 1, "int16"))
    l2view.ingest(tmp_path / "*.tif", tmp_path / "c", defaults={"datetime": "2025-06-01"})
    view = l2view.open(tmp_path / "c", order_by="id")
    mosaic = view.mosaic(crs="EPSG:4326", resolution=0.1, bands="0")["0"]
    assert mosaic.sizes == {"y": 64, "x": width}
    if first is not None:
        assert mosaic.x[0] == pytest.approx(first)
    for number, west in enumerate(wests):
        here = np.abs((mosaic.x - west - columns / 20 + 180) % 360 - 180) < columns / 20
        assert here.sum() == columns
        assert (mosaic.isel(x=here.to_numpy()) == number + 1).all()
