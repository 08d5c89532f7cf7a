"""Mosaics of images on grids, against GDAL."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from rasterio.enums import Resampling
from rasterio.merge import merge
from rasterio.vrt import WarpedVRT
from rasterio.warp import reproject, transform_bounds
from scenes import (
    UTM31,
    UTM32,
    Scene,
    X,
    Y,
    field_of,
    globe,
    grid,
    image,
    made,
    scene,
    view,
    write_tiff,
)

import l2view
from l2view.limits import override_limits
from l2view.regrid.warp import RADIUS, RESAMPLINGS


def warped(
    one: Scene, grid: GeoBox, resampling: str, scale: float | tuple[float, float] | None = None
) -> np.ndarray[Any, Any]:
    """Return a scene on a grid, by GDAL."""
    found = np.zeros(grid.shape, one.values.dtype)
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    options = {} if scale is None else {"YSCALE": pair[0], "XSCALE": pair[1]}
    reproject(
        one.values,
        found,
        src_transform=one.transform,
        src_crs=one.crs,
        src_nodata=one.nodata,
        dst_transform=grid.transform,
        dst_crs=str(grid.crs),
        dst_nodata=0 if one.nodata is None else one.nodata,
        resampling=Resampling[resampling],
        tolerance=0,
        **options,
    )
    return found


def assert_alike(ours: Any, theirs: Any, resampling: str, share: float = 0.99) -> None:
    """Values are the same, but for what approximations of projections turn over."""
    assert ours.shape == theirs.shape
    there = (ours != 0) == (theirs != 0)
    assert there.mean() > share
    off = np.abs(ours.astype(float) - theirs.astype(float))[there]
    few = 1.0 if resampling not in ("nearest", "mode", "min", "max", "med", "q1", "q3") else 0
    assert (off <= few).mean() > share, np.sort(off)[-20:]


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("holes", [False, True])
def test_resampling_within_one_crs(resampling: str, holes: bool) -> None:
    one = scene(X, Y)
    if holes:
        one.values[40:60, 50:90] = 0
        one.values[np.random.default_rng(1).random(one.values.shape) < 0.03] = 0
    target = grid()
    found = made(view([one]), target, resampling=resampling)
    assert found.dtype == (np.int64 if resampling == "sum" else np.uint16)
    theirs = warped(one, target, resampling)
    if resampling == "sum":  # which GDAL cuts off at what its type holds
        theirs = warped(Scene(one.values.astype("int32"), one.transform, one.crs, 0), target, "sum")
        found = np.where(found == np.iinfo("int64").min, 0, found)
    assert_alike(found, theirs, resampling)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
@pytest.mark.parametrize("resolution", [3.0, 7.0, 15.0, 40.0])
def test_resampling_into_another_crs(resampling: str, resolution: float) -> None:
    one = scene(X, Y, (300, 300), dtype="float32", nodata=np.nan)
    x, y = Transformer.from_crs(UTM31, UTM32, always_xy=True).transform(X + 700, Y - 500)
    target = grid(UTM32, x, y, (120, 130), resolution)
    found = made(view([one]), target, resampling=resampling)
    scale = 10 / resolution
    theirs = warped(
        one, target, resampling, scale if resampling in RADIUS and abs(scale - 1) > 0.05 else None
    )
    known = np.isfinite(found) & np.isfinite(theirs)
    assert (np.isfinite(found) == np.isfinite(theirs)).mean() > 0.99
    assert known.any()
    off = np.abs(found - theirs)[known]
    assert np.quantile(off, 0.97) <= 0.02 * np.ptp(one.values)


@pytest.mark.parametrize("resampling", RESAMPLINGS)
def test_chunks_have_no_seams(resampling: str) -> None:
    one = scene(X, Y, (300, 300), dtype="float64", nodata=np.nan)
    x, y = Transformer.from_crs(UTM31, UTM32, always_xy=True).transform(X + 300, Y - 200)
    for resolution in (4.0, 13.0, 37.0):
        target = grid(UTM32, x, y, (90, 90), resolution)
        small, whole = (
            made(view([one]), target, resampling=resampling, chunks=c) for c in (17, 90)
        )
        np.testing.assert_array_equal(np.isnan(small), np.isnan(whole))
        if resampling in ("nearest", "mode", "min", "max", "med", "q1", "q3"):
            assert np.isclose(small, whole, equal_nan=True).mean() > 0.985
        else:
            assert np.nanmax(np.abs(small - whole)) < 0.02 * np.ptp(one.values)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "lanczos", "average"])
def test_integers_stay_integers(dtype: str, resampling: str) -> None:
    """Of all values that the type has, its ends among them."""
    bounds = np.iinfo(dtype)
    low, high = max(bounds.min, -(2**50)), min(bounds.max, 2**50)
    values = np.random.default_rng(0).integers(low, high, (120, 130), dtype=dtype, endpoint=True)
    values[10:40, 20:60] = high
    values[60:90, 20:60] = low
    one = Scene(values, Affine(10, 0, X, 0, -10, Y), UTM31)
    target = grid(x=X + 103, y=Y - 104, size=(90, 90), resolution=9.0)
    with pytest.warns(l2view.L2ViewWarning, match="no fill value"):
        found = made(view([one]), target, resampling=resampling)
    assert found.dtype == dtype
    wide = Scene(values.astype("float64"), one.transform, UTM31, np.nan)
    scale = 10 / 9
    theirs = warped(wide, target, resampling, scale if resampling in RADIUS else None)
    theirs = np.clip(np.rint(theirs), bounds.min, bounds.max)
    off = np.abs(found.astype(float) - theirs)
    assert off.max() <= max(1, 1e-9 * (high - low))


@pytest.mark.parametrize(
    "one",
    [
        Scene(image(100, 110), Affine(10, 0, X, 0, 10, Y - 1000), UTM31, 0),
        Scene(image(100, 110), Affine(-10, 0, X + 1100, 0, -10, Y), UTM31, 0),
        Scene(image(100, 110), Affine(8, 3, X, 2, -9, Y), UTM31, 0),
        Scene(image(100, 110), Affine(20, 0, X, 0, -5, Y), UTM31, 0),
        Scene(image(100, 110), Affine(1e-4, 0, 4.27, 0, -1e-4, 45.15), "EPSG:4326", 0),
        Scene(image(100, 110), Affine(10, 0, 4_000_000, 0, -10, 2_400_000), "EPSG:3035", 0),
    ],
    ids=["south up", "mirrored", "sheared", "oblong", "degrees", "equal area"],
)
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "average"])
def test_transforms(one: Scene, resampling: str) -> None:
    bounds = transform_bounds(one.crs, UTM31, *one.geobox.boundingbox)
    target = GeoBox.from_bbox(bounds, UTM31, resolution=10)
    found = made(view([one]), target, resampling=resampling, chunks=64)
    a, b, _, d, e, _ = one.transform[:6]
    skewed = (np.hypot(b, e) / 10, np.hypot(a, d) / 10) if b and resampling == "bilinear" else None
    assert_alike(found, warped(one, target, resampling, skewed), resampling, 0.97)
    assert (found > 0).mean() > 0.3


def test_merge_of_aligned_scenes_equals_rasterio(tmp_path: Any) -> None:
    """Overlapping scenes on one grid, for each way to compose them that rasterio has."""
    scenes = [scene(X + 900 * at, Y - 300 * (at % 2), seed=at) for at in range(5)]
    for one in scenes[::2]:
        one.values[30:70, 40:100] = 0
    files = [write_tiff(tmp_path / f"{at}.tif", one) for at, one in enumerate(scenes)]
    for reduce in ("first", "last", "min", "max", "count"):
        theirs, transform = merge(files, method=reduce)
        target = GeoBox(theirs.shape[1:], transform, UTM31)
        found = made(view(scenes), target, reduce=reduce, chunks=128)
        np.testing.assert_array_equal(found, theirs[0], err_msg=reduce)


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic"])
def test_equals_a_warped_vrt(tmp_path: Any, resampling: str) -> None:
    one = scene(X, Y, (400, 400))
    path = write_tiff(tmp_path / "a.tif", one)
    x, y = Transformer.from_crs(UTM31, "EPSG:3857", always_xy=True).transform(X + 500, Y - 500)
    target = grid("EPSG:3857", x, y, (220, 230), 14.1)
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file,
            crs="EPSG:3857",
            transform=target.transform,
            height=220,
            width=230,
            resampling=Resampling[resampling],
            tolerance=0.001,
        ) as vrt,
    ):
        theirs = vrt.read(1)
    assert_alike(made(view([one]), target, resampling=resampling), theirs, resampling)


def test_two_zones_have_no_seam() -> None:
    """A plane over both zones is the same plane in the mosaic, across where they meet."""
    border = 6.0  # degrees east
    scenes = []
    for crs in (UTM31, UTM32):
        x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(border, 45)
        x, y = round(x, -1), round(y, -1)
        transform = Affine(10, 0, x - 2000, 0, -10, y + 1000)
        columns, rows = np.meshgrid(np.arange(400) + 0.5, np.arange(200) + 0.5)
        lon, lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(
            *(transform @ (columns, rows))
        )
        inside = (lon < border) if crs == UTM31 else (lon >= border)
        values = np.where(inside, (lon - border) * 1e5 + (lat - 45) * 3e5, np.nan)
        scenes.append(Scene(values, transform, crs, np.nan))
    x, y = Transformer.from_crs("EPSG:4326", "EPSG:3857", always_xy=True).transform(border, 45)
    target = grid("EPSG:3857", x - 900, y + 600, (80, 120), 15.0)
    lon, lat = Transformer.from_crs("EPSG:3857", "EPSG:4326", always_xy=True).transform(
        *(target.transform @ tuple(np.meshgrid(np.arange(120) + 0.5, np.arange(80) + 0.5)))
    )
    plane = (lon - border) * 1e5 + (lat - 45) * 3e5
    for resampling in ("nearest", "bilinear"):
        found = made(view(scenes), target, resampling=resampling, chunks=32)
        assert np.isfinite(found).all(), resampling
        assert np.abs(found - plane).max() < (40 if resampling == "nearest" else 25)


@given(
    x=st.floats(-1500, 1500),
    y=st.floats(-1500, 1500),
    resolution=st.floats(4, 50),
    chunks=st.integers(7, 200),
    own=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_nearest_is_exact(
    x: float, y: float, resolution: float, chunks: int, own: tuple[int, int]
) -> None:
    """Against the pixel that each centre lies in, found in NumPy."""
    one = scene(X, Y, (70, 90), chunks=own)
    target = GeoBox((40, 50), Affine(resolution, 0, X + x, 0, -resolution, Y + y), UTM31)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="no granule of the view lies in the mosaic")
        found = made(view([one]), target, chunks=chunks)
    columns = np.floor((x + resolution * (np.arange(50) + 0.5)) / 10 + 1e-9)
    rows = np.floor((-y + resolution * (np.arange(40) + 0.5)) / 10 + 1e-9)
    expected = np.zeros((40, 50), "uint16")
    for row, at in enumerate(rows.astype(int)):
        for column, beside in enumerate(columns.astype(int)):
            if 0 <= at < 70 and 0 <= beside < 90:
                expected[row, column] = one.values[at, beside]
    on_edges = [  # to a millionth of a pixel of the target
        np.abs(v / 10 - np.round(v / 10)) < 1.1e-6 * max(1, resolution / 10)
        for v in (x + resolution * (np.arange(50) + 0.5), -y + resolution * (np.arange(40) + 0.5))
    ]
    clear = ~(on_edges[1][:, None] | on_edges[0][None, :])
    np.testing.assert_array_equal(found[clear], expected[clear])


@pytest.mark.parametrize("west", [-180.0, 0.0])
@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "cubic", "average"])
@pytest.mark.parametrize(
    "target",
    [
        grid("EPSG:3832", 2_800_000, 2_000_000, (100, 120), 10_000),  # across 180°
        grid("EPSG:4326", 170.0, 20.0, (60, 80), 0.25),
        grid("EPSG:4326", -190.0, 20.0, (60, 80), 0.25),
        grid("EPSG:3413", -1_000_000, 1_000_000, (100, 100), 20_000),  # the pole in the middle
        grid("EPSG:3031", -3_000_000, 3_000_000, (120, 120), 50_000),
        grid("EPSG:6931", -9_000_000, 9_000_000, (90, 90), 200_000),
        grid("EPSG:3857", -20_037_508, 10_000_000, (100, 200), 200_375),
    ],
    ids=["Pacific", "beyond 180", "beyond -180", "north", "south", "hemisphere", "world"],
)
def test_the_whole_globe(west: float, resampling: str, target: GeoBox) -> None:
    """A smooth field comes out as it is, across the antimeridian, Greenwich and the poles."""
    found = made(view([globe(west)]), target, resampling=resampling, chunks=40)
    height, width = target.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    lon, lat = Transformer.from_crs(target.crs.proj, "EPSG:4326", always_xy=True).transform(
        *(target.transform @ tuple(at))
    )
    known = np.isfinite(lon) & np.isfinite(lat)
    assert np.isfinite(found[known]).all(), np.argwhere(np.isnan(found) & known)[:5]
    off = np.abs(found - field_of(lon, lat))[known]
    assert off.max() < {"nearest": 3.5, "average": 7.0}.get(resampling, 1.5)


@pytest.mark.parametrize("crs", ["EPSG:32601", "EPSG:32660", "EPSG:3413"])
def test_scenes_at_the_antimeridian_and_the_pole_in_degrees(crs: str) -> None:
    """Images in a projection, on a target in degrees."""
    to = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    polar = crs == "EPSG:3413"
    x, y = to.transform(180.0, 90.0 if polar else 10.0)
    step = 2000.0
    transform = Affine(step, 0, x - 150 * step, 0, -step, y + 150 * step)
    at = np.meshgrid(np.arange(300) + 0.5, np.arange(300) + 0.5)
    lon, lat = to.transform(*(transform @ tuple(at)), direction="INVERSE")
    one = Scene(field_of(lon, lat), transform, crs, np.nan)
    target = grid("EPSG:4326", 178.5, 11.0, (100, 150), 0.02)
    if polar:
        target = GeoBox((40, 360), Affine(1.0, 0, -180, 0, -0.05, 90), "EPSG:4326")
    found = made(view([one]), target, resampling="bilinear", chunks=50)
    height, width = target.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    expected = field_of(*(target.transform @ tuple(at)))
    assert np.isfinite(found).all()
    assert np.abs(found - expected).max() < 0.5


def test_scenes_in_degrees_are_found_again_after_a_turn() -> None:
    one = Scene(image(40, 40), Affine(0.1, 0, -179.0, 0, -0.1, 5), "EPSG:4326", 0)
    target = grid("EPSG:4326", 178.0, 5.0, (40, 60), 0.1)
    found = made(view([one]), target)
    np.testing.assert_array_equal(found[:, 30:], one.values[:, :30])
    assert not found[:, :30].any()


@override_limits(image_pixels=2000)
def test_a_coarse_target_is_read_in_parts() -> None:
    one = scene(X, Y, (300, 300), dtype="float64", nodata=np.nan)
    target = grid(x=X, y=Y, size=(10, 10), resolution=300.0)
    whole = made(view([one]), target, resampling="average")
    np.testing.assert_allclose(made(view([one]), target, resampling="average"), whole)


@pytest.mark.parametrize("chunks", [17, 60, 300])
@pytest.mark.parametrize(
    "crs",
    ["EPSG:6933", "ESRI:54009", "EPSG:3035", "+proj=geos +h=35786023 +lon_0=10", "EPSG:6932"],
)
def test_where_projections_end_nothing_is_lost(crs: str, chunks: int) -> None:
    """Each pixel that is on the globe has a value, whichever chunks are made."""
    reach = 5_000_000 if "geos" in crs or crs == "EPSG:6932" else 9_000_000
    target = GeoBox.from_bbox((-reach, -reach, reach, reach), crs, resolution=150_000)
    found = made(view([globe()]), target, chunks=chunks)
    height, width = target.shape
    at = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = target.transform @ tuple(at)
    there = Transformer.from_crs(target.crs.proj, "EPSG:4326", always_xy=True)
    lon, lat = there.transform(x, y)
    with np.errstate(invalid="ignore"):
        again = there.transform(lon, lat, direction="INVERSE")
        known = np.hypot(again[0] - x, again[1] - y) < 1  # and not beyond the map's edge
    assert known.any()
    lost = known & np.isnan(found)
    assert not lost.any(), (int(lost.sum()), np.argwhere(lost)[:5])
    assert np.abs(found[known] - field_of(lon[known], lat[known])).max() < 3.5


def test_large_integers_are_exact() -> None:
    values = np.random.default_rng(0).integers(2**60, 2**62, (60, 60))
    values[10:20] = -(2**63)
    one = Scene(values, Affine(10, 0, X, 0, -10, Y), UTM31, -(2**63))
    x, y = Transformer.from_crs(UTM31, UTM32, always_xy=True).transform(X + 50, Y - 50)
    target = grid(UTM32, x, y, (40, 40))
    found = made(view([one]), target)
    assert np.isin(found, values).all()
    assert (found > 2**60).any()
    with pytest.raises(l2view.QueryError, match="can't be resampled exactly"):
        made(view([one]), target, resampling="bilinear")


def test_default_extents_are_sane() -> None:
    """Where a projection has the far pole at infinity, the mosaic doesn't go there."""
    for crs, most in (("EPSG:3413", 450), ("EPSG:3857", 450), ("EPSG:2154", 450)):
        lazy = l2view.mosaic(view([globe()]), crs=crs, resolution=100_000, bands="red")
        assert max(lazy["red"].shape) < most, crs


@pytest.mark.parametrize("chunks", [64, 128, 1024])
@pytest.mark.parametrize("column", [70, 150, 190])
def test_nearest_where_coordinates_jump(chunks: int, column: int) -> None:
    """Within the last step of a mesh, too, where the source's own CRS ends at 180°."""
    reach, side = 20_037_508.342789, 512
    values = np.arange(side * side, dtype="float64").reshape(side, side)
    step = 2 * reach / side
    one = Scene(values, Affine(step, 0, -reach, 0, -step, reach), "EPSG:3857", np.nan)
    x, _ = Transformer.from_crs("EPSG:4326", "EPSG:3832", always_xy=True).transform(180, 0)
    target = GeoBox((96, 200), Affine(9000, 0, x - 9000 * column, 0, -9000, 2e6), "EPSG:3832")
    found = made(view([one]), target, chunks=chunks)
    at = np.meshgrid(np.arange(200) + 0.5, np.arange(96) + 0.5)
    to = Transformer.from_crs("EPSG:3832", "EPSG:3857", always_xy=True)
    columns, rows = (~one.transform) @ to.transform(*(target.transform @ tuple(at)))
    expected = values[rows.astype(int), columns.astype(int)]
    clear = np.minimum(np.abs(columns - np.round(columns)), np.abs(rows - np.round(rows))) > 0.02
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_rows_beside_a_pole() -> None:
    """Windows that are short and wide, as slices are, with the pole just outside."""
    lazy = l2view.mosaic(
        view([globe()]),
        like=GeoBox((150, 150), Affine(60_000, 0, -4.5e6, 0, -60_000, 4.5e6), "EPSG:3413"),
        bands="red",
        chunks=150,
    )["red"]
    whole = lazy.to_numpy()
    for row in (60, 66, 70, 72, 74, 75, 80):
        np.testing.assert_array_equal(lazy.isel(y=row).to_numpy(), whole[row], err_msg=str(row))
